"""What the server is may change while a session lives, and what the role's sessions are like."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest_asyncio

from asyncnotify import (
    BlockingListener,
    BlockingNotifier,
    ConnectionLost,
    ExponentialBackoff,
    Gap,
    GapReason,
    Listener,
    Notification,
    Reconnected,
    RetryScheduled,
)
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncnotify import EventStream
    from asyncnotify.testing.server import PostgresServer

WAIT_LIMIT = scaled(10.0)
BACKOFF = ExponentialBackoff(initial=0.01, cap=0.1)
HEARTBEAT: dict[str, Any] = {"heartbeat": 0.1, "heartbeat_timeout": scaled(2.0)}


async def until(events: EventStream, kind: type) -> Any:
    """Return the next event of this kind."""
    async with asyncio.timeout(WAIT_LIMIT):
        while not isinstance(event := await anext(events), kind):
            pass
    return event


async def run(server: PostgresServer, *statements: str) -> None:
    """Run statements as the superuser, each in a transaction of its own."""
    connection = await asyncpg.connect(server.dsn)
    for statement in statements:
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(statement)
    await connection.close()


async def make_read_only(server: PostgresServer, *, read_only: bool) -> None:
    """Fence a server as a planned switchover does, or let it take writes again."""
    value = "on" if read_only else "off"
    await run(
        server,
        f"ALTER SYSTEM SET default_transaction_read_only = {value}",
        "SELECT pg_reload_conf()",
    )


async def test_r13_a_server_that_becomes_read_only_is_left(own_server: PostgresServer) -> None:
    """With target_session_attrs=read-write the heartbeat notices: the event's cause says so."""
    dsn = f"{own_server.dsn}?target_session_attrs=read-write"
    listener = Listener(dsn, backoff=BACKOFF, **HEARTBEAT)
    events = listener.events()
    async with listener, listener.stream("orders", gaps=True) as stream:
        assert (await anext(stream)) == Gap("orders", GapReason.START)
        await make_read_only(own_server, read_only=True)
        lost = await until(events, ConnectionLost)
        assert "the server is read-only" in str(lost.cause)
        assert "target_session_attrs=read-write" in str(lost.cause)
        failed = await until(events, RetryScheduled)
        assert isinstance(failed.cause, asyncpg.TargetServerAttributeNotMatched)
        assert not failed.needs_repair
        await make_read_only(own_server, read_only=False)
        await until(events, Reconnected)
        async with asyncio.timeout(WAIT_LIMIT):
            gap = await anext(stream)
        assert isinstance(gap, Gap)
        assert gap.reason is GapReason.RECONNECT


async def test_r13_a_single_host_may_be_asked_to_be_writable(own_server: PostgresServer) -> None:
    """start() waits for it, as it waits for a server that is starting; so does a notifier."""
    await make_read_only(own_server, read_only=True)
    dsn = f"{own_server.dsn}?target_session_attrs=read-write"
    listener = Listener(dsn, backoff=BACKOFF)
    events = listener.events()
    starting = asyncio.create_task(listener.start())
    failed = await until(events, RetryScheduled)
    assert "read-only" in str(failed.cause)
    await make_read_only(own_server, read_only=False)
    async with asyncio.timeout(WAIT_LIMIT):
        await starting
    await listener.aclose()


async def test_r13_a_switchover_is_followed_while_the_old_primary_goes_on(
    own_server: PostgresServer,
) -> None:
    """The old one is read-only from then on: it is left for the new one, with a Gap."""
    standby = own_server.standby(settings={"wal_retrieve_retry_interval": "100ms"})
    try:
        hosts = ",".join(f"{one.host}:{one.port}" for one in (own_server, standby))
        dsn = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"
        listener = Listener(dsn, backoff=BACKOFF, **HEARTBEAT)
        events = listener.events()
        async with listener, listener.stream("orders", gaps=True) as stream:
            assert (await anext(stream)) == Gap("orders", GapReason.START)
            await make_read_only(own_server, read_only=True)
            await asyncio.to_thread(standby.promote)
            await run(standby, "ALTER SYSTEM RESET default_transaction_read_only")
            await run(standby, "SELECT pg_reload_conf()")
            await until(events, Reconnected)
            async with asyncio.timeout(WAIT_LIMIT):
                gap = await anext(stream)
                assert isinstance(gap, Gap)
                assert gap.reason is GapReason.RECONNECT
                await run(standby, "NOTIFY orders, 'from the new one'")
                item = await anext(stream)
            assert isinstance(item, Notification)
            assert item.payload == "from the new one"
    finally:
        standby.close()


# -- defaults of the role -------------------------------------------------------------------------


@pytest_asyncio.fixture
async def waiting_role(own_server: PostgresServer) -> AsyncIterator[str]:
    """A DSN for a role whose transactions wait for serializable ones; and one of those, open."""
    await run(
        own_server,
        "CREATE ROLE waiter LOGIN",
        "ALTER ROLE waiter SET default_transaction_isolation = 'serializable'",
        "ALTER ROLE waiter SET default_transaction_read_only = on",
        "ALTER ROLE waiter SET default_transaction_deferrable = on",
        "CREATE TABLE written (number int)",
    )
    writer = await asyncpg.connect(own_server.dsn)
    await writer.execute("BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO written VALUES (1)")
    yield own_server.dsn_for("postgres", user="waiter")
    await writer.close()


async def test_r54_a_role_whose_transactions_wait_listens_and_notifies(waiting_role: str) -> None:
    """Our sessions set what they need: start, delivery, heartbeats and notify() do not wait."""

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(
            waiting_role, server_settings={"application_name": "asyncnotify"}
        )

    ways: list[dict[str, Any]] = [{"dsn": waiting_role}, {"connect": connect}]
    for arguments in ways:
        async with (
            asyncio.timeout(WAIT_LIMIT),
            Listener(**arguments, **HEARTBEAT, start_timeout=scaled(5.0)) as listener,
            listener.stream("orders") as stream,
        ):
            await listener.notify("orders", "1")
            assert (await anext(stream)).payload == "1"
            while listener.stats().last_heartbeat is None:
                await listener.notify("orders", "2")
                await anext(stream)
            assert listener.stats().reconnects == 0


async def test_r54_the_blocking_face_does_not_wait_either(waiting_role: str) -> None:
    """The same sessions."""

    def use() -> str:
        with BlockingListener(waiting_role) as listener, listener.stream("orders") as stream:
            with BlockingNotifier(waiting_role) as notifier:
                notifier.notify("orders", "1")
            return next(stream).payload

    async with asyncio.timeout(WAIT_LIMIT):
        assert await asyncio.to_thread(use) == "1"
