"""Handlers of a log that do not return, or block the event loop, are named in a warning."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from asyncnotify.log import Event, Log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import asyncpg

    from asyncnotify.log._names import Names


NUMBERS = itertools.count(1)  # of handlers: each name is warned of once in a minute


class Warned(logging.Handler):
    """Sets an event when a handler is warned of, and keeps the texts."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self.event = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.texts.append(record.getMessage())
        self.event.set()


@pytest.fixture
def warned() -> Iterator[Warned]:
    """What is warned of from here on."""
    handler = Warned()
    logger = logging.getLogger("asyncnotify.handler")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest_asyncio.fixture
async def log(dsn: str, installed: Names) -> AsyncIterator[Log]:
    """A log with two events, which is closed at the end."""
    log = Log("orders", dsn)
    await log.append_many([("things", "1"), ("things", "2")])
    yield log
    await log.aclose()


@pytest.mark.parametrize("transactional", [False, True])
async def test_a_handler_that_does_not_return_is_named_once(
    log: Log, warned: Warned, *, transactional: bool
) -> None:
    """With the event that it was called with, and the line at which it waits; it may go on."""
    name = f"slow {next(NUMBERS)}"
    go_on, handled = asyncio.Event(), asyncio.Queue[str]()

    @log.on(name, transactional=transactional, slow_after=0.05)
    async def handle(event: Event[str], *_: asyncpg.Connection[Any]) -> None:
        await go_on.wait()
        handled.put_nowait(event.payload)

    await log.start()
    await warned.event.wait()
    go_on.set()
    assert [await handled.get() for _ in range(2)] == ["1", "2"]
    [text] = warned.texts
    assert text.startswith(
        f"handler {name!r} of log 'orders' has not returned for 0.05 s (at test_slow_handlers.py:"
    )
    assert ", in handle), called with the event at orders:1.1.1: the events behind it wait" in text
    assert ("its transaction stays open" in text) is transactional


async def test_a_plain_function_that_blocks_the_event_loop_is_named(
    log: Log, warned: Warned
) -> None:
    """As in it nothing else runs meanwhile."""

    @log.on(f"blocking {next(NUMBERS)}", slow_after=0.01)
    def handle(_: Event[str]) -> None:
        time.sleep(0.02)  # blocks the event loop

    await log.start()
    await warned.event.wait()
    assert (
        "' of log 'orders' is a plain function, and blocked the event loop for" in warned.texts[0]
    )


@pytest.mark.parametrize("slow_after", [None, 30.0])
async def test_who_wants_no_warning_or_returns_in_time_gets_none(
    log: Log, warned: Warned, slow_after: float | None
) -> None:
    """None switches it off."""
    handled = asyncio.Queue[str]()

    @log.on("off", slow_after=slow_after)
    def handle(event: Event[str]) -> None:
        time.sleep(0.02)  # blocks the event loop
        handled.put_nowait(event.payload)

    await log.start()
    assert [await handled.get() for _ in range(2)] == ["1", "2"]
    assert warned.texts == []
