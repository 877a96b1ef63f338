"""A primary and its standby: the listener belongs on the primary, wherever that is."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify import (
    Connected,
    ConnectionEvent,
    ConnectionLost,
    ExponentialBackoff,
    Listener,
    Notifier,
    Reconnected,
    RetryScheduled,
)
from asyncnotify.lock import Lock, LockTimeoutError
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncnotify.testing.server import PostgresServer

    ConnectsBy = str
    Events = asyncio.Queue[ConnectionEvent]

CAP = 0.2
BACKOFF = ExponentialBackoff(initial=0.01, cap=CAP)
WAIT_LIMIT = scaled(10.0)

by_dsn_and_by_connect = pytest.mark.parametrize("connects_by", ["dsn", "connect"])


@pytest.fixture
def standby(own_server: PostgresServer) -> Iterator[PostgresServer]:
    """A standby of the test's own server."""
    settings = {"wal_retrieve_retry_interval": "100ms"}  # it waits so long before it is promoted
    standby = own_server.standby(settings=settings)
    yield standby
    standby.close()


async def test_on_a_standby_the_remedy_is_told(standby: PostgresServer) -> None:
    """By a notifier, within a transaction, and by a lock that nobody else holds."""
    async with Notifier(standby.dsn) as notifier:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError) as refused:
            await notifier.notify("orders")
        connection = await asyncpg.connect(standby.dsn)
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError) as within:
            await notifier.notify("orders", connection=connection)
        await connection.close()
    [note], [of_transaction] = refused.value.__notes__, within.value.__notes__
    assert "not sent: the server is a standby" in note
    assert "target_session_attrs=primary" in note
    assert "nothing was sent: the server is a standby" in of_transaction
    with pytest.raises(LockTimeoutError) as late:
        async with Lock(standby.dsn, "report", timeout=1):
            pass
    assert "there was no session: ConnectError: the server is a standby" in late.value.__notes__[0]


def listener_on(
    connects_by: ConnectsBy, *servers: PostgresServer, events: Events, **limits: float
) -> Listener:
    """Make a listener that knows these servers, in this order."""
    hosts = ",".join(f"{server.host}:{server.port}" for server in servers)
    dsn = f"postgresql://postgres@{hosts}/postgres"

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        settings = {"application_name": "asyncnotify"}
        return await asyncpg.connect(dsn, server_settings=settings)

    options: dict[str, Any] = {"backoff": BACKOFF, "on_event": events.put_nowait, **limits}
    return (
        Listener(dsn, **options) if connects_by == "dsn" else Listener(connect=connect, **options)
    )


async def delivers_from(listener: Listener, server: PostgresServer) -> bool:
    """Check that what is sent on this server arrives."""
    connection = await asyncpg.connect(server.dsn)
    async with asyncio.timeout(WAIT_LIMIT), listener.stream("fence") as stream:
        await connection.execute("NOTIFY fence, 'passed'")
        notification = await anext(stream)
    await connection.close()
    return notification.payload == "passed"


async def until(events: Events, kind: type[ConnectionEvent]) -> ConnectionEvent:
    """Wait for the next event of this kind."""
    async with asyncio.timeout(WAIT_LIMIT):
        while not isinstance(event := await events.get(), kind):
            pass
    return event


async def sessions(server: PostgresServer) -> int:
    """Return how many sessions of ours a server has, with those that are ending."""
    connection = await asyncpg.connect(server.dsn)
    count: int = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'asyncnotify'"
    )
    await connection.close()
    return count


async def has_sessions(server: PostgresServer, *counts: int) -> bool:
    """Return that a server has so many sessions of ours, once those that we have left ended."""
    async with asyncio.timeout(WAIT_LIMIT):
        while await sessions(server) not in counts:
            pass
    return True


async def test_r13_a_failover_is_followed(
    own_server: PostgresServer, standby: PostgresServer
) -> None:
    """With both hosts in the DSN it listens on whichever is primary, and stays there."""
    events: Events = asyncio.Queue()
    async with listener_on("dsn", standby, own_server, events=events) as listener:
        await until(events, Connected)
        assert await has_sessions(standby, 0)  # it is named first, and passed over
        assert await delivers_from(listener, own_server)

        await asyncio.to_thread(own_server.stop, "immediate")
        await until(events, ConnectionLost)
        await until(events, RetryScheduled)  # the standby is there, and will not do
        assert not listener.is_connected
        await asyncio.to_thread(standby.promote)
        promoted = time.monotonic()
        await until(events, Reconnected)
        assert time.monotonic() - promoted < CAP + scaled(1.0)
        assert await delivers_from(listener, standby)

        await asyncio.to_thread(own_server.start)  # the old primary, which knows of nothing
        assert await delivers_from(listener, standby)
        assert await has_sessions(own_server, 0)


async def test_r13_a_silent_primary_does_not_hold_up_the_failover(
    own_server: PostgresServer, standby: PostgresServer
) -> None:
    """A primary that hangs is left for the one that took its place."""
    events: Events = asyncio.Queue()
    limits = {"heartbeat": 0.2, "heartbeat_timeout": scaled(0.2), "connect_timeout": scaled(0.2)}
    async with listener_on("dsn", own_server, standby, events=events, **limits) as listener:
        connected = await until(events, Connected)
        assert isinstance(connected, Connected)
        assert await has_sessions(standby, 0)
        own_server.freeze()
        own_server.freeze_backend(connected.backend_pid)
        await until(events, ConnectionLost)
        await until(events, RetryScheduled)
        await asyncio.to_thread(standby.promote)
        await until(events, Reconnected)
        assert await delivers_from(listener, standby)


@by_dsn_and_by_connect
async def test_r13_a_lone_standby_is_waited_for(
    own_server: PostgresServer, standby: PostgresServer, connects_by: ConnectsBy
) -> None:
    """LISTEN is refused on a standby (25006): start() waits until that is promoted."""
    events: Events = asyncio.Queue()
    listener = listener_on(connects_by, standby, events=events)
    listener.on("orders")(print)
    starting = asyncio.create_task(listener.start())
    failed = await until(events, RetryScheduled)
    assert isinstance(failed, RetryScheduled)
    assert isinstance(failed.cause, asyncpg.ReadOnlySQLTransactionError)
    for _ in range(5):
        await until(events, RetryScheduled)
    assert await has_sessions(standby, 0, 1)  # the attempt that is being made
    await asyncio.to_thread(own_server.stop, "immediate")
    await asyncio.to_thread(standby.promote)
    await starting
    assert await delivers_from(listener, standby)
    assert await has_sessions(standby, 1)
    await listener.aclose()
