"""A deadline that can only move closer, also while a task waits for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


class Deadline:
    """A deadline that can only move closer. At first there is none."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._when = float("inf")
        self._moved: asyncio.Future[None] = self._loop.create_future()

    def shorten(self, seconds: float) -> None:
        """Set the deadline to this many seconds from now, unless it is earlier already."""
        when = self._loop.time() + seconds
        if when < self._when:
            self._when = when
            self.look_again()

    @property
    def remaining(self) -> float:
        """Seconds that are left; 0 once the deadline has passed."""
        return max(0.0, self._when - self._loop.time())

    def look_again(self) -> None:
        """Let wait_until_done() ask again for its tasks."""
        if not self._moved.done():
            self._moved.set_result(None)

    async def wait_until_done(self, tasks: Callable[[], Collection[asyncio.Future[Any]]]) -> None:
        """Return when all tasks, which may become fewer, are done, or at the deadline."""
        while (waiting := {task for task in tasks() if not task.done()}) and self.remaining > 0:
            if self._moved.done():
                self._moved = self._loop.create_future()
            timeout = None if self._when == float("inf") else self.remaining
            await asyncio.wait(
                {*waiting, self._moved}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
