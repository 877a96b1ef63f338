from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from asyncnotify._model import Gap, GapReason, Notification
from asyncnotify._subscriptions.callbacks import is_meant_for_us, report

if TYPE_CHECKING:
    from collections.abc import Callable

NOTIFICATION = Notification("orders", "secret payload", 7)
GAP = Gap("orders", GapReason.RECONNECT)
ERROR = ValueError("no good")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
async def test_an_error_that_ends_the_process_is_never_contained(error: BaseException) -> None:
    """KeyboardInterrupt and SystemExit pass through a worker."""
    assert is_meant_for_us(error)


@pytest.mark.parametrize("error", [ERROR, asyncio.CancelledError(), GeneratorExit()])
async def test_an_error_of_a_handler_is_contained(error: BaseException) -> None:
    """So is a CancelledError that nobody sent to this task, and a GeneratorExit."""
    assert not is_meant_for_us(error)


async def test_a_cancellation_of_this_task_passes() -> None:
    """A CancelledError ends the task once the task has been asked to end."""
    verdicts: list[bool] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError as error:
            verdicts.append(is_meant_for_us(error))
            raise

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert verdicts == [True]


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit()])
def test_without_a_loop_the_coroutine_is_being_thrown_away(error: BaseException) -> None:
    """The collector closes a coroutine by GeneratorExit, which the coroutine must not swallow."""
    assert is_meant_for_us(error)


async def test_without_on_error_nothing_is_called() -> None:
    """report() returns."""
    await report(None, ERROR, NOTIFICATION, of="'orders'")


@pytest.mark.parametrize("item", [NOTIFICATION, GAP])
async def test_on_error_gets_the_error_and_what_it_was_raised_for(
    item: Notification[str] | Gap,
) -> None:
    """A plain function is called."""
    calls: list[tuple[BaseException, object]] = []

    def on_error(error: BaseException, item: object) -> None:
        calls.append((error, item))

    await report(on_error, ERROR, item, of="'orders'")
    assert calls == [(ERROR, item)]


async def test_an_async_on_error_is_awaited() -> None:
    """report() returns after on_error has."""
    steps: list[str] = []

    async def on_error(_error: BaseException, _item: object) -> None:
        steps.append("begun")
        await asyncio.sleep(1)
        steps.append("ended")

    await report(on_error, ERROR, NOTIFICATION, of="'orders'")
    assert steps == ["begun", "ended"]


def raising(error: BaseException) -> Callable[[BaseException, object], None]:
    """Return an on_error that raises this."""

    def on_error(_error: BaseException, _item: object) -> None:
        raise error

    return on_error


async def test_another_error_of_on_error_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The subscription is named, and the error goes no further."""
    await report(raising(OSError("disk full")), ERROR, NOTIFICATION, of="'orders'")
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("asyncnotify.handler", logging.ERROR)
    assert "'orders'" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], OSError)


async def test_the_error_that_on_error_was_given_is_not_logged_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Raising it again makes one line without a traceback, which may quote a payload."""
    await report(raising(ERROR), ERROR, NOTIFICATION, of="'orders'")
    (record,) = caplog.records
    assert record.exc_info is None
    assert NOTIFICATION.payload not in caplog.text


async def test_on_error_may_end_the_process() -> None:
    """What is never contained in a handler is not contained in on_error either."""
    with pytest.raises(SystemExit):
        await report(raising(SystemExit(3)), ERROR, NOTIFICATION, of="'orders'")
