"""What users' functions raise: whether it concerns us, and whom it is told."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

from asyncnotify._model import Gap, Notification

T = TypeVar("T")

Handler: TypeAlias = Callable[[Notification[T]], Awaitable[object] | object]
"""What ``listen()`` and ``on()`` take: called with each Notification, and awaited if need be."""

Resync: TypeAlias = Callable[[Gap], Awaitable[object] | object]
"""What ``resync=`` takes: called with a Gap, and awaited if need be."""

OnError: TypeAlias = Callable[[BaseException, Notification[Any] | Gap], Awaitable[object] | object]
"""What ``on_error=`` takes: called with what was raised, and with what it was raised for."""

logger = logging.getLogger("asyncnotify.handler")


def is_meant_for_us(error: BaseException) -> bool:
    """Return whether it is to end the task, rather than being an error of a user's function."""
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        return True
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None  # no loop is running: the coroutine is being thrown away
    if isinstance(error, GeneratorExit):
        return task is None
    return isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)


async def report(
    on_error: OnError | None, error: BaseException, item: Notification[Any] | Gap, *, of: str
) -> None:
    """Call ``on_error``, if there is one; what that raises is logged."""
    if on_error is None:
        return
    try:
        result = on_error(error, item)
        if inspect.isawaitable(result):
            await result
    except BaseException as second:
        if is_meant_for_us(second):
            raise
        if second is error:  # its traceback has been logged, or may quote a payload
            logger.error("on_error of %s raised what it was told", of)  # noqa: TRY400 - see above
        else:
            logger.exception("on_error of %s raised", of)
