"""
A way from threads into an event loop that runs in a thread of its own.

anyio's portal runs the loop. A call is handed over in one step, and the thread waits for it
afterwards: the portal's own ``call()`` goes to the loop and back twice, and begins with a wait that
has no limit. So ``close()`` returns also when a function blocks the loop.

The thread is a daemon, and so are those of the handlers: none of them keeps the interpreter from
ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from asyncnotify._errors import ClosedError, WrongLoopError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.from_thread import BlockingPortal

T = TypeVar("T")

logger = logging.getLogger("asyncnotify.connection")

_LAST_MOMENT: Final = 0.2
"""Seconds for what still runs in the loop to end, once it has been cancelled."""


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
        self.outcome: Future[T] = Future()
        self.on_end: Callable[[Call[Any]], None] | None = None
        self._function = function
        self._undo = undo
        self._task: asyncio.Task[None] | None = None
        self._abandoned = False

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the function as a task. Called in the loop, as are the other methods."""
        if not self._abandoned:
            self._task = loop.create_task(self._run(), name="asyncnotify call from a thread")
            self._task.add_done_callback(self._task_ended)

    def abandon(self) -> None:
        """Cancel the function, or undo what it did: the caller no longer waits."""
        self._abandoned = True
        if self._task is None:
            self.fail(_closed())
        elif not self.outcome.done():
            # not before the first step: a function that need not wait completes
            asyncio.get_running_loop().call_soon(self._task.cancel)
        elif self._undo is not None and self.outcome.exception() is None:
            self._task = asyncio.ensure_future(self._undone(self._undo, self.outcome.result()))

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
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            self.fail(error)
        else:
            if not self.outcome.done():
                self.outcome.set_result(result)
            self._end()
            if self._abandoned and self._undo is not None:
                await self._undone(self._undo, result)

    def _task_ended(self, _: asyncio.Task[None]) -> None:
        if not self.outcome.done():
            self.fail(_closed())  # the task was cancelled before its first step

    def _end(self) -> None:
        if self.on_end is not None:
            self.on_end(self)

    async def _undone(self, undo: Callable[[T], Awaitable[object]], result: T) -> None:
        with contextlib.suppress(Exception):
            await undo(result)


class Portal:
    """
    An event loop in a thread of its own, from its beginning to its end.

    Any number of threads may call the methods.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._calls: set[Call[Any]] = set()
        self._closed = False
        self._ready: Future[asyncio.AbstractEventLoop] = Future()
        self._portal: BlockingPortal | None = None
        self._thread = threading.Thread(target=self._run, name="asyncnotify", daemon=True)
        try:
            self._thread.start()
            self._loop = self._ready.result()
        except BaseException:  # an interrupt: no caller could close this portal
            self._ready.cancel()
            raise

    @property
    def is_open(self) -> bool:
        """Whether the portal takes calls."""
        return not self._closed

    @property
    def is_other_process(self) -> bool:
        """Whether this is a fork of the process in which the loop runs."""
        return os.getpid() != self._process

    @property
    def is_here(self) -> bool:
        """Whether the caller is the loop's own thread."""
        return threading.get_ident() == self._thread.ident and not self.is_other_process

    def check_owner(self) -> None:
        """Raise WrongLoopError where waiting for the loop would never end."""
        if self.is_other_process:
            msg = (
                "the listener or notifier was started by another process, and a fork has neither"
                " its thread nor its connection: make and start one in each process"
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
        Hand a call to the loop, without waiting for it.

        Raises:
            ClosedError: The loop takes no more calls.
            WrongLoopError: The call came from the loop's own thread, or another process.
        """
        self.check_owner()
        call.on_end = self._calls.discard
        self._calls.add(call)
        if self._closed:  # the loop may have ended before it could see the call
            self._calls.discard(call)
            raise _closed()
        self._soon(call.begin, self._loop)
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
        with contextlib.suppress(ClosedError):
            self._soon(call.abandon)

    async def stop(self) -> None:
        """Take no more calls, and end the loop. Called in the loop."""
        self._closed = True
        if self._portal is not None:
            await self._portal.stop()

    def join(self, timeout: float) -> None:
        """Return when the thread has ended, or after so many seconds."""
        self._thread.join(timeout)

    # -- the thread ---------------------------------------------------------------------------

    def _soon(self, function: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            raise _closed() from None

    def _run(self) -> None:
        loop = _new_loop()
        try:
            loop.run_until_complete(self._keep(loop))
        except BaseException as error:
            if self._ready.done():
                logger.critical("an exception has ended the event loop", exc_info=error)
            else:
                self._ready.set_exception(error)
        finally:
            self._closed = True
            _end_tasks(loop)
            loop.close()
            for call in list(self._calls):
                call.fail(_closed())

    async def _keep(self, loop: asyncio.AbstractEventLoop) -> None:
        from anyio.from_thread import BlockingPortal  # noqa: PLC0415 - only threads need anyio

        loop.set_default_executor(_DaemonThreads())
        async with BlockingPortal() as self._portal:
            if self._ready.set_running_or_notify_cancel():
                self._ready.set_result(loop)
                await self._portal.sleep_until_stopped()


class _DaemonThreads(ThreadPoolExecutor):
    """
    The loop's default executor, which resolves host names: a daemon thread for each call.

    The threads of concurrent.futures delay the end of the interpreter, and take no calls once
    its main thread has ended, though other threads go on.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:  # noqa: ANN401
        """Call the function in a thread of its own."""
        call: Future[T] = Future()

        def run() -> None:
            if call.set_running_or_notify_cancel():
                try:
                    call.set_result(fn(*args, **kwargs))
                except BaseException as error:  # noqa: BLE001 - the caller raises it
                    call.set_exception(error)

        threading.Thread(target=run, name="asyncnotify lookup", daemon=True).start()
        return call


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return one of asyncio's own loops, whatever policy the program has set."""
    if sys.platform == "win32":
        return asyncio.ProactorEventLoop()
    return asyncio.SelectorEventLoop()


def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    with contextlib.suppress(Exception):
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=_LAST_MOMENT))
        loop.run_until_complete(loop.shutdown_asyncgens())


def _closed() -> ClosedError:
    return ClosedError("the listener or notifier is closed")
