"""Changes in a durable log: each row an event, in the transaction of its statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from asyncnotify import Gap, GapReason
from asyncnotify.log import Log, NotInstalledError
from asyncnotify.triggers import BlockingTable, Change, Table
from tests.support.server_features import needs_version

if TYPE_CHECKING:
    from tests.triggers.conftest import Connect, Connection

LEVELS = pytest.mark.parametrize("level", ["statement", "row"])
MANY = 2_500


async def read(log: Log, table: Table, count: int) -> list[tuple[str | None, Any]]:
    """Return keys and payloads of the first events; a gap stands without a key."""
    found: list[tuple[str | None, Any]] = []
    async with log.read(table.changes, after="start", gaps=True) as events:
        while len(found) < count:
            event = await anext(events)
            if isinstance(event, Gap):
                found.append((None, event.reason))
            else:
                found.append((event.key, event.payload))
    return found


@LEVELS
async def test_rows_are_events(
    admin: Connection, dsn: str, level: Literal["statement", "row"]
) -> None:
    """With the key of the row, of any size, in the order of the statements."""
    async with Log("things", dsn) as log:
        await log.install()
        await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
        table = Table("t", key="id", payload="v", to="log", log=log, level=level)
        await table.install(admin)
        assert (await table.status(admin)).is_fine
        await admin.execute("INSERT INTO t VALUES (1, repeat('x', 100000)), (2, 'b')")
        await admin.execute("UPDATE t SET id = 3 WHERE id = 2")
        await admin.execute("BEGIN; DELETE FROM t; ROLLBACK")
        await admin.execute("TRUNCATE t")
        assert await read(log, table, 5) == [
            ("1", Change("insert", (1,), ({"id": 1, "v": "x" * 100_000},))),
            ("2", Change("insert", (2,), ({"id": 2, "v": "b"},))),
            ("2", Change("delete", (2,), ({"id": 2, "v": "b"},))),
            ("3", Change("insert", (3,), ({"id": 3, "v": "b"},))),
            (None, Change("truncate")),
        ]


@LEVELS
async def test_columns_that_get_another_type(
    admin: Connection, connect: Connect, dsn: str, level: Literal["statement", "row"]
) -> None:
    """No statement fails of a session that has written before; it tells the types of now."""
    async with Log("things", dsn) as log:
        await log.install()
        await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
        table = Table("t", key="id", payload="v", to="log", log=log, level=level)
        await table.install(admin)
        statements = (
            "INSERT INTO t VALUES (1, 1)",
            "UPDATE t SET v = {}",
            "UPDATE t SET id = {}",
            "DELETE FROM t",
        )
        for statement in statements:
            await admin.execute(statement.format(3))
        async with connect() as other:
            await other.execute("ALTER TABLE t ALTER id TYPE int8, ALTER v TYPE text")
        for statement in statements:
            await admin.execute(statement.format(5_000_000_000))
        assert (await read(log, table, 10))[5:] == [
            ("1", Change("insert", (1,), ({"id": 1, "v": "1"},))),
            ("1", Change("update", (1,), ({"id": 1, "v": "5000000000"},))),
            ("1", Change("delete", (1,), ({"id": 1, "v": "5000000000"},))),
            (
                "5000000000",
                Change("insert", (5_000_000_000,), ({"id": 5_000_000_000, "v": "5000000000"},)),
            ),
            (
                "5000000000",
                Change("delete", (5_000_000_000,), ({"id": 5_000_000_000, "v": "5000000000"},)),
            ),
        ]


async def test_many_rows_and_composite_keys(admin: Connection, dsn: str) -> None:
    """Nothing is left out, however many rows a statement has."""
    async with Log("things", dsn) as log:
        await log.install()
        await admin.execute("CREATE TABLE t (a int, b text, PRIMARY KEY (a, b))")
        table = Table("t", key=("a", "b"), to="log", log="things", channel="of_t")
        await table.install(admin)
        rows = f"SELECT n, 'x' FROM generate_series(1, {MANY}) AS n"
        await admin.execute(f"INSERT INTO t {rows}")
        found = await read(log, table, MANY)
        assert found[0] == ('[1, "x"]', Change("insert", ((1, "x"),), ({"a": 1, "b": "x"},)))
        assert [change.keys[0][0] for _, change in found] == list(range(1, MANY + 1))


async def test_truncate_of_a_partition_is_a_gap(admin: Connection, dsn: str) -> None:
    """Rows of the others are left: who reads the log has to read again."""
    async with Log("things", dsn) as log:
        await log.install()
        await admin.execute("CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id)")
        await admin.execute("CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (9)")
        table = Table("t", key="id", to="log", log=log)
        await table.install(admin)
        await admin.execute("TRUNCATE t_1")
        ((_, reason),) = await read(log, table, 1)
        assert reason is GapReason.REREAD


@LEVELS
async def test_truncate_of_a_whole_is_one_event(
    admin: Connection, dsn: str, level: Literal["statement", "row"]
) -> None:
    """Whatever partitions it has, at any depth; one that is truncated alone after that is a gap."""
    async with Log("things", dsn) as log:
        await log.install()
        await admin.execute("""
            CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id);
            CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (9);
            CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (9) TO (99) PARTITION BY RANGE (id);
            CREATE TABLE t_3 PARTITION OF t_2 FOR VALUES FROM (9) TO (99);
        """)
        table = Table("t", key="id", to="log", log=log, level=level)
        other = Table("t", key="id", to="log", log=log, trigger="other", channel="other")
        await table.install(admin)
        await other.install(admin)
        await admin.execute("BEGIN; TRUNCATE t; INSERT INTO t VALUES (1); TRUNCATE t_1; COMMIT")
        await admin.execute("TRUNCATE t; TRUNCATE t")
        truncate = (None, Change("truncate"))
        for one in (table, other):
            assert await read(log, one, 5) == [
                truncate,
                ("1", Change("insert", (1,), ({"id": 1},))),
                (None, GapReason.REREAD),
                truncate,
                truncate,
            ]


@LEVELS
async def test_a_table_of_many_columns(
    admin: Connection, dsn: str, level: Literal["statement", "row"]
) -> None:
    """More than a function takes arguments: a row is a row."""
    async with Log("things", dsn) as log:
        await log.install()
        names = [f"c{number}" for number in range(250)]
        columns = ", ".join(f"{name} text DEFAULT '{name}, ]\u00e9'" for name in names)
        await admin.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
        table = Table("t", key="id", payload=names, to="log", log=log, level=level)
        await table.install(admin)
        await admin.execute("INSERT INTO t VALUES (1), (2)")
        row = {name: f"{name}, ]\u00e9" for name in names}
        assert await read(log, table, 2) == [
            (str(key), Change("insert", (key,), ({"id": key, **row},))) for key in (1, 2)
        ]


async def test_a_log_that_is_not_there_is_refused(admin: Connection, dsn: str) -> None:
    """When a Table is installed or upgraded, and not at the first write to its table."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    table = Table("t", key="id", to="log", log="things")
    await Log("other_things", dsn).install()
    with pytest.raises(
        NotInstalledError, match=r"no log 'things': install\(\) makes it"
    ) as refused:
        await table.install(admin)
    assert "Log('things', …).install() first" in refused.value.__notes__[0]
    await admin.execute("INSERT INTO t VALUES (1)")
    await Log("things", dsn).install()
    await table.install(admin)
    await admin.execute("ALTER SCHEMA asyncnotify RENAME TO elsewhere")
    with pytest.raises(NotInstalledError, match="things"):
        await table.upgrade(admin)


async def test_a_row_that_foreign_keys_change_twice_is_a_gap(admin: Connection, dsn: str) -> None:
    """Which version was the last one is not known, whatever the size of a row."""
    async with Log("things", dsn) as log:
        await log.install()
        reference = "int REFERENCES parent ON DELETE SET NULL"
        await admin.execute(f"""
            CREATE TABLE parent (id int PRIMARY KEY);
            CREATE TABLE child (id int PRIMARY KEY, a {reference}, b {reference}, v text);
            INSERT INTO parent VALUES (1), (2);
            INSERT INTO child VALUES (1, 1, 2, repeat('x', 2000000)), (2, 1, NULL, '');
        """)
        table = Table("child", key="id", payload=("a", "v"), to="log", log=log)
        await table.install(admin)
        await admin.execute("UPDATE child SET v = 'x' WHERE id = 2")
        await admin.execute("DELETE FROM parent")
        await admin.execute("UPDATE child SET v = 'y'")
        found = await read(log, table, 4)  # none of a row too large to wait for others
        assert [key for key, _ in found[:2]] == ["2", None]
        assert found[1] == (None, GapReason.REREAD)
        assert sorted(str(key) for key, _ in found[2:]) == ["1", "2"]


async def test_a_condition_does_not_hide_that_a_row_was_changed_twice(
    admin: Connection, dsn: str
) -> None:
    """A version between, which alone satisfies it, is no event."""
    async with Log("things", dsn) as log:
        await log.install()
        reference = "int REFERENCES parent ON DELETE SET NULL"
        await admin.execute(f"""
            CREATE TABLE parent (id int PRIMARY KEY);
            CREATE TABLE child (id int PRIMARY KEY, a {reference}, b {reference});
            INSERT INTO parent VALUES (1);
            INSERT INTO child VALUES (1, 1, 1);
        """)
        table = Table("child", key="id", watch="a", when="new.b IS NOT NULL", to="log", log=log)
        await table.install(admin)
        await admin.execute("DELETE FROM parent")
        assert await read(log, table, 1) == [(None, GapReason.REREAD)]


@pytest.mark.parametrize("when", [None, "new.v <> 'inserted'", "new.v = 'updated'"])
async def test_merge_into_a_partitioned_table_is_a_gap(
    admin: Connection, dsn: str, when: str | None
) -> None:
    """The server has put the inserted row in the place of the updated one."""
    needs_version(await admin.fetchval("SHOW server_version"), 15, "MERGE")
    async with Log("things", dsn) as log:
        await log.install()
        await admin.execute("""
            CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
            CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (9);
            INSERT INTO t VALUES (1, 'a')
        """)
        table = Table("t", key="id", to="log", log=log, when=when)
        await table.install(admin)
        await admin.execute("""
            MERGE INTO t USING (VALUES (5), (1)) AS s (id) ON s.id = t.id
            WHEN MATCHED THEN UPDATE SET v = 'updated'
            WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'inserted')
        """)
        await admin.execute("UPDATE t SET v = 'updated' WHERE id = 1")
        found = [key for key, _ in await read(log, table, 2 if when else 3)]
        assert found == [None, *([] if when else ["5"]), "1"]


@LEVELS
async def test_what_cannot_be_appended_aborts_the_statement(
    admin: Connection,
    dsn: str,
    level: Literal["statement", "row"],
) -> None:
    """A log loses nothing: without it, or the right to append to it, nothing is written."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    async with Log("things", dsn) as log:
        await log.install()
        await Table("t", key="id", to="log", log="things", level=level).install(admin)
        await admin.execute("ALTER SCHEMA asyncnotify RENAME TO elsewhere")
        with pytest.raises(asyncpg.InvalidSchemaNameError):
            await admin.execute("INSERT INTO t VALUES (1)")
        await admin.execute("ALTER SCHEMA elsewhere RENAME TO asyncnotify")
        await admin.execute("INSERT INTO t VALUES (1)")
        role = f"{await admin.fetchval('SELECT current_database()')}_writer"
        await admin.execute(f"CREATE ROLE {role}; GRANT INSERT ON t TO {role}")
        try:
            await admin.execute(f"SET ROLE {role}")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await admin.execute("INSERT INTO t VALUES (2)")
            await admin.execute("RESET ROLE")
            for grant in log.grants(append=[role]):
                await admin.execute(grant)
            await admin.execute(f"SET ROLE {role}")
            await admin.execute("INSERT INTO t VALUES (2)")
        finally:
            await admin.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")
    assert await admin.fetchval("SELECT count(*) FROM t") == 2


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_blocking_connection_on_an_asynchronous_driver(
    admin: Connection, dsn: str, driver: str
) -> None:
    """As run_sync() of SQLAlchemy has it: the catalogs can be read, also those of the log."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    async with Log("things", dsn) as log:
        await log.install()
    table = Table("t", key="id", to="log", log="things")
    engine = create_async_engine(dsn.replace("postgresql://", f"postgresql+{driver}://"))
    async with engine.begin() as connection:
        await connection.run_sync(lambda blocking: BlockingTable(table).install(blocking))
    await engine.dispose()
    assert (await table.status(admin)).is_fine
