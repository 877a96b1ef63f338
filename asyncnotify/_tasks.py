"""Tasks of ours: begun in a context of nobody, ended within a grace period."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine

T = TypeVar("T")

CANCEL_GRACE: Final = 0.2
"""Seconds that a cancelled task is given to end: for a handler's `finally`, not for its work."""

READ_GRACE: Final = 0.05
"""Seconds in which the loop reads its sockets once more before silence counts as an answer that
did not come: a timer may have fired only because the loop had been blocked."""

SLICE: Final = 0.010
"""Seconds for which one consumer may go on without waiting for anything, before others run."""


def start(coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
    """
    Begin a task that outlives its caller, in an empty context.

    In the context of whoever comes first, its log lines, connections and the callables of users
    that it calls would carry that request's user and trace for as long as it runs.
    """
    return asyncio.get_running_loop().create_task(coroutine, name=name, context=Context())


async def cancel(tasks: Collection[asyncio.Future[Any]], grace: float = CANCEL_GRACE) -> None:
    """
    Cancel tasks and wait until they have ended, for so many seconds at most.

    What becomes of them is nobody's concern any more: an exception is not reported as one that
    was never retrieved. May be cancelled; the tasks are cancelled even so.
    """
    for task in tasks:
        task.add_done_callback(retrieve)
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=grace)


def retrieve(task: asyncio.Future[Any]) -> None:
    """Look at the outcome of a task, which nobody else does."""
    if not task.cancelled():
        task.exception()
