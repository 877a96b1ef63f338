"""What is not handled here any more: the consumer was paused, moved, dropped or taken over."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest

from asyncnotify.log import Event, Interrupted, Log, Retry, UnknownConsumerError
from tests.log.conftest import append
from tests.log.test_consumers import taken, until
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify.log._names import Names
    from tests.log.conftest import Connection

FOR_EVER: Final = Retry(1_000_000, backoff=lambda: itertools.repeat(0.01))

OPERATIONS: Final[dict[str, Callable[[Log], Awaitable[None]]]] = {
    "pause": lambda log: log.pause("mailer"),
    "seek": lambda log: log.seek("mailer", "now"),
    "drop": lambda log: log.drop("mailer"),
}


class Failing:
    """A handler that fails with each event."""

    def __init__(self) -> None:
        self.calls = 0
        self.began = asyncio.Event()

    async def __call__(self, event: Event[str]) -> None:
        """Fail."""
        self.calls += 1
        self.began.set()
        raise ValueError


@pytest.mark.needs_server("sessions")
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_an_event_is_not_tried_again_after_an_operation(
    dsn: str, installed: Names, admin: Connection, operation: str
) -> None:
    """Between two attempts a handler asks whether the consumer is still its own."""
    log, failing = Log("orders", dsn), Failing()
    log.on("mailer", on_error=FOR_EVER)(failing)
    async with asyncio.timeout(scaled(20)), log:
        await append(admin, "a")
        await failing.began.wait()
        pid = (await log.status()).consumers[0].pid
        await OPERATIONS[operation](log)
        calls = failing.calls

        async def has_ended() -> bool:
            query = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)"
            ended: bool = await admin.fetchval(query, pid)
            return ended

        await until(has_ended)
        assert failing.calls <= calls + 1  # that one may have been under way


@pytest.mark.needs_server("sessions")
async def test_one_who_tries_again_notices_the_loss_of_its_session(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """Others may have taken the consumer, and be handling what comes after the event."""
    log, failing = Log("orders", dsn), Failing()
    log.on("mailer", on_error=FOR_EVER)(failing)
    async with asyncio.timeout(scaled(20)), log:
        incidents = log.incidents()
        await append(admin, "a")
        await failing.began.wait()
        pid = (await log.status()).consumers[0].pid
        await admin.execute("SELECT pg_terminate_backend($1)", pid)
        assert isinstance(await anext(incidents), Interrupted)


@pytest.mark.needs_server("a transaction of SQL")
@pytest.mark.parametrize("wake", ["commit", "poll"])
async def test_what_comes_with_a_pause_is_not_given(
    dsn: str, installed: Names, admin: Connection, wake: Literal["commit", "poll"]
) -> None:
    """Also if the consumer finds the event and the pause at once, when it has waited."""
    async with Log("orders", dsn, wake=wake, poll=0.01) as log, log.consumer("mailer") as consumer:

        async def has_committed() -> bool:
            return not (await log.status()).consumers[0].lag_events

        for _ in range(3):  # behind its first wait it commits in any case, and so asks
            waiting = asyncio.ensure_future(taken(consumer, 1))
            await until(has_committed)
            await append(admin, "a")
            assert await waiting == ["a"]
        waiting = asyncio.ensure_future(taken(consumer, 1))
        await until(has_committed)
        async with admin.transaction():
            await admin.execute("SELECT asyncnotify.orders_pause_consumer('mailer', true)")
            await append(admin, "b")

        async def is_given_up() -> bool:
            return waiting.done() or not (await log.status()).consumers[0].is_served

        await until(is_given_up)
        assert not waiting.done()
        await log.resume("mailer")
        assert await waiting == ["b"]


async def test_a_bucket_that_is_taken_up_does_not_undo_a_drop(dsn: str, installed: Names) -> None:
    """Only the first use of a consumer makes it, not each bucket that comes to a process later."""
    async with Log("orders", dsn) as log, log.consumer("mailer", buckets=2) as consumer:
        await log.drop("mailer")
        merged: Any = consumer._feed  # noqa: SLF001 - the buckets are taken up by chance
        feed = merged._feeds(0)  # noqa: SLF001
        with pytest.raises(UnknownConsumerError):
            await feed.next()
        await feed.aclose()
        assert (await log.status()).consumers == ()
