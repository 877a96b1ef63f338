"""Tables that change after their triggers were installed: renamed, moved, replaced, detached."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import asyncpg
import pytest

from asyncnotify.triggers import Change, Status, Table, TriggerState

if TYPE_CHECKING:
    from tests.triggers.conftest import Connect, Connection, Telling

Level = Literal["statement", "row"]
each_level = pytest.mark.parametrize("level", ["statement", "row"])
TRIGGERS = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'asyncnotify%'"
FUNCTIONS = "SELECT array_agg(proname::text) FROM pg_proc WHERE proname LIKE 'asyncnotify%'"
FINE, MISSING, OUTDATED = TriggerState.FINE, TriggerState.MISSING, TriggerState.OUTDATED
FOREIGN, STRAY = TriggerState.FOREIGN, TriggerState.STRAY


# -- renamed --------------------------------------------------------------------------------------

MOVES = {
    "renamed": ("ALTER TABLE t RENAME TO u", "u"),
    "moved": ("CREATE SCHEMA shop; ALTER TABLE t SET SCHEMA shop", "shop.t"),
    "both": (
        "CREATE SCHEMA shop; ALTER TABLE t RENAME TO u; ALTER TABLE u SET SCHEMA shop",
        "shop.u",
    ),
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize(("way", "level"), [("upgrade", "statement"), ("install", "row")])
async def test_a_table_of_another_name_keeps_its_triggers(  # noqa: PLR0917 - a case has three parts
    admin: Connection, connect: Connect, telling: Telling, way: str, move: str, level: Level
) -> None:
    """The status is outdated; one call gives the function its new name, and locks no table."""
    statement, name = MOVES[move]
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    await telling("t", key="id", level=level)
    await admin.execute(statement)
    table = Table(name, key="id", level=level)
    status = await table.status(admin)
    assert (status.function, *status.tables.values()) == (OUTDATED, FINE)
    async with connect() as reader, reader.transaction():
        await reader.execute(f"LOCK TABLE {name} IN ACCESS SHARE MODE")
        await getattr(table, way)(admin)
    assert (await table.status(admin)).is_fine
    assert await admin.fetchval(FUNCTIONS) == [table.definition.function]
    told = await telling(name, key="id", level=level)
    assert await told.keys_after(f"INSERT INTO {name} VALUES (1)") == [("insert", [1])]


async def test_names_that_are_taken_on_the_way(admin: Connection) -> None:
    """A table that is renamed and moved may pass the names of others' functions."""
    for name in ("t", "u", "shop.t"):
        await admin.execute("CREATE SCHEMA IF NOT EXISTS shop")
        await admin.execute(f"CREATE TABLE {name} (id int)")
        await Table(name, key="id").install(admin)
    await admin.execute("ALTER TABLE t RENAME TO v; ALTER TABLE v SET SCHEMA shop")
    await admin.execute("ALTER TABLE shop.v RENAME TO u")
    await Table("shop.u", key="id").upgrade(admin)
    for name in ("u", "shop.t", "shop.u"):
        assert (await Table(name, key="id").status(admin)).is_fine


async def test_a_renamed_table_loses_its_triggers(admin: Connection) -> None:
    """remove() leaves none, and no function."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    await Table("t", key="id").install(admin)
    await admin.execute("ALTER TABLE t RENAME TO u")
    table = Table("u", key="id")
    await table.remove(admin)
    assert (await table.status(admin)).state is MISSING
    assert (await admin.fetchval(TRIGGERS), await admin.fetchval(FUNCTIONS)) == (0, None)


async def test_statements_for_a_renamed_table(admin: Connection) -> None:
    """What is printed for a migration replaces the triggers of the former name."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    await Table("t", key="id").install(admin)
    await admin.execute("ALTER TABLE t RENAME TO u")
    table = Table("u", key="id")
    for statement in table.statements():
        await admin.execute(statement)
    assert (await table.status(admin)).is_fine
    assert await admin.fetchval(FUNCTIONS) == ["asyncnotify_u"]


async def test_a_table_put_in_the_place_of_another(admin: Connection, telling: Telling) -> None:
    """What is written to the former one is not told as a change of the new one."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    table = (await telling("t", key="id")).table
    await admin.execute("ALTER TABLE t RENAME TO t_old; CREATE TABLE t (id int PRIMARY KEY)")
    expected = {"public.t": MISSING, "public.t_old": STRAY}
    assert await table.status(admin) == Status(FINE, expected)
    told = await telling("t", key="id")
    assert (await table.status(admin)) == Status(FINE, {"public.t": FINE})
    statements = ["INSERT INTO t_old VALUES (1)", "INSERT INTO t VALUES (2)"]
    assert await told.keys_after(*statements) == [("insert", [2])]


async def test_both_tables_after_an_exchange(admin: Connection) -> None:
    """Each gets a function of its own, in whichever order they are installed."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    table, former = Table("t", key="id"), Table("t_old", key="id")
    await table.install(admin)
    await admin.execute("ALTER TABLE t RENAME TO t_old; CREATE TABLE t (id int PRIMARY KEY)")
    await former.install(admin)
    await table.install(admin)
    for one in (table, former):
        assert (await one.status(admin)).is_fine


@pytest.mark.parametrize("first", ["t", "t_old"])
async def test_a_function_that_two_tables_share(admin: Connection, first: str) -> None:
    """Where triggers of both were copied onto one function, each gets its own."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    tables = {name: Table(name, key="id") for name in ("t", "t_old")}
    await tables["t"].install(admin)
    made = await admin.fetch("SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal")
    await admin.execute("ALTER TABLE t RENAME TO t_old; CREATE TABLE t (id int PRIMARY KEY)")
    for (definition,) in made:
        await admin.execute(definition)
    assert (await tables["t_old"].status(admin)).function is MISSING
    for name in sorted(tables, key=lambda name: name != first):
        await tables[name].install(admin)
    await tables["t"].install(admin)
    await tables["t_old"].install(admin)
    for table in tables.values():
        assert (await table.status(admin)).is_fine


@pytest.mark.parametrize("name", ['we"ird', "a.b", "% $1 :x '\\", "L" * 63, "é" * 31])
async def test_odd_names(admin: Connection, name: str) -> None:
    """Status, upgrade and remove find the triggers, under the old name and under the new one."""
    older, newer = '"' + name.replace('"', '""') + '"', '"' + name.replace('"', '""')[1:] + 'x"'
    await admin.execute(f"CREATE TABLE {older} (id int)")
    await Table(f"public.{older}", key="id", channel="c").install(admin)
    await admin.execute(f"ALTER TABLE {older} RENAME TO {newer}")
    table = Table(f"public.{newer}", key="id", channel="c")
    assert (await table.status(admin)).function is OUTDATED
    await table.upgrade(admin)
    assert (await table.status(admin)).is_fine
    await table.remove(admin)
    assert (await admin.fetchval(TRIGGERS), await admin.fetchval(FUNCTIONS)) == (0, None)


async def test_a_role_that_does_not_own_the_table(admin: Connection) -> None:
    """It is told what it lacks, and nothing is left behind; status() asks for no right."""
    role = f"{await admin.fetchval('SELECT current_database()')}_other"
    await admin.execute("CREATE TABLE t (id int); CREATE TABLE u (id int)")
    await Table("t", key="id").install(admin)
    await admin.execute("ALTER TABLE t RENAME TO v")
    await admin.execute(f"CREATE ROLE {role}; GRANT CREATE ON SCHEMA public TO {role}")
    try:
        await admin.execute(f"SET ROLE {role}")
        renamed, new = Table("v", key="id"), Table("u", key="id")
        for call in (renamed.install, renamed.upgrade, renamed.remove, new.install):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await call(admin)
        assert (await renamed.status(admin)).function is OUTDATED
        assert (await new.status(admin)).state is MISSING
        assert await admin.fetchval(FUNCTIONS) == ["asyncnotify_t"]
    finally:
        await admin.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_table_whose_name_begins_as_others_prefix(
    admin: Connection, telling: Telling
) -> None:
    """Installing and removing one of both leaves the other one's triggers."""
    await admin.execute("CREATE TABLE log_users (id int); CREATE TABLE users (id int)")
    told = await telling("log_users", key="id")
    other = Table("users", key="id", trigger="asyncnotify_log")
    await other.remove(admin)
    assert (await told.table.status(admin)).is_fine
    await other.install(admin)
    assert (await told.table.status(admin)).is_fine
    assert await told.keys_after("INSERT INTO log_users VALUES (1)") == [("insert", [1])]
    await other.remove(admin)
    assert (await told.table.status(admin)).is_fine


@each_level
async def test_the_owner_makes_partitions(
    admin: Connection, telling: Telling, level: Level
) -> None:
    """And has them covered; the function is that of the role that has installed it."""
    role = f"{await admin.fetchval('SELECT current_database()')}_owner"
    await admin.execute(f"""
        CREATE ROLE {role}; GRANT CREATE ON SCHEMA public TO {role};
        CREATE TABLE parts (id int) PARTITION BY RANGE (id); ALTER TABLE parts OWNER TO {role};
    """)
    try:
        told = await telling("parts", key="id", level=level)
        await admin.execute(f"SET ROLE {role}")
        await admin.execute("CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (9)")
        assert await told.keys_after("INSERT INTO parts VALUES (1)") == [("insert", [1])]
        await told.table.install(admin)
        assert (await told.table.status(admin)).is_fine
        assert await told.keys_after("INSERT INTO low VALUES (2)") == [("insert", [2])]
    finally:
        await admin.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


# -- columns of another type ----------------------------------------------------------------------

OPTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "watched": {"watch": "v"},
    "on a condition": {"when": "old.id > 0 AND new.id > 0"},
}


@pytest.mark.parametrize("options", OPTIONS)
@each_level
async def test_columns_that_get_another_type(
    admin: Connection, connect: Connect, telling: Telling, level: Level, options: str
) -> None:
    """A session that has written before tells what it writes, with the types of now."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    told = await telling("t", key="id", payload="v", level=level, **OPTIONS[options])
    statements = (
        "INSERT INTO t VALUES (1, 1)",
        "UPDATE t SET v = {}",
        "UPDATE t SET id = {}, v = 4",
        "DELETE FROM t",
    )
    await told.after(*(statement.format(3) for statement in statements))
    async with connect() as other:
        await other.execute("ALTER TABLE t ALTER id TYPE int8, ALTER v TYPE text")
    assert await told.after(*(statement.format(5_000_000_000) for statement in statements)) == [
        Change("insert", (1,), ({"id": 1, "v": "1"},)),
        Change("update", (1,), ({"id": 1, "v": "5000000000"},)),
        Change("delete", (1,), ({"id": 1, "v": "5000000000"},)),
        Change("insert", (5_000_000_000,), ({"id": 5_000_000_000, "v": "4"},)),
        Change("delete", (5_000_000_000,), ({"id": 5_000_000_000, "v": "4"},)),
    ]


# -- attached and detached ------------------------------------------------------------------------

PARTITIONED = """
    CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
    CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (100);
    CREATE TABLE high PARTITION OF parts FOR VALUES FROM (100) TO (200);
"""


async def test_a_partition_that_was_detached(admin: Connection, telling: Telling) -> None:
    """It is named as stray, and tells no more once install() is called again."""
    await admin.execute(PARTITIONED)
    told = await telling("parts", key="id")
    await admin.execute("ALTER TABLE parts DETACH PARTITION high")
    assert (await told.table.status(admin)).having(STRAY) == ("public.high",)
    await told.table.install(admin)
    assert (await told.table.status(admin)).is_fine
    statements = ["INSERT INTO high VALUES (101)", "INSERT INTO low VALUES (1)"]
    assert await told.keys_after(*statements) == [("insert", [1])]


async def test_a_partition_that_went_to_another_table(admin: Connection) -> None:
    """The triggers of the table that it has left do not stand in the way."""
    await admin.execute(PARTITIONED)
    await Table("parts", key="id").install(admin)
    await admin.execute("""
        ALTER TABLE parts DETACH PARTITION high;
        CREATE TABLE archive (id int PRIMARY KEY) PARTITION BY RANGE (id);
        ALTER TABLE archive ATTACH PARTITION high FOR VALUES FROM (100) TO (200);
    """)
    for name in ("archive", "parts"):
        table = Table(name, key="id")
        await table.install(admin)
        assert (await table.status(admin)).is_fine


@pytest.mark.parametrize("name", ["parts", "low"])
async def test_two_tables_that_share_a_partition(admin: Connection, name: str) -> None:
    """The second one is refused, with what to do, unless it has a name of its own."""
    await admin.execute(PARTITIONED)
    second = {"parts": "low", "low": "parts"}[name]
    levels: dict[str, Level] = {"parts": "statement", "low": "row"}
    await Table(name, key="id", level=levels[name]).install(admin)
    with pytest.raises(asyncpg.DuplicateObjectError, match="low has triggers of another") as caught:
        await Table(second, key="id", level=levels[second]).install(admin)
    assert "trigger=" in str(caught.value.hint)
    table = Table(second, key="id", level=levels[second], trigger="second")
    await table.install(admin)
    assert (await table.status(admin)).is_fine
    assert (await Table(name, key="id", level=levels[name]).status(admin)).is_fine


@pytest.mark.parametrize("parent", ["PARTITION OF base FOR VALUES FROM (1) TO (9)", None])
@each_level
async def test_foreign_tables(
    admin: Connection, telling: Telling, dsn: str, level: Level, parent: str | None
) -> None:
    """Row-level triggers cover them; with others the status names them, and all else is fine."""
    await admin.execute(f"CREATE TABLE base (id int){' PARTITION BY RANGE (id)' if parent else ''}")
    await link_to_itself(admin, dsn)
    await admin.execute(f"""
        CREATE TABLE behind (id int);
        CREATE FOREIGN TABLE far {parent or "() INHERITS (base)"}
            SERVER itself OPTIONS (table_name 'behind');
    """)
    told = await telling("base", key="id", level=level)
    status = await told.table.status(admin)
    is_covered = level == "row"
    assert status == Status(
        FINE, {"public.base": FINE, "public.far": FINE if level == "row" else FOREIGN}
    )
    assert status.is_fine
    inserted = [("insert", [2])] if is_covered else []
    assert await told.keys_after("INSERT INTO far VALUES (2)") == inserted
    for write in ("UPDATE base SET id = id", "DELETE FROM base"):
        if is_covered:
            assert [change.operation for change in await told.after(write)] == [write[:6].lower()]
        else:
            with pytest.raises(asyncpg.FeatureNotSupportedError, match="foreign table"):
                await admin.execute(write)
    await told.table.remove(admin)
    assert await admin.fetchval(TRIGGERS) == 0


async def link_to_itself(admin: Connection, dsn: str) -> None:
    """Make a foreign server of the test's own database; skip where that cannot be."""
    where = urlsplit(dsn)
    try:
        await admin.execute("CREATE EXTENSION postgres_fdw")
    except asyncpg.PostgresError as error:
        pytest.skip(f"no postgres_fdw: {error}")
    await admin.execute(f"""
        CREATE SERVER itself FOREIGN DATA WRAPPER postgres_fdw
            OPTIONS (host '{where.hostname}', port '{where.port}', dbname '{where.path[1:]}');
        CREATE USER MAPPING FOR PUBLIC SERVER itself
            OPTIONS (user '{where.username}', password '{where.password}');
    """)


# -- made partitioned -----------------------------------------------------------------------------

BECOMES_PARTITION = """
    ALTER TABLE t RENAME TO t_old;
    CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id);
    ALTER TABLE t ATTACH PARTITION t_old FOR VALUES FROM (0) TO (9);
    CREATE TABLE t_rest PARTITION OF t DEFAULT
"""


@pytest.mark.parametrize("fires", ["ENABLE", "ENABLE ALWAYS"])
@each_level
async def test_a_table_that_becomes_a_partition_of_a_new_one(
    admin: Connection, telling: Telling, level: Level, fires: str
) -> None:
    """Its triggers go before the new table's are made, of which it gets one of the same name."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    told = await telling("t", key="id", level=level)
    query = "SELECT tgname FROM pg_trigger WHERE tgrelid = 't'::regclass"
    for (name,) in await admin.fetch(query):
        await admin.execute(f"ALTER TABLE t {fires} TRIGGER {name}")
    await admin.execute(BECOMES_PARTITION)
    assert (await told.table.status(admin)).state is MISSING
    await told.table.install(admin)
    assert (await told.table.status(admin)).is_fine
    for inserted, table in enumerate(("t", "t_old")):
        insert = f"INSERT INTO {table} VALUES ({inserted})"
        assert await told.keys_after(insert) == [("insert", [inserted])]
    kinds = "SELECT DISTINCT tgenabled FROM pg_trigger WHERE tgrelid = 't_old'::regclass"
    assert await admin.fetchval(kinds) == (b"O" if fires == "ENABLE" else b"A")


# -- disabled -------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", ["DISABLE TRIGGER USER", "ENABLE REPLICA TRIGGER asyncnotify_{}"])
@pytest.mark.parametrize("table", ["t", "t1"])
@each_level
async def test_triggers_of_a_partition_that_are_switched_off(
    admin: Connection, telling: Telling, level: Level, table: str, off: str
) -> None:
    """install() switches them on, also those that a partition has from its parent."""
    await admin.execute("CREATE TABLE t (id int) PARTITION BY RANGE (id)")
    await admin.execute("CREATE TABLE t1 PARTITION OF t DEFAULT")
    told = await telling("t", key="id", level=level)
    name = "row" if level == "row" else "insert"
    await admin.execute(f"ALTER TABLE {table} {off.format(name)}")
    assert (await told.table.status(admin)).state is TriggerState.DISABLED
    await told.table.install(admin)
    assert (await told.table.status(admin)).is_fine
    assert await told.keys_after("INSERT INTO t1 VALUES (1)") == [("insert", [1])]


async def test_a_trigger_of_a_partition_fires_as_that_of_its_parent(
    admin: Connection, telling: Telling
) -> None:
    """Where that one fires on replicas too, this one does when it is switched on."""
    await admin.execute("CREATE TABLE t (id int) PARTITION BY RANGE (id)")
    await admin.execute("CREATE TABLE t1 PARTITION OF t DEFAULT")
    told = await telling("t", key="id", level="row")
    await admin.execute("ALTER TABLE t ENABLE ALWAYS TRIGGER asyncnotify_row")
    await admin.execute("ALTER TABLE t1 DISABLE TRIGGER asyncnotify_row")
    await told.table.install(admin)
    kinds = "SELECT DISTINCT tgenabled FROM pg_trigger WHERE tgname = 'asyncnotify_row'"
    assert await admin.fetch(kinds) == [(b"A",)]


# -- dropped --------------------------------------------------------------------------------------


async def test_a_table_that_is_dropped_meanwhile(
    admin: Connection, connect: Connect, telling: Telling
) -> None:
    """install() that waits for it raises what the server says, and leaves no function behind."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    table = Table("t", key="id")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    async with connect() as other:
        async with other.transaction():
            await other.execute("DROP TABLE t")
            install = asyncio.create_task(table.install(admin))
            while not await other.fetchval(waiting):
                pass
        with pytest.raises(asyncpg.PostgresError):
            await install
    assert await admin.fetchval(FUNCTIONS) is None
