"""Notifier(pool=…): borrows while there is something to send, and leaves the pool in order."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import (
    ClosedError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    Listener,
    Notification,
    Notifier,
)
from asyncnotify.testing.proxy import FaultProxy, ProxiedConnection
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from tests.contract.conftest import Database, Inbox

    Pool = asyncpg.Pool[asyncpg.Record]
    Text = Inbox[Notification[str]]

pytestmark = pytest.mark.needs_server("pool")

SOON = scaled(5.0)  # seconds for what takes milliseconds
NAME = "shop"
PIDS = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = $1
"""


@asynccontextmanager
async def pool_of(dsn: str, size: int = 1, **options: Any) -> AsyncGenerator[Pool]:
    """Have a pool, closed in the end, which waits for every connection to be given back."""
    settings = {"application_name": NAME}
    options = {"min_size": size, "max_size": size, "server_settings": settings, **options}
    pool = await asyncpg.create_pool(dsn, **options)
    try:
        yield pool
        async with asyncio.timeout(SOON):
            await pool.close()
    finally:
        pool.terminate()


@pytest_asyncio.fixture
async def pool(proxy: FaultProxy, dsn: str) -> AsyncIterator[Pool]:
    """A pool of a single connection, through the proxy."""
    async with pool_of(proxy.proxied_dsn(dsn)) as pool:
        yield pool


@pytest_asyncio.fixture
async def notifier(pool: Pool) -> AsyncIterator[Notifier]:
    """A notifier with short timeouts that borrows from that pool."""
    async with Notifier(
        pool=pool, connect_timeout=scaled(0.5), operation_timeout=scaled(0.5)
    ) as notifier:
        yield notifier


@pytest_asyncio.fixture
async def listener(dsn: str, inbox: Text) -> AsyncIterator[Listener]:
    """A listener on orders, past the proxy."""
    async with Listener(dsn) as listener:
        await listener.listen("orders", inbox)
        yield listener


async def check_free(pool: Pool) -> None:
    """Check that every connection of the pool can be had, and that none is lost to it."""
    size = pool.get_max_size()
    async with asyncio.timeout(SOON):
        held = [await pool.acquire() for _ in range(size)]
        for connection in held:
            assert await connection.fetchval("SELECT 1") == 1
            await pool.release(connection)
    assert pool.get_idle_size() == pool.get_size() <= size


async def test_nothing_is_held_between_calls(
    listener: Listener, notifier: Notifier, pool: Pool, database: Database, inbox: Text
) -> None:
    """The pool's only connection is free after each call, and the one that all use."""
    for n in range(5):
        await notifier.notify("orders", str(n))
        await check_free(pool)
    await asyncio.gather(*(notifier.notify("orders", str(n)) for n in range(5, 50)))
    assert await notifier.notify_many(("orders", str(n)) for n in range(50, 2_050)) == 2_000
    await check_free(pool)
    assert await inbox.payloads(2_050) == [str(n) for n in range(2_050)]
    assert len(await database.connection.fetch(PIDS, NAME)) == 1


async def test_calls_that_follow_at_once_need_no_other_to_wake_them(
    notifier: Notifier, pool: Pool
) -> None:
    """A call that comes while the connection is on its way back is served all the same."""
    for turns in range(40):
        await notifier.notify("orders", "first")
        for _ in range(turns % 20):
            await asyncio.sleep(0)
        async with asyncio.timeout(SOON):
            await notifier.notify("orders", "second")
    await check_free(pool)


async def test_others_get_their_turn(notifier: Notifier, pool: Pool) -> None:
    """Ten tasks that query and ten that notify share one connection, and all come to an end."""

    async def query() -> None:
        for _ in range(10):
            async with pool.acquire(timeout=SOON) as connection:
                await connection.fetchval("SELECT 1")

    async def notify(name: int) -> None:
        for n in range(10):
            await notifier.notify("orders", f"{name} {n}", retry=True)

    async with asyncio.timeout(3 * SOON):
        await asyncio.gather(*(query() for _ in range(10)), *(notify(n) for n in range(10)))
    await check_free(pool)


async def test_it_waits_for_a_pool_that_is_in_use(
    listener: Listener, pool: Pool, inbox: Text
) -> None:
    """A call is served when a connection comes free."""
    notifier = Notifier(pool=pool, connect_timeout=SOON)
    async with pool.acquire():
        call = asyncio.create_task(notifier.notify("orders", "1"))
        await asyncio.wait({call}, timeout=0.05)
        assert not call.done()
    await call
    assert await inbox.payloads(1) == ["1"]
    await notifier.aclose()


async def test_an_exhausted_pool_is_a_connection_that_cannot_be_had(
    notifier: Notifier, pool: Pool
) -> None:
    """After connect_timeout all that waits is told that it was not sent; then it works again."""
    async with pool.acquire():
        results = await asyncio.gather(
            *(notifier.notify("orders", str(n)) for n in range(3)), return_exceptions=True
        )
        assert {type(error) for error in results} == {ConnectError}
        assert all("the pool" in str(error) for error in results)
    await notifier.notify("orders", "1")
    await check_free(pool)


@pytest.mark.parametrize("how", ["caller", "aclose"])
async def test_who_gives_up_waiting_for_the_pool_holds_nothing(pool: Pool, how: str) -> None:
    """Cancelled or closed while the pool is in use, it takes no connection later."""
    notifier = Notifier(pool=pool, connect_timeout=SOON)
    async with pool.acquire():
        call = asyncio.create_task(notifier.notify("orders", "1"))
        await asyncio.wait({call}, timeout=0.02)
        if how == "caller":
            call.cancel()
        else:
            await notifier.aclose(0)
        async with asyncio.timeout(SOON):
            await asyncio.wait({call})
        expected = asyncio.CancelledError if how == "caller" else ClosedError
        with pytest.raises(expected):
            call.result()
    await check_free(pool)
    await notifier.aclose()
    await check_free(pool)


async def test_a_connection_killed_in_the_pool_is_replaced(
    notifier: Notifier, proxy: FaultProxy, pool: Pool, database: Database
) -> None:
    """Its backend ended while nobody used it: the next call does not notice."""
    for _ in range(3):
        await check_free(pool)
        [connection] = [connection for connection in proxy.connections if connection.client_open]
        pid = await database.connection.fetchval(PIDS, NAME)
        await database.connection.execute("SELECT pg_terminate_backend($1)", pid)
        async with asyncio.timeout(SOON):
            while connection.client_open:
                await database.connection.execute("SELECT pg_sleep(0.01)")
        await notifier.notify("orders", "1")


@pytest.mark.parametrize("fault", ["reset", "black_hole"])
async def test_a_connection_lost_in_flight_goes_back_to_the_pool(
    notifier: Notifier, proxy: FaultProxy, pool: Pool, fault: str
) -> None:
    """The caller learns of the doubt, the pool of a connection less; the next call works."""
    await notifier.notify("orders", "warm")
    for number in range(5 if fault == "reset" else 1):
        proxy.cut_on(
            b"doubtful",
            then=ProxiedConnection.reset if fault == "reset" else ProxiedConnection.pause,
        )
        with pytest.raises(ConnectionLostError, match="may or may not"):
            await notifier.notify("orders", f"doubtful {number}")
        await notifier.notify("orders", "next")
        await check_free(pool)


async def test_a_call_cancelled_in_flight_costs_one_connection_and_no_place(
    notifier: Notifier, proxy: FaultProxy, pool: Pool
) -> None:
    """The pool stays as large as it was."""
    await notifier.notify("orders", "warm")
    for number in range(3):
        held = proxy.cut_on(b"cancelled", then="black_hole")
        call = asyncio.create_task(notifier.notify("orders", f"cancelled {number}"))
        await held.wait()
        call.cancel()
        await asyncio.wait({call})
        proxy.heal()
        await notifier.notify("orders", "next")
        await check_free(pool)


async def test_a_closed_pool_is_refused_at_once(dsn: str) -> None:
    """Nothing of it is held, so it closes at once; no attempt will ever find it open again."""
    async with pool_of(dsn) as pool:
        notifier = Notifier(pool=pool)
        await notifier.notify("orders", "1")
        async with asyncio.timeout(SOON):
            await pool.close()
            await refused(notifier, "the pool is closed")
            await refused(Notifier(pool=pool), "the pool is closed")


async def test_a_pool_that_closes_is_refused_at_once(dsn: str) -> None:
    """It waits for what is borrowed, and lends no more."""
    async with pool_of(dsn, 2) as pool, pool.acquire():
        closing = asyncio.create_task(pool.close())
        await asyncio.sleep(0)
        async with asyncio.timeout(SOON):
            await refused(Notifier(pool=pool), "the pool is closed")
    await closing


async def test_a_pool_that_was_never_opened_is_refused_at_once(dsn: str) -> None:
    """Nobody has awaited what create_pool() returned; once somebody does, all is well."""
    pool = asyncpg.create_pool(dsn, min_size=1, max_size=1)
    notifier = Notifier(pool=pool)
    async with asyncio.timeout(SOON):
        await refused(notifier, "has not been opened")
        async with pool, notifier:
            await notifier.notify("orders", "1")


async def refused(notifier: Notifier, message: str) -> None:
    """Check that every way of sending is refused, in no time, by an error for good."""
    for call in (
        notifier.start,
        lambda: notifier.notify("orders", "2"),
        lambda: notifier.notify("orders", "2", retry=True),
        lambda: notifier.notify_many([("orders", "2")]),
    ):
        with pytest.raises(ConfigurationError, match=message):
            await call()
    await notifier.aclose()


async def test_a_pool_that_closes_waits_for_the_call_in_flight(
    listener: Listener, notifier: Notifier, proxy: FaultProxy, pool: Pool, inbox: Text
) -> None:
    """pool.close() lets what has begun end, and it arrives."""
    await notifier.notify("orders", "warm")
    held = proxy.cut_on(b"in flight", then="black_hole")
    call = asyncio.create_task(notifier.notify("orders", "in flight"))
    await held.wait()
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    proxy.heal()
    await call
    await closing
    assert await inbox.payloads(2) == ["warm", "in flight"]


async def test_a_pool_that_is_terminated_takes_the_call_in_flight_with_it(
    notifier: Notifier, proxy: FaultProxy, pool: Pool
) -> None:
    """The call in flight is in doubt, those that wait were not sent."""
    await notifier.notify("orders", "warm")
    held = proxy.cut_on(b"in flight", then="black_hole")
    call = asyncio.create_task(notifier.notify("orders", "in flight"))
    await held.wait()
    late = asyncio.create_task(notifier.notify("orders", "late"))
    await asyncio.sleep(0)
    pool.terminate()
    results = await asyncio.gather(call, late, return_exceptions=True)
    assert [type(error) for error in results] == [ConnectionLostError, ConfigurationError]


@pytest.mark.parametrize("what", ["expired", "used up"])
async def test_connections_that_the_pool_renews_are_renewed(dsn: str, what: str) -> None:
    """A pool may close a connection instead of taking it back."""
    async with pool_of(dsn, max_queries=1 if what == "used up" else 50_000) as pool:
        notifier = Notifier(pool=pool)
        for n in range(5):
            await notifier.notify("orders", str(n))
            if what == "expired":
                await pool.expire_connections()
        await notifier.aclose()
        await check_free(pool)


@pytest.mark.skipif(
    "reset" not in inspect.signature(asyncpg.create_pool).parameters,
    reason="this asyncpg's pools take no reset=",
)
async def test_what_a_callback_of_the_pool_raises_ends_nothing(dsn: str) -> None:
    """A pool whose reset= fails has one connection less each time, and the calls are sent."""

    async def reset(connection: object) -> None:
        raise LookupError

    async with pool_of(dsn, min_size=0, reset=reset) as pool:
        notifier = Notifier(pool=pool)
        for n in range(3):
            await notifier.notify("orders", str(n))
            async with asyncio.timeout(SOON):
                while pool.get_size():  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0)
        await notifier.aclose()


async def test_aclose_leaves_the_pool_open(pool: Pool) -> None:
    """Closed in the middle of calls, it gives back what it had, and does no more."""
    for _ in range(3):
        async with Notifier(pool=pool) as notifier:
            calls = [asyncio.create_task(notifier.notify("orders", str(n))) for n in range(50)]
            await asyncio.sleep(0)
        assert await asyncio.gather(*calls) == [None] * 50
        await check_free(pool)


async def test_nothing_else_may_say_how_to_connect(pool: Pool, dsn: str) -> None:
    """A pool and a DSN, or a pool and a password, are one too many."""
    wrong: list[dict[str, Any]] = [{"dsn": dsn}, {"password": "p"}, {"connect": asyncpg.connect}]
    for options in wrong:
        with pytest.raises(TypeError, match="pool"):
            Notifier(pool=pool, **options)


async def test_a_pool_that_is_given_as_something_else_is_refused(pool: Pool) -> None:
    """The error says how a notifier is given a pool."""
    untyped: Any = pool
    for options in ({"dsn": untyped}, {"connect": untyped}):
        with pytest.raises(TypeError, match="pool="):
            Notifier(**options)


@pytest.mark.parametrize("wrong", ["postgresql://host/db", object(), asyncpg.Connection])
def test_what_is_no_pool_is_refused(wrong: Any) -> None:
    """At once, and not after start_timeout."""
    with pytest.raises(TypeError, match="pool"):
        Notifier(pool=wrong)
