"""
What others do to those who append and read: nothing that can be felt.

A writer that stays open, in this database or in another; retention that empties a partition; a
transaction of a million events.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify.log._schema.installing import install
from tests.log.conftest import NAMES, Reader, append
from tests.log.test_plans import buffers, explained
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from asyncnotify.log._names import Names
    from tests.log.conftest import Connect, Connection

pytestmark = pytest.mark.needs_server("SQL and locks")

TICK: Final = f"SELECT {NAMES.prefix}_tick()"
OLDER_TICKS: Final = "UPDATE asyncnotify.orders_ticks SET taken_at = now() - interval '8 days'"
KINDS: Final = ["this", "another"]


class OpenWriter:
    """
    A transaction that has written, and stays open: in this database, or in another.

    Attributes:
        events: What it has appended here.
    """

    def __init__(self, connection: Connection, kind: str) -> None:
        self._connection = connection
        self.events = ["of the open writer"] if kind == "this" else []

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Be open as long as the block runs, and commit then."""
        async with self._connection.transaction():
            await self._connection.execute("SELECT pg_current_xact_id()")
            await append(self._connection, *self.events)
            yield


@pytest_asyncio.fixture(params=KINDS)
async def writer(
    request: pytest.FixtureRequest, dsn: str, installed: Names
) -> AsyncIterator[OpenWriter]:
    """A writer, not open so far."""
    where = dsn if request.param == "this" else urlunsplit(urlsplit(dsn)._replace(path="/postgres"))
    connection = await asyncpg.connect(where, server_settings={"application_name": "tests"})
    yield OpenWriter(connection, request.param)
    await connection.close(timeout=5.0)


# -- an open writer -------------------------------------------------------------------------------


async def test_a_writer_that_stays_open_holds_nobody_up(
    reader: Reader, connect: Connect, writer: OpenWriter
) -> None:
    """However many events and ticks come after it: each event is read by the next call."""
    async with connect() as fast:
        async with writer.opened():
            for n in range(100):
                await append(fast, str(n))
                assert await reader.payloads() == [str(n)]
        await append(fast, "last")
        assert await reader.payloads() == [*writer.events, "last"]


async def test_a_writer_that_stays_open_costs_no_more_the_longer_it_does(
    reader: Reader, admin: Connection, connect: Connect, writer: OpenWriter
) -> None:
    """A tick looks at as many pages after a thousand transactions as after ten."""
    async with connect() as fast, writer.opened():

        async def pages(transactions: int) -> int:
            for _ in range(transactions):
                await append(fast, "x")
            await reader.read()
            await append(fast, "x")
            return buffers(await explained(admin, TICK))

        await pages(10)  # the plans are made
        few, many = await pages(10), await pages(1_000)
    assert many < few * 1.5 + 10


async def latencies(reader: Reader, connection: Connection, until: float) -> list[float]:
    """Append and read one event after another until a time; return the seconds of each."""
    found: list[float] = []
    while time.monotonic() < until:
        began = time.monotonic()
        await append(connection, "x")
        await reader.read()
        found.append(time.monotonic() - began)
    return sorted(found)


def percentile(found: list[float], share: float) -> float:
    """Return the value below which this share of the sorted values is."""
    return found[int(len(found) * share)]


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_a_writer_that_is_open_for_a_minute_changes_nobodys_p99(
    reader: Reader, connect: Connect, writer: OpenWriter
) -> None:
    """From append to reader, beside what it is before and after the writer, in the same run."""
    async with connect() as fast:
        before = await latencies(reader, fast, time.monotonic() + 30)
        async with writer.opened():
            meanwhile = await latencies(reader, fast, time.monotonic() + 60)
        after = await latencies(reader, fast, time.monotonic() + 30)
    baseline = sorted(before + after)
    for share in (0.5, 0.99):
        measured, expected = percentile(meanwhile, share), percentile(baseline, share)
        assert measured < expected * 1.5 + 0.001, (share, measured, expected)


# -- retention ------------------------------------------------------------------------------------

OLD: Final = """
    INSERT INTO asyncnotify.orders_events (slot, channel, payload, appended_at)
    SELECT (extract(epoch FROM now())::bigint / 100800 + 4) % 8, 'things', repeat('x', 200),
        now() - interval '8 days'
    FROM generate_series(1, $1)
"""


async def test_an_append_does_not_wait_for_a_partition_that_is_being_emptied(
    installed: Names, admin: Connection, connect: Connect
) -> None:
    """While the transaction of the TRUNCATE is still open, with all its locks, others append."""
    await admin.execute(OLD, 10)
    await admin.execute(TICK)
    await admin.execute(OLDER_TICKS)
    async with connect() as fast:
        transaction = admin.transaction()
        await transaction.start()
        assert await admin.fetchval(f"SELECT {NAMES.prefix}_expire()") is not None
        locks = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND pid = $1"
        assert await fast.fetchval(locks, admin.get_server_pid()) > 0
        await fast.execute("SET lock_timeout = 1")  # ms: no lock is waited for at all
        await append(fast, "one")
        await fast.execute(f"SELECT {NAMES.prefix}_append_many(ARRAY['things'], ARRAY['two'])")
        await transaction.commit()
    assert await admin.fetchval(f"SELECT count(*) FROM {NAMES.events}") == 2


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_no_append_waits_for_100_ms_longer_where_partitions_are_emptied(
    installed: Names, admin: Connection, connect: Connect
) -> None:
    """Eight who append, beside the same without TRUNCATE in the same run; 30 times in all."""
    waits: dict[bool, list[float]] = {True: [], False: []}
    is_emptying = False
    done = asyncio.Event()

    async def write() -> None:
        async with connect() as connection:
            while not done.is_set():
                began = time.monotonic()
                await append(connection, "x")
                waits[is_emptying].append(time.monotonic() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(write())
        for _ in range(30):
            await admin.execute(OLD, 20_000)
            await admin.execute(TICK)
            await admin.execute(OLDER_TICKS)
            calls = len(waits[False])
            while len(waits[False]) < calls + 500:
                await admin.execute("SELECT 1")
            is_emptying = True
            calls = len(waits[True])
            assert await admin.fetchval(f"SELECT {NAMES.prefix}_expire()") is not None
            while len(waits[True]) < calls + 500:
                await admin.execute("SELECT 1")
            is_emptying = False
        done.set()
    assert max(waits[True]) < max(waits[False]) + 0.1


# -- a large transaction --------------------------------------------------------------------------

READ_ALL: Final = """
import asyncio, resource, sys
from asyncnotify.log import Log

async def main() -> None:
    async with Log("orders", sys.argv[1]) as log:
        async with log.read(after="start") as stream:
            assert (await anext(stream)).payload == "first"
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            async for batch in stream.batches():
                if batch[-1].payload == "last":
                    break
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ru_maxrss has other units")
@pytest.mark.parametrize(
    "count", [50_000, pytest.param(1_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(600)])]
)
async def test_a_large_transaction_is_read_in_bounded_memory(
    dsn: str, admin: Connection, count: int
) -> None:
    """All its events are one tick; a process that reads them grows by 50 MB at most."""
    await install(admin, NAMES.log)
    await append(admin, "first")
    await admin.execute(TICK)
    await admin.execute(
        f"INSERT INTO {NAMES.events} (slot, channel, payload)"
        " SELECT 0, 'things', repeat('x', 500) FROM generate_series(1, $1)",
        count,
    )
    await append(admin, "last")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READ_ALL, dsn, stdout=subprocess.PIPE, env={**os.environ}
    )
    async with asyncio.timeout(scaled(500)):
        output, _ = await process.communicate()
    assert process.returncode == 0
    grown: Any = int(output) * 1_024
    assert grown < 50_000_000
