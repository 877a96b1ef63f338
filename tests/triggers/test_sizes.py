"""Payloads of up to 7,999 bytes in the server's encoding, and no statement aborted by one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import asyncpg
import pytest

from asyncnotify import Reread
from asyncnotify.triggers import Change, Table
from tests.support.databases import database_of
from tests.triggers.conftest import Told

if TYPE_CHECKING:
    from tests.conftest import SharedServer
    from tests.triggers.conftest import Connection, Telling

LIMIT = 7_999
COST = re.compile(r"cost=[\d.]+\.\.([\d.]+)")
LEVELS = pytest.mark.parametrize("level", ["statement", "row"])


@LEVELS
async def test_a_row_fits_up_to_the_last_byte(
    admin: Connection, telling: Telling, level: str
) -> None:
    """A payload of 7,999 bytes is sent whole, one of 8,000 with the key only."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    told = await telling("t", key="id", payload="v", level=level)
    (empty,) = await told.payloads_after("INSERT INTO t VALUES (1, '')")
    most = LIMIT - len(empty)
    await told.after("DELETE FROM t")
    (full,) = await told.after(f"INSERT INTO t VALUES (1, repeat('x', {most}))")
    assert (full.whole, len(full.rows[0]["v"])) == (True, most)
    (cut,) = await told.after(f"UPDATE t SET v = repeat('x', {most + 1})")
    assert cut == Change("update", (1,), ({"id": 1},), whole=False)


@LEVELS
async def test_a_key_that_is_too_large_says_read_again(
    admin: Connection, telling: Telling, level: str
) -> None:
    """No payload can hold it; the statement goes on."""
    await admin.execute("CREATE TABLE t (id text, v int)")
    told = await telling("t", key="id", payload="v", level=level)
    assert await told.after("INSERT INTO t VALUES (repeat('x', 8000), 1)") == [Reread(1)]
    assert await admin.fetchval("SELECT count(*) FROM t") == 1


@LEVELS
async def test_one_of_two_keys_that_is_too_large_says_read_again(
    admin: Connection, telling: Telling, level: str
) -> None:
    """The other key does not change that, also where its row is sent without its values."""
    await admin.execute("CREATE TABLE t (id text, v text)")
    told = await telling("t", key="id", payload="v", level=level)
    await told.after("INSERT INTO t VALUES (repeat('x', 8000), '')")
    changed = "UPDATE t SET id = 'a', v = repeat('y', 8000)"
    assert await told.after(changed) == [Reread(1)]
    assert await admin.fetchval("SELECT id FROM t") == "a"


async def test_payloads_are_filled_and_counted(admin: Connection, telling: Telling) -> None:
    """Many rows share a payload; where they need more than allowed, one says "read again"."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    told = await telling("t", key="id", max_notifications=3)
    await admin.execute("INSERT INTO t SELECT n FROM generate_series(10000, 12700) AS n")
    changes = await told.after()
    assert len(changes) == 3
    assert [key for change in changes for key in change.keys] == list(range(10000, 12701))
    assert await told.after("UPDATE t SET v = 'x'") != [Reread(2701)]
    await told.after("INSERT INTO t SELECT n FROM generate_series(13000, 13999) AS n")
    assert await told.after("UPDATE t SET v = 'x'") == [Reread(3701)]
    assert await told.after("DELETE FROM t") == [Reread(3701)]


async def test_rows_that_a_condition_leaves_out_are_not_counted(
    admin: Connection, telling: Telling
) -> None:
    """How many of the rows would have been told is not known, if not all of them."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    told = await telling("t", key="id", when="new.v = 1", max_notifications=1)
    rows = "SELECT n, n % 2 FROM generate_series(10000, 19999) AS n"
    for statement in (f"INSERT INTO t {rows}", "UPDATE t SET v = v", "DELETE FROM t"):
        assert await told.after(statement) == [Reread(None)]


async def test_small_and_large_rows_in_one_statement(admin: Connection, telling: Telling) -> None:
    """A row that is too large stands between the others, with its key."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    told = await telling("t", key="id", payload="v")
    values = "(1, 'a'), (2, repeat('x', 9000)), (3, repeat('y', 9000)), (4, 'b'), (5, 'c')"
    changes = await told.after(f"INSERT INTO t VALUES {values}")
    assert [(change.keys, change.whole) for change in changes] == [
        ((1,), True),
        ((2,), False),
        ((3,), False),
        ((4, 5), True),
    ]


@pytest.mark.parametrize("options", [{}, {"watch": "w"}, {"key": ("id", "v")}])
async def test_what_is_planned_for_many_rows_is_cheap_for_one(
    admin: Connection, telling: Telling, options: dict[str, Any]
) -> None:
    """A session keeps its plans: one of a high cost would be compiled for each row after that."""
    try:
        await admin.execute("LOAD 'auto_explain'")
    except asyncpg.UndefinedFileError:
        pytest.skip("the server has no auto_explain")
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v text, w int)")
    told = await telling("t", **{"key": "id", **options})
    await told.after(
        "INSERT INTO t SELECT n, 'x' FROM generate_series(1, 20000) AS n",
        "UPDATE t SET w = 1",
        "DELETE FROM t WHERE id > 3",
    )
    await admin.execute("SET auto_explain.log_min_duration = 0; SET client_min_messages = log")
    await admin.execute("SET auto_explain.log_nested_statements = on")
    plans: list[str] = []
    admin.add_log_listener(lambda _, message: plans.append(message.message))
    await told.after("INSERT INTO t VALUES (9)", "UPDATE t SET w = 2 WHERE id = 2")
    await told.after("DELETE FROM t WHERE id = 3")
    of_triggers = [plan for plan in plans if "Named Tuplestore Scan" in plan]
    assert len(of_triggers) == 3
    costs = [float(cost) for plan in of_triggers for cost in COST.findall(plan)[:1]]
    assert len(costs) == 3
    assert max(costs) < 10


@LEVELS
@pytest.mark.parametrize(
    ("when", "sqlstate"),
    [
        ("1 / new.v > 0", "22012"),
        ("public.is_one(new.v)", "P0004"),
        *((f"public.fails(new.v, '{state}')", state) for state in ("P0002", "P0003", "42804")),
    ],
)
async def test_a_condition_that_fails_aborts_nothing(
    admin: Connection, telling: Telling, level: str, when: str, sqlstate: str
) -> None:
    """The statement goes on with a warning, and those who listen are told to read."""
    await admin.execute("""
        CREATE TABLE t (id int PRIMARY KEY, v int);
        CREATE FUNCTION is_one(v int) RETURNS bool LANGUAGE plpgsql
            AS 'BEGIN ASSERT v = 1; RETURN true; END';
        CREATE FUNCTION fails(v int, state text) RETURNS bool LANGUAGE plpgsql
            AS 'BEGIN IF v <> 1 THEN RAISE USING ERRCODE = state; END IF; RETURN true; END';
    """)
    told = await telling("t", key="id", when=when, level=level)
    warnings: list[asyncpg.PostgresLogMessage] = []

    def keep(_: object, message: asyncpg.PostgresLogMessage) -> None:
        warnings.append(message)

    admin.add_log_listener(keep)
    (reread,) = await told.after("INSERT INTO t VALUES (1, 0)")
    assert isinstance(reread, Reread)
    assert [(warning.sqlstate, warning.severity) for warning in warnings] == [(sqlstate, "WARNING")]
    assert '"public"."t" by this statement' in warnings[0].message
    assert await told.keys_after("INSERT INTO t VALUES (2, 1)") == [("insert", [2])]


@LEVELS
async def test_a_column_that_is_gone_aborts_nothing(
    admin: Connection, telling: Telling, level: str
) -> None:
    """Who renames a key column forgets a trigger: writes go on, each told as "read again"."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    told = await telling("t", key="id", level=level)
    await admin.execute("ALTER TABLE t RENAME id TO number")
    statements = "INSERT INTO t VALUES (1, 0)", "UPDATE t SET v = 1", "DELETE FROM t"
    for statement in statements:
        (reread,) = await told.after(statement)
        assert isinstance(reread, Reread)


@LEVELS
@pytest.mark.parametrize("lacks", ["right", "number"])
async def test_a_session_without_numbers_aborts_nothing(
    admin: Connection, telling: Telling, level: str, lacks: str
) -> None:
    """Where roles may not call set_config(), as some have it, each statement says "read again"."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    told = await telling("t", key="id", level=level)
    role = f"{await admin.fetchval('SELECT current_database()')}_writer"
    await admin.execute(f"CREATE ROLE {role}; GRANT ALL ON t TO {role}")
    if lacks == "right":
        await admin.execute("REVOKE ALL ON FUNCTION pg_catalog.set_config FROM PUBLIC")
    else:
        await admin.execute("SET asyncnotify.change = 'none'")
    try:
        await admin.execute(f"SET ROLE {role}")
        many = "INSERT INTO t SELECT generate_series(2, 3)"
        statements = "INSERT INTO t VALUES (1)", many, "UPDATE t SET v = 1", "TRUNCATE t"
        for statement in statements:
            told_of = await told.after(statement)
            assert told_of
            assert all(isinstance(reread, Reread) for reread in told_of)
        twice = await told.after("BEGIN", *["INSERT INTO t VALUES (1)", "DELETE FROM t"] * 2, "END")
        assert len(twice) == 4  # in their order: none is taken for one before
    finally:
        await admin.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(
    ("encoding", "letter", "size"), [("UTF8", "é", 2), ("LATIN1", "é", 1), ("EUC_JP", "あ", 2)]
)
async def test_sizes_are_bytes_of_the_servers_encoding(
    admin: Connection, pg_server: SharedServer, encoding: str, letter: str, size: int
) -> None:
    """A letter counts as many bytes as the server's encoding has for it, in names as well."""
    async with database_of(admin, pg_server, encoding) as (writer, reader):
        await writer.execute(f'CREATE TABLE "t{letter}" ("k{letter}" int PRIMARY KEY, v text)')
        table = Table(f"t{letter}", key=f"k{letter}", payload="v", channel=f"c{letter}")
        await table.install(writer)
        assert (await table.status(writer)).is_fine
        told = Told(writer, reader, table)
        await told.listen()
        (change,) = await told.after(f"INSERT INTO \"t{letter}\" VALUES (1, '{letter}')")
        assert change.rows == ({f"k{letter}": 1, "v": letter},)
        most = (LIMIT - await size_of_empty(told, letter)) // size
        fits, cut = f"repeat('{letter}', {most})", f"repeat('{letter}', {most + 1})"
        (change,) = await told.after(f'UPDATE "t{letter}" SET v = {fits}')
        assert (change.whole, change.rows[0]["v"]) == (True, letter * most)
        (change,) = await told.after(f'UPDATE "t{letter}" SET v = {cut}')
        assert (change.whole, change.keys) == (False, (1,))


async def size_of_empty(told: Told, letter: str) -> int:
    """Return the bytes of a payload without the letters in its value, in the encoding."""
    await told.after(f"UPDATE \"t{letter}\" SET v = ''")
    payloads = await told.payloads_after(f'UPDATE "t{letter}" SET v = v')
    encoding = await told.encoding()
    return len(payloads[0].encode(encoding))


@LEVELS
@pytest.mark.parametrize(("encoding", "byte"), [("SQL_ASCII", 255), ("WIN1252", 129)])
async def test_bytes_that_nobody_could_read(
    admin: Connection,
    pg_server: SharedServer,
    level: Literal["statement", "row"],
    encoding: str,
    byte: int,
) -> None:
    """Of no encoding, or of one in which they are no character: they would end a connection."""
    async with database_of(admin, pg_server, encoding) as (writer, reader):
        await writer.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
        table = Table("t", key="id", payload="v", level=level)
        await table.install(writer)
        told = Told(writer, reader, table)
        await told.listen()
        assert await told.keys_after("INSERT INTO t VALUES (1, 'é')") == [("insert", [1])]
        (reread,) = await told.after(f"INSERT INTO t VALUES (2, chr({byte}))")
        assert isinstance(reread, Reread)
