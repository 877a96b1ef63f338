"""How many calls of one function run in threads, those included that nobody waits for any more."""

from __future__ import annotations

import asyncio
import contextlib
import threading


class Running:
    """
    Limits the calls that run at once: a thread cannot be cancelled, so its call counts to its end.

    Args:
        limit: How many may run; None: any number.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._count = 0
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._lock = threading.Lock()

    async def enter(self) -> None:
        """Wait until one more may run, and count it. Cancelling leaves nothing counted."""
        loop = asyncio.get_running_loop()
        while True:
            with self._lock:
                if self._limit is None or self._count < self._limit:
                    self._count += 1
                    return
                ended: asyncio.Future[None] = loop.create_future()
                self._waiting.append((loop, ended))
            await ended

    def leave(self) -> None:
        """Count one that has ended, or has not begun. From any thread."""
        with self._lock:
            self._count -= 1
            waiting, self._waiting = self._waiting, []
        for loop, ended in waiting:
            with contextlib.suppress(RuntimeError):  # that loop has been closed
                loop.call_soon_threadsafe(_wake, ended)


def _wake(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
