"""Standbys, failovers, crashes and copies: traps 5 to 8."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import Gap
from asyncnotify.ext._health import health_of
from asyncnotify.log import Event, Log, StandbyError
from asyncnotify.testing.server import PostgresServer
from tests.log.conftest import Reader, append
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.log.conftest import Connection

pytestmark = pytest.mark.needs_server("a standby")


@pytest_asyncio.fixture
async def primary(own_server: PostgresServer) -> AsyncIterator[PostgresServer]:
    """A server of the test's own, with a log."""
    async with Log("orders", own_server.dsn) as log:
        await log.install()
    yield own_server


async def connected(server: PostgresServer) -> Connection:
    """Return a plain connection to a server."""
    return await asyncpg.connect(server.dsn)


async def until_replayed(primary: Connection, standby: Connection) -> None:
    """Return once the standby has all that the primary has."""
    lsn = await primary.fetchval("SELECT pg_current_wal_flush_lsn()")
    query = "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn"
    async with asyncio.timeout(scaled(20)):
        while not await standby.fetchval(query, lsn):
            pass


async def payloads(log: Log, after: Any, count: int) -> list[Any]:
    """Return the payloads, or Gaps, from a place on."""
    async with asyncio.timeout(scaled(30)), log.read(after=after, gaps=True) as stream:
        items = [await anext(stream) for _ in range(count)]
    return [item.payload if isinstance(item, Event) else item for item in items]


async def test_trap_5_nothing_is_read_on_a_standby_until_it_is_promoted(
    primary: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Running transactions are not known there: a tick is refused. Reading waits, and goes on."""
    caplog.set_level("INFO")
    with primary.standby() as standby:
        source, copy = await connected(primary), await connected(standby)
        await append(source, "a")
        await until_replayed(source, copy)
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await Reader(copy).read()
        async with Log("orders", connect=lambda: connected(standby), poll=0.1) as log:
            reading = asyncio.ensure_future(payloads(log, "start", 2))
            async with asyncio.timeout(scaled(20)):
                while "recovery" not in caplog.text and "standby" not in caplog.text:
                    await copy.execute("SELECT 1")
            await asyncio.to_thread(primary.stop, "immediate")
            await asyncio.to_thread(standby.promote)
            promoted = await connected(standby)
            await append(promoted, "b")
            assert await reading == ["a", "b"]
            await promoted.close()
        copy.terminate()
        source.terminate()


def warned_of_standby(caplog: pytest.LogCaptureFixture) -> set[str]:
    """Return who has said at WARNING that the server is a standby."""
    texts = [
        record.getMessage()
        for record in caplog.records
        if (record.name, record.levelname) == ("asyncnotify.log", "WARNING")
    ]
    return {text.partition(" of log")[0] for text in texts if "the server is a standby" in text}


@pytest.mark.parametrize("is_new", [True, False])
async def test_trap_5_who_waits_on_a_standby_says_so_and_goes_on_when_it_is_promoted(
    primary: PostgresServer, caplog: pytest.LogCaptureFixture, *, is_new: bool
) -> None:
    """One who begins there, and one whose server is lost, and who comes to a standby instead."""
    with primary.standby() as standby:
        source, copy = await connected(primary), await connected(standby)
        servers = [primary]

        async def connect() -> Connection:
            return await connected(servers[-1])

        async with (
            asyncio.timeout(scaled(60)),
            Log("orders", connect=connect) as log,
            Log("orders", connect=lambda: connected(standby)) as other,
        ):
            stream, consumer = log.read(after="start"), log.consumer("mailer")
            await append(source, "a")
            if is_new:
                async with Log("orders", primary.dsn) as first, first.consumer("mailer"):
                    pass
            else:
                assert (await anext(stream)).payload == (await anext(consumer)).payload == "a"
            await until_replayed(source, copy)
            servers.append(standby)
            if not is_new:
                await asyncio.to_thread(primary.stop, "immediate")
            waiting = asyncio.gather(anext(stream), anext(consumer))
            while warned_of_standby(caplog) != {"a reader", "consumer 'mailer'"}:
                await copy.execute("SELECT 1")
                assert "ListenTimeoutError" not in caplog.text
            with pytest.raises(StandbyError, match="promoted"):
                await other.status()
            health = await health_of(other)
            assert (health.status, "standby" in health.body["last_error"]) == (503, True)
            if is_new:
                await asyncio.to_thread(primary.stop, "immediate")
            await asyncio.to_thread(standby.promote)
            promoted = await connected(standby)
            await append(promoted, "b")
            expected = "a" if is_new else "b"
            read, consumed = await waiting
            assert read.payload == expected
            assert consumed.payload in (expected, "a")  # its cursor may not have been committed
            await promoted.close()
            await consumer.aclose()
        copy.terminate()
        source.terminate()


async def test_trap_8_after_a_failover_that_lost_ticks_nothing_is_missing(
    primary: PostgresServer,
) -> None:
    """
    A standby that had not got the last ticks is promoted: its order begins a new epoch.

    A position in the lost ticks counts as one at the end of what is left.
    """
    with primary.standby() as standby:
        source, copy = await connected(primary), await connected(standby)
        await append(source, "kept")
        reader = Reader(source)
        assert await reader.payloads() == ["kept"]
        await until_replayed(source, copy)
        await copy.execute("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'")
        await copy.execute("SELECT pg_reload_conf()")
        while await copy.fetchval("SELECT count(*) FROM pg_stat_wal_receiver"):
            pass
        async with Log("orders", primary.dsn) as log:
            await append(source, "lost 1", "lost 2", "lost 3")
            async with log.read(after="start") as stream:
                events = [await anext(stream) for _ in range(4)]
        source.terminate()
        await asyncio.to_thread(primary.stop, "immediate")
        copy.terminate()
        await asyncio.to_thread(standby.promote)
        promoted = await connected(standby)
        await append(promoted, "new 1", "new 2")
        async with Log("orders", standby.dsn) as log:
            found = await payloads(log, events[-1].position, 2)
            assert found == ["new 1", "new 2"]
            assert await payloads(log, "start", 3) == ["kept", "new 1", "new 2"]
            assert (await log.status()).end.epoch == 2
        await promoted.close()


async def test_trap_8_a_transactional_handler_has_each_event_once_after_a_failover(
    primary: PostgresServer,
) -> None:
    """The cursor, and what the handler has written, are lost together with the events."""
    source = await connected(primary)
    await source.execute("CREATE TABLE effects (n serial, payload text)")
    with primary.standby() as standby:
        copy, servers = await connected(standby), [primary]
        log = Log("orders", connect=lambda: connected(servers[-1]), poll=0.1)

        @log.on("mailer", "things", transactional=True)
        async def write(event: Event[str], connection: asyncpg.Connection[Any]) -> None:
            await connection.execute("INSERT INTO effects (payload) VALUES ($1)", event.payload)

        async def until_written(connection: Connection, *expected: str) -> None:
            query = "SELECT array_agg(payload ORDER BY n) FROM effects"
            while await connection.fetchval(query) != [*expected]:
                pass

        async with asyncio.timeout(scaled(60)), log:
            await append(source, "kept")
            await until_written(source, "kept")
            await until_replayed(source, copy)
            await copy.execute("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'")
            await copy.execute("SELECT pg_reload_conf()")
            while await copy.fetchval("SELECT count(*) FROM pg_stat_wal_receiver"):
                pass
            lost = [f"lost {number}" for number in range(3)]
            await append(source, *lost)
            await until_written(source, "kept", *lost)
            source.terminate()
            servers.append(standby)
            await asyncio.to_thread(primary.stop, "immediate")
            copy.terminate()
            await asyncio.to_thread(standby.promote)
            promoted = await connected(standby)
            await append(promoted, "new 1", "new 2")
            await until_written(promoted, "kept", "new 1", "new 2")
        await promoted.close()


async def test_a_reader_whose_idle_connection_moves_to_a_promoted_standby_misses_nothing(
    primary: PostgresServer,
) -> None:
    """
    The servers change between two queries: no query fails, and still the place is looked up anew.

    Beyond the end of what the new server has, its next ticks would be taken for read.
    """
    with primary.standby() as standby:
        source, copy = await connected(primary), await connected(standby)
        await append(source, "kept")
        assert await Reader(source).payloads() == ["kept"]
        await until_replayed(source, copy)
        await copy.execute("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'")
        await copy.execute("SELECT pg_reload_conf()")
        while await copy.fetchval("SELECT count(*) FROM pg_stat_wal_receiver"):
            pass
        servers = [primary]

        async def connect() -> Connection:
            return await connected(servers[-1])

        async with (
            asyncio.timeout(scaled(60)),
            Log("orders", connect=connect) as log,
            log.read(after="start") as stream,
        ):
            read = [(await anext(stream)).payload]
            for n in range(5):  # a tick each
                await append(source, f"lost {n}")
                read.append((await anext(stream)).payload)
            assert read == ["kept", *(f"lost {n}" for n in range(5))]
            source.terminate()
            copy.terminate()
            await asyncio.to_thread(primary.stop, "immediate")
            await asyncio.to_thread(standby.promote)
            servers.append(standby)
            promoted = await connected(standby)
            await append(promoted, "new 1")
            async with Log("orders", standby.dsn) as other:
                assert await payloads(other, "start", 2) == ["kept", "new 1"]
            await append(promoted, "new 2")
            assert [(await anext(stream)).payload for _ in range(2)] == ["new 1", "new 2"]
            await promoted.close()


async def copied(source: PostgresServer, target: PostgresServer) -> None:
    """Copy the database to another cluster, as pg_dump does."""

    def copy() -> None:
        command = [str(source.bin_dir / "pg_dump"), source.dsn]
        dump = subprocess.run(command, check=True, capture_output=True).stdout
        command = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", target.dsn]
        subprocess.run(command, check=True, capture_output=True, input=dump)

    await asyncio.to_thread(copy)


@pytest.fixture
def other_cluster(template: PostgresServer) -> PostgresServer:
    """A cluster with a system identifier, and xids, of its own."""
    return PostgresServer(bin_dir=template.bin_dir)


async def test_trap_6_a_copy_goes_on_in_an_epoch_of_its_own(
    primary: PostgresServer, other_cluster: PostgresServer
) -> None:
    """
    The rows of a copy bear xids of the cluster that they came from: they count as committed.

    Readers go on from their positions of the old epoch, consumers from their cursors; what had not
    been in a tick comes then, and new events after it. Nothing is missing, nothing comes twice.
    """
    if shutil.which("psql") is None or not (primary.bin_dir / "pg_dump").exists():
        pytest.skip("needs psql, and pg_dump of the server's version")
    source = await connected(primary)
    async with Log("orders", primary.dsn) as log:
        await source.execute("SELECT pg_current_xact_id() FROM generate_series(1, 3)")
        for n in range(200):  # xids that are in the future of the other cluster
            await append(source, f"old {n}")
        async with log.read(after="start") as stream:
            positions = [(await anext(stream)).position for _ in range(150)]
        async with log.consumer("mailer") as consumer:
            for _ in range(101):
                await anext(consumer)
        await append(source, "in no tick")
    with other_cluster as target:
        await copied(primary, target)
        copy = await connected(target)
        # Appended before anybody has taken a tick there
        await append(copy, "new 1")
        old = [f"old {n}" for n in range(200)]
        rest = [*old, "in no tick", "new 1"]
        async with Log("orders", target.dsn, poll=0.2) as log:
            assert await payloads(log, positions[-1], 52) == rest[150:]
            await append(copy, "new 2")
            assert await payloads(log, "start", 203) == [*rest, "new 2"]
            async with asyncio.timeout(scaled(20)), log.consumer("mailer") as consumer:
                found = [(await anext(consumer)).payload for _ in range(103)]
            assert found == [*rest[100:], "new 2"]
            assert not any(isinstance(item, Gap) for item in found)
        await copy.close()
    source.terminate()


async def test_trap_7_what_a_tick_holds_survives_a_crash(primary: PostgresServer) -> None:
    """With synchronous_commit off: a tick makes the events that it holds durable."""
    source = await connected(primary)
    await source.execute("SET synchronous_commit = off")
    other = await connected(primary)
    reader = Reader(other)
    for n in range(50):
        await append(source, str(n))
    read = await reader.payloads()
    await append(source, "perhaps lost")
    await asyncio.to_thread(primary.kill)
    await asyncio.to_thread(primary.start)
    recovered = await connected(primary)
    assert (await Reader(recovered).payloads())[: len(read)] == read
    for connection in (source, other, recovered):
        connection.terminate()
