"""Tasks of asyncnotify: started in an empty context, ended within a grace period."""

from __future__ import annotations

import asyncio
import functools
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine

T = TypeVar("T")

CANCEL_GRACE: Final = 0.2
"""Seconds for a cancelled task to end: for the ``finally`` of a handler, not for its work."""

CLOSE_GRACE: Final = 1.0
"""Seconds for closing a connection in good order when another one has taken its place."""

READ_GRACE: Final = 0.05
"""Seconds in which the loop reads its sockets once more before an answer counts as overdue: a timer
may have fired only because the loop had been blocked."""

SLICE: Final = 0.010
"""Seconds for which a consumer that never waits may run, before other tasks run."""


class Sealed(Generic[T]):
    """
    What a call has returned or raised, without showing it.

    asyncio's debug mode logs the results of tasks and futures, and the arguments of callbacks. None
    of them may hold a payload, a password or what a function of the caller's says.
    """

    __slots__ = ("_error", "_value")

    def __init__(self, value: T | None = None, error: BaseException | None = None) -> None:
        self._value = value
        self._error = error

    @property
    def has_failed(self) -> bool:
        """Whether the call has raised something."""
        return self._error is not None

    def open(self) -> T:
        """Return what the call has returned, or raise what it has raised."""
        if self._error is None:
            return cast("T", self._value)
        try:
            raise self._error
        finally:
            del self  # the traceback holds this frame


async def sealed(call: Callable[[], Awaitable[T]]) -> Sealed[T]:
    """
    Return the outcome of a call; only its cancellation shows.

    The call is made here: a task may be cancelled before its first step, and a coroutine that was
    made for it before then would never be awaited, which Python warns of.
    """
    try:
        return Sealed(await call())
    except Exception as error:  # noqa: BLE001 - open() raises it
        return Sealed(error=error)


def start(
    coroutine: Coroutine[Any, Any, T], *, name: str, context: Context | None = None
) -> asyncio.Task[T]:
    """
    Start a task that outlives its caller, in an empty context, or in one of its own.

    In the context of its first caller, say a web request, the log lines of the task, and the
    functions of users that it calls, would have the user and trace of that request for ever.

    Tracing agents replace ``create_task()``, and give the trace of the current context (ddtrace)
    or of the current task (New Relic) to the new one. So there is neither when it is called.
    """
    loop, caller = asyncio.get_running_loop(), asyncio.current_task()
    context = Context() if context is None else context
    create = functools.partial(loop.create_task, coroutine, name=name, context=context)
    if caller is None:
        return Context().run(create)
    # Documented for the implementors of tasks
    asyncio.tasks._leave_task(loop, caller)  # noqa: SLF001 - as above
    try:
        return Context().run(create)
    finally:
        asyncio.tasks._enter_task(loop, caller)  # noqa: SLF001 - as above


async def cancel(tasks: Collection[asyncio.Future[Any]], grace: float = CANCEL_GRACE) -> None:
    """
    Cancel tasks and wait until they have ended, at most ``grace`` seconds.

    Their results are dropped: asyncio does not report an exception as never retrieved. If this
    call is cancelled, the tasks have been cancelled all the same.
    """
    for task in tasks:
        task.add_done_callback(retrieve)
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=grace)


class GivenUp:
    """
    Tasks that were cancelled, and still have something to close.

    Their owner goes on without them, but has to wait for them at its end. A dial that was cancelled
    needs some turns of the event loop to close what it has opened, and whoever has closed the owner
    may let the loop stand still.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[Any]] = set()

    def add(self, task: asyncio.Future[Any]) -> None:
        """Take a task that was cancelled."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ended(self, grace: float = CANCEL_GRACE) -> None:
        """Return once all have ended, after so many seconds at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)


async def is_done_within(awaited: asyncio.Future[Any], seconds: float) -> bool:
    """Return whether what the server sends brings this about, in so many seconds."""
    for limit in (seconds, READ_GRACE):
        await asyncio.wait({awaited}, timeout=limit)
        if awaited.done():
            return True
    return False


def retrieve(task: asyncio.Future[Any]) -> None:
    """Retrieve the exception of a task, so that asyncio does not report it as never retrieved."""
    if not task.cancelled():
        task.exception()
