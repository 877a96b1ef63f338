"""Installing, upgrading, inspecting and removing: on every kind of connection, beside others."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Literal

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from asyncnotify.triggers import (
    BlockingTable,
    LockTimeoutError,
    NotInstalledError,
    Table,
    TriggerState,
    UnknownTableError,
)
from tests.support.codecs import CustomRecord, set_codecs
from tests.support.driver_features import READS_CATALOGS_PLAINLY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.triggers.conftest import Connect, Connection, Telling

MAKE = "CREATE TABLE t (id int PRIMARY KEY, \"50%:x\" text DEFAULT '')"


def defined(max_notifications: int = 16) -> Table:
    """Return a table with names in which drivers may see placeholders."""
    channel = "50% :of '\\ it"
    limit = max_notifications
    return Table("t", key="id", payload="50%:x", channel=channel, max_notifications=limit)


@pytest.fixture
def table() -> Table:
    """A table that is not installed."""
    return defined()


async def state(table: Table, connection: Connection) -> TriggerState:
    """Return the state that is the worst of all."""
    return (await table.status(connection)).state


async def test_all_steps_on_asyncpg(admin: Connection, table: Table) -> None:
    """Missing, installed, outdated, upgraded, disabled, installed again, removed; each twice."""
    await admin.execute(MAKE)
    assert await state(table, admin) is TriggerState.MISSING
    with pytest.raises(NotInstalledError, match="public"):
        await table.upgrade(admin)
    await table.install(admin)
    await table.install(admin)
    assert (await table.status(admin)).is_fine
    newer = defined(max_notifications=17)
    assert newer.fingerprint != table.fingerprint
    assert (await newer.status(admin)).function is TriggerState.OUTDATED
    await newer.upgrade(admin)
    assert (await newer.status(admin)).is_fine
    for off in ("DISABLE", "ENABLE REPLICA"):
        await admin.execute(f"ALTER TABLE t {off} TRIGGER asyncnotify_update")
        assert await state(newer, admin) is TriggerState.DISABLED
        await newer.install(admin)
        assert (await newer.status(admin)).is_fine
    await admin.execute("ALTER TABLE t ENABLE ALWAYS TRIGGER asyncnotify_update")
    assert (await newer.status(admin)).is_fine
    await admin.execute("DROP TRIGGER asyncnotify_delete ON t")
    assert await state(newer, admin) is TriggerState.MISSING
    await newer.install(admin)
    await newer.remove(admin)
    await newer.remove(admin)
    assert await state(table, admin) is TriggerState.MISSING


async def test_what_is_there_is_not_touched(admin: Connection, table: Table) -> None:
    """Each process may call install() when it starts: no function is compiled anew for that."""
    await admin.execute(MAKE)
    rows = """
        SELECT 'function' || xmin::text FROM pg_proc WHERE proname LIKE 'asyncnotify%'
        UNION ALL SELECT 'trigger' || xmin::text FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT 'comment' || xmin::text FROM pg_description
            WHERE description LIKE 'asyncnotify.triggers%'
        ORDER BY 1
    """
    await table.install(admin)
    before = await admin.fetch(rows)
    assert len(before) == 1 + 4 + 1
    await table.install(admin)
    assert await admin.fetch(rows) == before
    await defined(max_notifications=17).install(admin)
    assert await admin.fetch(rows) != before


async def enabled(connection: Connection) -> dict[str, set[bytes]]:
    """Return how triggers fire, by the names of the tables."""
    found: dict[str, set[bytes]] = {}
    query = "SELECT tgrelid::regclass::text, tgenabled FROM pg_trigger WHERE NOT tgisinternal"
    for table, fires in await connection.fetch(query):
        found.setdefault(table, set()).add(fires)
    return found


async def test_a_session_that_quotes_all_identifiers(admin: Connection, table: Table) -> None:
    """The server stores the names in search_path with quotes: they are the same ones."""
    await admin.execute(MAKE)
    await admin.execute("SET quote_all_identifiers = on")
    await table.install(admin)
    for setting in ("on", "off"):
        await admin.execute(f"SET quote_all_identifiers = {setting}")
        assert (await table.status(admin)).is_fine


@pytest.mark.parametrize("change", ["level", "name"])
async def test_triggers_that_fire_always_do_so_when_others_take_their_place(
    admin: Connection, change: str
) -> None:
    """On a subscriber of logical replication nothing would be told any more, and nobody know."""
    await admin.execute(MAKE)
    await Table("t", key="id").install(admin)
    for operation in ("insert", "update", "delete", "truncate"):
        await admin.execute(f"ALTER TABLE t ENABLE ALWAYS TRIGGER asyncnotify_{operation}")
    assert await enabled(admin) == {"t": {b"A"}}
    if change == "level":
        await Table("t", key="id", level="row").install(admin)
        assert await enabled(admin) == {"t": {b"A"}}
    else:
        await admin.execute("ALTER TABLE t RENAME TO moved")
        await Table("moved", key="id").install(admin)
        assert await enabled(admin) == {"moved": {b"A"}}


@pytest.mark.parametrize("pooled", [False, True])
async def test_codecs_and_records_of_the_callers_change_nothing(
    dsn: str, table: Table, *, pooled: bool
) -> None:
    """Catalogs are read as the driver reads them by itself."""
    records: dict[str, Any] = {"record_class": CustomRecord} if READS_CATALOGS_PLAINLY else {}
    async with (
        asyncpg.create_pool(dsn, min_size=1, init=set_codecs, **records) as pool,
        pool.acquire() as lent,
    ):
        connection: Any = lent if pooled else unwrapped_connection(lent)
        await connection.execute(MAKE)
        assert await state(table, connection) is TriggerState.MISSING
        await table.install(connection)
        await table.install(connection)
        assert (await table.status(connection)).is_fine
        await table.upgrade(connection)
        await table.remove(connection)
        assert await state(table, connection) is TriggerState.MISSING


def unwrapped_connection(lent: Any) -> Any:
    """Return the connection that a pool has lent."""
    return lent._con  # noqa: SLF001 - its proxy stands for it


async def test_no_statement_of_ours_stays_prepared(dsn: str, table: Table) -> None:
    """Behind a pooler the session is given to others, whose statements may have that name."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(MAKE)
    await table.install(connection)
    assert (await table.status(connection)).is_fine
    left = await connection.fetch("SELECT name, statement FROM pg_prepared_statements")
    assert [row["statement"] for row in left if "pg_prepared" not in row["statement"]] == []
    await connection.close()


async def test_a_function_replaced_by_hand_is_outdated(admin: Connection, table: Table) -> None:
    """Its comment stays, and the body tells."""
    await admin.execute(MAKE)
    await table.install(admin)
    await admin.execute("""
        CREATE OR REPLACE FUNCTION asyncnotify_t() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN RETURN NULL; END'
    """)
    assert (await table.status(admin)).function is TriggerState.OUTDATED


@pytest.mark.parametrize(
    "change",
    [
        "SECURITY DEFINER",
        "RESET search_path",
        "SET search_path = public",
        "RESET TimeZone",
        "SET DateStyle = German",
    ],
)
async def test_a_function_altered_by_hand_is_outdated(admin: Connection, change: str) -> None:
    """Rights and settings other than its own are named, and upgrade() gives it those back."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    table = Table("t", key="id", when="new.id > 0")
    await table.install(admin)
    await admin.execute(f"ALTER FUNCTION asyncnotify_t() {change}")
    assert (await table.status(admin)).function is TriggerState.OUTDATED
    await table.upgrade(admin)
    assert (await table.status(admin)).is_fine


@pytest.mark.parametrize("name", ["t", "u"])
@pytest.mark.parametrize("levels", [("statement", "row"), ("row", "statement")])
async def test_an_upgrade_to_another_level_is_refused(
    admin: Connection, levels: tuple[Literal["statement", "row"], ...], name: str
) -> None:
    """The triggers would call a function that finds no rows; install() replaces both."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    await Table("t", key="id", level=levels[0]).install(admin)
    if name != "t":
        await admin.execute(f"ALTER TABLE t RENAME TO {name}")
    table = Table(name, key="id", level=levels[1])
    with pytest.raises(NotInstalledError):
        await table.upgrade(admin)
    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="of another level"):
        await admin.execute(table.upgrade_statements()[0])
    await table.install(admin)
    await table.upgrade(admin)
    assert (await table.status(admin)).is_fine


async def test_the_status_of_a_table_that_is_locked(
    admin: Connection, connect: Connect, table: Table
) -> None:
    """A lock says nothing of what is installed: the driver's error does."""
    await admin.execute(MAKE)
    await table.install(admin)
    async with connect() as other:
        async with other.transaction():
            await other.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
            await admin.execute("SET lock_timeout = 10")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await table.status(admin)
        assert (await table.status(other)).is_fine


async def test_statements_do_the_same(admin: Connection, table: Table) -> None:
    """What is printed, executed one by one, installs, upgrades and removes; also twice."""
    await admin.execute(MAKE)
    for statement in [*table.statements(), *table.statements(), *table.upgrade_statements()]:
        await admin.execute(statement)
    assert (await table.status(admin)).is_fine
    assert await admin.fetchval("SHOW search_path") == '"$user", public'
    for statement in table.removal_statements():
        await admin.execute(statement)
    assert await state(table, admin) is TriggerState.MISSING


async def test_within_a_transaction_of_the_callers(admin: Connection, table: Table) -> None:
    """What is installed is rolled back with it, and its settings stay as they were."""
    await admin.execute(MAKE)
    transaction = admin.transaction()
    await transaction.start()
    await admin.execute("SET LOCAL lock_timeout = '7s'")
    await table.install(admin, lock_timeout=1e9)  # more milliseconds than the server takes
    assert await admin.fetchval("SHOW lock_timeout") == "7s"
    assert (await table.status(admin)).is_fine
    await transaction.rollback()
    assert await state(table, admin) is TriggerState.MISSING


async def test_a_connection_of_a_pool(dsn: str, table: Table) -> None:
    """One acquired from asyncpg's pool will do."""
    settings = {"application_name": "tests"}
    pool = asyncpg.create_pool(dsn, min_size=1, max_size=1, server_settings=settings)
    async with pool, pool.acquire() as connection:
        await connection.execute(MAKE)
        await table.install(connection)
        assert (await table.status(connection)).is_fine
        await table.remove(connection)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_sqlalchemy(dsn: str, table: Table, driver: str) -> None:
    """AsyncConnection and AsyncSession: it is there once the caller's transaction commits."""
    engine = create_async_engine(dsn.replace("postgresql://", f"postgresql+{driver}://"))
    async with engine.connect() as connection:
        await connection.exec_driver_sql(MAKE, execution_options={"no_parameters": True})
        await connection.commit()
        await table.install(connection)
        assert (await table.status(connection)).is_fine
        await connection.rollback()
        assert (await table.status(connection)).state is TriggerState.MISSING
    async with AsyncSession(engine) as session, session.begin():
        await table.install(session)
        await table.upgrade(session)
    async with engine.connect() as connection:
        assert (await table.status(connection)).is_fine
        await table.remove(connection)
    await engine.dispose()


async def test_psycopg(dsn: str, table: Table) -> None:
    """psycopg's AsyncConnection, in autocommit mode or not."""
    for autocommit in (True, False):
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=autocommit) as connection:
            await connection.execute("DROP TABLE IF EXISTS t")
            await connection.execute(MAKE)
            await table.install(connection)
            assert (await table.status(connection)).is_fine
            await table.remove(connection)
            assert (await table.status(connection)).state is TriggerState.MISSING


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_sqlalchemy_without_transactions(dsn: str, table: Table, driver: str) -> None:
    """A connection that commits each statement by itself is told so: nothing is half made."""
    url = dsn.replace("postgresql://", f"postgresql+{driver}://")
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.exec_driver_sql(MAKE, execution_options={"no_parameters": True})
        with pytest.raises(DBAPIError, match="SAVEPOINT") as caught:
            await table.install(connection)
    assert "AUTOCOMMIT" in caught.value.__notes__[0]
    await engine.dispose()


def connections(dsn: str) -> Iterator[Any]:
    """Yield connections that block, each with the table made."""
    engine = create_engine(dsn.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        connection.exec_driver_sql(MAKE, execution_options={"no_parameters": True})
        yield connection
    with Session(engine) as session:
        session.connection().exec_driver_sql(MAKE, execution_options={"no_parameters": True})
        yield session
    engine.dispose()
    with psycopg.connect(dsn) as plain:
        plain.execute(MAKE.encode())
        yield plain


def test_connections_that_block(dsn: str, table: Table) -> None:
    """BlockingTable does the same on SQLAlchemy's Connection and Session, and psycopg's."""
    blocking = BlockingTable(table)
    assert blocking.table is table
    for connection in connections(dsn):
        blocking.install(connection)
        blocking.upgrade(connection)
        assert blocking.status(connection).is_fine
        blocking.remove(connection)
        assert blocking.status(connection).state is TriggerState.MISSING


async def test_other_objects_are_refused(dsn: str, table: Table) -> None:
    """With a TypeError that says what to give."""
    with pytest.raises(TypeError, match="asyncpg Connection"):
        await table.install(dsn)
    with pytest.raises(TypeError, match="SQLAlchemy's Connection"):
        BlockingTable(table).install(dsn)
    with pytest.raises(TypeError, match=r"pool\.acquire"):
        await table.install(asyncpg.create_pool(dsn))
    with psycopg.connect(dsn) as connection, pytest.raises(TypeError, match="BlockingTable"):
        await table.install(connection)
    with pytest.raises(TypeError, match="must be a Table"):
        BlockingTable("orders")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_a_table_that_is_not_there(admin: Connection) -> None:
    """Every call says so."""
    table = Table("shop.Orders", key="id")
    for call in (table.install, table.upgrade, table.status, table.remove):
        with pytest.raises(UnknownTableError, match="Orders"):
            await call(admin)


@pytest.mark.parametrize(
    "options",
    [{"key": "nothing"}, {"key": "id", "watch": "nothing"}, {"key": "id", "when": "new.x > 0"}],
)
async def test_what_cannot_work_is_refused_at_once(
    admin: Connection, options: dict[str, Any]
) -> None:
    """A column that is not there, in any argument, and nothing is left behind."""
    await admin.execute(MAKE)
    table = Table("t", **options)
    with pytest.raises(asyncpg.UndefinedColumnError) as refused:
        await table.install(admin)
    assert refused.value.__notes__[0].startswith("nothing was changed: key=, payload=, watch=")
    assert await state(table, admin) is TriggerState.MISSING


async def test_what_else_the_caller_can_mend_is_told(
    admin: Connection, dsn: str, table: Table
) -> None:
    """Where words of the driver or of the server name neither the Table nor the connection."""
    await admin.execute(MAKE)
    with pytest.raises(asyncpg.PostgresSyntaxError) as wrong:
        await Table("t", key="id", when="new.id > ").install(admin)
    assert "when= of the Table" in wrong.value.__notes__[0]
    await admin.execute("ALTER TABLE t ADD document json")
    with pytest.raises(asyncpg.UndefinedFunctionError) as unequal:
        await Table("t", key="document").install(admin)
    assert "the columns of key= need types" in unequal.value.__notes__[0]
    await admin.execute("BEGIN")
    with pytest.raises(asyncpg.InterfaceError) as begun:
        await table.install(admin)
    await admin.execute("ROLLBACK")
    assert "async with connection.transaction()" in begun.value.__notes__[0]
    await admin.execute("CREATE ROLE trigger_stranger LOGIN")
    stranger = await asyncpg.connect(dsn, user="trigger_stranger")
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError) as refused:
            await table.install(stranger)
        assert "has to own the table" in refused.value.__notes__[0]
    finally:
        await stranger.close()
        await admin.execute("DROP ROLE trigger_stranger")
    with pytest.raises(asyncpg.InterfaceError) as closed:
        await table.status(stranger)
    assert "connection= was closed before" in closed.value.__notes__[0]


@pytest.mark.parametrize("level", ["statement", "row"])
@pytest.mark.parametrize(
    "options",
    [{"key": "v"}, {"payload": "v"}, {"watch": "v"}, {"when": "new.v > 0 OR old.v % 2 > 0"}],
)
async def test_virtual_columns_are_refused(
    admin: Connection, options: dict[str, Any], level: Literal["statement", "row"]
) -> None:
    """Triggers do not see their values: rows would not be told, and nobody would know."""
    if int(await admin.fetchval("SHOW server_version_num")) < 180_000:
        pytest.skip("virtual generated columns came with PostgreSQL 18")
    await admin.execute("CREATE TABLE t (id int, v int GENERATED ALWAYS AS (id + 1) VIRTUAL)")
    given: Any = {"key": "id", "level": level, **options}
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="virtual"):
        await Table("t", **given).install(admin)
    with pytest.raises(asyncpg.UndefinedColumnError):
        await Table("t", key="id", when="new.x > 0", level=level).install(admin)
    await Table("t", key="id", when="new.id > 0", level=level).install(admin)


@pytest.mark.parametrize("options", [{"payload": "v"}, {"watch": "v"}, {"when": "new.v > 0"}])
@pytest.mark.parametrize(
    "change", ["DROP COLUMN v", "RENAME COLUMN v TO w", "ALTER v TYPE json USING to_json(v)"]
)
async def test_a_column_that_is_gone_is_told_by_the_status(
    admin: Connection, options: dict[str, Any], change: str
) -> None:
    """The function cannot tell anything but "read again", and that is not fine."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    table = Table("t", key="id", **options)
    await table.install(admin)
    path = await admin.fetchval("SHOW search_path")
    await admin.execute(f"ALTER TABLE t {change}")
    if "TYPE json" in change and "when" not in options:
        assert (await table.status(admin)).is_fine
        return
    assert (await table.status(admin)).function is TriggerState.OUTDATED
    assert await admin.fetchval("SHOW search_path") == path
    with pytest.raises((asyncpg.UndefinedColumnError, asyncpg.UndefinedFunctionError)):
        await table.install(admin)
    await Table("t", key="id").install(admin)
    assert (await Table("t", key="id").status(admin)).is_fine


async def test_views_are_refused(admin: Connection) -> None:
    """They have no rows of their own."""
    await admin.execute("CREATE VIEW v AS SELECT 1 AS id")
    with pytest.raises(asyncpg.WrongObjectTypeError, match="no table"):
        await Table("v", key="id").install(admin)
    await admin.execute("DROP VIEW v")


def test_both_faces_are_alike() -> None:
    """BlockingTable has the calls of Table that take a connection, with their arguments."""
    for name in ("install", "upgrade", "status", "remove"):
        ours = inspect.signature(getattr(BlockingTable, name))
        assert ours == inspect.signature(getattr(Table, name))


# -- beside others --------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg", "psycopg that blocks"])
async def test_several_install_at_once(  # noqa: PLR0917 - a case has two parts
    admin: Connection, dsn: str, table: Table, connect: Connect, driver: str, level: str
) -> None:
    """All succeed, and the triggers are there once, whatever level a database has by default."""
    await admin.execute(MAKE)
    name = await admin.fetchval("SELECT current_database()")
    await admin.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'")

    async def install() -> None:
        if driver == "asyncpg":
            async with connect() as connection:
                await table.install(connection)
        elif driver == "psycopg":
            async with await psycopg.AsyncConnection.connect(dsn) as connection:
                await table.install(connection)
        else:
            await asyncio.to_thread(install_in_thread)

    def install_in_thread() -> None:
        with psycopg.connect(dsn) as connection:
            BlockingTable(table).install(connection)

    await asyncio.gather(*(install() for _ in range(5)))
    assert (await table.status(admin)).is_fine
    assert await admin.fetchval("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == 4


async def test_a_table_in_use_is_tried_again(
    admin: Connection, connect: Connect, table: Table
) -> None:
    """Attempts end after lock_timeout, so that others can write in between; then comes the next."""
    await admin.execute(MAKE)
    async with connect() as writer, connect() as other:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(LockTimeoutError, match="within") as caught:
            await table.install(admin, lock_timeout=0.1, timeout=0.5)
        assert isinstance(caught.value.__cause__, asyncpg.LockNotAvailableError)
        assert await state(table, admin) is TriggerState.MISSING
        installing = asyncio.create_task(table.install(admin, lock_timeout=0.1, timeout=60))
        await other.execute("INSERT INTO t VALUES (2)")
        await transaction.commit()
        await installing
    assert (await table.status(admin)).is_fine


async def test_a_deadlock_is_tried_again(admin: Connection, connect: Connect) -> None:
    """A transaction that writes to a partition, and then through the parent, is the one to win."""
    await admin.execute("CREATE TABLE parts (id int) PARTITION BY LIST (id)")
    await admin.execute("CREATE TABLE part PARTITION OF parts FOR VALUES IN (1, 2)")
    table = Table("parts", key="id")
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    async with connect() as writer, connect() as onlooker, writer.transaction():
        await writer.execute("SET LOCAL deadlock_timeout = '1min'")
        await writer.execute("INSERT INTO part VALUES (1)")
        installing = asyncio.create_task(table.install(admin, lock_timeout=20, timeout=60))
        while not await onlooker.fetchval(waiting):
            pass
        await writer.execute("INSERT INTO parts VALUES (2)")
        assert not installing.done()
    await installing
    assert (await table.status(admin)).is_fine


async def test_an_installation_that_does_not_end(
    admin: Connection, connect: Connect, table: Table
) -> None:
    """Others do not wait for ever for a transaction that has installed and stays open."""
    await admin.execute(MAKE)
    await table.install(admin)
    async with connect() as other, other.transaction():
        await table.install(other)
        for call in (table.install, table.upgrade, table.remove):
            with pytest.raises(LockTimeoutError):
                await call(admin, lock_timeout=0.05, timeout=0.1)


async def test_an_upgrade_waits_for_no_writer(
    admin: Connection, connect: Connect, table: Table
) -> None:
    """The function is replaced while another transaction holds the table's strongest lock."""
    await admin.execute(MAKE)
    await table.install(admin)
    newer = defined(max_notifications=17)
    async with connect() as writer, writer.transaction():
        await writer.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        await admin.execute("SET lock_timeout = '1s'")
        await newer.upgrade(admin)
    assert (await newer.status(admin)).is_fine


async def test_without_a_superuser(admin: Connection, telling: Telling) -> None:
    """The owner of a schema installs; who may only write needs no right to the function."""
    name = await admin.fetchval("SELECT current_database()")
    owner, writer = f"{name}_owner", f"{name}_writer"
    await admin.execute(f"CREATE ROLE {owner}; CREATE ROLE {writer}")
    try:
        await admin.execute(f"CREATE SCHEMA shop AUTHORIZATION {owner}; SET ROLE {owner}")
        await admin.execute("CREATE TABLE shop.t (id int PRIMARY KEY)")
        told = await telling("shop.t", key="id")
        await admin.execute(f"GRANT USAGE ON SCHEMA shop TO {writer}")
        await admin.execute(f"GRANT INSERT ON shop.t TO {writer}")
        await admin.execute(f"RESET ROLE; SET ROLE {writer}")
        assert await told.keys_after("INSERT INTO shop.t VALUES (1)") == [("insert", [1])]
        await admin.execute("RESET ROLE")
        rights = "SELECT has_function_privilege($1, 'shop.asyncnotify_t()', 'EXECUTE')"
        assert await admin.fetchval(rights, owner)
        assert not await admin.fetchval(rights, writer)
    finally:
        await admin.execute("RESET ROLE; DROP SCHEMA IF EXISTS shop CASCADE")
        await admin.execute(f"DROP ROLE {owner}; DROP ROLE {writer}")
