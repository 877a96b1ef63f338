"""Connections that cannot be made: what is tried again, until when, and what it looks like."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import asyncpg
import pytest

from asyncnotify import (
    ClosedError,
    ConnectionLost,
    ConnectTimeoutError,
    Listener,
    Reconnected,
    RetryScheduled,
    State,
)
from asyncnotify.testing.faults import dns_fails, dns_hangs
from asyncnotify.testing.proxy import FaultProxy
from tests.support.machine import scaled
from tests.support.stream_server import StreamServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify.testing.server import PostgresServer
    from tests.faults.conftest import ProxiedDatabase, Subject

    Fault = Callable[[FaultProxy], None]

LIMITS = {"connect_timeout": scaled(0.1)}
WAIT_LIMIT = scaled(10.0)

by_dsn_and_by_connect = pytest.mark.parametrize("connects_by", ["dsn", "connect"])
on_the_way = pytest.mark.parametrize(
    "fault",
    [
        pytest.param(FaultProxy.refuse, id="refused"),
        pytest.param(FaultProxy.drop_new, id="reset"),
        pytest.param(partial(FaultProxy.drop_new, how="fin"), id="closed"),
        pytest.param(FaultProxy.silent, id="silent"),
        pytest.param(FaultProxy.black_hole, id="black hole"),
        pytest.param(FaultProxy.garbage, id="garbage"),
        pytest.param(partial(FaultProxy.garbage, data=b"N" + b"\xff" * 64), id="noise"),
    ],
)


async def fails_to_connect(subject: Subject) -> None:
    """Wait until two attempts have failed."""
    while (await subject.until(RetryScheduled)).attempt < 2:
        pass


@by_dsn_and_by_connect
@on_the_way
async def test_r8_what_is_in_the_way_is_outlasted(database: ProxiedDatabase, fault: Fault) -> None:
    """Whatever becomes of new connections is tried again, at start and later, until it is over."""
    fault(database.proxy)
    subject = database.subject(**LIMITS)
    starting = asyncio.create_task(subject.listener.start())
    await fails_to_connect(subject)
    subject.check_state(State.CONNECTING)
    database.proxy.heal()
    async with asyncio.timeout(WAIT_LIMIT):
        await starting
    await subject.set_up_fence()

    fault(database.proxy)
    database.proxy.reset()
    await subject.until(ConnectionLost)
    await fails_to_connect(subject)
    subject.check_state(State.RECONNECTING)
    database.proxy.heal()
    await subject.comes_back()
    subject.check_state(State.CONNECTED)
    await subject.listener.aclose()


@pytest.mark.parametrize("sslmode", ["disable", "prefer"])
async def test_r54_zeros_do_not_hang_the_event_loop(
    database: ProxiedDatabase, sslmode: str
) -> None:
    """The driver's reader never ends on a message of type zero: such a peer is refused before."""
    greeting = b"N" if sslmode == "prefer" else b""
    zeros = b"\0" * 5
    asked = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if greeting:
            writer.write(greeting)
            await reader.read(8)
            await reader.read(1)
        writer.write(zeros)
        asked.set()
        await reader.read()

    async with StreamServer(answer) as server:
        listener = Listener(f"postgresql://postgres@127.0.0.1:{server.port}/x?sslmode={sslmode}")
        events = listener.events()
        starting = asyncio.create_task(listener.start())
        await asked.wait()
        async with asyncio.timeout(WAIT_LIMIT):
            failed = await anext(events)
        assert isinstance(failed, RetryScheduled)
        assert "does not speak the protocol of PostgreSQL" in str(failed.cause)
        starting.cancel()
        await asyncio.wait({starting})


@by_dsn_and_by_connect
@pytest.mark.parametrize("fault", [FaultProxy.refuse, FaultProxy.silent])
async def test_p8_start_gives_up_in_time_and_leaves_nothing(
    database: ProxiedDatabase, fault: Fault
) -> None:
    """After start_timeout start() says what failed last; no task and no connection stays."""
    fault(database.proxy)
    subject = database.subject(**LIMITS, start_timeout=scaled(0.5))
    with pytest.raises(ConnectTimeoutError) as refused:
        await subject.listener.start()
    assert isinstance(refused.value.__cause__, OSError)
    subject.check_state(State.CLOSED)
    await database.proxy.wait_idle()


def by_name(database: ProxiedDatabase) -> str:
    """Return the DSN that leads through the proxy by a host name."""
    return database.proxied_dsn.replace("127.0.0.1", "localhost")


async def test_r8_a_name_service_that_fails_is_asked_again(database: ProxiedDatabase) -> None:
    """A host name that cannot be resolved is tried again; later its last addresses serve."""
    events: asyncio.Queue[object] = asyncio.Queue()
    listener = Listener(by_name(database), on_event=events.put_nowait)

    async def fails() -> None:
        while not isinstance(event := await events.get(), RetryScheduled):
            pass
        assert isinstance(event.cause, socket.gaierror)

    async with asyncio.timeout(WAIT_LIMIT):
        with dns_fails("localhost"):
            starting = asyncio.create_task(listener.start())
            await fails()
        await starting
        with dns_fails("localhost"):
            database.proxy.reset()
            while not isinstance(await events.get(), Reconnected):
                pass
        await listener.aclose()


async def test_r10_a_lookup_that_hangs_is_not_joined_by_another(database: ProxiedDatabase) -> None:
    """While a lookup hangs in its thread no further one is begun: threads must not pile up."""
    listener = Listener(by_name(database), connect_timeout=scaled(0.05), start_timeout=scaled(0.8))
    with dns_hangs(30, "localhost") as lookups:
        with pytest.raises(ConnectTimeoutError):
            await listener.start()
        assert lookups.peak == 1


async def test_r14_a_connection_that_comes_too_late_is_thrown_away(
    database: ProxiedDatabase,
) -> None:
    """What connect= returns after it was given up, or after the end, does not stay open."""
    too_late = asyncio.Event()
    tries = asyncio.Semaphore(0)

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        tries.release()
        while not too_late.is_set():
            with suppress(asyncio.CancelledError):
                await too_late.wait()
        return await database.connect()

    listener = Listener(connect=connect, connect_timeout=scaled(0.05))
    starting = asyncio.create_task(listener.start())
    await tries.acquire()
    await tries.acquire()
    await listener.aclose(timeout=0.1)
    with pytest.raises(ClosedError):
        await starting
    opened = database.proxy.detect(b"Z\0\0\0\5", "to_client")
    too_late.set()
    await opened.wait()
    await database.proxy.wait_idle()


async def test_r8_a_missing_socket_is_tried_again() -> None:
    """A server whose Unix socket is not there yet may still come."""
    listener = Listener("postgresql://postgres@/postgres?host=/nowhere", start_timeout=scaled(0.5))
    with pytest.raises(ConnectTimeoutError) as refused:
        await listener.start()
    assert isinstance(refused.value.__cause__, OSError)


async def test_r8_a_full_server_is_tried_again(own_database: ProxiedDatabase) -> None:
    """53300, too many connections: the listener waits for its turn, at start and later."""
    await own_database.fetchval("CREATE ROLE crowded LOGIN CONNECTION LIMIT 0")
    subject = own_database.subject(user="crowded")
    starting = asyncio.create_task(subject.listener.start())
    assert isinstance((await subject.until(RetryScheduled)).cause, asyncpg.TooManyConnectionsError)
    await own_database.fetchval("ALTER ROLE crowded CONNECTION LIMIT 1")
    await starting
    await own_database.fetchval("ALTER ROLE crowded CONNECTION LIMIT 0")
    await subject.terminate_backend()
    await subject.until(ConnectionLost)
    assert isinstance((await subject.until(RetryScheduled)).cause, asyncpg.TooManyConnectionsError)
    subject.check_state(State.RECONNECTING)
    await own_database.fetchval("ALTER ROLE crowded CONNECTION LIMIT 1")
    await subject.until(Reconnected)
    await subject.listener.aclose()
    await own_database.fetchval("DROP ROLE crowded")


async def test_r8_a_server_that_shuts_down_is_tried_again(
    own_database: ProxiedDatabase, battered_server: PostgresServer
) -> None:
    """57P03, not accepting now: start() waits for the server to come back."""
    other = await asyncpg.connect(own_database.dsn)  # a smart shutdown waits for it
    stopping = asyncio.create_task(asyncio.to_thread(battered_server.stop, "smart"))
    await until_refused(own_database.dsn)
    subject = own_database.subject()
    starting = asyncio.create_task(subject.listener.start())
    cause = (await subject.until(RetryScheduled)).cause
    assert isinstance(cause, asyncpg.CannotConnectNowError)
    await other.close()
    await stopping
    await asyncio.to_thread(battered_server.start)
    await starting
    await subject.listener.aclose()


async def until_refused(dsn: str) -> None:
    """Wait until the server takes no more connections."""
    while True:
        try:
            connection = await asyncpg.connect(dsn)
        except asyncpg.CannotConnectNowError:
            return
        await connection.close()


async def test_a_smart_shutdown_waits_for_the_listener(
    own_database: ProxiedDatabase, battered_server: PostgresServer
) -> None:
    """A smart shutdown looks like nothing at all from here; it ends when the listener closes."""
    other = await asyncpg.connect(own_database.dsn)
    async with own_database.running(heartbeat=0.02, heartbeat_timeout=scaled(2.0)) as subject:
        stopping = asyncio.create_task(asyncio.to_thread(battered_server.stop, "smart"))
        await until_refused(own_database.dsn)
        with own_database.wire() as wire:
            await wire.until(3, b"SELECT 1\0", "to_client")
        await other.close()
        assert subject.listener.is_connected
        assert subject.count(ConnectionLost) == 0
        assert not stopping.done()
    await stopping
    battered_server.start()
