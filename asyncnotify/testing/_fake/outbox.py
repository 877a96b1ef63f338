"""What the server sends to one client: in order, and each thing no earlier than it is due."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    Item = tuple[float, Callable[..., object], tuple[object, ...]]


READ: Final = 4_096
"""Things that arrive at once, as in one read of a socket; then others have their turn."""


class Outbox:
    """
    The order of a connection: an answer never overtakes a notification that was sent before.

    Things are put in from any thread, under the server's lock, and are taken out in the client's
    event loop.

    Args:
        loop: The client's event loop.
        lock: The server's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, lock: threading.RLock) -> None:
        self._loop = loop
        self._lock = lock
        self._items: deque[Item] = deque()
        self._timer: asyncio.Handle | None = None
        self._pauses: set[str] = set()
        self._wakes = False
        self.sent = 0

    def put(self, delay: float, action: Callable[..., object], *args: object) -> None:
        """Call ``action`` in the client's loop, in so many seconds, after what was put before."""
        self._items.append((self._loop.time() + delay, action, args))
        self._wake()

    def pause(self, why: str) -> None:
        """Send nothing until resumed; each reason counts for itself."""
        self._pauses.add(why)

    def resume(self, why: str) -> None:
        """Send again, unless there is another reason not to."""
        self._pauses.discard(why)
        self._wake()

    def clear(self) -> None:
        """Forget what has not been sent."""
        self._items.clear()

    def _wake(self) -> None:
        if self._items and not (self._wakes or self._pauses):
            self._wakes = True
            call_in(self._loop, self._send)

    def _send(self) -> None:
        self._wakes = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pauses:
            return
        for _ in range(READ):  # a driver hands over all that it has read, though it is paused
            item = self._next()
            if item is None:
                return
            _, action, args = item
            self.sent += 1
            action(*args)
        self._wake()

    def _next(self) -> Item | None:
        """Take what is due; None if nothing is, and then come back in time."""
        with self._lock:
            if not self._items:
                return None
            due = self._items[0][0]
            if due <= self._loop.time():
                return self._items.popleft()
        self._timer = self._loop.call_at(due, self._send)
        return None


def call_in(
    loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object
) -> None:
    """Call this soon in an event loop, from any thread; not at all if the loop is closed."""
    if asyncio._get_running_loop() is loop:  # noqa: SLF001 - documented: the one that does not raise
        loop.call_soon(function, *args)
    else:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(function, *args)
