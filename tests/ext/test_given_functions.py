"""Functions and numbers that are given to an extension are checked when they are given."""

from __future__ import annotations

from math import inf, nan
from typing import TYPE_CHECKING, Any, Final

import pytest

from asyncnotify import Listener
from asyncnotify.ext._items import Events
from asyncnotify.ext.fanout import Fanout
from asyncnotify.ext.reporting import Reports
from asyncnotify.ext.shutdown import end_streams_on_signal
from asyncnotify.lock import Leader
from asyncnotify.log import Log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

LISTENER: Final = Listener("postgresql://nowhere/")
LOG: Final = Log("orders", "postgresql://nowhere/")


def generator(*_: object) -> Iterator[None]:
    """Run nothing when it is called."""
    yield


async def asynchronous_generator(*_: object) -> AsyncIterator[None]:
    """Run nothing when it is called."""
    yield


def of_four(_pid: int, _channel: str, _payload: str, _connection: object) -> None:
    """Take what asyncpg's callbacks take."""


async def coroutine_function(*_: object) -> None:
    """Has to be awaited."""


class Class:
    """Only makes an object."""


WRONG: Final = [generator, asynchronous_generator, of_four, Class, 1]

TAKES_ANY: Final[dict[str, Callable[[Any], object]]] = {
    "fanout authorize": lambda function: Fanout(LISTENER, authorize=function),
    "leader": lambda function: Leader("a", function, "postgresql://nowhere/"),
    "log handler": LOG.on("c"),
}
"""Those that are awaited, or may be."""

TAKES_PLAIN: Final[dict[str, Callable[[Any], object]]] = {
    "event": lambda function: Events(LISTENER.stream("x"), str, function),
    "fanout listener": Fanout,
    "on_report": lambda function: Reports(LISTENER, on_report=function),
    "signal target": end_streams_on_signal,
}
"""Those of which the result is used at once."""


@pytest.mark.parametrize("function", WRONG)
@pytest.mark.parametrize("place", [*TAKES_ANY, *TAKES_PLAIN])
def test_r48_a_function_that_would_not_run_is_refused(place: str, function: object) -> None:
    """Where it is given, by a TypeError, and not at its first call or never."""
    with pytest.raises(TypeError):
        {**TAKES_ANY, **TAKES_PLAIN}[place](function)


@pytest.mark.parametrize("place", TAKES_PLAIN)
def test_r48_a_function_that_nobody_would_await_is_refused(place: str) -> None:
    """A coroutine that is dropped has run nothing."""
    with pytest.raises(TypeError):
        TAKES_PLAIN[place](coroutine_function)


@pytest.mark.parametrize("count", [nan, inf, True, -1, 0, "1", 1.5])
async def test_r48_a_size_of_a_batch_is_checked_before_anything_waits(count: Any) -> None:
    """By both ways in which batches are asked for."""
    log = Log("orders", "postgresql://nowhere/")
    consumer = log.consumer("c")
    with pytest.raises(ValueError, match="count"):
        await consumer.next_batch(count)
    with pytest.raises(ValueError, match="count"):
        await anext(consumer.batches(count))
    await log.aclose(0)
