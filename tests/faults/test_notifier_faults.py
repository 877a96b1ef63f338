"""A Notifier whose connection fails: what the calls in flight are told, and what comes next."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import (
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    ExponentialBackoff,
    Listener,
    Notification,
    Notifier,
)
from asyncnotify.testing.faults import block_loop
from asyncnotify.testing.proxy import FaultProxy, ProxiedConnection
from tests.faults.conftest import SHORT_BACKOFF, WAIT_LIMIT
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from asyncnotify import Stream
    from asyncnotify.testing.proxy import PatternDetector
    from asyncnotify.testing.server import PostgresServer
    from tests.faults.conftest import ProxiedDatabase

    Heard = Stream[Notification[str]]
    Send = Callable[[Notifier, str], Awaitable[object]]
    Block = Callable[[FaultProxy, bytes], PatternDetector]

TIMEOUT, SLACK = scaled(0.3), scaled(1.5)
BLOCKED = scaled(0.25)
ANSWER = b"SELECT 1\0"


@pytest_asyncio.fixture
async def heard(database: ProxiedDatabase) -> AsyncIterator[Heard]:
    """What arrives on orders, past the proxy."""
    async with Listener(database.dsn) as listener, listener.stream("orders") as stream:
        yield stream


async def payloads(heard: Heard, end: str) -> list[str]:
    """Return what has arrived up to this payload, without it."""
    found: list[str] = []
    async with asyncio.timeout(WAIT_LIMIT):
        async for notification in heard:
            if notification.payload == end:
                break
            found.append(notification.payload)
    return found


def notifier_of(database: ProxiedDatabase, **options: Any) -> Notifier:
    """Return a notifier with short timeouts that goes through the proxy."""
    options = {"operation_timeout": TIMEOUT, "backoff": SHORT_BACKOFF, **options}
    return Notifier(database.proxied_dsn, **options)


# -- in flight ------------------------------------------------------------------------------------


async def alone(notifier: Notifier, payload: str) -> None:
    """Send it by a call that is alone."""
    await notifier.notify("orders", payload)


async def together(notifier: Notifier, payload: str) -> None:
    """Send it in the statement of several calls."""
    calls = [notifier.notify("orders", text) for text in ("first", payload, "another")]
    results = await asyncio.gather(*calls, return_exceptions=True)
    errors = [error for error in results if isinstance(error, BaseException)]
    if errors:
        raise errors[0]


async def many(notifier: Notifier, payload: str) -> None:
    """Send it by notify_many()."""
    await notifier.notify_many([("orders", payload), ("orders", "another")])


ways = pytest.mark.parametrize("send", [alone, together, many])


@ways
@pytest.mark.parametrize("fault", ["reset", "fin", "pause"])
@pytest.mark.parametrize("sent", [True, False], ids=["sent", "not sent"])
async def test_a_connection_that_dies_in_flight_leaves_doubt(
    database: ProxiedDatabase, heard: Heard, send: Send, fault: str, *, sent: bool
) -> None:
    """Told in time, in words that say so; whether it was sent or not, the next call works."""
    async with notifier_of(database) as notifier:
        await notifier.notify("orders", "warm")
        verb: Callable[[ProxiedConnection], object] = {
            "reset": ProxiedConnection.reset,
            "fin": ProxiedConnection.fin,
            "pause": ProxiedConnection.pause,
        }[fault]
        database.proxy.cut_on(b"doubtful", then=verb, answer=ANSWER if sent else None)
        began = time.monotonic()
        with pytest.raises(ConnectionLostError, match="may or may not have been sent") as caught:
            await send(notifier, "doubtful")
        assert time.monotonic() - began < TIMEOUT + SLACK
        assert caught.value.__cause__ is not None
        await notifier.notify("orders", "next")
        assert database.proxy.accepted == 2
    found = await payloads(heard, "next")
    assert ("doubtful" in found) == sent
    assert len(found) == len(set(found))


@ways
async def test_a_frozen_backend_is_given_up_in_time(
    own_database: ProxiedDatabase, battered_server: PostgresServer, send: Send
) -> None:
    """Its process stands still: the call ends at its deadline, and the next has another."""
    async with notifier_of(own_database) as notifier:
        for way in (alone, many):  # by the same statements, each of which is prepared once
            await way(notifier, "warm")
        [pid] = await own_database.backends()
        battered_server.freeze_backend(pid)
        try:
            began = time.monotonic()
            with pytest.raises(ConnectionLostError, match="may or may not"):
                await send(notifier, "doubtful")
            # The first of several is alone, and the others follow
            assert time.monotonic() - began < TIMEOUT + SLACK
            await notifier.notify("orders", "next")
        finally:
            battered_server.thaw_backend(pid)


async def test_a_doubtful_one_may_arrive_after_what_was_sent_later(
    own_database: ProxiedDatabase, battered_server: PostgresServer
) -> None:
    """Its session had it, and was slow: the next call has another session, and does not wait."""
    async with (
        Listener(own_database.dsn) as listener,
        listener.stream("orders") as stream,
        notifier_of(own_database) as notifier,
    ):
        await notifier.notify("orders", "warm")
        [_, pid] = await own_database.backends()
        battered_server.freeze_backend(pid)
        try:
            with pytest.raises(ConnectionLostError, match="may or may not"):
                await notifier.notify("orders", "doubtful")
            await notifier.notify("orders", "next")
        finally:
            battered_server.thaw_backend(pid)
        async with asyncio.timeout(WAIT_LIMIT):
            found = [(await anext(stream)).payload for _ in range(3)]
    assert found == ["warm", "next", "doubtful"]


async def test_fatal_without_fin_concerns_one_call_at_most(
    database: ProxiedDatabase, heard: Heard
) -> None:
    """The server's last words come without an end: the connection is replaced."""
    async with notifier_of(database) as notifier:
        await notifier.notify("orders", "warm")
        database.proxy.hold_fin()
        [_, pid] = await database.backends()
        words = database.proxy.detect(b"57P01", "to_client")
        await database.fetchval("SELECT pg_catalog.pg_terminate_backend($1)", pid)
        await words.wait()
        results = [
            (await asyncio.gather(notifier.notify("orders", str(n)), return_exceptions=True))[0]
            for n in range(3)
        ]
        assert results[1:] == [None, None]
        assert results[0] is None or isinstance(results[0], ConnectionLostError)
        database.proxy.heal()
        await notifier.notify("orders", "end")
    assert (await payloads(heard, "end"))[-2:] == ["1", "2"]


async def test_a_connection_lost_between_calls_is_replaced(
    database: ProxiedDatabase, heard: Heard
) -> None:
    """Killed while nothing is in flight, any number of times: no caller gets an error."""
    async with notifier_of(database) as notifier:
        for n in range(5):
            await notifier.notify("orders", str(n))
            database.proxy.half_close()
            await database.proxy.wait_idle()  # the driver has noticed, and closed its end
        assert await notifier.notify_many([("orders", "end")]) == 1
    assert await payloads(heard, "end") == [str(n) for n in range(5)]


# -- a blocked loop -------------------------------------------------------------------------------


def block(_: object = None) -> None:
    """Block the loop for longer than a statement may take."""
    block_loop(2 * BLOCKED)


def block_soon(_: ProxiedConnection) -> None:
    """Block the loop once this turn is over."""
    asyncio.get_running_loop().call_soon(block)


def when_asked(proxy: FaultProxy, what: bytes) -> PatternDetector:
    """Block when the statement has been sent, and has not reached the server."""
    return proxy.cut_on(what, then=block)


def when_answered(proxy: FaultProxy, what: bytes) -> PatternDetector:
    """Block when the server has answered, and nothing has come back to us."""
    return proxy.cut_on(what, then=block, answer=ANSWER)


def before_reading(proxy: FaultProxy, what: bytes) -> PatternDetector:
    """Block when the answer waits in our socket, unread."""
    return proxy.cut_on(what, then=block_soon, answer=ANSWER)


@ways
async def test_r3_a_blocked_loop_is_no_dead_connection(
    database: ProxiedDatabase, send: Send
) -> None:
    """The loop stands still past the deadline, the server is healthy: no call fails."""
    async with notifier_of(database, operation_timeout=BLOCKED) as notifier:
        await notifier.notify("orders", "warm")
        await notifier.notify_many([("orders", "warm"), ("orders", "too")])
        for place in (when_asked, when_answered, before_reading) * 2:
            blocked = place(database.proxy, b"blocked")
            await send(notifier, "blocked")
            await blocked.wait()
        assert database.proxy.accepted == 1


async def test_r3_a_loop_blocked_before_a_slow_answer_is_no_dead_connection(
    database: ProxiedDatabase,
) -> None:
    """The loop stood still; the answer then takes a while, but less than it may."""
    async with notifier_of(database, operation_timeout=scaled(0.5)) as notifier:
        database.proxy.delay(to_client=scaled(0.1))
        call = asyncio.create_task(notifier.notify("orders", "first"))  # two round trips
        await database.proxy.wait_for_bytes(b"pg_notify")
        block_loop(scaled(0.7))
        await call
        assert database.proxy.accepted == 1


async def test_r4_a_slow_network_is_no_dead_connection(
    database: ProxiedDatabase, heard: Heard
) -> None:
    """Latency, and single bytes, cost time only."""
    async with notifier_of(database, operation_timeout=scaled(2.0)) as notifier:
        database.proxy.delay(to_server=0.05, to_client=0.05)
        await alone(notifier, "0")
        await together(notifier, "1")
        database.proxy.delay()
        database.proxy.trickle(1)
        await alone(notifier, "2")
        await notifier.notify("orders", "end")
        assert database.proxy.accepted == 1
    assert await payloads(heard, "end") == ["0", "first", "1", "another", "2"]


# -- trying again ---------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [ANSWER, None], ids=["sent", "not sent"])
async def test_a_retry_arrives_at_least_once(
    database: ProxiedDatabase, heard: Heard, answer: bytes | None
) -> None:
    """What is lost in flight is sent again: once if it had not been sent, twice if it had."""
    async with notifier_of(database) as notifier:
        await notifier.notify("orders", "warm")
        database.proxy.cut_on(b"again", then=ProxiedConnection.reset, answer=answer)
        await notifier.notify("orders", "again", retry=True)
        await notifier.notify("orders", "end")
    assert await payloads(heard, "end") == ["warm", *["again"] * (2 if answer else 1)]


async def test_retries_survive_restarts(
    own_database: ProxiedDatabase, battered_server: PostgresServer
) -> None:
    """Killed, restarted and gone for a while, the server gets them all in the end."""
    async with notifier_of(
        own_database, retry_timeout=scaled(20.0), connect_timeout=scaled(1.0)
    ) as notifier:
        for number, harm in enumerate((battered_server.kill, battered_server.stop)):
            await notifier.notify("orders", "warm", retry=True)
            await asyncio.to_thread(harm)
            calls = [
                asyncio.create_task(notifier.notify("orders", f"{number} {n}", retry=True))
                for n in range(20)
            ]
            await asyncio.wait(calls, timeout=0.05)
            assert not any(call.done() for call in calls)
            await asyncio.to_thread(battered_server.start)
            async with Listener(own_database.dsn) as listener, listener.stream("orders") as heard:
                await asyncio.gather(*calls)
                await notifier.notify("orders", "end", retry=True)
                found = await payloads(heard, "end")
            # Who listens only once the server is back may have missed the quickest of them
            assert set(found) <= {"warm", *(f"{number} {n}" for n in range(20))}


@pytest.mark.parametrize("fault", ["refuse", "drop_new", "silent"])
async def test_retries_end_with_the_last_error(database: ProxiedDatabase, fault: str) -> None:
    """After retry_timeout the caller learns that it was not sent; when all is well it works."""
    async with notifier_of(
        database, retry_timeout=scaled(0.5), connect_timeout=scaled(0.1)
    ) as notifier:
        getattr(database.proxy, fault)()
        database.proxy.reset()
        await database.proxy.wait_idle()
        with pytest.raises((ConnectError, ConnectionLostError)):
            await notifier.notify("orders", "0")  # from here on it knows that there is none
        before = database.proxy.accepted
        began = time.monotonic()
        with pytest.raises(ConnectError) as caught:
            await notifier.notify("orders", "1", retry=True)
        assert 0.25 < time.monotonic() - began < 0.5 + SLACK
        assert caught.value.__cause__ is not None
        if fault != "refuse":
            assert database.proxy.accepted - before >= 2
        database.proxy.accept()
        await notifier.notify("orders", "2", retry=True)


async def test_a_mistake_is_not_tried_again() -> None:
    """A connect= that says that it cannot work is asked once for each call."""
    asked = itertools.count()

    async def connect() -> asyncpg.Connection[Any]:
        next(asked)
        message = "no such secret"
        raise ConfigurationError(message)

    notifier = Notifier(connect=connect)
    for call in (notifier.notify("orders", "1", retry=True), notifier.start()):
        async with asyncio.timeout(WAIT_LIMIT):
            with pytest.raises(ConfigurationError):
                await call
    await notifier.aclose()
    assert next(asked) == 2


async def test_r12_start_tells_of_a_wrong_database_at_once(own_database: ProxiedDatabase) -> None:
    """Trying again would not make the database: start() does not wait for its timeout."""
    base, _, _ = own_database.proxied_dsn.rpartition("/")
    notifier = Notifier(f"{base}/nowhere", start_timeout=WAIT_LIMIT)
    async with asyncio.timeout(WAIT_LIMIT / 5):
        with pytest.raises(ConnectError) as caught:
            await notifier.start()
    assert isinstance(caught.value.__cause__, asyncpg.InvalidCatalogNameError)
    assert own_database.proxy.accepted == 1


async def test_a_backoff_of_ones_own_is_asked_for_each_series(database: ProxiedDatabase) -> None:
    """backoff= is called once for each call that has to be tried again."""
    series: list[list[float]] = []

    def backoff() -> Any:
        series.append([])
        for delay in ExponentialBackoff(initial=0.001, cap=0.001)():
            series[-1].append(delay)
            if len(series[-1]) > 3:
                database.proxy.accept()
            yield delay

    async with notifier_of(database, backoff=backoff, retry_timeout=WAIT_LIMIT) as notifier:
        for _ in range(2):
            database.proxy.refuse()
            database.proxy.reset()
            await database.proxy.wait_idle()
            with pytest.raises((ConnectError, ConnectionLostError)):
                await notifier.notify("orders", "0")  # from here on it knows that there is none
            series.clear()
            await notifier.notify("orders", "1", retry=True)
            assert [len(delays) for delays in series] == [4]
