"""Calling a function of the user's with an event, and warning of one that does not return."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from asyncnotify._arguments import check_function, check_ran, check_takes
from asyncnotify._logs import Log, WarningLimit
from asyncnotify._subscriptions.slow import place_of
from asyncnotify._tasks import cancel, start

if TYPE_CHECKING:
    from asyncnotify.log._reading.stream import After
    from asyncnotify.log._retry import Retry
    from asyncnotify.log._values import Position

log = Log("handler")
_warnings: Final = WarningLimit()

_BLOCKING: Final = 1.0
"""Seconds for which a function may block the event loop unnoticed, as in subscriptions."""

EventHandler: TypeAlias = Callable[..., Awaitable[object] | object]
"""Called with an Event; with ``transactional=True`` also with the connection. May be async."""


class Handling(NamedTuple):
    """
    What ``Log.on()`` was given.

    Attributes:
        log: The name of the log.
        consumer: The checked name of the consumer.
        channels: Names and Channels.
        function: Called with each event.
        transactional: The function gets the connection, and the cursor is committed with what it
            does there.
        retry: What to do when the function raises.
        begin: Where a new consumer begins.
        buckets: Into how many buckets the consumer is split.
        slow_after: Seconds after which a call that has not returned is warned of; None: never.
        context: In which the function was registered. Each call has a copy of it.
    """

    log: str
    consumer: str
    channels: tuple[object, ...]
    function: EventHandler
    transactional: bool
    retry: Retry
    begin: After
    buckets: int
    slow_after: float | None
    context: Context

    @property
    def subject(self) -> str:
        """How log lines name it."""
        return f"handler {self.consumer!r} of log {self.log!r}"


_running: ContextVar[Handling | None] = ContextVar("asyncnotify_log_handling", default=None)
"""Whose function runs. A task that the function starts inherits the variable."""


def running_handling() -> Handling | None:
    """Return whose function, or a task that it has started, makes this call."""
    return _running.get()


async def outside_handlers(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Do what no function waits for, although one may have asked for it."""
    context = copy_context()
    context.run(_running.set, None)
    await start(work(), name="asyncnotify log call", context=context)


class HandlerError(Exception):
    """The function raised; that is the cause."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


def check_event_handler(function: object, *, transactional: bool) -> None:
    """Raise TypeError unless the function runs when it is called as it will be."""
    check_function("the handler", function)
    check_takes("handler", function, "the Event", *["the connection"] * transactional)


async def call_handler(
    handling: Handling, position: Position, arguments: tuple[object, ...]
) -> None:
    """
    Call the function in a task of its own, in a copy of the context it was registered in.

    Raises:
        HandlerError: It raised; also a CancelledError that is not ours.
    """
    context = handling.context.copy()
    context.run(_running.set, handling)
    call = _timed(handling, arguments)
    calling = start(call, name="asyncnotify handler", context=context)
    slow_after = handling.slow_after
    timer = None
    if slow_after is not None and not calling.done():
        loop = asyncio.get_running_loop()
        timer = loop.call_later(slow_after, _warn_of_slow, handling, position, calling)
    try:
        await asyncio.wait({calling})
    except asyncio.CancelledError:
        await cancel({calling})
        raise
    finally:
        if timer is not None:
            timer.cancel()
    if calling.cancelled():
        raise HandlerError(asyncio.CancelledError())
    error = calling.exception()
    if error is not None:
        raise HandlerError(error) from error


def _warn_of_slow(handling: Handling, position: Position, calling: asyncio.Task[None]) -> None:
    log.warning(
        _warnings,
        ("slow", handling.subject),
        "%s has not returned for %.3g s%s, called with the event at %s: the events behind"
        " it wait%s; give what it waits for a timeout (slow_after= sets when to warn)",
        handling.subject,
        handling.slow_after,
        place_of(calling),
        position,
        ", and its transaction stays open" if handling.transactional else "",
    )


async def _timed(handling: Handling, arguments: tuple[object, ...]) -> None:
    """Call the function; warn if that has blocked the event loop before it gave anything."""
    if handling.slow_after is None:
        await result_of(handling.function, arguments)
        return
    began = time.perf_counter()
    result = handling.function(*arguments)
    if (took := time.perf_counter() - began) > min(_BLOCKING, handling.slow_after):
        log.warning(
            _warnings,
            ("blocked", handling.subject),
            "%s is a plain function, and blocked the event loop for %.1f s, in which"
            " nothing else ran in it: make it an async def that awaits, or call what blocks in a"
            " thread, as by asyncio.to_thread()",
            handling.subject,
            took,
        )
    await _awaited(result)


async def result_of(function: EventHandler, arguments: tuple[object, ...]) -> None:
    """Call the function, and await what it returns if that is to be awaited."""
    await _awaited(function(*arguments))


async def _awaited(result: object) -> None:
    check_ran("the handler", result)
    if inspect.isawaitable(result):
        await result
