"""The event loop of a blocking listener or notifier: opening, finding and closing it."""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, TypeVar

from asyncnotify._arguments import check_timeout
from asyncnotify._blocking.portal import Call, Portal
from asyncnotify._blocking.threads import is_served_here
from asyncnotify._errors import ClosedError, NotStartedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_MARGIN: Final = 0.4
"""Seconds beyond its timeout that closing may take, at most."""

_AT_EXIT: Final = 1.0
"""Seconds for all that is still open when the interpreter ends."""

_all: weakref.WeakSet[Gateway] = weakref.WeakSet()


class Gateway:
    """
    The way from threads to the event loop of one listener or notifier.

    Args:
        end: Ends what the listener or notifier runs in the loop, within so many seconds.
        close_timeout: Seconds for closing, unless a call gives its own.
    """

    def __init__(self, end: Callable[[float], Awaitable[object]], close_timeout: float) -> None:
        self._end = end
        self._close_timeout = close_timeout
        self._portal: Portal | None = None
        self._lock = threading.RLock()
        _all.add(self)

    @property
    def lock(self) -> threading.RLock:
        """While a thread holds this lock, no loop is opened. It must not wait for the loop then."""
        return self._lock

    @property
    def is_open(self) -> bool:
        """Whether there is a loop that takes calls."""
        return self._portal is not None and self._portal.is_open

    def open(self) -> tuple[Portal, bool]:
        """Return the portal, and whether it is new because none was open."""
        with self._lock:
            if self._portal is not None and self._portal.is_open:
                return self._portal, False
            self._portal = Portal()
            return self._portal, True

    @property
    def portal(self) -> Portal:
        """
        The portal, which takes calls.

        Raises:
            NotStartedError: There has never been a portal.
            ClosedError: The portal is closed.
        """
        portal = self._portal
        if portal is None:
            msg = "the listener or notifier has not been started: use `with` or start()"
            raise NotStartedError(msg)
        if not portal.is_open:
            msg = "the listener or notifier is closed"
            raise ClosedError(msg)
        return portal

    @property
    def is_of_other_process(self) -> bool:
        """Whether this is a fork of the process in which the loop runs."""
        return self._portal is not None and self._portal.is_other_process

    def check_owner(self) -> None:
        """Raise WrongLoopError where waiting for the loop would never end."""
        if self._portal is not None and self._portal.is_open:
            self._portal.check_owner()

    def call(
        self,
        function: Callable[[], Awaitable[T]],
        *,
        undo: Callable[[T], Awaitable[object]] | None = None,
    ) -> T:
        """Call a coroutine function in the loop; return what it returns."""
        return self.portal.call(function, undo=undo)

    def look(self, function: Callable[[], T]) -> T:
        """Call a function that never waits, where nothing else changes meanwhile."""
        portal = self._portal
        if portal is not None and portal.is_open and not portal.is_here:
            if portal.is_other_process:
                return function()
            with contextlib.suppress(ClosedError):
                return portal.call(awaitable(function))
        return function()

    def close(
        self,
        timeout: float | None = None,
        *,
        end: Callable[[float], Awaitable[object]] | None = None,
    ) -> None:
        """
        End what runs in the loop, and the loop; return within half a second after the timeout.

        In a worker thread, where a function of the caller's calls this, only begin to close.
        """
        check_timeout("timeout", timeout)
        seconds = self._close_timeout if timeout is None else timeout
        portal = self._portal
        if portal is not None:
            self._begin_to_close(portal, seconds, end or self._end)
            if not is_served_here(self):
                portal.join(seconds + _MARGIN)

    def close_at_exit(self, deadline: float) -> Callable[[], None]:
        """Begin to close at once; return a function that waits for the end."""
        portal = self._portal
        if portal is None or portal.is_other_process:
            return _nothing
        self._begin_to_close(portal, 0.0, self._end)
        return lambda: portal.join(max(0.0, deadline - time.monotonic()))

    def _begin_to_close(
        self, portal: Portal, seconds: float, end: Callable[[float], Awaitable[object]]
    ) -> None:
        if portal.is_open:
            with contextlib.suppress(ClosedError):
                portal.begin(Call(lambda: self._ended(portal, end, seconds)))

    async def _ended(
        self, portal: Portal, end: Callable[[float], Awaitable[object]], seconds: float
    ) -> None:
        try:
            await end(seconds)
        finally:
            await portal.stop()


def _nothing() -> None:
    """Do nothing."""


def awaitable(function: Callable[[], T]) -> Callable[[], Awaitable[T]]:
    """Return a coroutine function that calls a function which never waits."""

    async def call() -> T:
        return function()

    return call


@atexit.register
def _close_all() -> None:
    """End the connections properly, when only daemon threads are left."""
    deadline = time.monotonic() + _AT_EXIT
    for wait in [gateway.close_at_exit(deadline) for gateway in list(_all)]:
        wait()
