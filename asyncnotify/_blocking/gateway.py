"""The way to the event loop of a blocking listener or notifier: opening, finding, closing it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Final, TypeVar

from asyncnotify._arguments import check_timeout
from asyncnotify._blocking.call import Call, closed_error
from asyncnotify._blocking.portal import Portal
from asyncnotify._blocking.threads import is_served_here
from asyncnotify._blocking.waiting import Instances
from asyncnotify._errors import ClosedError, ConnectError, NotStartedError, WrongLoopError
from asyncnotify._owner import leave_to_parent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_MARGIN: Final = 0.4
"""Seconds beyond its timeout that closing may take, at most."""

_AT_EXIT: Final = 1.0
"""Seconds for all that is still open when the interpreter ends."""

_FAILED_START: Final = object()
"""Stands for the call that has opened a portal, if that has failed while others were in flight."""

_all: Final[Instances[Gateway]] = Instances()


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
        self._has_failed_to_start = False
        self._lock = threading.RLock()
        _all.add(self)

    @property
    def is_open(self) -> bool:
        """Whether there is a loop that takes calls."""
        return self._portal is not None and self._portal.is_open

    def open(self, opener: object = None) -> Portal:
        """
        Return the portal; open one if there is none in this process that takes calls.

        Raises:
            ConnectError: The system has no more threads.
            WrongLoopError: An event loop runs in this thread.
        """
        check_no_loop()
        with self._lock:
            portal = self._portal
            if portal is not None and portal.is_other_process:
                leave_to_parent(portal)
                portal = None
            elif portal is not None and portal.is_open:
                return portal
            self._has_failed_to_start = False
            self._portal = portal = Portal(opener, earlier=portal, owner=self)
            portal.launch()
            return portal

    def start(self, function: Callable[[], Awaitable[object]]) -> None:
        """Call a coroutine function in the loop; if it fails, close the loop opened for it."""
        opener = object()
        try:
            self.open(opener).call(function)
        except BaseException as error:
            if self._portal is not None and self._portal.opener in (opener, _FAILED_START):
                self._leave(self._portal, function)
            if isinstance(error, ConnectError):
                error.__traceback__ = None  # all of its frames are ours
            raise

    def _leave(self, portal: Portal, function: object) -> None:
        """Close a portal after a start that failed; but calls of other threads go on."""
        if portal.serves_others(function):
            portal.opener = _FAILED_START  # one that fails later, and is alone then, closes it
        else:
            self.close(0)
            self._has_failed_to_start = True

    @property
    def portal(self) -> Portal:
        """
        The portal, which takes calls.

        Raises:
            NotStartedError: There has never been a portal, its loop could not be started, or
                another thread is about to start it.
            ClosedError: The portal is closed.
            WrongLoopError: An event loop runs in this thread, or this is another process.
        """
        portal = self._portal
        if portal is None or portal.has_failed:
            raise _not_started_error()
        if portal.is_closed:
            raise closed_error()
        portal.check_owner()
        check_no_loop()
        if not portal.is_open:
            raise _not_started_error()
        return portal

    @property
    def portal_by_itself(self) -> Portal:
        """
        The portal; a new one where there has been none, or where ``start()`` has failed.

        Raises:
            ConnectError: The system has no more threads.
            ClosedError: The portal was closed, and not by a start that failed.
            WrongLoopError: An event loop runs in this thread, or this is another process.
        """
        try:
            return self.portal
        except NotStartedError:
            return self.open()
        except ClosedError:
            if not self._has_failed_to_start:
                raise
            return self.open()

    @property
    def is_of_other_process(self) -> bool:
        """Whether this is a fork of the process in which the loop runs."""
        return self._portal is not None and self._portal.is_other_process

    def check_owner(self) -> None:
        """Raise WrongLoopError where waiting would never end, or would block another loop."""
        if self._portal is not None and self._portal.is_open:
            self._portal.check_owner()
        check_no_loop()

    def call(
        self,
        function: Callable[[], Awaitable[T]],
        *,
        undo: Callable[[T], Awaitable[object]] | None = None,
    ) -> T:
        """Call a coroutine function in the loop; return what it returns."""
        return self.portal.call(function, undo=undo)

    def call_or(self, function: Callable[[], Awaitable[T]], otherwise: Callable[[], T], /) -> T:
        """
        Call a coroutine function in the loop, or another function while there is no loop.

        A loop that ends before it has run the function is none.
        """
        while True:
            with self._lock:
                if not self.is_open:
                    return otherwise()
            try:
                return self.call(function)
            except ClosedError:
                if self.is_open:  # it is the function that has raised it
                    raise

    def check_process(self) -> None:
        """Raise WrongLoopError in a fork of the process in which the loop runs."""
        if self._portal is not None and self._portal.is_open and self._portal.is_other_process:
            self._portal.check_owner()

    def end(self, function: Callable[[], Awaitable[object]]) -> None:
        """
        Call a coroutine function that ends something; return when it has.

        In the thread of an event loop, where a ``__del__`` may run, only begin to.

        Raises:
            NotStartedError: As of the portal.
            ClosedError: As of the portal.
            WrongLoopError: This is another process.
        """
        portal = self._portal
        if portal is not None and portal.is_open and (portal.is_here or runs_loop()):
            portal.begin(Call(function))
        else:
            self.call(function)

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
        End what runs in the loop; return within half a second after the timeout.

        The loop ends as well, if no other gateway uses it.

        In a worker thread, where a function of the caller's calls this, and in the thread of an
        event loop, where a ``__del__`` may run, only begin to close.
        """
        check_timeout("timeout", timeout)
        seconds = self._close_timeout if timeout is None else timeout
        self._has_failed_to_start = False
        portal = self._portal
        if portal is not None:
            self._begin_to_close(portal, seconds, end or self._end)
            if not is_served_here(self) and not portal.is_here and not runs_loop():
                portal.join(seconds + _MARGIN)

    @property
    def has_begun(self) -> bool:
        """Whether anything has ever run in the loop."""
        return self._portal is not None

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
            with contextlib.suppress(ClosedError, ConnectError):
                portal.begin(Call(lambda: self._ended(portal, end, seconds)))

    async def _ended(
        self, portal: Portal, end: Callable[[float], Awaitable[object]], seconds: float
    ) -> None:
        try:
            if portal.is_open:  # no earlier call has ended everything
                await end(seconds)
        finally:
            await portal.stop()

    def runs_elsewhere(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether this loop is that of the portal, and runs in another thread or greenlet."""
        return self._portal is not None and self._portal.runs_elsewhere(loop)

    def renew(self) -> None:
        """After a fork, in the child: replace the lock, which a thread of the parent may hold."""
        self._lock = threading.RLock()


def runs_loop() -> bool:
    """Whether an event loop runs in this thread; under gevent, in this greenlet."""
    loop = asyncio._get_running_loop()  # noqa: SLF001 - get_running_loop() raises
    return loop is not None and not any(gateway.runs_elsewhere(loop) for gateway in _all)


def check_no_loop() -> None:
    """Raise WrongLoopError where a blocking call would keep an event loop from running."""
    if runs_loop():
        msg = (
            "a blocking call would keep the event loop of this thread from running: in coroutines"
            " use Listener, Notifier and Log, or call from another thread (asyncio.to_thread; in an"
            " async view of Flask or Django sync_to_async)"
        )
        raise WrongLoopError(msg)


def _not_started_error() -> NotStartedError:
    msg = "the listener, notifier or log has not been started: use `with` or start()"
    return NotStartedError(msg)


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


def _after_fork_in_child() -> None:
    for gateway in _all:
        gateway.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
