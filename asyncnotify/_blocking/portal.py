"""
A way from threads into an event loop that runs in a thread of its own.

Calls are handed over in one step and waited for afterwards, so a loop that is blocked does not keep
``close()`` from returning. Calls that come before the loop runs begin with it; whatever keeps it
from running ends them.

The thread is a daemon, and so are those of the handlers: none of them keeps the interpreter from
ending.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import os
import selectors
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from asyncnotify._blocking.waiting import Outcome
from asyncnotify._errors import ClosedError, ConnectError, WrongLoopError, describe_error
from asyncnotify._logs import Log
from asyncnotify._tasks import cancel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

log = Log("connection")

_EARLIER_LIMIT: Final = 5.0
"""Seconds for which a loop waits for the end of the earlier one, which a callback may block."""

_PAUSE_LIMIT: Final = 5.0
"""Seconds after which a loop that was paused goes on by itself."""


class Call(Generic[T]):
    """
    One call of a coroutine function in the loop.

    Args:
        function: A coroutine function without arguments.
        undo: Undoes what the function has done, given its result, when the caller no longer waits.
    """

    def __init__(
        self,
        function: Callable[[], Awaitable[T]],
        undo: Callable[[T], Awaitable[object]] | None = None,
    ) -> None:
        self.outcome: Outcome[T] = Outcome()
        self.on_end: Callable[[Call[Any]], None] | None = None
        self._function = function
        self._undo = undo
        self._task: asyncio.Task[None] | None = None
        self._abandoned = False

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the function as a task, once. Called in the loop, as are abandon() and fail()."""
        if self.outcome.done():
            self._end()
        elif self._abandoned:
            self.fail(_closed())
        elif self._task is None:
            self._task = loop.create_task(self._run(), name="asyncnotify call from a thread")
            self._task.add_done_callback(self._task_ended)

    def give_up(self) -> None:
        """Keep the function from beginning. From any thread."""
        self._abandoned = True

    def abandon(self) -> None:
        """Cancel the function, or undo what it did: the caller no longer waits."""
        self._abandoned = True
        if self._task is None:
            self.fail(_closed())
        elif not self.outcome.done():
            # not before the first step: a function that need not wait completes
            asyncio.get_running_loop().call_soon(self._task.cancel)
        elif self.outcome.exception() is None:
            self._task = asyncio.ensure_future(self._undone(self.outcome.result()))

    def fail(self, error: BaseException) -> None:
        """Set the exception, unless the outcome is known."""
        if not self.outcome.done():
            self.outcome.set_exception(error)
        self._end()

    async def _run(self) -> None:
        try:
            result = await self._function()
        except asyncio.CancelledError:
            self.fail(_closed())
        except BaseException as error:  # noqa: BLE001 - the caller gets it, whatever it is
            self.fail(error)
        else:
            if not self.outcome.done():
                self.outcome.set_result(result)
            self._end()
            if self._abandoned:
                await self._undone(result)

    def _task_ended(self, _: asyncio.Task[None]) -> None:
        if not self.outcome.done():
            self.fail(_closed())  # the task was cancelled before its first step

    def _end(self) -> None:
        if self.on_end is not None:
            self.on_end(self)

    async def _undone(self, result: T) -> None:
        undo, self._undo = self._undo, None
        if undo is not None:
            with contextlib.suppress(Exception):
                await undo(result)


class Portal:
    """
    An event loop in a thread of its own, from its beginning to its end.

    Any number of threads may call the methods.

    Args:
        opener: What tells the call that opened the portal from others.
        earlier: The portal whose place this one takes: its loop ends first, since what it ran
            belongs to it until then.
    """

    def __init__(self, opener: object = None, earlier: Portal | None = None) -> None:
        self.opener = opener
        self._earlier = earlier
        self._process = os.getpid()
        self._calls: set[Call[Any]] = set()
        self._launched = False
        self._closed = False
        self._failure: BaseException | None = None
        self._ended: Outcome[None] = Outcome()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Future[None]
        self._ident: int | None = None
        self._paused: threading.Lock | None = None
        self._thread = threading.Thread(target=self._run, name="asyncnotify", daemon=True)

    def launch(self) -> None:
        """
        Start the thread, without waiting for it. To be called once.

        Raises:
            ConnectError: The system has no more threads.
        """
        self._launched = True
        try:
            # Thread.start() waits for the thread by an Event, which must not be interrupted: it
            # is called in a thread where no signal handler runs
            _thread.start_new_thread(self._start_thread, ())
        except RuntimeError as error:
            self._end(error)
            raise _failed(error) from error

    @property
    def is_open(self) -> bool:
        """Whether the portal takes calls."""
        return self._launched and not self._closed

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
        return threading.get_ident() == self._ident and not self.is_other_process

    def runs_elsewhere(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether this loop is that of the portal, and runs in another thread or greenlet."""
        return loop is self._loop and not self.is_here

    def check_owner(self) -> None:
        """Raise WrongLoopError where waiting for the loop would never end."""
        if self.is_other_process:
            msg = (
                "the listener or notifier was started by another process: a fork has neither its"
                " thread nor its connection; start it in this process too"
            )
            raise WrongLoopError(msg)
        if self.is_here:
            msg = (
                "this is the thread of the event loop, which would wait for itself: in on_event"
                " hand the call to another thread"
            )
            raise WrongLoopError(msg)

    def begin(self, call: Call[T]) -> Call[T]:
        """
        Hand a call to the loop, without waiting for it. A call that has begun is not begun again.

        Raises:
            ClosedError: The loop takes no more calls.
            ConnectError: The loop could not be started.
            WrongLoopError: This is another process.
        """
        if self.is_other_process:
            self.check_owner()
        call.on_end = self._calls.discard
        self._calls.add(call)
        if self._closed:  # the loop may have ended before it could see the call
            self._calls.discard(call)
            raise self._why_closed()
        if self._loop is not None:
            self._soon(self._loop, call.begin, self._loop)
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
        """Take no more calls, and end the loop. Called in the loop."""
        self._closed = True
        if not self._stopped.done():
            self._stopped.set_result(None)

    def join(self, timeout: float) -> None:
        """Return when the thread has ended, or so many seconds are over."""
        deadline = time.monotonic() + timeout
        with contextlib.suppress(TimeoutError):
            self._ended.result(timeout)
            if self._thread.ident is not None:
                self._thread.join(max(0.0, deadline - time.monotonic()))

    def pause(self, deadline: float) -> None:
        """Pause the loop between two callbacks, until resume(); return by the deadline."""
        if self._loop is not None and self.is_open and not self.is_other_process:
            paused, standing = threading.Lock(), Outcome[None]()
            paused.acquire()
            self._paused = paused
            with contextlib.suppress(ClosedError, TimeoutError):
                if not self.is_here:
                    self._soon(self._loop, _stand_still, standing, paused)
                    standing.result(max(0.0, deadline - time.monotonic()))

    def resume(self) -> None:
        """Resume the loop."""
        paused, self._paused = self._paused, None
        if paused is not None:
            paused.release()

    # -- the thread ---------------------------------------------------------------------------

    def _soon(
        self, loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object
    ) -> None:
        try:
            loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            raise _closed() from None

    def _why_closed(self) -> Exception:
        return _closed() if self._failure is None else _failed(self._failure)

    def _start_thread(self) -> None:
        try:
            self._thread.start()
        except BaseException as error:  # noqa: BLE001 - the callers get it
            self._end(error)

    def _run(self) -> None:
        self._ident = threading.get_ident()
        try:
            earlier, self._earlier = self._earlier, None
            if earlier is not None:
                earlier.join(_EARLIER_LIMIT)
            _check_thread()
            loop = _new_loop()
        except BaseException as error:  # noqa: BLE001 - the callers get it
            self._end(error)
        else:
            self._end(self._run_in(loop))

    def _run_in(self, loop: asyncio.AbstractEventLoop) -> BaseException | None:
        """Run the loop to its end; return what kept it from running, or None."""
        try:
            loop.run_until_complete(self._keep(loop))
        except BaseException as error:
            if self._loop is None:
                return error
            log.critical("the event loop was ended by an exception", exc_info=error)
        finally:
            self._closed = True
            _end_tasks(loop)
            loop.close()
        return None

    def _end(self, failure: BaseException | None) -> None:
        """End every call: no thread may wait for one any more."""
        self._failure = failure
        self._closed = True
        self._ident = None  # the system may give it to another thread
        for call in list(self._calls):
            call.fail(self._why_closed())
        self._ended.set_result(None)

    async def _keep(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.set_default_executor(_DaemonThreads())
        self._stopped = loop.create_future()
        self._loop = loop
        for call in list(self._calls):  # a later one finds the loop
            call.begin(loop)
        await self._stopped


class _DaemonThreads(ThreadPoolExecutor):
    """
    The loop's default executor, which looks names up: a daemon thread for each.

    Those of concurrent.futures hold up the end of the interpreter, and serve nobody any more
    once its main thread has ended, though other threads go on.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:  # noqa: ANN401
        """Call the function in a thread of its own."""
        call: Future[T] = Future()

        def run() -> None:
            if call.set_running_or_notify_cancel():
                try:
                    call.set_result(fn(*args, **kwargs))
                except BaseException as error:  # noqa: BLE001 - the caller gets it
                    call.set_exception(error)

        threading.Thread(target=run, name="asyncnotify lookup", daemon=True).start()
        return call


def _check_thread() -> None:
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - get_running_loop() raises
        msg = (
            "another event loop runs in this thread: gevent makes all threads one, in which only"
            " one BlockingListener or BlockingNotifier can run; use the others in other processes"
        )
        raise RuntimeError(msg)


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return a loop of asyncio's own, whatever policy the program has set."""
    if sys.platform == "win32":
        return asyncio.ProactorEventLoop()
    return _SelectorEventLoop(selectors.DefaultSelector())


class _SelectorEventLoop(asyncio.SelectorEventLoop):
    """A loop that is closed if there are not enough file descriptors for it."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        try:
            super().__init__(selector)
        except BaseException:
            selector.close()
            asyncio.BaseEventLoop.close(self)  # its own close() needs what could not be opened
            raise


def _stand_still(standing: Outcome[None], paused: threading.Lock) -> None:
    standing.set_result(None)
    paused.acquire(timeout=_PAUSE_LIMIT)


def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    with contextlib.suppress(Exception):
        loop.run_until_complete(cancel(asyncio.all_tasks(loop)))
        loop.run_until_complete(loop.shutdown_asyncgens())


def _closed() -> ClosedError:
    return ClosedError("the listener or notifier is closed")


def _failed(error: BaseException) -> ConnectError:
    """Return the error of a thread or loop that could not be started, for one caller."""
    failed = ConnectError(f"the event loop could not be started: {describe_error(error)}")
    failed.__cause__ = error
    return failed
