from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest

from asyncnotify.testing.server import PostgresServer
from tests.support.server_faults import ServerFaults
from tests.support.server_features import needs_small_queue, small_queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

NAME = {"application_name": "victim"}


@pytest.fixture(scope="module")
def small_server(template: PostgresServer) -> Iterator[PostgresServer]:
    """A server with few connections and a small queue, where passwords count."""
    settings = {"max_connections": "10", **small_queue(template)}
    hba = ["host all guarded 127.0.0.1/32 scram-sha-256"]
    with PostgresServer(template=template, settings=settings, hba=hba) as server:
        yield server


@pytest.fixture
async def faults(small_server: PostgresServer) -> AsyncIterator[ServerFaults]:
    """Faults of that server."""
    async with ServerFaults(small_server.dsn) as faults:
        yield faults


async def connected(dsn: str) -> asyncpg.Connection[asyncpg.Record]:
    """Return a session that goes by the victim's name."""
    return await asyncpg.connect(dsn, server_settings=NAME)


async def test_terminate_ends_the_sessions_of_a_name(
    small_server: PostgresServer, faults: ServerFaults
) -> None:
    """Those and no others, and they are gone when until_gone() returns."""
    victim, other = await connected(small_server.dsn), await asyncpg.connect(small_server.dsn)
    pid = victim.get_server_pid()
    assert await faults.terminate(application_name="victim") == [pid]
    await faults.until_gone(pid)
    assert await faults.sessions("victim") == []
    assert await other.fetchval("SELECT 1") == 1
    await other.close()
    victim.terminate()


async def test_cancel_ends_a_query_and_not_the_session(
    small_server: PostgresServer, faults: ServerFaults
) -> None:
    """The query raises 57014; the next one works."""
    victim = await connected(small_server.dsn)
    async with ServerFaults(small_server.dsn) as others:
        holder = await asyncpg.connect(small_server.dsn)
        await holder.execute("SELECT pg_advisory_lock(1)")
        task = asyncio.create_task(victim.execute("SELECT pg_advisory_lock(1)"))
        while not task.done():
            await others.cancel(application_name="victim")
            await asyncio.wait({task}, timeout=0.05)
        assert isinstance(task.exception(), asyncpg.QueryCanceledError)
    assert await victim.fetchval("SELECT 1") == 1
    await victim.close()
    await holder.close()


async def test_exhausted_connections_are_given_back(
    small_server: PostgresServer, faults: ServerFaults
) -> None:
    """Within, connecting is refused by 53300; afterwards it works."""
    async with faults.connections_exhausted():
        with pytest.raises(asyncpg.TooManyConnectionsError):
            await asyncpg.connect(small_server.dsn)
    while True:
        try:
            connection = await asyncpg.connect(small_server.dsn)
        except asyncpg.TooManyConnectionsError:
            continue  # the server has not yet noticed that they have left
        break
    await connection.close()


async def test_a_database_refuses_and_is_dropped(
    small_server: PostgresServer, faults: ServerFaults
) -> None:
    """Refused it answers 55000 and lets sessions go on; dropped, 3D000, and they end."""
    admin = await asyncpg.connect(small_server.dsn)
    await admin.execute('CREATE DATABASE "we""ird"')
    await admin.close()
    dsn = small_server.dsn_for('we"ird')
    session = await connected(dsn)
    async with faults.database_refused('we"ird'):
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
            await asyncpg.connect(dsn)
        assert await session.fetchval("SELECT 1") == 1
    await faults.drop_database('we"ird')
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(dsn)
    session.terminate()


async def test_a_password_is_rotated(small_server: PostgresServer, faults: ServerFaults) -> None:
    """Only the new one opens a connection, whatever characters it has."""
    admin = await asyncpg.connect(small_server.dsn)
    await admin.execute("CREATE ROLE guarded LOGIN PASSWORD 'old'")
    await admin.close()
    new = "n'e\\w"
    await faults.set_password("guarded", new)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(small_server.dsn_for("postgres", user="guarded", password="old"))
    connection = await asyncpg.connect(small_server.dsn, user="guarded", password=new)
    await connection.close()


async def test_a_held_queue_fills_and_is_freed(
    small_server: PostgresServer, faults: ServerFaults
) -> None:
    """Notifying gets 54000 while it is held; once it is not, reading the usage frees it."""
    needs_small_queue(small_server)
    sender = await asyncpg.connect(small_server.dsn)
    flood = "SELECT count(pg_notify('c', lpad(g::text, 7000, '0'))) FROM generate_series(1, 10) g"

    async def fill() -> None:
        for _ in range(100):  # ten times what there is room for
            await sender.execute(flood)

    async with faults.queue_held("c") as holder:
        pid = holder.get_server_pid()
        with pytest.raises(asyncpg.ProgramLimitExceededError):
            await fill()
    await faults.until_gone(pid)
    await sender.fetchval("SELECT pg_notification_queue_usage()")
    await sender.execute(flood)
    await sender.close()
