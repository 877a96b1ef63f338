"""The functions that users give, and what becomes of what they raise."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

from asyncnotify._arguments import check_ran
from asyncnotify._logs import Log
from asyncnotify._model import Gap, Notification

T = TypeVar("T")

Handler: TypeAlias = Callable[[Notification[T]], Awaitable[object] | object]
"""What ``listen()`` and ``on()`` take: called with each Notification; an awaitable is awaited."""

Resync: TypeAlias = Callable[[Gap], Awaitable[object] | object]
"""What ``resync=`` takes: called with a Gap; an awaitable is awaited."""

OnError: TypeAlias = Callable[[BaseException, Notification[Any] | Gap], Awaitable[object] | object]
"""What ``on_error=`` takes: called with an exception, and the Notification or Gap concerned."""

log = Log("handler")


def is_meant_for_us(error: BaseException) -> bool:
    """Return whether the exception must end the task; else it is an error of a user's function."""
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        return True
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None  # no loop is running: the interpreter is closing the coroutine
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
        check_ran("on_error", result)
        if inspect.isawaitable(result):
            await result
    except BaseException as second:
        if is_meant_for_us(second):
            raise
        if second is error:  # its traceback has been logged, or may quote a payload
            text = "on_error of %s raised the exception it was given"
            log.error(text, of, channel=item.channel)  # noqa: TRY400 - see above
        else:
            log.exception("on_error of %s raised", of, channel=item.channel)
