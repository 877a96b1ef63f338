"""Tables of which the server shows triggers of statements less than all: partitions and roots."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import asyncpg
import pytest

from asyncnotify import Reread
from asyncnotify.log import Log
from asyncnotify.triggers import Change, Table, TriggerState

if TYPE_CHECKING:
    from tests.triggers.conftest import Connect, Connection, Telling

Level = Literal["statement", "row"]
GENERATED = """
    CREATE TABLE sales (id int, day int, net int, gross int GENERATED ALWAYS AS (net * 2) STORED)
        PARTITION BY LIST (day);
    CREATE TABLE sales_1 PARTITION OF sales FOR VALUES IN (1);
"""
ATTACH = """
    CREATE TABLE sales_2 (gross int GENERATED ALWAYS AS (net * 2) STORED, net int, day int, id int);
    ALTER TABLE sales ATTACH PARTITION sales_2 FOR VALUES IN (2);
"""
"""The columns of a partition lie otherwise than those of its parent."""

USES: dict[str, dict[str, Any]] = {
    "payload": {"key": "id", "payload": "gross"},
    "key": {"key": ("id", "gross")},
    "watch": {"key": "id", "watch": "gross"},
    "when": {"key": "id", "when": "new.gross > 100"},
}


@pytest.mark.parametrize("to", ["notify", "log"])
@pytest.mark.parametrize("use", USES)
async def test_a_stored_generated_column_of_a_partitioned_table_is_refused(
    admin: Connection, dsn: str, use: str, to: Literal["notify", "log"]
) -> None:
    """Whatever the columns of its partitions are now: one that is attached later may differ."""
    await admin.execute(GENERATED)
    async with Log("things", dsn) as log:
        await log.install()
    table = Table("sales", to=to, log="things" if to == "log" else None, **USES[use])
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="stored generated") as caught:
        await table.install(admin)
    assert caught.value.hint == 'Use level="row".'
    for statement in table.upgrade_statements():
        await admin.execute(statement)
    assert (await table.status(admin)).function is TriggerState.OUTDATED


async def test_each_level_tells_the_generated_values_that_it_takes(
    admin: Connection, telling: Telling
) -> None:
    """Those of a partitioned table by row; of statements those of deletes, and of other tables."""
    await admin.execute(GENERATED)
    by_row = await telling("sales", key="id", payload="gross", level="row", trigger="row")
    deletes = await telling(
        "sales", key="id", payload="gross", operations=("delete",), channel="deletes"
    )
    await admin.execute(ATTACH)
    expected = ({"id": 1, "gross": 200},)
    assert await by_row.after("INSERT INTO sales VALUES (1, 2, 100)", "DELETE FROM sales") == [
        Change("insert", (1,), expected),
        Change("delete", (1,), expected),
    ]
    assert await deletes.after() == [Change("delete", (1,), expected)]
    await admin.execute("CREATE TABLE t (id int, gross int GENERATED ALWAYS AS (id * 200) STORED)")
    told = await telling("t", key="id", payload="gross", when="new.gross > 100")
    assert await told.after("INSERT INTO t VALUES (1)") == [Change("insert", (1,), expected)]


async def test_other_columns_of_such_a_table_are_told(admin: Connection, telling: Telling) -> None:
    """Also where the columns of a partition lie otherwise: its rows and those moved into it."""
    await admin.execute(GENERATED)
    await admin.execute(ATTACH)
    told = await telling("sales", key="id", payload="net")
    assert await told.after("INSERT INTO sales VALUES (1, 1, 100)", "UPDATE sales SET day = 2") == [
        Change("insert", (1,), ({"id": 1, "net": 100},)),
        Change("update", (1,), ({"id": 1, "net": 100},)),
    ]
    assert (await told.table.status(admin)).is_fine


# -- rows that are left out on their way to another partition -------------------------------------

LEAVES_OUT = """
    CREATE TABLE jobs (id int, state text, v int) PARTITION BY LIST (state);
    CREATE TABLE jobs_open PARTITION OF jobs FOR VALUES IN ('open', 'busy');
    CREATE TABLE jobs_done PARTITION OF jobs FOR VALUES IN ('done');
    CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER leave_out BEFORE INSERT ON jobs_done
        FOR EACH ROW EXECUTE FUNCTION leave_out();
    INSERT INTO jobs VALUES (1, 'open'), (2, 'open'), (3, 'open'), (NULL, 'open');
"""
MOVED = "UPDATE jobs SET state = CASE id WHEN 2 THEN 'done' ELSE 'busy' END WHERE id IN (2, 3)"
GONE: dict[str, list[tuple[str, list[int | None]]]] = {
    "UPDATE jobs SET state = 'done' WHERE id = 1": [("delete", [1])],
    "UPDATE jobs SET state = 'done' WHERE id IS NULL": [("delete", [None])],
    "UPDATE jobs SET state = 'done' WHERE id IN (1, 2)": [("delete", [1, 2])],
    MOVED: [("delete", [2]), ("update", [3])],
    "UPDATE jobs SET state = 'busy' WHERE id IS NULL": [("update", [None])],
    "UPDATE jobs SET state = 'done' WHERE id = 9": [],
}


@pytest.mark.parametrize("options", [{}, {"when": "new.id < 9 OR new.id IS NULL"}])
@pytest.mark.parametrize("statement", GONE)
async def test_a_row_that_is_left_out_on_its_way_is_told_as_deleted(
    admin: Connection, telling: Telling, statement: str, options: dict[str, str]
) -> None:
    """Where a trigger of the other partition does not let it in, alone and beside other rows."""
    await admin.execute(LEAVES_OUT)
    told = await telling("jobs", key="id", payload="state", **options)
    seen = await told.keys_after(statement)
    assert [(operation, sorted(keys, key=str)) for operation, keys in seen] == GONE[statement]


@pytest.mark.parametrize("limit", [1, 2])
async def test_rows_that_are_left_out_count_as_others(
    admin: Connection, telling: Telling, limit: int
) -> None:
    """Where too many are to be told, "read again" names the number of all."""
    await admin.execute(LEAVES_OUT)
    await admin.execute("INSERT INTO jobs SELECT n, 'open' FROM generate_series(5, 3000) AS n")
    told = await telling("jobs", key="id", max_notifications=limit)
    update = "UPDATE jobs SET state = CASE WHEN id % 3 = 0 THEN 'busy' ELSE 'done' END WHERE id > 0"
    assert await told.after(update) == [Reread(2_999)]


# -- a Table of a partition, or of a child --------------------------------------------------------

CHILDREN = {
    "partition": """
        CREATE TABLE parent (id int PRIMARY KEY) PARTITION BY LIST (id);
        CREATE TABLE t PARTITION OF parent DEFAULT
    """,
    "child": "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE t () INHERITS (parent)",
}
BECOMES = {
    "partition": """
        CREATE TABLE parent (id int PRIMARY KEY) PARTITION BY LIST (id);
        ALTER TABLE parent ATTACH PARTITION t DEFAULT
    """,
    "child": "CREATE TABLE parent (id int); ALTER TABLE t INHERIT parent",
}
LEAVES = {
    "partition": "ALTER TABLE parent DETACH PARTITION t",
    "child": "ALTER TABLE t NO INHERIT parent",
}
each_kind = pytest.mark.parametrize("kind", CHILDREN)


@each_kind
async def test_triggers_of_statements_are_refused_below_a_parent(
    admin: Connection, kind: str
) -> None:
    """Nothing that is written through the parent would be told."""
    await admin.execute(CHILDREN[kind])
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="through its parent") as caught:
        await Table("t", key="id").install(admin)
    assert "level=" in str(caught.value.hint)
    assert await admin.fetchval("SELECT count(*) FROM pg_trigger WHERE tgfoid <> 0") == 0


@each_kind
async def test_a_table_that_gets_a_parent_is_uncovered(admin: Connection, kind: str) -> None:
    """The status says so as long as it has one, and install() refuses."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    table = Table("t", key="id")
    await table.install(admin)
    await admin.execute(BECOMES[kind])
    assert (await table.status(admin)).having(TriggerState.UNCOVERED) == ("public.t",)
    with pytest.raises(asyncpg.FeatureNotSupportedError):
        await table.install(admin)
    await admin.execute(LEAVES[kind])
    assert (await table.status(admin)).is_fine
    await table.install(admin)


@each_kind
async def test_triggers_of_rows_tell_what_is_written_through_a_parent(
    admin: Connection, telling: Telling, kind: str
) -> None:
    """And those of TRUNCATE alone are called for that of a parent."""
    await admin.execute(CHILDREN[kind])
    told = await telling("t", key="id", level="row")
    truncates = await telling(
        "t", key="id", operations=("truncate",), channel="truncates", trigger="truncates"
    )
    assert (await told.table.status(admin)).is_fine
    assert (await truncates.table.status(admin)).is_fine
    inserted = "parent" if kind == "partition" else "t"
    assert await told.keys_after(f"INSERT INTO {inserted} VALUES (1)", "DELETE FROM parent") == [
        ("insert", [1]),
        ("delete", [1]),
    ]
    assert await truncates.after("TRUNCATE parent") == [Change("truncate")]


# -- locks ----------------------------------------------------------------------------------------

RECORDS_LOCK_TIMEOUT = """
    CREATE TABLE settings (command text, lock_timeout int);
    CREATE FUNCTION record() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO public.settings
        SELECT tg_tag, setting::int FROM pg_settings WHERE name = 'lock_timeout';
    END $$;
    CREATE EVENT TRIGGER record ON ddl_command_start
        WHEN TAG IN ('CREATE TRIGGER', 'DROP FUNCTION') EXECUTE FUNCTION record();
"""
"""How long the server waits for the lock of each of these commands, in milliseconds."""

WAITING = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
WAITED = 0.3
"""Seconds."""


@pytest.mark.parametrize(
    ("call", "command"), [("install", "CREATE TRIGGER"), ("remove", "DROP FUNCTION")]
)
@pytest.mark.parametrize("level", ["statement", "row"])
async def test_all_locks_of_an_attempt_together_wait_for_lock_timeout(
    admin: Connection, connect: Connect, level: Level, call: str, command: str
) -> None:
    """What one wait has taken is not there for the next one: writers wait behind all of them."""
    await admin.execute("""
        CREATE TABLE parts (id int) PARTITION BY LIST (id);
        CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
        CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
    """)
    table = Table("parts", key="id", level=level)
    if call == "remove":
        await table.install(admin)
    await admin.execute(RECORDS_LOCK_TIMEOUT)
    async with connect() as writer, connect() as onlooker:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("INSERT INTO parts_1 VALUES (1)")
        given = {"lock_timeout": 60, "timeout": 60}
        calling = asyncio.create_task(getattr(table, call)(admin, **given))
        while not await onlooker.fetchval(WAITING):
            assert not calling.done(), calling
        await asyncio.sleep(WAITED)  # what the server counts is the time that it waits
        await transaction.commit()
        await calling
    last = "SELECT min(lock_timeout) FROM settings WHERE command = $1"
    assert 0 < await admin.fetchval(last, command) <= 60_000 - 1_000 * WAITED
    assert await admin.fetchval("SHOW lock_timeout") == "0"
