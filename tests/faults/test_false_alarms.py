"""What looks like a fault and is none: the listener must not give up a good connection."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify import ConnectionLost, Reconnected
from asyncnotify.testing.faults import block_loop
from tests.support.machine import scaled
from tests.support.server_features import needs_version

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from asyncnotify.testing.proxy import FaultProxy, PatternDetector, ProxiedConnection
    from tests.faults.conftest import ProxiedDatabase

    Block = Callable[[FaultProxy], PatternDetector]

HEARTBEAT, TIMEOUT = 0.02, scaled(0.1)
BEAT = b"pg_listening_channels"
ANSWER = b"SELECT 1\0"
CANCELLED = b"C57014\0"
MANY = tuple(f"many {number}" for number in range(5_000))
NEXT_XID = "SELECT pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())"

by_dsn_and_by_connect = pytest.mark.parametrize("connects_by", ["dsn", "connect"])


def block(_: object = None) -> None:
    """Block the loop for three times the timeout of the heartbeat."""
    block_loop(3 * TIMEOUT)


def block_soon(_: ProxiedConnection) -> None:
    """Block the loop once this turn is over."""
    asyncio.get_running_loop().call_soon(block)


def when_asked(proxy: FaultProxy) -> PatternDetector:
    """Block the loop when a heartbeat has been sent, and has not reached the server."""
    return proxy.cut_on(BEAT, then=block)


def when_answered(proxy: FaultProxy) -> PatternDetector:
    """Block the loop when the server has answered, and nothing has come back to us."""
    return proxy.cut_on(BEAT, then=block, answer=ANSWER)


def before_reading(proxy: FaultProxy) -> PatternDetector:
    """Block the loop when the answer waits in our socket, unread."""
    return proxy.cut_on(BEAT, then=block_soon, answer=ANSWER)


async def test_r3_a_blocked_loop_is_no_dead_connection(database: ProxiedDatabase) -> None:
    """A handler that blocks the loop for longer than the heartbeat's timeout costs nothing."""
    async with database.running(heartbeat=HEARTBEAT, heartbeat_timeout=TIMEOUT) as subject:
        for trial in range(21):
            place: Block = (when_asked, when_answered, before_reading)[trial % 3]
            await place(database.proxy).wait()
        await subject.fence()
        assert subject.count(ConnectionLost) == 0


async def test_r4_a_slow_network_is_no_dead_connection(database: ProxiedDatabase) -> None:
    """Latency, and single bytes, do not look like death to a heartbeat that waits for them."""
    database.proxy.delay(to_server=0.05, to_client=0.05)
    async with database.running(heartbeat=0.1, heartbeat_timeout=scaled(2.0)) as subject:
        with database.wire() as wire:
            await wire.until(3, ANSWER, "to_client")
            database.proxy.delay()
            database.proxy.trickle(1)
            await wire.until(6, ANSWER, "to_client")
        await subject.fence()
        assert subject.count(ConnectionLost) == 0


@by_dsn_and_by_connect
async def test_r5_a_heartbeat_is_one_round_trip_and_takes_no_transaction_id(
    own_database: ProxiedDatabase,
) -> None:
    """A hundred heartbeats are a hundred round trips, and leave the server's counter alone."""
    interval = 0.01
    async with own_database.running(heartbeat=interval, heartbeat_timeout=scaled(2.0)):
        for _ in range(5):
            before = await own_database.fetchval(NEXT_XID)
            began = time.monotonic()
            with own_database.wire() as wire:
                await wire.until(100, ANSWER, "to_client")
                beats, round_trips = wire.count(BEAT), wire.round_trips
            assert abs(beats - round_trips) <= 1  # one may have begun before, one not be answered
            assert round_trips <= (time.monotonic() - began) / interval + 2
            if await own_database.fetchval(NEXT_XID) == before:
                return  # each time it is not: autovacuum takes some as well
    pytest.fail("heartbeats take transaction ids")


@by_dsn_and_by_connect
async def test_a_cancelled_query_is_no_dead_connection(database: ProxiedDatabase) -> None:
    """pg_cancel_backend() on an idle listener does nothing."""
    async with database.running() as subject:
        assert await database.fetchval("SELECT pg_catalog.pg_cancel_backend($1)", subject.pid)
        await subject.fence()
        assert subject.count(ConnectionLost) == 0


async def test_a_cancelled_heartbeat_is_no_dead_connection(own_database: ProxiedDatabase) -> None:
    """pg_cancel_backend() in the middle of a heartbeat: the server is asked again."""
    admin = await asyncpg.connect(own_database.dsn)
    async with own_database.running(heartbeat=0.5, heartbeat_timeout=scaled(5.0)) as subject:
        cancelled = own_database.proxy.detect(CANCELLED, "to_client")
        sent = own_database.proxy.detect(BEAT)
        async with admin.transaction():
            await admin.execute("LOCK pg_catalog.pg_proc")  # the first heartbeat looks things up
            await sent.wait()
            while not cancelled.detected:
                await admin.execute(f"SELECT pg_catalog.pg_cancel_backend({subject.pid})")
        await own_database.proxy.wait_for_bytes(ANSWER, direction="to_client")
        await subject.fence()
        assert subject.count(ConnectionLost) == 0
    await admin.close()


async def test_a_cancelled_listen_is_given_again(database: ProxiedDatabase) -> None:
    """pg_cancel_backend() in the middle of LISTEN costs neither the connection nor the LISTEN."""
    async with database.running() as subject, subject.listener.stream("orders"):
        cancelled = database.proxy.detect(CANCELLED, "to_client")
        while not cancelled.detected:  # it may have come before LISTEN began, or after its end
            stream = subject.listener.stream(*MANY)
            await cancel_at(database, subject.pid, stream.__aenter__(), cancelled)
            assert await database.heard(subject, MANY) == frozenset(MANY)
            await stream.aclose()
        assert subject.count(ConnectionLost) == 0


async def cancel_at(
    database: ProxiedDatabase,
    pid: int,
    call: Coroutine[Any, Any, object],
    cancelled: PatternDetector,
) -> None:
    """Make a call, and cancel the LISTEN that it sends, until that is cancelled or over."""
    admin = await asyncpg.connect(database.dsn)
    sent = database.proxy.detect(b"LISTEN")
    calling = asyncio.create_task(call)
    await sent.wait()
    while not (cancelled.detected or calling.done()):
        await admin.execute(f"SELECT pg_catalog.pg_cancel_backend({pid})")
    await admin.close()
    await calling


async def test_a_heartbeat_keeps_the_server_from_ending_an_idle_session(
    database: ProxiedDatabase,
) -> None:
    """With idle_session_timeout above the heartbeat, the session lives for ever."""
    needs_version(await database.fetchval("SHOW server_version"), 14, "idle_session_timeout")
    async with (
        setting(database, "idle_session_timeout", f"{scaled(400):.0f}ms"),
        database.running(heartbeat=scaled(0.05), heartbeat_timeout=scaled(5.0)) as subject,
    ):
        with database.wire() as wire:
            await wire.until(10, ANSWER, "to_client")
        await subject.fence()
        assert subject.count(ConnectionLost) == 0


async def test_an_idle_session_that_the_server_ends_is_replaced(database: ProxiedDatabase) -> None:
    """With idle_session_timeout below the heartbeat, each end is noticed and repaired."""
    needs_version(await database.fetchval("SHOW server_version"), 14, "idle_session_timeout")
    limit = setting(database, "idle_session_timeout", "100ms")
    async with limit, database.running(heartbeat=None) as subject:
        for _ in range(2):
            await subject.until(ConnectionLost)
            await subject.until(Reconnected)


@by_dsn_and_by_connect
async def test_a_statement_timeout_does_not_end_a_session(database: ProxiedDatabase) -> None:
    """LISTEN and heartbeats need less time than any statement_timeout that makes sense."""
    limits = {"heartbeat": 0.02, "heartbeat_timeout": scaled(2.0)}
    async with (
        setting(database, "statement_timeout", "250ms"),
        database.running(**limits) as subject,
    ):
        with database.wire() as wire:
            await wire.until(15, ANSWER, "to_client")
        await subject.listener.listen("orders", print)
        await subject.fence()
        assert subject.count(ConnectionLost) == 0


@asynccontextmanager
async def setting(database: ProxiedDatabase, name: str, value: str) -> AsyncGenerator[None]:
    """Give a setting this value for the sessions that begin in the test's database."""
    name_of_it = await database.fetchval("SELECT pg_catalog.current_database()")
    await database.fetchval(f"ALTER DATABASE {name_of_it} SET {name} = '{value}'")
    try:
        yield
    finally:
        await database.fetchval(f"ALTER DATABASE {name_of_it} RESET {name}")
