"""One call of a coroutine function in the event loop, for a thread that waits for its outcome."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from asyncnotify._blocking.waiting import Outcome
from asyncnotify._errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


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
        self.function = function
        self._undo = undo
        self._task: asyncio.Task[None] | None = None
        self._abandoned = False

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task that runs the function, or undoes what that has done; None before it begins."""
        return self._task

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the function as a task, once. Called in the loop, as are abandon() and fail()."""
        if self.outcome.done():
            self._end()
        elif self._abandoned:
            self.fail(closed_error())
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
            self.fail(closed_error())
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
            result = await self.function()
        except asyncio.CancelledError:
            self.fail(closed_error())
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
            self.fail(closed_error())  # the task was cancelled before its first step

    def _end(self) -> None:
        if self.on_end is not None:
            self.on_end(self)

    async def _undone(self, result: T) -> None:
        undo, self._undo = self._undo, None
        if undo is not None:
            with contextlib.suppress(Exception):
                await undo(result)


def closed_error() -> ClosedError:
    """Return what a call ends with that the listener or notifier no longer takes."""
    return ClosedError("the listener, notifier or log is closed; start() starts it again")
