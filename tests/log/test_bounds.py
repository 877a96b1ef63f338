"""What one call may do is bounded: the rest is done by the next ones, and nothing is lost by it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pytest
import pytest_asyncio

from asyncnotify import Gap
from asyncnotify.log import Event, Log
from asyncnotify.log._schema import functions, retention
from asyncnotify.log._walk import walk
from tests.log.conftest import NAMES, Reader, append, queries_of
from tests.log.test_retention import age, oldest_tick
from tests.log.test_runs import SIZES, cursor_of, places
from tests.log.writers import Writer
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncnotify.log import Consumer
    from tests.log.conftest import Connect, Connection

pytestmark = pytest.mark.needs_server("bounds of the functions in the database")

FEW: Final = 7
EVENTS: Final = list(map(str, range(40)))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let functions that are installed do little at once."""
    for module, name in (
        (functions, "MOST_TICK_IDS"),
        (walk, "MOST_TICK_IDS"),
        (retention, "MOST_TICKS"),
    ):
        monkeypatch.setattr(module, name, FEW)
    monkeypatch.setattr(functions, "EMPTY_TICK_IDS", FEW)


@pytest_asyncio.fixture
async def log(dsn: str, few: None) -> AsyncIterator[Log]:
    """A log whose functions do little at once, with forty events that nobody has read."""
    async with Log(NAMES.log, dsn, poll=3600) as log:
        await log.install()
        yield log


async def count_of_ticks(admin: Connection) -> int:
    """Return how many ticks there are behind the first."""
    return int(await admin.fetchval(f"SELECT count(*) - 1 FROM {NAMES.ticks}"))


async def test_events_that_nobody_has_read_get_several_ticks(log: Log, admin: Connection) -> None:
    """Whoever begins at the start has all of them, in their order; who begins now has none."""
    await append(admin, *EVENTS)
    assert [event.payload async for event in log.read(after="start").until_end()] == EVENTS
    assert await count_of_ticks(admin) == 6
    await append(admin, *EVENTS)
    assert [event async for event in log.read(after="now").until_end()] == []
    await append(admin, *EVENTS)
    async with log.consumer("late", start="now") as late:
        await append(admin, "new")
        async with asyncio.timeout(scaled(20)):
            assert (await anext(late)).payload == "new"


@pytest.mark.parametrize("count", [FEW - 1, FEW, FEW + 1])
async def test_the_end_is_found_behind_a_full_tick(log: Log, admin: Connection, count: int) -> None:
    """Nothing new behind a tick that is full: there is no further one to be had."""
    await append(admin, *EVENTS[:count])
    async with asyncio.timeout(scaled(20)):
        assert [event async for event in log.read(after="now").until_end()] == []
        assert (await log.status()).events == count


async def test_the_state_tells_of_all_events(log: Log, admin: Connection) -> None:
    """Also of those for which nobody had taken a tick."""
    async with log.consumer("mailer"):
        await append(admin, *EVENTS)
        status = await log.status()
        assert status.events == len(EVENTS)
        assert [consumer.lag_events for consumer in status.consumers] == [len(EVENTS)]


@pytest.mark.parametrize("seed", range(3))
async def test_the_order_is_one_for_all(
    log: Log, admin: Connection, connect: Connect, seed: int
) -> None:
    """Also where a tick ends before what its snapshot sees: nothing is missing, or comes twice."""
    finished = asyncio.Event()
    async with asyncio.TaskGroup() as group:

        async def write(number: int) -> list[str]:
            async with connect() as connection:
                writer = Writer(number, connection, seed)
                await writer.run()
                return writer.committed

        async def read() -> list[str]:
            async with connect() as connection:
                reader, read = Reader(connection), list[str]()
                while not finished.is_set():
                    read += await reader.payloads()
                    await asyncio.sleep(0.01)  # so that several ticks are full
                await reader.walk.newest()
                return read + await reader.payloads()

        reading = group.create_task(read())
        writing = [group.create_task(write(number)) for number in range(8)]
        committed = [payload for task in writing for payload in await task]
        finished.set()
    read_live = reading.result()
    assert sorted(read_live) == sorted(committed)
    tops = [row["top"] for row in await admin.fetch(f"SELECT top FROM {NAMES.ticks} ORDER BY tick")]
    spans = [after - before for before, after in pairwise(tops)]
    assert max(spans) == FEW
    for size in SIZES:
        cursor = cursor_of(queries_of(admin), size)
        await cursor.at_start()
        found = await places(cursor)
        assert [payload for _, _, payload in found] == read_live, size
        assert found == sorted(found)


async def test_a_copy_has_what_no_tick_had_before_it_was_made(log: Log, admin: Connection) -> None:
    """The last tick of the original saw more than it holds."""
    await append(admin, *EVENTS)
    await admin.execute(f"SELECT {NAMES.prefix}_tick()")
    await admin.execute(f"UPDATE {NAMES.epochs} SET system_identifier = 1")
    async with log.read(after="start") as stream:
        assert [event.payload async for event in stream.until_end()] == EVENTS
        assert stream.position is not None
        position = stream.position
    assert [event async for event in log.read(after=position).until_end()] == []
    assert (await log.status()).events == len(EVENTS)
    query = f"SELECT final FROM {NAMES.ticks} WHERE whole"
    assert await admin.fetchval(query) == len(EVENTS)


async def test_the_state_of_a_promoted_server_tells_of_all_events(
    log: Log, admin: Connection
) -> None:
    """The first tick there begins an epoch, and holds nothing new."""
    await append(admin, "first")
    assert (await log.status()).events == 1
    await append(admin, "second", "third")
    await admin.execute(f"UPDATE {NAMES.epochs} SET timeline = '0000FFFF'")
    assert (await log.status()).events == 3


async def take_some(admin: Connection, mailer: Consumer[Event[str]]) -> None:
    """Append events, each of which gets a tick of its own, and let a consumer take four of them."""
    reader = Reader(admin)
    for payload in EVENTS:
        await append(admin, payload)
        await reader.read()
    async with asyncio.timeout(scaled(20)):
        for _ in range(4):
            await anext(mailer)


async def test_many_ticks_are_removed_step_by_step(log: Log, admin: Connection) -> None:
    """All of them, before their events; a consumer that was among them has the exact number."""
    async with log.consumer("mailer") as mailer:
        await take_some(admin, mailer)
    await age(admin, 8)
    await log.install(limit=timedelta(days=7))
    await append(admin, "new")
    assert await admin.fetchval(f"SELECT {NAMES.prefix}_expire()") == retention.NOT_DONE
    assert await oldest_tick(admin) == FEW
    assert await log.expire() == 1
    assert await oldest_tick(admin) == len(EVENTS)
    async with log.consumer("mailer", gaps=True) as mailer, asyncio.timeout(scaled(20)):
        gap, event = await anext(mailer), await anext(mailer)
    assert isinstance(gap, Gap)
    assert gap.dropped == len(EVENTS) - 3
    assert isinstance(event, Event)
    assert event.payload == "new"


async def test_a_consumer_that_has_gone_on_behind_what_was_removed_has_a_bound(
    log: Log, admin: Connection
) -> None:
    """It had read a portion before: what it has handled of that since was noted by nobody."""
    async with log.consumer("mailer") as mailer:
        await take_some(admin, mailer)
        async with asyncio.timeout(scaled(20)):
            await mailer.next_batch(1)  # commits what was done
            await age(admin, 8)
            await log.install(limit=timedelta(days=7))
            await append(admin, "new")
            assert await log.expire() == 1
            await mailer.next_batch(1)
    async with log.consumer("mailer", gaps=True) as mailer, asyncio.timeout(scaled(20)):
        gap = await anext(mailer)
    assert isinstance(gap, Gap)
    assert gap.dropped is None
    query = f"SELECT (behind_total, behind_is_exact) FROM {NAMES.consumers}"
    assert await admin.fetchval(query) == (4, False)
