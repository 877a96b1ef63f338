"""
A way from threads into the event loop, for one listener or notifier, from its start to its end.

Calls are handed over in one step and waited for afterwards, so a loop that is blocked does not keep
``close()`` from returning. Calls that come before the loop runs begin with it; whatever keeps it
from running ends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from typing import TYPE_CHECKING, Any, TypeVar

from asyncnotify._blocking.call import Call, closed_error
from asyncnotify._blocking.loop import attach, failed_error
from asyncnotify._blocking.waiting import Outcome
from asyncnotify._errors import ClosedError, WrongLoopError
from asyncnotify._tasks import cancel, start

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify._blocking.loop import LoopThread

T = TypeVar("T")


class Portal:
    """
    What one listener or notifier runs in the event loop of the process.

    Any number of threads may call the methods.

    Args:
        opener: What tells the call that opened the portal from others.
        earlier: The portal whose place this one takes. Calls begin when that one has ended: what
            it ran belongs to it until then.
        owner: Whose portal this is. It is kept until the end: it runs, though nobody else may have
            a reference to it.
    """

    def __init__(
        self, opener: object = None, earlier: Portal | None = None, owner: object = None
    ) -> None:
        self.opener: object = opener
        self._owner = owner
        self.thread: LoopThread | None = None
        self._earlier = earlier
        self._process = os.getpid()
        self._calls: dict[Call[Any], None] = {}  # in the order in which they came
        self._closed = False
        self._failure: BaseException | None = None
        self._ended: Outcome[None] = Outcome()
        self._on_end: Callable[[], object] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def launch(self) -> None:
        """
        Attach it to the event loop, without waiting for that. To be called once.

        Raises:
            ConnectError: The system has no more threads.
        """
        attach(self)

    @property
    def is_open(self) -> bool:
        """Whether the portal takes calls: it has been launched, and is not closed."""
        return self.thread is not None and not self._closed

    @property
    def is_closed(self) -> bool:
        """Whether the portal takes no more calls."""
        return self._closed

    @property
    def has_failed(self) -> bool:
        """Whether the loop could not be started."""
        return self._failure is not None

    @property
    def is_other_process(self) -> bool:
        """Whether this is a fork of the process in which the loop runs."""
        return os.getpid() != self._process

    @property
    def is_here(self) -> bool:
        """Whether the caller is the loop's own thread."""
        return self.thread is not None and self.thread.is_here

    def serves_others(self, function: object) -> bool:
        """Whether there are calls of other functions than this one. From any thread."""
        return any(call.function is not function for call in list(self._calls))

    def runs_elsewhere(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether this loop is that of the portal, and runs in another thread or greenlet."""
        return self.thread is not None and loop is self.thread.loop and not self.is_here

    def check_owner(self) -> None:
        """Raise WrongLoopError where waiting for the loop would never end."""
        if self.is_other_process:
            msg = (
                "the listener, notifier or log was started by another process: a fork has neither"
                " its thread nor its connection; start it in this process too"
            )
            raise WrongLoopError(msg)
        if self.is_here:
            msg = (
                "this is the thread of the event loop, which would wait for itself: in on_event or"
                " on_incident hand the call to another thread"
            )
            raise WrongLoopError(msg)

    def begin(self, call: Call[T]) -> Call[T]:
        """
        Hand a call to the loop, without waiting for it. A call that has begun is not begun again.

        Raises:
            ClosedError: The portal takes no more calls.
            ConnectError: The loop could not be started.
            WrongLoopError: This is another process.
        """
        if self.is_other_process:
            self.check_owner()
        call.on_end = self._forget
        self._calls[call] = None
        if self._closed:  # it may have ended before it could see the call
            self._forget(call)
            raise self._why_closed()
        if self._loop is not None:
            self._soon(self._loop, call.begin, self._loop)
        elif self.thread is not None:
            self.thread.wake()
        return call

    def call(
        self,
        function: Callable[[], Awaitable[T]],
        *,
        undo: Callable[[T], Awaitable[object]] | None = None,
    ) -> T:
        """
        Call a coroutine function in the loop; return what it returns, or raise what it raises.

        When the call is interrupted, by Ctrl-C, the function is cancelled, or undone if it has
        ended.
        """
        self.check_owner()
        call = Call(function, undo)
        try:
            return self.begin(call).outcome.result()
        except BaseException:
            self.abandon(call)  # at whatever point the interrupt came
            raise

    def abandon(self, call: Call[Any]) -> None:
        """Cancel a call, or undo what it did. Does not wait."""
        if self.is_other_process:
            return
        if self._loop is None:
            call.give_up()
        if self._loop is not None:  # it may run by now
            with contextlib.suppress(ClosedError):
                self._soon(self._loop, call.abandon)

    async def stop(self) -> None:
        """Take no more calls, and begin to end those that are left. Called in the loop."""
        if not self._closed:
            self._closed = True
            start(self._leave(asyncio.current_task()), name="asyncnotify end of a portal")

    def join(self, timeout: float) -> None:
        """
        Return when all that ran here has ended, or so many seconds are over.

        If nobody else uses the loop, its thread has ended as well.
        """
        deadline = time.monotonic() + timeout
        if self.thread is not None or self._closed:  # what was never launched has no end
            with contextlib.suppress(TimeoutError):
                self._ended.result(timeout)
                if self.thread is not None:
                    self.thread.join(max(0.0, deadline - time.monotonic()))

    # -- in the loop --------------------------------------------------------------------------

    def loop_runs(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin the calls, once the earlier portal has ended."""
        earlier = self._earlier
        if earlier is not None and earlier.thread is self.thread and not earlier.has_ended:
            earlier.call_on_end(functools.partial(self.loop_runs, loop))
        elif self._loop is None:
            self._earlier = None
            self._loop = loop
            for call in list(self._calls):  # a later one finds the loop
                call.begin(loop)

    def loop_ended(self, failure: BaseException | None) -> None:
        """End every call: no thread may wait for one any more."""
        self._failure = failure
        self._closed = True
        self._owner = None
        for call in list(self._calls):
            call.fail(self._why_closed())
        self._ended.set_result(None)

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return self._ended.done()

    def call_on_end(self, function: Callable[[], object]) -> None:
        """Have this function called when it has ended and the loop goes on."""
        self._on_end = function

    async def _leave(self, caller: asyncio.Task[Any] | None) -> None:
        """End what is left, and leave the loop to others."""
        tasks = {call.task for call in list(self._calls)} - {None, caller}
        await cancel([task for task in tasks if task is not None])
        if self.thread is not None:
            self.thread.detach(self)
        self.loop_ended(None)
        if self._on_end is not None:
            self._on_end()

    # -- inside -------------------------------------------------------------------------------

    def _forget(self, call: Call[Any]) -> None:
        self._calls.pop(call, None)

    def _soon(
        self, loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object
    ) -> None:
        try:
            loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            raise closed_error() from None

    def _why_closed(self) -> Exception:
        return closed_error() if self._failure is None else failed_error(self._failure)
