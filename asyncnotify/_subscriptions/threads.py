"""Plain functions that block, called in threads beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._arguments import check_ran, is_async
from asyncnotify._subscriptions.running import Running
from asyncnotify._tasks import Sealed

if TYPE_CHECKING:
    from collections.abc import Callable

_NO_ASYNC: Final = (
    "in_thread=True calls a plain function in a thread, where nothing can be awaited: leave out"
    " in_thread=, or make the handler a plain function"
)


def check_in_thread(handler: object) -> None:
    """Raise TypeError for an async function, which no thread can call."""
    if is_async(handler):
        raise TypeError(_NO_ASYNC)


class InThread:
    """
    An async function that calls a plain one in a thread, for one subscription.

    Each call at the same time has a thread of its own, so one that blocks delays no other. A
    thread serves one call after another, in a copy of the caller's context. The threads are
    daemons: a function that never returns does not keep the interpreter from ending.

    A cancelled call returns at once; its function goes on in the thread, and what becomes of it is
    dropped. Until it has returned it counts as one of those that may run at the same time: so they
    keep their order, and their number has a bound.

    Args:
        function: What is called.
        name: The name of the threads.
        limit: How many calls may run at the same time.
    """

    def __init__(self, function: Callable[[Any], object], *, name: str, limit: int) -> None:
        self.__wrapped__ = function
        self._name = name
        self._running = Running(limit)
        self._idle: list[_Thread] = []

    async def __call__(self, item: object) -> None:
        """
        Call the function, as soon as one more call may run; return when it has returned.

        Raises:
            BaseException: What the function raised.
            RuntimeError: The system has no more threads.
        """
        await self._running.enter()
        try:
            thread = self._idle.pop() if self._idle else _Thread(self._name)
        except BaseException:
            self._running.leave()
            raise
        call = _Call(self.__wrapped__, item, self._running)
        thread.calls.put(call)
        try:
            outcome = await call.returned
        except BaseException:
            thread.calls.put(None)  # the thread ends with the call, for which nobody waits now
            raise
        self._idle.append(thread)
        del call.returned  # the traceback of an error holds the frames of both threads
        try:
            outcome.open()
        finally:
            del outcome

    def dismiss(self) -> None:
        """End the threads that have nothing to do. A later call starts a new one."""
        while self._idle:
            self._idle.pop().calls.put(None)


class _Call:
    """One call of the function, made in a thread for a task that waits."""

    def __init__(self, function: Callable[[Any], object], item: object, running: Running) -> None:
        self._loop = asyncio.get_running_loop()
        self.returned: asyncio.Future[Sealed[None]] = self._loop.create_future()
        self._function = function
        self._item = item
        self._running = running
        self._context: Context = copy_context()

    def make(self) -> None:
        """Call the function; tell the task. Never raises."""
        outcome: Sealed[None] = Sealed()
        try:
            _refuse_awaitable(self._context.run(self._function, self._item))
        except BaseException as error:  # noqa: BLE001 - the task that waits raises it
            outcome = Sealed(error=error)
        self._running.leave()
        try:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(self._tell, outcome)
        finally:
            del outcome

    def _tell(self, outcome: Sealed[None]) -> None:
        if not self.returned.done():
            self.returned.set_result(outcome)


class _Thread:
    """A thread that makes one call after another, until it is given None."""

    def __init__(self, name: str) -> None:
        self.calls: SimpleQueue[_Call | None] = SimpleQueue()
        threading.Thread(target=self._serve, args=(self.calls,), name=name, daemon=True).start()

    @staticmethod
    def _serve(calls: SimpleQueue[_Call | None]) -> None:
        while (call := calls.get()) is not None:
            call.make()
            del call  # not while waiting for the next one


def _refuse_awaitable(result: object) -> None:
    check_ran("the function", result)
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError(_NO_ASYNC)
