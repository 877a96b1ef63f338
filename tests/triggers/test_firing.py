"""What is told of each kind of statement, by statement-level triggers."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify import Reread
from asyncnotify.triggers import Change, Status, Table, TriggerState
from tests.support.server_features import needs_version

if TYPE_CHECKING:
    from tests.triggers.conftest import Connection, Telling

MERGE_SINCE = 150_000
PARTITIONED = """
    CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
    CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (100);
    CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (100) TO (1000)
        PARTITION BY RANGE (id);
    CREATE TABLE parts_leaf PARTITION OF parts_high FOR VALUES FROM (100) TO (1000);
"""


async def test_rows_of_a_statement_arrive_together(admin: Connection, telling: Telling) -> None:
    """An insert, an update and a delete of several rows are one change each."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    told = await telling("t", key="id", payload="v")
    assert await told.after("INSERT INTO t VALUES (1, 'a'), (2, 'b')") == [
        Change("insert", (1, 2), ({"id": 1, "v": "a"}, {"id": 2, "v": "b"}))
    ]
    assert await told.after("UPDATE t SET v = v || v") == [
        Change("update", (1, 2), ({"id": 1, "v": "aa"}, {"id": 2, "v": "bb"}))
    ]
    assert await told.after("DELETE FROM t WHERE id = 2") == [
        Change("delete", (2,), ({"id": 2, "v": "bb"},))
    ]
    assert await told.after("TRUNCATE t") == [Change("truncate")]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE t SET v = 'x' WHERE false",
        "DELETE FROM t WHERE id = 99",
        "INSERT INTO t VALUES (1, 'again') ON CONFLICT DO NOTHING",
        "INSERT INTO t SELECT 5, 'x' WHERE false",
        "BEGIN; INSERT INTO t VALUES (7, 'x'); ROLLBACK",
    ],
)
async def test_nothing_is_told_of_nothing(
    admin: Connection, telling: Telling, statement: str
) -> None:
    """A statement that changes no row, or is rolled back, sends nothing."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1)")
    told = await telling("t", key="id")
    assert await told.after(statement) == []


async def test_on_conflict_splits_rows_rightly(admin: Connection, telling: Telling) -> None:
    """ON CONFLICT DO UPDATE tells the updated rows as such, and the new ones as inserts."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1)")
    told = await telling("t", key="id")
    upsert = "INSERT INTO t VALUES (1), (2), (3) ON CONFLICT (id) DO UPDATE SET v = 'x'"
    assert sorted(await told.keys_after(upsert)) == [("insert", [2, 3]), ("update", [1])]


async def test_merge_tells_each_branch_that_was_used(admin: Connection, telling: Telling) -> None:
    """MERGE tells inserts, updates and deletes, and nothing of a branch that was not used."""
    needs_version(await admin.fetchval("SHOW server_version"), 15, "MERGE")
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    await admin.execute("INSERT INTO t VALUES (1), (2)")
    told = await telling("t", key="id")
    merge = """
        MERGE INTO t USING (VALUES (1), (2), (3)) AS s (id) ON s.id = t.id
        WHEN MATCHED AND t.id = 1 THEN DELETE
        WHEN MATCHED THEN UPDATE SET v = 'x'
        WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'new')
    """
    expected = [("delete", [1]), ("insert", [3]), ("update", [2])]
    assert sorted(await told.keys_after(merge)) == expected
    again = merge.replace("(VALUES (1), (2), (3))", "(VALUES (2))")
    assert await told.keys_after(again) == [("update", [2])]


async def test_copy_is_one_insert(admin: Connection, telling: Telling) -> None:
    """COPY tells all its rows at once."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    told = await telling("t", key="id")
    await admin.copy_records_to_table("t", records=[(n,) for n in range(5)])
    assert await told.keys_after() == [("insert", [0, 1, 2, 3, 4])]


async def test_a_cascade_is_one_delete(admin: Connection, telling: Telling) -> None:
    """The rows that a foreign key deletes are told, all of them together."""
    await admin.execute("""
        CREATE TABLE parent (id int PRIMARY KEY);
        CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE);
        INSERT INTO parent VALUES (1), (2), (3);
        INSERT INTO child SELECT n, n % 3 + 1 FROM generate_series(1, 6) AS n;
    """)
    told = await telling("child", key="id")
    (change,) = await told.after("DELETE FROM parent")
    assert (change.operation, sorted(change.keys)) == ("delete", [1, 2, 3, 4, 5, 6])


CASCADES = {
    "set to NULL": ("ON DELETE SET NULL", "DELETE FROM parent"),
    "of two parents": ("ON UPDATE CASCADE", "UPDATE parent SET id = id + 9"),
    "of one parent": ("ON UPDATE CASCADE", "UPDATE parent SET id = 9 WHERE id = 1"),
}


@pytest.mark.parametrize("case", CASCADES)
@pytest.mark.parametrize("key", [("id",), ("a", "b", "id")])
async def test_a_row_that_foreign_keys_change_twice_says_read_again(
    admin: Connection, telling: Telling, case: str, key: tuple[str, ...]
) -> None:
    """Which version was the last one is not known; what changes rows once is told as ever."""
    action, statement = CASCADES[case]
    reference = f"int REFERENCES parent {action}"
    await admin.execute(f"""
        CREATE TABLE parent (id int PRIMARY KEY);
        CREATE TABLE child (id int, a {reference}, b {reference}, v int);
        INSERT INTO parent VALUES (1), (2), (3), (4);
        INSERT INTO child VALUES (1, 1, 2), (2, 3, 4), (3, 1, 1);
    """)
    told = await telling("child", key=key, payload=("a", "b"))
    rows = "UPDATE child SET v = 1", "UPDATE child SET id = id + 1"
    for told_rows in await told.after(*rows, "DELETE FROM parent WHERE id = 0"):
        assert isinstance(told_rows, Change)
    assert await told.after(statement) == [Reread(None)]


async def test_two_data_changing_ctes_are_one_change(admin: Connection, telling: Telling) -> None:
    """The trigger fires once for both, with the rows of both."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    told = await telling("t", key="id")
    both = """
        WITH one AS (INSERT INTO t VALUES (1) RETURNING id),
             two AS (INSERT INTO t VALUES (2) RETURNING id)
        SELECT FROM one, two
    """
    (change,) = await told.after(both)
    assert (change.operation, sorted(change.keys)) == ("insert", [1, 2])


async def test_replica_sessions_tell_nothing(admin: Connection, telling: Telling) -> None:
    """With session_replication_role = replica no trigger fires."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    told = await telling("t", key="id")
    statements = ["SET session_replication_role = replica", "INSERT INTO t VALUES (1)"]
    assert await told.after(*statements, "RESET session_replication_role") == []


# -- keys -----------------------------------------------------------------------------------------


async def test_another_key_is_a_delete_and_an_insert(admin: Connection, telling: Telling) -> None:
    """The old key is deleted, the new one inserted; rows that keep theirs are updated."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (5)")
    told = await telling("t", key="id")
    moved = "UPDATE t SET id = CASE id WHEN 1 THEN 2 ELSE id END"
    assert await told.keys_after(moved) == [("delete", [1]), ("insert", [2]), ("update", [5])]


async def test_keys_that_move_on_to_each_other(admin: Connection, telling: Telling) -> None:
    """A shift of all keys tells the first as deleted, the last as inserted, and updates between."""
    await admin.execute("CREATE TABLE t (id int, v int, PRIMARY KEY (id) DEFERRABLE)")
    await admin.execute("INSERT INTO t SELECT n, n FROM generate_series(1, 4) AS n")
    told = await telling("t", key="id", payload="v")
    gone, new, kept = await told.after("UPDATE t SET id = id + 1")
    assert [gone.keys, new.keys] == [(1,), (5,)]
    values = {row["id"]: row["v"] for row in kept.rows}
    assert (kept.operation, values) == ("update", {2: 1, 3: 2, 4: 3})


async def test_equal_payloads_in_a_transaction_all_arrive(
    admin: Connection, telling: Telling
) -> None:
    """PostgreSQL sends equal ones once: a row deleted and inserted again would seem to be gone."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    told = await telling("t", key="id")
    insert, delete = "INSERT INTO t VALUES (1)", "DELETE FROM t"
    seen = await told.keys_after("BEGIN", insert, delete, insert, delete, insert, "COMMIT")
    assert seen == [("insert", [1]), ("delete", [1])] * 2 + [("insert", [1])]


async def test_a_savepoint_that_is_rolled_back_is_not_told(
    admin: Connection, telling: Telling
) -> None:
    """What comes after it is told."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    told = await telling("t", key="id")
    undone = ["SAVEPOINT s", "INSERT INTO t VALUES (1)", "ROLLBACK TO s"]
    seen = await told.keys_after("BEGIN", *undone, "INSERT INTO t VALUES (1)", "COMMIT")
    assert seen == [("insert", [1])]


# -- partitions and children ----------------------------------------------------------------------


async def test_partitions(admin: Connection, telling: Telling) -> None:
    """A change is told once, through the parent and straight into a partition at any depth."""
    await admin.execute(PARTITIONED)
    told = await telling("parts", key="id", payload="v")
    assert await told.keys_after("INSERT INTO parts VALUES (1), (200)") == [("insert", [1, 200])]
    assert await told.keys_after("INSERT INTO parts_low VALUES (2)") == [("insert", [2])]
    assert await told.keys_after("INSERT INTO parts_leaf VALUES (201)") == [("insert", [201])]
    assert await told.keys_after("UPDATE parts_high SET v = 'x'") == [("update", [200, 201])]
    move = await told.keys_after("UPDATE parts SET id = 300 WHERE id = 2")
    assert move == [("delete", [2]), ("insert", [300])]


UPSERTS = {
    "one row": "(5), (1)",
    "rows": "(6), (7), (1), (101), (102)",
    "no insert": "(1), (2), (101)",
}


CALLS = {
    "statement": "{merge}",
    "procedure": "CALL put()",
    "procedure after an update": "UPDATE other SET a = 1; CALL put()",
    "function in an update": "UPDATE other SET a = putting()",
    "prepared after an update": "UPDATE other SET a = 1; EXECUTE prepared",
}


@pytest.mark.parametrize("upsert", UPSERTS)
@pytest.mark.parametrize("by", CALLS)
async def test_merge_into_a_partitioned_table(
    admin: Connection, telling: Telling, upsert: str, by: str
) -> None:
    """It says "read again" where the server has put inserted rows in the place of updated ones."""
    needs_version(await admin.fetchval("SHOW server_version"), 15, "MERGE")
    await admin.execute(PARTITIONED)
    await admin.execute("INSERT INTO parts VALUES (1), (2), (101), (102)")
    told = await telling("parts", key="id", payload="v")
    merge = f"""
        MERGE INTO parts USING (VALUES {UPSERTS[upsert]}) AS s (id) ON s.id = parts.id
        WHEN MATCHED THEN UPDATE SET v = 'updated'
        WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'inserted')
    """
    await admin.execute(f"""
        CREATE TABLE other (a int); INSERT INTO other VALUES (0);
        CREATE PROCEDURE put() LANGUAGE sql AS $${merge}$$;
        CREATE FUNCTION putting() RETURNS int LANGUAGE plpgsql AS $$BEGIN {merge}; RETURN 1; END$$;
        PREPARE prepared AS {merge};
    """)
    changes = await told.after(CALLS[by].format(merge=merge))
    if upsert == "no insert":
        assert [change.operation for change in changes] == ["update"]
    else:
        assert isinstance(changes[0], Reread)
        assert [change.operation for change in changes[1:]] == ["insert"]


async def test_a_key_of_a_partitioned_table_that_a_function_changes(
    admin: Connection, telling: Telling
) -> None:
    """It might be a MERGE; where the client sends the UPDATE, both keys are told."""
    await admin.execute(PARTITIONED)
    await admin.execute("INSERT INTO parts VALUES (1), (2)")
    told = await telling("parts", key="id")
    changed = [("delete", [1]), ("insert", [101])]
    assert await told.keys_after(" UPDATE parts SET id = 101 WHERE id = 1") == changed
    (*_, last) = await told.after("DO 'BEGIN UPDATE parts SET id = 102 WHERE id = 2; END'")
    version = int(await admin.fetchval("SHOW server_version_num"))
    assert isinstance(last, Reread) == (version >= MERGE_SINCE)


@pytest.mark.parametrize(
    "update",
    [
        "/* by a tool: update */ -- and another\n\tUPDATE parts SET id = 101 WHERE id = 1",
        "WITH one AS (SELECT 1 AS id) UPDATE parts SET id = 101 FROM one WHERE parts.id = one.id",
        "UPDATE parts SET id = 101, executed_by = 'merge_requests' WHERE id = 1",
    ],
)
async def test_an_update_of_a_key_that_a_client_sends(
    admin: Connection, telling: Telling, update: str
) -> None:
    """It is no MERGE, whatever the statement begins with, and whatever names are in it."""
    await admin.execute(PARTITIONED)
    await admin.execute("ALTER TABLE parts ADD executed_by text; INSERT INTO parts VALUES (1)")
    told = await telling("parts", key="id")
    assert await told.keys_after(update) == [("delete", [1]), ("insert", [101])]


async def test_an_update_that_moves_a_row_to_another_partition(
    admin: Connection, telling: Telling
) -> None:
    """It is one update, where the key stays."""
    await admin.execute("""
        CREATE TABLE parts (id int, place text, PRIMARY KEY (id, place)) PARTITION BY LIST (place);
        CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
        CREATE TABLE parts_b PARTITION OF parts FOR VALUES IN ('b');
        INSERT INTO parts VALUES (1, 'a');
    """)
    told = await telling("parts", key="id", payload="place")
    assert await told.after("UPDATE parts SET place = 'b'") == [
        Change("update", (1,), ({"id": 1, "place": "b"},))
    ]


async def test_truncate_of_one_partition_says_read_again(
    admin: Connection, telling: Telling
) -> None:
    """Rows of the others are left; a TRUNCATE of the whole is told once, whatever it fires."""
    await admin.execute(PARTITIONED)
    told = await telling("parts", key="id")
    assert await told.after("TRUNCATE parts_low") == [Reread(None)]
    assert await told.after("TRUNCATE parts") == [Change("truncate")]
    transaction = ["BEGIN", "TRUNCATE parts", "INSERT INTO parts VALUES (1)"]
    seen = await told.after(*transaction, "TRUNCATE parts_low", "COMMIT")
    assert seen == [Change("truncate"), Change("insert", (1,), ({"id": 1},)), Reread(None)]


async def test_a_truncate_of_the_whole_is_told_once_by_each_table(
    admin: Connection, telling: Telling
) -> None:
    """The triggers of one Table fire between those of another; a partition may have its own."""
    await admin.execute(PARTITIONED)
    for options in (
        {"name": "parts", "channel": "parts"},
        {"name": "parts", "channel": "parts", "trigger": "second"},
        {"name": "parts", "channel": "parts", "trigger": "third", "level": "row"},
        {"name": "parts_low", "channel": "parts", "trigger": "of_one", "level": "row"},
    ):
        given: Any = options
        await Table(key="id", **given).install(admin)
    told = await telling("parts", key="id")
    assert await told.after("TRUNCATE parts") == [Change("truncate")] * 4
    alone = await told.after("TRUNCATE parts_low")
    assert sorted(map(str, alone)) == sorted(map(str, [Change("truncate"), *[Reread(None)] * 3]))
    both = await told.after(
        "BEGIN", "TRUNCATE parts", "INSERT INTO parts VALUES (1)", "TRUNCATE parts_low", "COMMIT"
    )
    assert both.count(Reread(None)) == 3


async def test_a_partition_attached_later_is_named(admin: Connection, telling: Telling) -> None:
    """The status says so until install() is called again; what goes through the parent is told."""
    await admin.execute(PARTITIONED)
    told = await telling("parts", key="id")
    await admin.execute("CREATE TABLE late (id int PRIMARY KEY, v text)")
    await admin.execute("ALTER TABLE parts ATTACH PARTITION late FOR VALUES FROM (1000) TO (2000)")
    status = await told.table.status(admin)
    assert (status.state, status.having(TriggerState.UNCOVERED)) == (
        TriggerState.UNCOVERED,
        ("public.late",),
    )
    assert await told.keys_after("INSERT INTO parts VALUES (1001)") == [("insert", [1001])]
    assert await told.keys_after("INSERT INTO late VALUES (1002)") == []
    await told.table.install(admin)
    assert (await told.table.status(admin)).is_fine
    assert await told.keys_after("INSERT INTO late VALUES (1003)") == [("insert", [1003])]


async def test_children(admin: Connection, telling: Telling) -> None:
    """Rows written into a child are told; TRUNCATE of any says "read again"."""
    await admin.execute("CREATE TABLE base (id int); CREATE TABLE child (x int) INHERITS (base)")
    told = await telling("base", key="id")
    assert await told.keys_after("INSERT INTO child VALUES (1)") == [("insert", [1])]
    assert await told.keys_after("INSERT INTO base VALUES (2)") == [("insert", [2])]
    (update,) = await told.after("UPDATE base SET id = id")
    assert sorted(update.keys) == [1, 2]
    assert await told.after("TRUNCATE ONLY base") == [Reread(None)]
    assert await told.after("TRUNCATE child") == [Reread(None)]


# -- row level ------------------------------------------------------------------------------------


async def test_row_level(admin: Connection, telling: Telling) -> None:
    """Each row is a notification of its own, also in a partition that was attached later."""
    await admin.execute(PARTITIONED)
    told = await telling("parts", key="id", level="row")
    assert await told.keys_after("INSERT INTO parts VALUES (1), (200)") == [
        ("insert", [1]),
        ("insert", [200]),
    ]
    await admin.execute("CREATE TABLE late PARTITION OF parts FOR VALUES FROM (1000) TO (2000)")
    assert await told.keys_after("INSERT INTO late VALUES (1002)") == [("insert", [1002])]
    rekeyed = await told.keys_after("UPDATE parts_low SET id = 2")
    assert rekeyed == [("delete", [1]), ("insert", [2])]
    assert await told.keys_after("DELETE FROM parts WHERE id = 2") == [("delete", [2])]
    assert await told.after("TRUNCATE parts") == [Change("truncate")]


WRITING = ("insert", "update", "delete")
SOME = [set_of for size in (1, 2, 3) for set_of in itertools.combinations(WRITING, size)]


@pytest.mark.parametrize("operations", SOME)
async def test_a_row_that_moves_is_never_told_by_halves(
    admin: Connection, telling: Telling, operations: tuple[str, ...]
) -> None:
    """Of row-level triggers the server calls those of DELETE and INSERT: the last one is told."""
    await admin.execute("""
        CREATE TABLE parts (id int, region int) PARTITION BY LIST (region);
        CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
        CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
        INSERT INTO parts VALUES (1, 1);
    """)
    options: dict[str, Any] = {"key": "id", "operations": operations}
    if "insert" not in operations:
        with pytest.raises(asyncpg.FeatureNotSupportedError, match="move to another partition"):
            await telling("parts", level="row", **options)
        told = await telling("parts", **options)
        assert bool(await told.after("UPDATE parts SET region = 2")) is ("update" in operations)
        return
    told = await telling("parts", level="row", **options)
    assert (await told.keys_after("UPDATE parts SET region = 2"))[-1] == ("insert", [1])


async def test_from_statement_level_to_row_level_and_back(
    admin: Connection, telling: Telling
) -> None:
    """install() replaces the triggers that do not fit, and leaves nothing behind."""
    await admin.execute(PARTITIONED)
    told = await telling("parts", key="id")
    rows = Table("parts", key="id", level="row", operations=["insert", "delete"])
    assert (await rows.status(admin)).state is TriggerState.MISSING
    await rows.install(admin)
    assert (await rows.status(admin)).is_fine
    assert len(await told.after("INSERT INTO parts VALUES (1), (2)")) == 2
    assert await told.after("UPDATE parts SET v = 'x'") == []
    await told.table.install(admin)
    assert (await told.table.status(admin)).is_fine
    assert len(await told.after("INSERT INTO parts VALUES (3), (4)")) == 1
    await told.table.remove(admin)
    left = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'asyncnotify%'"
    assert await admin.fetchval(left) == 0
    missing = dict.fromkeys(["public.parts_high", "public.parts_leaf", "public.parts_low"])
    expected = {**dict.fromkeys(missing, TriggerState.UNCOVERED)}
    expected["public.parts"] = TriggerState.MISSING
    assert await told.table.status(admin) == Status(TriggerState.MISSING, expected)


REFUSED = {
    "several operations": (
        "AFTER INSERT OR UPDATE ON t REFERENCING NEW TABLE AS n FOR EACH STATEMENT"
    ),
    "columns": "AFTER UPDATE OF v ON t REFERENCING NEW TABLE AS n FOR EACH STATEMENT",
    "rows of a statement": "AFTER UPDATE ON t FOR EACH STATEMENT WHEN (NEW.id IS NOT NULL)",
    "rows of a partitioned table": (
        "AFTER INSERT ON parts REFERENCING NEW TABLE AS n FOR EACH ROW"
    ),
    "rows of a truncate": "BEFORE TRUNCATE ON t FOR EACH ROW",
}


@pytest.mark.parametrize("trigger", REFUSED)
async def test_what_the_server_refuses(admin: Connection, trigger: str) -> None:
    """For these reasons there is one statement-level trigger for each operation."""
    await admin.execute(PARTITIONED)
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    function = "pg_catalog.suppress_redundant_updates_trigger()"
    refusals = (asyncpg.FeatureNotSupportedError, asyncpg.InvalidObjectDefinitionError)
    with pytest.raises((*refusals, asyncpg.PostgresSyntaxError)):
        await admin.execute(f"CREATE TRIGGER it {REFUSED[trigger]} EXECUTE FUNCTION {function}")


async def test_a_restore_that_disables_triggers_is_not_told(
    admin: Connection, telling: Telling
) -> None:
    """As ``pg_restore --disable-triggers`` does it; the status says so if it does not end."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    told = await telling("t", key="id")
    disable = "ALTER TABLE t DISABLE TRIGGER ALL"
    assert await told.after(disable, "INSERT INTO t VALUES (1)") == []
    assert (await told.table.status(admin)).state is TriggerState.DISABLED
    enable = "ALTER TABLE t ENABLE TRIGGER ALL"
    assert await told.keys_after(enable, "INSERT INTO t VALUES (2)") == [("insert", [2])]
