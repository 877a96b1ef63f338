"""The traps of ordering events by snapshots: each was met once, and each test bears its number."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from asyncnotify import PayloadError
from asyncnotify.log import EntryError, Log
from asyncnotify.log._consuming import serving
from asyncnotify.log._schema.cursors import CURSOR_FUNCTIONS
from asyncnotify.log._walk.walk import Size
from tests.log.conftest import NAMES, Reader, append
from tests.support.machine import scaled

if TYPE_CHECKING:
    from asyncnotify.log._names import Names
    from tests.log.conftest import Connect, Connection

pytestmark = pytest.mark.needs_server("SQL")

CALLS: Final = [
    "add_consumer('new', 4, 1, 0, 0)",
    "take_consumer('mailer', 0, 7)",
    "hold_consumer('mailer', 0, 0)",
    "commit_consumer('mailer', 0, 0, 1, 0, 0)",
    "seek_consumer('mailer', 1, 0, 0)",
    "pause_consumer('mailer', true)",
    "drop_consumer('mailer')",
    "bury('mailer', 0, 0, 1, 0, 0, 1, '', gen_random_uuid(), 'a', 'x', NULL, NULL, now())",
    "discard('mailer', gen_random_uuid())",
]
"""Of each function by which a consumer is moved."""


async def test_trap_1_a_running_transaction_above_xmax_is_not_lost(
    reader: Reader, connect: Connect
) -> None:
    """
    What has an xid above the snapshot's xmax, and an id below the tick's top, comes later.

    Its transaction is in no list of running ones: xmax is the latest completed xid plus one.
    """
    async with connect() as slow, connect() as fast:
        await append(fast, "before")
        transaction = slow.transaction()
        await transaction.start()
        await append(slow, "slow")
        assert await reader.payloads() == ["before"]
        [_, tick] = await reader.walk.ticks(0, 2)
        assert tick.snapshot.running == ()
        assert tick.top == 2
        await transaction.commit()
        await append(fast, "after")
        assert await reader.payloads() == ["slow", "after"]


async def test_trap_1_many_subtransactions_above_xmax(reader: Reader, connect: Connect) -> None:
    """Savepoints have xids too: a range of thousands is found by steps in the index."""
    async with connect() as slow, connect() as fast, connect() as late:
        await append(fast, "before")
        first, second = slow.transaction(), late.transaction()
        await first.start()
        await append(slow, "slow")
        await slow.execute(
            "DO $$ BEGIN FOR n IN 1..1500 LOOP BEGIN"
            " PERFORM asyncnotify.orders_append('things', n::text);"
            " EXCEPTION WHEN others THEN RAISE; END; END LOOP; END $$"
        )
        await second.start()
        await append(late, "late")
        assert await reader.payloads() == ["before"]
        [_, tick] = await reader.walk.ticks(0, 2)
        assert tick.own - tick.snapshot.xmax > 1_500
        await first.commit()
        assert await reader.payloads() == ["slow", *map(str, range(1, 1501))]
        await second.commit()
        assert await reader.payloads() == ["late"]


async def test_trap_2_no_tick_is_taken_where_an_xid_is_held(
    admin: Connection, installed: Names
) -> None:
    """In a transaction that has written, a tick would call its own events visible."""
    async with admin.transaction():
        await append(admin, "own")
        with pytest.raises(asyncpg.ActiveSQLTransactionError, match="of its own"):
            await admin.execute(f"SELECT {installed.prefix}_tick()")


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_trap_3_no_tick_is_taken_in_another_isolation(
    admin: Connection, installed: Names, isolation: str
) -> None:
    """There the snapshot would be older than the lock, and ticks would not nest."""
    await admin.execute(f"SET default_transaction_isolation = '{isolation.lower()}'")
    with pytest.raises(asyncpg.ActiveSQLTransactionError, match="READ COMMITTED"):
        await admin.execute(f"SELECT {installed.prefix}_tick()")


async def test_trap_3_ticks_that_meet_are_taken_one_after_the_other(
    reader: Reader, connect: Connect
) -> None:
    """The snapshot is taken under the lock, so it holds all that was in the one before."""
    async with connect() as holder, connect() as waiter, connect() as fast:
        async with holder.transaction():
            await holder.execute(f"SELECT pg_advisory_xact_lock({NAMES.lock_key('tick')})")
            taken = asyncio.ensure_future(waiter.fetchval(f"SELECT {NAMES.prefix}_tick()"))
            while not await fast.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                pass
            await append(fast, "after the tick was asked for")
        assert await taken == 1
    [tick] = await reader.walk.ticks(1, 1)
    assert tick.total == 1


async def test_trap_4_the_xid_is_that_of_the_transaction(admin: Connection, reader: Reader) -> None:
    """An event of a savepoint has the xid of the whole transaction, and that is before its id."""
    async with admin.transaction():
        current = await admin.fetchval("SELECT pg_current_xact_id()::text")
        async with admin.transaction():
            await append(admin, "in a savepoint")
    row = await admin.fetchrow(f"SELECT x::text, xmin::text FROM {NAMES.events}")
    assert row is not None
    assert row["x"] == current
    assert row["xmin"] != current
    columns = await admin.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0"
        " ORDER BY attnum",
        NAMES.events,
    )
    assert [column[0] for column in columns][:2] == ["x", "id"]


async def test_trap_7_a_tick_is_committed_to_disk(installed: Names, connect: Connect) -> None:
    """Whatever synchronous_commit says: what a consumer has seen must survive a crash."""
    async with connect() as connection:
        await connection.execute("SET synchronous_commit = off")
        await append(connection, "x")
        async with connection.transaction():
            await connection.execute(f"SELECT {NAMES.prefix}_tick()")
            assert await connection.fetchval("SHOW synchronous_commit") == "on"


@pytest.mark.parametrize("call", CALLS)
async def test_trap_7_what_a_consumer_is_told_is_committed_to_disk(
    installed: Names, connect: Connect, call: str
) -> None:
    """Cursors, tokens, consumers that are new or gone: a crash takes nothing of it back."""
    async with connect() as connection:
        await connection.execute(f"SELECT {NAMES.prefix}_add_consumer('mailer', 1, 1, 0, 0)")
        await connection.execute("SET synchronous_commit = off")
        async with connection.transaction():
            await connection.execute(f"SELECT {NAMES.prefix}_{call}")
            assert await connection.fetchval("SHOW synchronous_commit") == "on"


def test_trap_7_every_function_that_moves_a_consumer_is_tried() -> None:
    """All but those that only read, or lock."""
    names = {call.partition("(")[0] for call in CALLS}
    others = {"has_consumer", "lock_consumer"}
    assert names == {call.partition("(")[0] for call in CURSOR_FUNCTIONS} - others


async def test_trap_8_a_consumer_reads_its_cursor_again_after_each_loss(
    installed: Names, admin: Connection, dsn: str
) -> None:
    """A server that has been restored knows less than was handled: what it lost comes again."""
    async with Log("orders", dsn, poll=3600) as log:
        await append(admin, "a", "b", "c")
        async with log.consumer("mailer") as consumer:
            assert [(await anext(consumer)).payload for _ in range(3)] == ["a", "b", "c"]
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM asyncnotify.orders_consumers;"
                "UPDATE asyncnotify.orders_consumers SET tick = 1, id = 1"
            )
            async with asyncio.timeout(scaled(20)):
                assert [(await anext(consumer)).payload for _ in range(2)] == ["b", "c"]


async def test_trap_10_a_large_transaction_is_walked_in_portions(
    reader: Reader, connect: Connect
) -> None:
    """A tick of 5,000 events gives portions of 1,000; one of large events, portions by bytes."""
    async with connect() as connection:
        await connection.execute(
            "SELECT asyncnotify.orders_append_many("
            "array_fill('things'::text, ARRAY[5000]),"
            " ARRAY(SELECT n::text FROM generate_series(1, 5000) n))"
        )
        assert await reader.payloads() == [str(n) for n in range(1, 5001)]
        assert reader.portions == [1_000] * 5
        small = Reader(connection, size=Size(rows=1_000, bytes=1_000_000))
        small.tick = reader.tick
        await connection.execute(
            "SELECT asyncnotify.orders_append_many("
            "array_fill('things'::text, ARRAY[10]), array_fill(repeat('x', 400000), ARRAY[10]))"
        )
        assert len(await small.payloads()) == 10
        assert small.portions == [3, 3, 3, 1]


async def test_trap_10_one_event_above_the_bound_is_read_all_the_same(
    reader: Reader, connect: Connect
) -> None:
    """The walk goes on past an event that is larger than a portion may be."""
    async with connect() as connection:
        small = Reader(connection, size=Size(rows=10, bytes=100))
        await append(connection, "a", "x" * 1_000, "b")
        assert [len(payload) for payload in await small.payloads()] == [1, 1_000, 1]


async def test_trap_10_late_events_come_in_portions_too(installed: Names, connect: Connect) -> None:
    """Two transactions that were open at the last tick are merged by id, portion by portion."""
    async with connect() as one, connect() as two, connect() as fast, connect() as last:
        reader = Reader(last, size=Size(rows=7))
        first, second = one.transaction(), two.transaction()
        await first.start()
        await second.start()
        sent = [f"{connection}{n}" for n in range(25) for connection in "ab"]
        for payload in sent:
            await append(one if payload[0] == "a" else two, payload)
        await append(fast, "fast")
        assert await reader.payloads() == ["fast"]
        await first.commit()
        await second.commit()
        reader.portions.clear()
        assert await reader.payloads() == sent
        assert reader.portions == [7] * 7 + [1]


async def test_trap_14_a_tick_without_news_writes_nothing(
    admin: Connection, reader: Reader
) -> None:
    """An idle call takes no xid and makes no row."""
    await append(admin, "x")
    await reader.read()
    for _ in range(5):
        before = await admin.fetchval("SELECT pg_current_snapshot()::text")
        for _ in range(3):
            assert await reader.walk.take_tick() == reader.tick
        if await admin.fetchval("SELECT pg_current_snapshot()::text") == before:
            return  # each time it is not: autovacuum takes some xids as well
    pytest.fail("it takes xids")


async def test_trap_12_the_cursor_is_not_written_for_each_event(
    admin: Connection, installed: Names, dsn: str
) -> None:
    """A consumer that takes 2,000 events one by one writes its row some times, not 2,000."""
    await admin.execute(
        "CREATE SEQUENCE writes;"
        "CREATE FUNCTION count_write() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM nextval('public.writes'); RETURN NEW; END $$;"
        "CREATE TRIGGER counting BEFORE UPDATE ON asyncnotify.orders_consumers"
        " FOR EACH ROW EXECUTE FUNCTION count_write()"
    )
    async with Log("orders", dsn, poll=3600) as log:
        await log.append_many([("things", str(n)) for n in range(2_000)])
        async with log.consumer("mailer") as consumer:
            for n in range(2_000):
                assert (await anext(consumer)).payload == str(n)
    assert await admin.fetchval("SELECT last_value FROM writes") < 200


async def test_a_consumer_of_a_rare_channel_keeps_its_place_on_the_way(
    admin: Connection, installed: Names, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It passes thousands of ticks: after a loss it would begin anew, and notice no seek before."""
    monkeypatch.setattr(serving, "PROGRESS", 0.0)
    await admin.execute(
        "CREATE TABLE places (tick int8);"
        "CREATE FUNCTION note_place() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO public.places VALUES (NEW.tick); RETURN NEW; END $$;"
        "CREATE TRIGGER noting BEFORE UPDATE ON asyncnotify.orders_consumers"
        " FOR EACH ROW EXECUTE FUNCTION note_place()"
    )
    await admin.execute(
        "DO $$ BEGIN FOR number IN 1..1250 LOOP"
        " PERFORM asyncnotify.orders_append('others', number::text); COMMIT;"
        " PERFORM asyncnotify.orders_tick(); COMMIT; END LOOP; END $$"
    )
    await append(admin, "wanted")
    async with Log("orders", dsn, poll=3600) as log, log.consumer("rare", "things") as consumer:
        assert (await anext(consumer)).payload == "wanted"
    places = await admin.fetch("SELECT DISTINCT tick FROM places ORDER BY tick")
    assert [row["tick"] for row in places] == [0, 1098]


OF_THE_OWNER: Final = [
    "commit_consumer('mailer', 0, $1, 1, 0, 0)",
    "hold_consumer('mailer', 0, $1)",
    "has_consumer('mailer', 0, $1)",
    "take_consumer('mailer', 0, $1)",
]
"""What the session calls that serves a consumer, with its token, or with the key of its lock."""


@pytest.mark.parametrize("call", OF_THE_OWNER)
async def test_trap_12_a_commit_passes_no_older_versions_of_the_row(
    installed: Names, admin: Connection, connect: Connect, call: str
) -> None:
    """While an old snapshot keeps them all, each commit reads as many pages as the first ones."""
    function = "asyncnotify.orders_" + call.replace("$1", "1")

    async def pages() -> int:
        query = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT {function}"
        [plan] = json.loads(await admin.fetchval(query))
        return int(plan["Plan"]["Shared Hit Blocks"])

    async def commit(times: int) -> None:
        await admin.execute(
            "DO $$ BEGIN FOR number IN 1 .. " + str(times) + " LOOP"
            " ASSERT asyncnotify.orders_commit_consumer('mailer', 0, 1, 1, 0, 0); COMMIT;"
            " END LOOP; END $$"
        )

    await admin.execute("SELECT asyncnotify.orders_add_consumer('mailer', 1, 1, 0, 0)")
    await admin.execute("SELECT asyncnotify.orders_take_consumer('mailer', 0, 1)")
    async with connect() as other, other.transaction(isolation="repeatable_read"):
        await other.execute("SELECT pg_current_xact_id()")
        await commit(300)
        early = max([await pages() for _ in range(3)])
        if "take" in call:
            await admin.execute("UPDATE asyncnotify.orders_consumers SET token = 1")
        await commit(6_000)
        assert await pages() < early + 20  # of 80 with all versions
        await admin.execute("SELECT asyncnotify.orders_drop_consumer('mailer')")
        await admin.execute("SELECT asyncnotify.orders_add_consumer('mailer', 1, 1, 0, 0)")
        assert await pages() < early + 20


async def test_trap_14_an_older_transaction_that_commits_later_wakes_by_itself(
    installed: Names, connect: Connect, dsn: str
) -> None:
    """A reader that has been woken for newer events, and waits again, is woken for these too."""
    async with (
        Log("orders", dsn, poll=3600) as log,
        connect() as slow,
        connect() as fast,
        log.read(after="now") as stream,
    ):
        async with slow.transaction():
            await append(slow, "older")
            await append(fast, "newer")
            assert (await anext(stream)).payload == "newer"
            waiting = asyncio.ensure_future(anext(stream))
            await fast.execute("SELECT 1")
            assert not waiting.done()
        assert (await waiting).payload == "older"


@pytest.mark.parametrize("part", ["payload", "key", "headers"])
async def test_trap_15_what_text_and_jsonb_refuse_is_refused_before(
    installed: Names, admin: Connection, dsn: str, part: str
) -> None:
    """NUL and lone surrogates raise a typed error, and the caller's transaction stays good."""
    async with Log("orders", dsn) as log, admin.transaction():
        for bad in ("a\0b", "\ud800"):
            value: Any = {"a": bad} if part == "headers" else bad
            options: dict[str, Any] = {"payload": "x", part: value}
            with pytest.raises((EntryError, PayloadError)):
                await log.append("things", **options, connection=admin)
        await log.append("things", "fine", connection=admin)
    assert await admin.fetchval("SELECT payload FROM asyncnotify.orders_events") == "fine"
