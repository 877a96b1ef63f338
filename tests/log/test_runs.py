"""Ticks that are read together give the same events, at the same places, as one by one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import pytest

from asyncnotify.log import Log, Position
from asyncnotify.log._walk.cursor import Cursor, Expired, Portion
from asyncnotify.log._walk.statements import Statements
from asyncnotify.log._walk.walk import DEFAULT_SIZE, Size, Walk
from tests.log.conftest import NAMES, Reader, append, queries_of
from tests.log.fake_connection import FakeConnection
from tests.log.writers import Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncnotify.log._ports import Statement
    from tests.log.conftest import Connect, Connection

    Place = tuple[int, int, str]

WRITERS: Final = 6
TICKS: Final = 2_500

ONE_BY_ONE: Final = Size(rows=1)
SIZES: Final = (
    ONE_BY_ONE,
    Size(rows=2),
    Size(rows=7),
    Size(rows=50),
    Size(rows=1_000, bytes=10),
    Size(rows=1_000, bytes=60),
    DEFAULT_SIZE,
)


class CountingQueries:
    """Asks on a connection, and counts the queries, and the bytes of payloads."""

    def __init__(self, connection: Connection) -> None:
        self.count = self.bytes = 0
        self._queries = queries_of(connection)

    async def fetch(self, statement: Statement, /, *arguments: Any) -> Sequence[Any]:
        """Return the rows of the answer."""
        self.count += 1
        rows = await self._queries.fetch(statement, *arguments)
        for row in rows:
            if "payload" in row.keys():  # noqa: SIM118 - of a record, `in` asks for values
                self.bytes += len(row["payload"] or "")
            elif "payloads" in row.keys():  # noqa: SIM118 - as above
                self.bytes += sum(len(payload or "") for payload in row["payloads"] or ())
        return rows


def cursor_of(
    queries: Any, size: Size = DEFAULT_SIZE, channels: Sequence[str] | None = None
) -> Cursor:
    """Return what reads the log in portions of this size."""
    return Cursor(Walk(queries, Statements(NAMES, channels), size), NAMES.log)


async def places(cursor: Cursor) -> list[Place]:
    """Return tick, id and payload of all events behind a cursor."""
    found: list[Place] = []
    while (portion := await cursor.portion()) is not None:
        assert isinstance(portion, Portion)
        columns = portion.columns
        assert columns.size
        found += zip(portion.ticks, columns.ids, columns.payloads, strict=True)
    return found


async def write_and_read_live(connect: Connect, seed: int) -> None:
    """Append in transactions of all kinds, while one reads who takes a tick for all that is new."""
    finished = asyncio.Event()
    async with asyncio.TaskGroup() as group:

        async def write(number: int) -> None:
            async with connect() as connection:
                await Writer(number, connection, seed).run()

        async def read() -> None:
            async with connect() as connection:
                reader = Reader(connection)
                while not finished.is_set():
                    await reader.read()
                await reader.read()

        group.create_task(read())
        for task in [group.create_task(write(number)) for number in range(WRITERS)]:
            await task
        finished.set()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("seed", range(2))
async def test_the_order_is_that_of_single_ticks(
    admin: Connection, connect: Connect, seed: int
) -> None:
    """Whatever the size of portions: the same events, ticks and ids, and from each place on."""
    await write_and_read_live(connect, seed)
    queries = queries_of(admin)
    single = cursor_of(queries, ONE_BY_ONE)
    await single.at_start()
    expected = await places(single)
    assert expected == sorted(expected)
    assert len({tick for tick, _, _ in expected}) > 10
    for size in SIZES:
        cursor = cursor_of(queries, size)
        await cursor.at_start()
        assert await places(cursor) == expected, size
        assert cursor.position == single.position
    for place in range(0, len(expected), 17):
        cursor = cursor_of(queries)
        tick, number, _ = expected[place]
        assert await cursor.at_position(single.position._replace(tick=tick, id=number)) is None
        assert await places(cursor) == expected[place + 1 :]


@pytest.mark.usefixtures("installed")
async def test_channels_are_chosen_in_runs_too(admin: Connection) -> None:
    """Of ticks that are read together only the events that are wanted come."""
    reader = Reader(admin)
    for number in range(40):
        await append(admin, str(number), channel="rare" if number % 10 == 3 else "other")
        await reader.read()
    for channels, expected in ((["rare"], range(3, 40, 10)), (["none"], ()), (None, range(40))):
        cursor = cursor_of(queries_of(admin), channels=channels)
        await cursor.at_start()
        found = await places(cursor)
        assert [payload for _, _, payload in found] == list(map(str, expected))
        assert [tick for tick, _, _ in found] == [number + 1 for number in expected]


async def take_ticks(admin: Connection, count: int = TICKS, payload: str = "") -> int:
    """
    Append events, each of which gets a tick of its own.

    Returns how many transaction ids others have taken meanwhile, such as autovacuum: what was
    running at a tick is asked for by a later one, in up to three queries.
    """
    reader, before = Reader(admin), await next_xid(admin)
    for number in range(count):
        await append(admin, f"{number}{payload}")
        await reader.walk.take_tick()
    return await next_xid(admin) - before - 2 * count if before else 0


async def next_xid(admin: Connection) -> int:
    """Return what the next transaction gets; 0 of the server in memory, which nobody else uses."""
    if isinstance(admin, FakeConnection):
        return 0
    xid: int = await admin.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8")
    return xid


@pytest.mark.usefixtures("installed")
async def test_a_log_that_was_read_live_takes_few_queries(admin: Connection) -> None:
    """A thousand ticks of one event take three queries or so, and not two each."""
    others = await take_ticks(admin)
    queries = CountingQueries(admin)
    cursor = cursor_of(queries)
    await cursor.at_start()
    found = await places(cursor)
    assert [payload for _, _, payload in found] == list(map(str, range(TICKS)))
    assert queries.count < TICKS / 100 + 3 * others


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("room", [0.6, 1, 2, 10, 50])
async def test_long_payloads_are_fetched_once(admin: Connection, room: float) -> None:
    """As many ticks are read at once as a portion has room for, and hardly more is fetched."""
    payload, count = "x" * 200, 200
    others = await take_ticks(admin, count, payload)
    queries = CountingQueries(admin)
    cursor = cursor_of(queries, Size(bytes=int(room * len(payload))))
    await cursor.at_start()
    assert len(await places(cursor)) == count
    assert queries.count <= 10 + count / max(1, room // 2) + 3 * others
    assert queries.bytes < 1.1 * count * (len(payload) + 3)


@pytest.mark.usefixtures("installed")
async def test_a_portion_has_one_event_of_any_size(admin: Connection, connect: Connect) -> None:
    """Also where late events and others are read together: each of them may be long."""
    size, long = Size(bytes=1_000), "x" * 5_000
    reader = Reader(admin)
    async with connect() as slow:
        async with slow.transaction():
            await append(slow, "slow", long)
            await append(admin, "first")
            await reader.read()
            position = Position(NAMES.log, 1, reader.tick, 3)
        await reader.walk.take_tick()
        await append(admin, long)
        await reader.walk.take_tick()
        await append(admin, "last")
        await reader.read()
    cursor = cursor_of(queries_of(admin), size)
    await cursor.at_position(position)
    sizes: list[list[int]] = []
    while (portion := await cursor.portion()) is not None:
        assert isinstance(portion, Portion)
        sizes.append([len(payload) for payload in portion.columns.payloads])
    assert sum(map(len, sizes)) == 4
    assert max(map(sum, sizes)) <= len(long) + size.bytes


@pytest.mark.needs_server("epochs")
@pytest.mark.usefixtures("installed")
async def test_a_run_ends_with_an_epoch(admin: Connection) -> None:
    """Each event has the position that names the epoch of its tick."""
    for timeline in ("0000FFFE", "0000FFFF"):
        await take_ticks(admin, 5)
        await admin.execute(f"UPDATE {NAMES.epochs} SET timeline = $1", timeline)
    await take_ticks(admin, 5)
    expected = await admin.fetch(f"SELECT epoch, tick FROM {NAMES.ticks} WHERE final > 0")
    cursor = cursor_of(queries_of(admin))
    await cursor.at_start()
    found: list[tuple[int, int]] = []
    while (portion := await cursor.portion()) is not None:
        assert isinstance(portion, Portion)
        found += [(portion.epoch, tick) for tick in portion.ticks]
    assert len(found) == 15
    assert found == sorted(found)
    assert set(found) == set(map(tuple, expected))
    assert {epoch for epoch, _ in found} == {1, 2, 3}


@pytest.mark.usefixtures("installed")
async def test_batches_are_large_where_ticks_are_small(dsn: str, admin: Connection) -> None:
    """Who comes back to a log that others have read live gets batches as large as asked for."""
    sizes: list[int] = []
    async with Log(NAMES.log, dsn) as log, log.consumer("late") as late:
        await take_ticks(admin)
        async for batch in late.batches(500):
            sizes.append(len(batch))
            if sum(sizes) == TICKS:
                break
    assert len(sizes) < 10


@pytest.mark.needs_server
@pytest.mark.usefixtures("installed")
async def test_what_has_been_removed_in_a_run_is_told(admin: Connection) -> None:
    """Ticks that were removed after they had been looked at: nothing of the run counts."""
    reader = Reader(admin)
    for number in range(20):
        await append(admin, str(number))
        await reader.read()
    cursor = cursor_of(queries_of(admin), Size(rows=5))
    await cursor.at_start()
    first = await cursor.portion()
    assert isinstance(first, Portion)
    assert list(first.columns.payloads) == list("01234")
    await admin.execute(f"DELETE FROM {NAMES.ticks} WHERE tick < 15")
    await admin.execute(f"DELETE FROM {NAMES.events} WHERE id <= 15")
    expired = await cursor.portion()
    assert isinstance(expired, Expired)
    assert (expired.dropped, expired.most) == (10, 10)
    assert [payload for _, _, payload in await places(cursor)] == ["15", "16", "17", "18", "19"]
