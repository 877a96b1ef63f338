"""Removing old events: trap 11."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

from asyncnotify import Channel, Gap, GapReason
from asyncnotify.log import After, Event, EventsExpired, Log, Position, Retry
from asyncnotify.log._walk.statements import Statements
from tests.log.conftest import NAMES, append, queries_of, take_tick
from tests.log.fake_connection import FakeConnection
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncnotify.log import Consumer, LogStream
    from asyncnotify.log._names import Names
    from tests.log.conftest import Connect, Connection

OLD: Final = """
    WITH moved AS (DELETE FROM asyncnotify.orders_events RETURNING *)
    INSERT INTO asyncnotify.orders_events (x, id, uid, slot, channel, payload, appended_at)
    SELECT x, id, uid, $1, channel, payload, appended_at - $2::interval FROM moved
"""
NOT_WRITTEN: Final = """
    SELECT (extract(epoch FROM now())::bigint
        / ceil(extract(epoch FROM coalesce(keep_at_most, retention)) / 6)::bigint + 4) % 8
    FROM asyncnotify.logs WHERE name = 'orders'
"""
OLD_PARTITION: Final = (
    "UPDATE asyncnotify.orders_events SET slot = $1, appended_at = appended_at - interval '8 days'"
)
OLDER_TICKS: Final = "UPDATE asyncnotify.orders_ticks SET taken_at = taken_at - $1::interval"


@pytest_asyncio.fixture
async def log(dsn: str, installed: Names) -> AsyncIterator[Log]:
    """A log that keeps events for seven days."""
    async with Log("orders", dsn, poll=3600) as log:
        yield log


async def age(admin: Connection, days: float, *, with_tick: bool = True) -> None:
    """Make all events and ticks so many days older, in a partition that is not written now."""
    if with_tick:
        await take_tick(admin)
    if isinstance(admin, FakeConnection):
        admin.grow_older(days)
        return
    slot = await admin.fetchval(NOT_WRITTEN)
    await admin.execute(OLD, slot, timedelta(days=days))
    await admin.execute(OLDER_TICKS, timedelta(days=days))


async def oldest_tick(admin: Connection) -> int:
    """Return the number of the oldest tick that is kept."""
    [row] = await queries_of(admin).fetch(Statements(NAMES).ticks, 0, 1)
    return int(row["number"])


async def _let_pass(admin: Connection, days: float) -> None:
    """Make all events and ticks so many days older, where they are."""
    if isinstance(admin, FakeConnection):
        admin.grow_older(days)
    else:
        older = "UPDATE asyncnotify.orders_events SET appended_at = appended_at - $1::interval"
        await admin.execute(older, timedelta(days=days))
        await admin.execute(OLDER_TICKS, timedelta(days=days))


async def taken(log: Log, after: Any, count: int) -> list[Any]:
    """Return payloads and Gaps from a place on."""
    async with asyncio.timeout(scaled(20)), log.read(after=after, gaps=True) as stream:
        items = [await anext(stream) for _ in range(count)]
    return [item.payload if isinstance(item, Event) else item for item in items]


@pytest.mark.parametrize(("days", "emptied"), [(6, 0), (8, 1)])
async def test_trap_11_events_are_removed_when_they_are_old_enough(
    log: Log, admin: Connection, days: int, emptied: int
) -> None:
    """And not before; a partition at a time, and the ticks with them."""
    await append(admin, "a", "b")
    await age(admin, days)
    await append(admin, "c")
    assert await log.expire() == emptied
    assert await log.expire() == 0
    assert await taken(log, "start", 1) == ["c" if emptied else "a"]
    assert await oldest_tick(admin) == emptied


@pytest.mark.parametrize("limit", [None, timedelta(days=7)])
async def test_trap_11_young_events_stay_where_nobody_has_taken_ticks(
    log: Log, admin: Connection, limit: timedelta | None
) -> None:
    """One tick may see old events and young ones: the old ones stay until both are old."""
    await log.install(retention=timedelta(days=7), limit=limit)
    await append(admin, "old")
    await age(admin, 8, with_tick=False)
    await append(admin, "young")
    assert await log.expire() == 0
    assert await taken(log, "start", 2) == ["old", "young"]
    await _let_pass(admin, 8)
    await append(admin, "new")
    assert await log.expire() >= 1
    assert await taken(log, "start", 1) == ["new"]


@pytest.mark.needs_server("locks of rows")
async def test_trap_11_what_commits_while_ticks_are_removed_is_kept(
    log: Log, admin: Connection, connect: Connect
) -> None:
    """Also in an old partition, with an id below its newest: it is looked at under the lock."""
    async with connect() as slow, connect() as holder:
        transaction, hold = slow.transaction(), holder.transaction()
        await transaction.start()
        number = await slow.fetchval(
            f"SELECT nextval('{NAMES.sequence}') FROM pg_current_xact_id()"  # in this order
        )
        await append(admin, "a")
        await age(admin, 8)
        await hold.start()
        await holder.execute(f"SELECT FROM {NAMES.ticks} WHERE tick = 0 FOR UPDATE")
        async with asyncio.timeout(scaled(20)):
            expiring = asyncio.ensure_future(log.expire())
            while not await _waits_for_a_lock(admin):
                pass
            await slow.execute(
                "INSERT INTO asyncnotify.orders_events (id, slot, channel, payload)"
                " SELECT $1, slot, 'things', 'late' FROM asyncnotify.orders_events",
                number,
            )
            await transaction.commit()
            await hold.rollback()
            assert await expiring == 0
    assert await taken(log, "start", 2) == ["a", "late"]


async def _waits_for_a_lock(admin: Connection) -> bool:
    query = (
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND datname = current_database())"
    )
    return bool(await admin.fetchval(query))


async def test_trap_11_a_consumer_holds_up_what_it_has_not_consumed(
    log: Log, admin: Connection
) -> None:
    """Until it has; one that is dropped holds up nothing."""
    await append(admin, "a", "b")
    async with log.consumer("slow") as slow, log.consumer("gone"):
        await age(admin, 8)
        await append(admin, "c")
        assert await log.expire() == 0
        assert [(await anext(slow)).payload for _ in range(3)] == ["a", "b", "c"]
        assert await log.expire() == 0
        await log.drop("gone")
        await slow.aclose()
        assert await log.expire() == 1


@pytest.mark.needs_server("SQL that writes a partition")
async def test_trap_11_an_open_transaction_that_appends_is_not_disturbed(
    log: Log, admin: Connection, connect: Connect
) -> None:
    """Its partition is not emptied while it is open: nobody waits for it, and nothing is lost."""
    await append(admin, "a")
    await age(admin, 8)
    async with connect() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute(
            "INSERT INTO asyncnotify.orders_events (slot, channel, payload)"
            " SELECT slot, 'things', 'late' FROM asyncnotify.orders_events"
        )
        assert await log.expire() == 0
        await transaction.commit()
    assert await log.expire() == 0
    assert await taken(log, "start", 2) == ["a", "late"]


async def test_a_reader_that_was_left_behind_gets_the_count(log: Log, admin: Connection) -> None:
    """One that reads on gets exactly one Gap, in its place, with how many events it has missed."""
    await append(admin, "a", "b")
    stream = log.read(after="start", gaps=True)
    read: list[Event[str] | Gap] = [await anext(stream)]
    await append(admin, "c", "d")
    await take_tick(admin)
    await append(admin, "e")
    await age(admin, 8)
    await append(admin, "f")
    assert await log.expire() == 1
    read += [await anext(stream) for _ in range(3)]
    await stream.aclose()
    gap = read.pop(2)
    assert [item.payload for item in read if isinstance(item, Event)] == ["a", "b", "f"]
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.dropped, gap.channel) == (GapReason.EXPIRED, 3, None)
    assert gap.since is not None


async def _expire(log: Log) -> None:
    """Remove what is old enough: a query that reads the partition puts it off."""
    while not await log.expire():
        pass


async def _left_behind(
    log: Log, admin: Connection, stream: LogStream[Any] | Consumer[Any], count: int
) -> Gap:
    """Take so many events, let those of other channels be removed; return the Gap that follows."""
    async with asyncio.timeout(scaled(20)):
        for _ in range(count):
            await anext(stream)
        await append(admin, "b", "c", channel="others")
        await age(admin, 8)
        await _let_pass(admin, 3)
        await append(admin, "d")
        await _expire(log)
        gap, event = [await anext(stream) for _ in range(2)]
    assert isinstance(gap, Gap)
    assert (gap.reason, event.payload) == (GapReason.EXPIRED, "d")
    return gap


@pytest.mark.parametrize("is_consumer", [False, True])
async def test_one_who_wants_some_events_is_not_told_how_many_of_all_were_removed(
    log: Log, admin: Connection, caplog: pytest.LogCaptureFixture, *, is_consumer: bool
) -> None:
    """What is gone cannot be counted by channel: the log line says "at most"."""
    await log.install(retention=timedelta(days=7), limit=timedelta(days=10))
    await append(admin, "a")
    source: LogStream[Any] | Consumer[Any] = log.read("things", after="start", gaps=True)
    if is_consumer:
        source = log.consumer("slow", "things", gaps=True)
    incidents = log.incidents()
    async with source:
        gap = await _left_behind(log, admin, source, 1)
    assert gap.dropped is None
    assert "at most 2" in caplog.text
    reported = EventsExpired("slow" if is_consumer else None, gap.since, None)
    async with asyncio.timeout(scaled(20)):
        assert await anext(incidents) == reported


async def test_one_who_begins_within_a_tick_is_not_told_what_had_been_read(
    log: Log, admin: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """How many events of that tick are before the position is not known, once they are gone."""
    await log.install(retention=timedelta(days=7), limit=timedelta(days=10))
    await append(admin, "a1", "a2", "a3")
    async with log.read(after="start") as stream:
        first = await anext(stream)
    async with log.read(after=first.position, gaps=True) as stream:
        gap = await _left_behind(log, admin, stream, 0)
    assert gap.dropped is None
    assert "at most 5" in caplog.text


async def test_a_place_that_was_removed_is_told(log: Log, admin: Connection) -> None:
    """From a position or a time that is too old, first comes a Gap; from one that is not, none."""
    await append(admin, "a", "b")
    async with log.read(after="start") as stream:
        first, second = [await anext(stream) for _ in range(2)]
    await age(admin, 8)
    await append(admin, "c")
    assert await log.expire() == 1
    for place in (
        first.position,
        datetime.now(UTC) - timedelta(days=9),
        Position("orders", 1, 0, 0),
    ):
        gap, event = await taken(log, place, 2)
        assert isinstance(gap, Gap)
        assert (gap.reason, event) == (GapReason.EXPIRED, "c")
    assert await taken(log, second.position, 1) == ["c"]


async def test_a_consumer_that_begins_where_events_were_removed_is_told(
    log: Log, admin: Connection
) -> None:
    """A new one, and one whose cursor is moved there; from a place that is kept none is."""
    await append(admin, "a", "b")
    async with log.read(after="start") as stream:
        first, second = [await anext(stream) for _ in range(2)]
    await age(admin, 8)
    await append(admin, "c")
    assert await log.expire() == 1
    expired: list[After] = [first.position, datetime.now(UTC) - timedelta(days=9)]
    async with asyncio.timeout(scaled(30)), log.consumer("moved", start="now", gaps=True) as moved:
        for number, place in enumerate(expired):
            await log.seek("moved", place)
            async with log.consumer(f"new {number}", start=place, gaps=True) as new:
                for consumer in (moved, new):
                    gap, event = [await anext(consumer) for _ in range(2)]
                    assert isinstance(gap, Gap)
                    assert isinstance(event, Event)
                    assert (gap.reason, event.payload) == (GapReason.EXPIRED, "c")
        await log.seek("moved", second.position)
        event = await anext(moved)
        assert isinstance(event, Event)
        assert event.payload == "c"


async def test_the_limit_counts_also_for_consumers(log: Log, admin: Connection) -> None:
    """They get a Gap, and go on with what is left."""
    await log.install(retention=timedelta(days=7), limit=timedelta(days=10))
    await append(admin, "a", "b")
    async with log.consumer("slow", gaps=True) as slow:
        await age(admin, 8)
        await append(admin, "c")
        assert await log.expire() == 0
        await _let_pass(admin, 3)
        assert await log.expire() == 1
        gap, event = [await anext(slow) for _ in range(2)]
    assert isinstance(gap, Gap)
    assert isinstance(event, Event)
    assert (gap.reason, gap.dropped, event.payload) == (GapReason.EXPIRED, 2, "c")


@pytest.mark.parametrize(
    ("taken_before", "times", "dropped"), [(3, 1, 4), (3, 2, 7), (1, 1, 6), (2, 1, None)]
)
async def test_a_consumer_that_comes_back_late_gets_the_count(
    log: Log, admin: Connection, taken_before: int, times: int, dropped: int | None
) -> None:
    """
    Its place is noted when events are removed, however often.

    What it took last is not done. In the middle of a tick it is not known how many are before it.
    """
    await log.install(retention=timedelta(days=7), limit=timedelta(days=10))
    await append(admin, "a1", "a2")
    await take_tick(admin)
    await append(admin, "a3")
    async with log.consumer("late", gaps=True) as late:
        for _ in range(taken_before):
            await anext(late)
    for removed in ["bcd", "ef"][:times]:
        await append(admin, *removed)
        await age(admin, 8)
        await append(admin, "young")
        await _let_pass(admin, 3)
        await _expire(log)
    async with log.consumer("late", gaps=True) as late:
        gap, event = [await anext(late) for _ in range(2)]
        assert isinstance(gap, Gap)
        assert isinstance(event, Event)
        assert (gap.reason, gap.dropped, event.payload) == (GapReason.EXPIRED, dropped, "young")
        assert gap.since is not None


@pytest.mark.needs_server("a network")
async def test_a_reader_whose_connection_was_lost_gets_the_count(
    log: Log, admin: Connection
) -> None:
    """It knows what it had read, though it takes its place anew."""
    await append(admin, "a", "b")
    async with asyncio.timeout(scaled(20)), log.read(after="start", gaps=True) as stream:
        for _ in range(2):
            await anext(stream)
        await append(admin, "c", "d", "e")
        await age(admin, 8)
        await append(admin, "f")
        await _expire(log)
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        gap, event = [await anext(stream) for _ in range(2)]
    assert isinstance(gap, Gap)
    assert isinstance(event, Event)
    assert (gap.reason, gap.dropped, event.payload) == (GapReason.EXPIRED, 3, "f")


@pytest.mark.needs_server("dead tuples")
async def test_trap_11_nothing_is_lost_and_nothing_bloats_in_a_ring_that_turns(
    dsn: str, admin: Connection, connect: Connect
) -> None:
    """
    Partitions of a second, emptied again and again under appends and a consumer.

    0 missing, the order kept, and no dead tuple in the events.
    """
    async with Log("orders", dsn, poll=0.1) as log:
        await log.install(retention=timedelta(seconds=1), ring=3)
        emptied, done, room, progress = 0, asyncio.Event(), asyncio.Semaphore(200), asyncio.Event()
        sent: list[str] = []
        read: list[str] = []

        async def write() -> None:
            async with connect() as connection:
                while not done.is_set():
                    await room.acquire()  # nothing is removed that the consumer has not reached
                    sent.append(str(len(sent)))
                    await append(connection, sent[-1])

        async def consume() -> None:
            async with log.consumer("slow") as consumer:
                async for event in consumer:
                    read.append(event.payload)
                    room.release()
                    progress.set()
                    if event.payload == "end":
                        return

        async with asyncio.TaskGroup() as group:
            writing = group.create_task(write())
            group.create_task(consume())
            while emptied < 4:
                progress.clear()
                await progress.wait()  # each call takes a tick, which the consumer has to walk
                emptied += await log.expire()
            done.set()
            await writing
            await append(admin, "end")
            sent.append("end")
    assert read == sent
    dead = "SELECT sum(n_dead_tup) FROM pg_stat_user_tables WHERE relname LIKE 'orders_events%'"
    assert await admin.fetchval(dead) == 0
    assert await admin.fetchval("SELECT count(*) FROM asyncnotify.orders_events") < len(sent)


@pytest.mark.needs_server("SQL")
async def test_trap_11_the_oldest_tick_is_found_without_those_that_were_removed(
    log: Log, admin: Connection, connect: Connect
) -> None:
    """Each portion asks for it. While an old snapshot keeps them, they are not passed each time."""
    await append(admin, "a")
    await take_tick(admin)
    await admin.execute(
        "INSERT INTO asyncnotify.orders_ticks (tick, epoch, base, snapshot, own, top, final, total)"
        " SELECT tick + n, epoch, base, snapshot, own, top + n, final, total"
        " FROM asyncnotify.orders_ticks, generate_series(1, 20000) AS n WHERE tick = 1"
    )
    await admin.execute("SELECT setval('asyncnotify.orders_id', 20001)")
    await append(admin, "b")
    await age(admin, 8)
    await append(admin, "c")
    query = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT asyncnotify.orders_first_tick()"
    async with connect() as other, other.transaction(isolation="repeatable_read"):
        await other.execute("SELECT pg_current_xact_id()")
        assert await log.expire() == 1
        assert await oldest_tick(admin) == 20_002
        await admin.fetchval(query)
        [plan] = json.loads(await admin.fetchval(query))
        assert plan["Plan"]["Shared Hit Blocks"] < 20
        assert await taken(log, "start", 1) == ["c"]
        assert (await log.status()).events == 3


async def test_the_limit_counts_from_when_events_could_be_consumed(
    log: Log, admin: Connection
) -> None:
    """A tick that was taken after an outage holds old events, and those of just before it."""
    await log.install(retention=timedelta(days=7), limit=timedelta(days=10))
    await append(admin, "a", "b")
    await age(admin, 0.2, with_tick=False)
    async with log.consumer("slow", gaps=True) as slow:
        await take_tick(admin)
        await _let_pass(admin, 9.9)
        await append(admin, "c")
        assert await log.expire() == 0
        await _let_pass(admin, 0.2)
        assert await log.expire() == 1
        gap = await anext(slow)
    assert isinstance(gap, Gap)
    assert gap.dropped == 2


@pytest.mark.needs_server("SQL")
async def test_trap_11_nothing_is_removed_in_vain_beside_a_lock_of_the_partition(
    log: Log, admin: Connection, connect: Connect
) -> None:
    """As pg_dump has it for hours: the ticks would be deleted, and come back, at each attempt."""
    await append(admin, "a")
    await age(admin, 8)
    await append(admin, "b")
    async with connect() as other, other.transaction():
        await other.execute("LOCK TABLE asyncnotify.orders_events IN ACCESS SHARE MODE")
        assert await log.expire() == 0
        touched = "SELECT count(*) FROM asyncnotify.orders_ticks WHERE xmax <> 0"
        assert await admin.fetchval(touched) == 0
    assert await log.expire() == 1


@pytest.mark.needs_server("SQL")
async def test_trap_11_the_tick_that_sees_all_is_found_by_halves(
    log: Log, admin: Connection, connect: Connect
) -> None:
    """Where a transaction spans the end of a partition's time, there may be thousands before it."""
    async with connect() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await append(slow, "a")
        for number in range(40):
            await append(admin, str(number))
            await take_tick(admin)
        await transaction.commit()
    await take_tick(admin)
    slot = await admin.fetchval(NOT_WRITTEN)
    await admin.execute(f"{OLD_PARTITION} WHERE payload IN ('a', '0')", slot)
    await admin.execute(OLDER_TICKS, timedelta(days=8))
    last = await admin.fetchval("SELECT max(tick) FROM asyncnotify.orders_ticks")
    assert await log.expire() == 1
    assert await oldest_tick(admin) == last


async def _remove_all(log: Log, admin: Connection) -> None:
    """Have retention remove the events that there are, whoever has still to consume them."""
    await log.install(retention=timedelta(days=7), limit=timedelta(days=10))
    await age(admin, 11)
    await append(admin, "later", channel="others")
    await _expire(log)


@pytest.mark.parametrize("transactional", [False, True])
async def test_an_event_that_is_removed_while_it_is_handled_becomes_a_dead_letter(
    dsn: str, installed: Names, admin: Connection, *, transactional: bool
) -> None:
    """It is kept as the consumer has read it; nothing is lost in silence."""
    log = Log("orders", dsn, poll=3600)
    done = asyncio.Event()

    async def handle(event: Event[str], *_: object) -> None:
        if event.payload == "later":
            done.set()
        else:
            await _remove_all(log, admin)
            raise ValueError(event.payload)

    log.on("mailer", transactional=transactional, on_error=Retry(1))(handle)
    event_id = await log.append("things", "a", key="k", headers={"trace": "7"})
    async with asyncio.timeout(scaled(20)), log:
        await done.wait()
        [letter] = await log.dead_letters("mailer")
    event = letter.event
    assert (event.id, event.channel, event.payload) == (event_id, "things", "a")
    assert (event.key, event.headers, event.position.id) == ("k", {"trace": "7"}, 1)
    assert (letter.attempts, letter.error) == (1, "ValueError: a")


@pytest.mark.parametrize("buckets", [1, 2])
async def test_an_undecodable_event_that_has_been_removed_becomes_a_dead_letter(
    log: Log, admin: Connection, buckets: int
) -> None:
    """Retention has removed it after it was read, and before the one who iterates came to it."""
    numbers = Channel("things", int)
    for payload in ("1", "x"):
        await log.append("things", payload, key="k")
    async with (
        asyncio.timeout(scaled(20)),
        log.consumer("mailer", numbers, buckets=buckets) as consumer,
    ):
        assert (await anext(consumer)).payload == 1
        await _remove_all(log, admin)
        waiting = asyncio.ensure_future(anext(consumer))
        while not (letters := await log.dead_letters("mailer")):
            pass
        waiting.cancel()
        await asyncio.wait({waiting})
    assert [(one.event.payload, one.event.position.id) for one in letters] == [("x", 2)]
