"""The end of what a log has in one event loop: once, whoever asks for it, and within its time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asyncnotify._run.deadline import Deadline
from asyncnotify._tasks import CANCEL_GRACE, cancel, retrieve, start

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine


class Closing:
    """
    Ends all in a task of its own, so that no caller that is cancelled leaves half of it.

    Args:
        finish: Ends all in good order. It is cancelled when the time is over, and again if it then
            waits for something.
        abandon: Ends at once what is left.
        on_end: Called when all has ended, before those who wait for that go on.
    """

    def __init__(
        self,
        finish: Callable[[], Coroutine[Any, Any, None]],
        abandon: Callable[[], Awaitable[None]],
        on_end: Callable[[], None],
    ) -> None:
        self._finish = finish
        self._abandon = abandon
        self._on_end = on_end
        self._deadline = Deadline()
        self._task: asyncio.Task[None] | None = None
        self._left: set[asyncio.Task[None]] = set()

    @property
    def has_begun(self) -> bool:
        """Whether somebody has asked for the end."""
        return self._task is not None

    @property
    def has_ended(self) -> bool:
        """Whether all has ended."""
        return self._task is not None and self._task.done()

    @property
    def remaining(self) -> float:
        """Seconds that are left for ending in good order."""
        return self._deadline.remaining

    def look_again(self) -> None:
        """Let ``wait_until_done()`` ask again for its tasks."""
        self._deadline.look_again()

    async def wait_until_done(self, tasks: Callable[[], Collection[asyncio.Future[Any]]]) -> None:
        """Return when all tasks, which may become fewer, are done, or when the time is over."""
        await self._deadline.wait_until_done(tasks)

    async def end(self, timeout: float) -> None:
        """Return when all has ended; after so many seconds at once. Cancelled, it ends at once."""
        self._deadline.shorten(timeout)
        if self._task is None:
            self._task = start(self._run(), name="asyncnotify log closing")
            self._task.add_done_callback(lambda _: self._on_end())
        try:
            await asyncio.wait({self._task})
        except asyncio.CancelledError:
            self._deadline.shorten(0.0)
            await asyncio.wait({self._task}, timeout=2 * CANCEL_GRACE)
            raise
        if not self._task.cancelled():
            self._task.result()

    def leave(self, end: Coroutine[Any, Any, None]) -> None:
        """Run the end of something whose user has gone; the end of all waits for it."""
        task = start(end, name="asyncnotify log consumer's end")
        self._left.add(task)
        task.add_done_callback(self._left.discard)
        task.add_done_callback(retrieve)

    async def _finish_all(self) -> None:
        await self._finish()
        while self._left:
            await asyncio.wait(self._left)

    async def _run(self) -> None:
        # An eager task begins before end() knows of it; and what has been collected just now says
        # so in the next turn of the loop
        await asyncio.sleep(0)
        work = start(self._finish_all(), name="asyncnotify log closing in good order")
        try:
            await self._deadline.wait_until_done(lambda: {work})
        finally:
            await cancel_twice({work})
            await self._abandon()
            await cancel_twice(self._left)
        if not work.cancelled():
            work.result()


async def cancel_twice(tasks: Collection[asyncio.Future[Any]]) -> None:
    """Cancel tasks; those that then talk to a server in a ``finally``, that may hang, once more."""
    for _ in range(2):
        await cancel([task for task in tasks if not task.done()], CANCEL_GRACE / 2)


async def begin_and_cancel(ends: Collection[Coroutine[Any, Any, None]]) -> None:
    """Let each of these begin, and cancel those that wait for something."""
    tasks = {start(end, name="asyncnotify log end") for end in ends}
    if tasks:
        await asyncio.sleep(0)
        await cancel_twice(tasks)
