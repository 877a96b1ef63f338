"""
Trap 9: what the statements read, on a big table, with statistics and without, in every plan.

An empty poll with a bound that the planner cannot see has read a million rows.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

from asyncnotify.log._operating import Operations
from asyncnotify.log._schema.installing import install
from asyncnotify.log._walk.buckets import Bucket, bucket_number
from asyncnotify.log._walk.statements import Statements
from asyncnotify.log._walk.ticks import Tick
from asyncnotify.log._walk.walk import Walk
from tests.log.conftest import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import asyncpg

    from asyncnotify.log._ports import Statement
    from tests.log.conftest import Connect, Connection

pytestmark = pytest.mark.needs_server("plans")

EVENTS: Final = 60_000
MANY: Final = 10_000_000
SOAK: Final = (pytest.mark.soak, pytest.mark.timeout(3_600))
BIG_LOG: Final = """
    INSERT INTO asyncnotify.orders_events (slot, channel, payload)
    SELECT n::int8 * 3 / {events}, 'things', repeat('x', 20) FROM generate_series(1, {events}) AS n
"""
TICKS: Final = 20_000
MANY_TICKS: Final = f"""
    INSERT INTO {NAMES.ticks} (tick, epoch, base, snapshot, own, top, final, total, taken_at)
    SELECT n, epoch, base, snapshot, own, n, n, n, taken_at + n * interval '1 second'
    FROM {NAMES.ticks}, generate_series(1, {TICKS}) AS n
"""
FEW: Final = 60  # buffers: some pages for each of the 8 partitions, and the catalogs
SEQUENTIAL: Final = "Seq Scan"
MANY_XIDS: Final = f"""
    INSERT INTO asyncnotify.orders_events (x, slot, channel, payload)
    SELECT (3 + n % 500)::text::xid8, n / 20000, 'things', 'x' FROM generate_series(1, {EVENTS}) n
"""


async def explained(connection: Connection, query: str, *arguments: object) -> dict[str, Any]:
    """Return the plan with which a statement ran, and what that read."""
    settings = "ANALYZE, BUFFERS, FORMAT JSON"
    answer = await connection.fetchval(f"EXPLAIN ({settings}) {query}", *arguments)
    return dict(json.loads(answer)[0]["Plan"])


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a plan's nodes."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def buffers(plan: dict[str, Any]) -> int:
    """Return how many pages were looked at."""
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


class CountingQueries:
    """A connection that counts the pages that its queries look at."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.buffers = 0

    async def fetch(self, statement: Statement, /, *arguments: object) -> list[asyncpg.Record]:
        """Return the rows of the answer."""
        self.buffers += buffers(await explained(self._connection, statement.sql, *arguments))
        return await self._connection.fetch(statement.sql, *arguments)


@pytest_asyncio.fixture(
    params=[
        ("analyzed", EVENTS),
        ("never analyzed", EVENTS),
        pytest.param(("analyzed", MANY), marks=SOAK),
        pytest.param(("never analyzed", MANY), marks=SOAK),
    ],
    ids=lambda given: f"{given[0]}, {given[1]:,}",
)
async def ticks(request: pytest.FixtureRequest, admin: Connection) -> list[Tick]:
    """The two newest ticks of a log with many events."""
    await install(admin, NAMES.log)
    await admin.execute("ALTER TABLE asyncnotify.orders_events_0 SET (autovacuum_enabled = off)")
    statistics, events = request.param
    await admin.execute(BIG_LOG.format(events=events))
    await admin.execute(f"SELECT {NAMES.prefix}_tick()")
    await admin.execute("SELECT asyncnotify.orders_append('things', 'one more')")
    if statistics == "analyzed":
        await admin.execute(f"ANALYZE {NAMES.events}")
    await admin.execute(f"SELECT {NAMES.prefix}_tick()")
    await admin.execute("SET jit = off")
    await admin.execute(f"SELECT {NAMES.prefix}_first_tick()")  # which reads the catalogs
    rows = await admin.fetch(Statements(NAMES).ticks.sql, 1, 2)
    return [Tick.of_row(row) for row in rows]


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
@pytest.mark.parametrize("bucket", [Bucket(), Bucket(0, 2), Bucket(1, 2)])
@pytest.mark.parametrize("channels", [None, ["things"]])
async def test_trap_9_a_poll_reads_some_pages(
    admin: Connection, ticks: list[Tick], channels: list[str] | None, bucket: Bucket, mode: str
) -> None:
    """The newest events are found by the index on ids, an empty poll as well, and no more."""
    await admin.execute(f"SET plan_cache_mode = {mode}")
    sql = Statements(NAMES, channels, bucket)
    last, tick = ticks
    snapshot = tick.snapshot.text
    mine = f"SELECT {bucket_number(str(bucket.of))} = $1 FROM {NAMES.events} WHERE id > $2"
    is_mine = await admin.fetchval(mine, bucket.number, last.top)
    for after, found in ((last.top, int(is_mine)), (tick.top, 0)):
        arguments = after, tick.top, 1_000, 10**6, *sql.chosen
        for query, more in ((sql.visible.sql, [snapshot]), (sql.whole.sql, [])):
            plan = await explained(admin, query, *arguments, *more)
            [row] = await admin.fetch(query, *arguments, *more)
            assert (row["found"] or 0) == found
            assert buffers(plan) < FEW, plan
        plan = await explained(admin, sql.short.sql, *arguments, None, snapshot)
        [row] = await admin.fetch(sql.short.sql, *arguments, None, snapshot)
        assert row["short"] == found
        assert buffers(plan) < FEW, plan


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_trap_9_a_portion_reads_no_more_than_it_gives(
    admin: Connection, ticks: list[Tick], mode: str
) -> None:
    """In the middle of a large tick 1,000 are read, by the index."""
    await admin.execute(f"SET plan_cache_mode = {mode}")
    last, _ = ticks
    sql = Statements(NAMES)
    middle = last.top // 2
    arguments, snapshot = (middle, middle + 1_000, 1_000, 10**6), last.snapshot.text
    for query, rows, own in (
        (sql.visible.sql, 1_000, (snapshot,)),
        (sql.short.sql, 1, ("things", snapshot)),
    ):
        plan = await explained(admin, query, *arguments, *own)
        assert plan["Actual Rows"] == rows
        assert buffers(plan) < FEW + 1_000
        reading = [node for node in nodes(plan) if SEQUENTIAL in node["Node Type"]]
        assert all(node["Actual Rows"] == 0 for node in reading)


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_trap_9_late_events_are_looked_up(
    admin: Connection, ticks: list[Tick], mode: str
) -> None:
    """Events of listed transactions are found by the index on xids, also where there are none."""
    await admin.execute(f"SET plan_cache_mode = {mode}")
    sql = Statements(NAMES)
    [x] = await admin.fetch(f"SELECT DISTINCT x::text FROM {NAMES.events} WHERE id = 1")
    events = ticks[0].top
    big, none = x[0], str(ticks[1].own + 10**6)
    for xid, after, found in ((none, 0, 0), (big, events - 500, 500)):
        arguments = after, events, 1_000, 10**6, [xid]
        plan = await explained(admin, sql.late.sql, *arguments)
        assert plan["Actual Rows"] == max(found, 1)
        assert buffers(plan) < FEW + found
    for xid, after in ((none, 0), (big, events - 500)):
        plan = await explained(admin, sql.first_late.sql, after, events, [xid])
        assert buffers(plan) < FEW
    plan = await explained(admin, sql.late_in_range.sql, "3", str(int(big) + 1))
    assert plan["Actual Rows"] == 1
    assert buffers(plan) < FEW


async def test_trap_9_a_large_tick_is_read_once(admin: Connection, ticks: list[Tick]) -> None:
    """A walk of all events looks at a page about once for each portion that has part of it."""
    queries = CountingQueries(admin)
    walk = Walk(queries, Statements(NAMES))
    [zero] = await walk.ticks(0, 1)
    found = [columns.size async for columns in walk.events(zero, ticks[0])]
    assert found == [1_000] * (ticks[0].top // 1_000)
    assert queries.buffers < 2 * ticks[0].top


async def test_trap_9_a_tick_looks_up_late_transactions(
    admin: Connection, ticks: list[Tick], connect: Connect
) -> None:
    """What was open at the last tick, with an event or without, is looked up by its xid."""
    for _ in range(3):
        async with connect() as one, connect() as two, one.transaction(), two.transaction():
            await one.execute("SELECT asyncnotify.orders_append('things', 'late')")
            await two.execute("SELECT pg_current_xact_id()")
            await admin.execute("SELECT asyncnotify.orders_append('things', 'x')")
            await admin.execute(f"SELECT {NAMES.prefix}_tick()")
        plan = await explained(admin, f"SELECT {NAMES.prefix}_tick()")
        assert buffers(plan) < 4 * FEW


async def test_trap_9_an_idle_tick_reads_some_pages(admin: Connection, ticks: list[Tick]) -> None:
    """The function's own statements are bounded as well, at the first call and the tenth."""
    for _ in range(10):
        plan = await explained(admin, f"SELECT {NAMES.prefix}_tick()")
        assert buffers(plan) < 3 * FEW


async def test_trap_9_old_statistics_do_not_make_a_tick_walk_the_index_on_xids(
    admin: Connection, connect: Connect
) -> None:
    """That index can be skipped through for ids, which costs a step for each xid of the log."""
    await install(admin, NAMES.log)
    await admin.execute(BIG_LOG.format(events=EVENTS))
    await admin.execute(f"VACUUM ANALYZE {NAMES.events}")
    await admin.execute(MANY_XIDS)
    await admin.execute(f"VACUUM {NAMES.events}")
    await admin.execute(f"SELECT {NAMES.prefix}_tick()")
    async with connect() as connection:
        await connection.fetchval(f"SELECT {NAMES.prefix}_tick()")  # which reads the catalogs
        plan = await explained(connection, f"SELECT {NAMES.prefix}_tick()")
    assert buffers(plan) < 3 * FEW


@pytest_asyncio.fixture
async def many_ticks(admin: Connection) -> None:
    """Many ticks, one a second."""
    await install(admin, NAMES.log)
    await admin.execute(MANY_TICKS)


async def test_trap_9_a_time_is_found_by_halves(admin: Connection, many_ticks: None) -> None:
    """Of many ticks, the newest one before a time; none, if all are newer."""
    sql = Statements(NAMES).last_before.sql
    first = await admin.fetchval(f"SELECT taken_at FROM {NAMES.ticks} WHERE tick = 0")
    for tick in (0, 1, 7_777, TICKS - 1, TICKS):
        time = first + timedelta(seconds=tick + 0.5)
        assert [row["tick"] for row in await admin.fetch(sql, time)] == [tick]
        assert buffers(await explained(admin, sql, time)) < 2 * FEW
    assert await admin.fetch(sql, first) == []


async def test_trap_9_the_status_of_consumers_reads_some_pages_for_each(
    admin: Connection, many_ticks: None
) -> None:
    """What holds retention up is looked up once, and not for each of them."""
    await admin.execute(
        f"INSERT INTO {NAMES.consumers} (consumer, bucket, buckets, epoch, tick, id)"
        " SELECT n::text, 0, 1, 1, n * 400, 0 FROM generate_series(0, 49) AS n"
    )
    await Operations(CountingQueries(admin), NAMES).status()  # which reads the catalogs
    queries = CountingQueries(admin)
    status = await Operations(queries, NAMES).status()
    assert len(status.consumers) == 50
    assert [one.name for one in status.consumers if one.holds_retention] == ["0"]
    assert queries.buffers < 50 * 25 + 1_000
