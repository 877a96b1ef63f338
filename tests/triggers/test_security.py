"""What others can do: put objects in the way, call the function, write into the SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify.log import Log
from asyncnotify.triggers import Table, TriggerState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.triggers.conftest import Connection, Telling

HIJACK = """
    CREATE SCHEMA evil;
    CREATE FUNCTION evil.stolen() RETURNS int LANGUAGE plpgsql AS
        'BEGIN RAISE EXCEPTION ''hijacked''; END';
    CREATE FUNCTION evil.pg_notify(text, varchar) RETURNS void LANGUAGE sql AS
        'SELECT evil.stolen()';
    CREATE FUNCTION evil.pg_notify(text, text) RETURNS void LANGUAGE sql AS
        'SELECT evil.stolen()';
    CREATE FUNCTION evil.octet_length(text) RETURNS int LANGUAGE sql AS 'SELECT evil.stolen()';
    CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql AS 'SELECT evil.stolen()::text';
    CREATE FUNCTION evil.equal(varchar, varchar) RETURNS bool LANGUAGE sql AS
        'SELECT evil.stolen() = 1';
    CREATE FUNCTION evil.json_build_array(varchar) RETURNS json LANGUAGE sql AS
        'SELECT evil.stolen()::text::json';
    CREATE OPERATOR evil.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = evil.equal);
    CREATE OPERATOR evil.> (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = evil.equal);
    CREATE FUNCTION evil.joined(text, text) RETURNS text LANGUAGE sql AS
        'SELECT evil.stolen()::text';
    CREATE OPERATOR evil.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.joined);
    CREATE FUNCTION evil.joined(text, oid) RETURNS text LANGUAGE sql AS
        'SELECT evil.stolen()::text';
    CREATE OPERATOR evil.|| (LEFTARG = text, RIGHTARG = oid, FUNCTION = evil.joined);
    CREATE FUNCTION evil.equal(oid, oid) RETURNS bool LANGUAGE sql AS 'SELECT evil.stolen() = 1';
    CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.equal);
    CREATE OPERATOR evil.<> (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.equal);
    CREATE TABLE evil.asyncnotify_new (id varchar);
    CREATE TABLE evil.asyncnotify_old (id varchar);
    CREATE TABLE evil.pg_trigger (x int);
    CREATE TABLE evil.pg_inherits (x int);
"""
PATHS = ["evil, pg_catalog, public", "pg_temp, evil, public"]


def warnings_of(connection: Connection) -> list[asyncpg.PostgresLogMessage]:
    """Return a list of the warnings that a connection will get."""
    warnings: list[asyncpg.PostgresLogMessage] = []

    def keep(_: object, message: asyncpg.PostgresLogMessage) -> None:
        if message.severity == "WARNING":
            warnings.append(message)

    connection.add_log_listener(keep)
    return warnings


@pytest.mark.parametrize("level", ["statement", "row"])
@pytest.mark.parametrize("path", PATHS)
async def test_nothing_is_hijacked(
    admin: Connection, telling: Telling, level: str, path: str
) -> None:
    """Functions, operators and tables in a schema on the search path are never used."""
    await admin.execute("CREATE TABLE public.t (id varchar PRIMARY KEY, v varchar)")
    await admin.execute(HIJACK)
    await admin.execute(f"SET search_path = {path}")
    warnings = warnings_of(admin)
    told = await telling("t", key="id", payload="v", watch="v", when="new.v > ''", level=level)
    await admin.execute("CREATE TEMP TABLE asyncnotify_new (id int)")
    await told.after("INSERT INTO public.t VALUES ('a', 'x'), ('b', 'y')")
    await told.after("UPDATE public.t SET v = 'z'")
    seen = await told.keys_after("UPDATE public.t SET id = id OPERATOR(pg_catalog.||) id")
    assert {operation for operation, _ in seen} == {"delete", "insert"}
    assert await told.after("DELETE FROM public.t")
    assert await told.after("TRUNCATE public.t")
    assert (await told.table.status(admin)).is_fine
    await told.table.upgrade(admin)
    await told.table.remove(admin)
    assert warnings == []


@pytest.mark.parametrize("level", ["statement", "row"])
@pytest.mark.parametrize("path", PATHS)
async def test_nothing_is_hijacked_on_the_way_to_a_log(
    admin: Connection, dsn: str, level: Literal["statement", "row"], path: str
) -> None:
    """Of a partitioned table that foreign keys change, by every kind of statement."""
    await admin.execute("""
        CREATE TABLE public.parent (id varchar PRIMARY KEY);
        CREATE TABLE public.t (id varchar PRIMARY KEY, v varchar REFERENCES public.parent
            ON UPDATE CASCADE ON DELETE SET NULL) PARTITION BY RANGE (id);
        CREATE TABLE public.t_all PARTITION OF public.t DEFAULT;
    """)
    await admin.execute(HIJACK)
    async with Log("things", dsn) as log:
        await log.install()
        await admin.execute(f"SET search_path = {path}")
        warnings = warnings_of(admin)
        table = Table("t", key="id", payload="v", to="log", log=log, level=level)
        await table.install(admin)
        for statement in (
            "INSERT INTO public.parent VALUES ('x'), ('y')",
            "INSERT INTO public.t VALUES ('a', 'x'), ('b', 'y')",
            "UPDATE public.parent SET id = id OPERATOR(pg_catalog.||) id",
            (
                "INSERT INTO public.t VALUES ('a', NULL), ('c', NULL) ON CONFLICT (id) DO UPDATE"
                " SET v = excluded.v"
            ),
            "DELETE FROM public.parent",
            "UPDATE public.t SET id = id OPERATOR(pg_catalog.||) id",
            "DELETE FROM public.t_all",
            "TRUNCATE public.t",
        ):
            await admin.execute(statement)
        operations: list[str] = []
        async with log.read(table.changes, after="start") as events:
            while "truncate" not in operations:
                operations.append((await anext(events)).payload.operation)
    assert sorted({*operations}) == ["delete", "insert", "truncate", "update"]
    assert (await table.status(admin)).is_fine
    assert warnings == []


async def test_the_function_is_its_callers(admin: Connection) -> None:
    """It runs with the rights of who writes, has a fixed path, and nobody may execute it."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
    await Table("t", key="id").install(admin)
    query = """
        SELECT prosecdef, proconfig, proacl::text FROM pg_proc WHERE proname = 'asyncnotify_t'
    """
    row = await admin.fetchrow(query)
    assert row is not None
    definer, settings, rights = row
    assert (definer, settings[0]) == (False, "search_path=pg_catalog, pg_temp")
    assert "=X" not in rights.replace("postgres=X", "")


async def test_dollar_quotes_in_a_condition(admin: Connection, telling: Telling) -> None:
    """A condition cannot end the function's body."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    told = await telling("t", key="id", when="new.v <> '$asyncnotify$' AND new.v <> $$'$$")
    assert await told.after("INSERT INTO t VALUES (1, '$asyncnotify$')") == []
    assert await told.keys_after("INSERT INTO t VALUES (2, 'x')") == [("insert", [2])]


# -- functions that were there before -------------------------------------------------------------

BY_HAND = """
    CREATE TABLE t (id int PRIMARY KEY);
    CREATE TABLE other (id int PRIMARY KEY);
    CREATE FUNCTION notify_t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER by_hand AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION notify_t();
    CREATE TRIGGER by_hand AFTER INSERT ON other FOR EACH ROW EXECUTE FUNCTION notify_t();
"""


async def test_a_function_made_by_hand_is_not_touched(admin: Connection) -> None:
    """No call takes it for its own because of its name, and none of its triggers is dropped."""
    await admin.execute(BY_HAND)
    table = Table("t", key="id", trigger="notify")
    assert (await table.status(admin)).function is TriggerState.OUTDATED
    assert (await table.status(admin)).having(TriggerState.STRAY) == ()
    for call in (table.install, table.upgrade):
        with pytest.raises(asyncpg.DuplicateObjectError, match="has not made it") as caught:
            await call(admin)
        assert "trigger=" in str(caught.value.hint)
    for statements in (table.statements(), table.upgrade_statements()):
        with pytest.raises(asyncpg.DuplicateObjectError):
            await admin.execute(";".join(statements))
    await table.remove(admin)
    for statement in table.removal_statements():
        await admin.execute(statement)
    assert await admin.fetchval("SELECT count(*) FROM pg_trigger WHERE tgname = 'by_hand'") == 2
    assert await admin.fetchval("SELECT prosrc FROM pg_proc WHERE proname = 'notify_t'")


@pytest_asyncio.fixture
async def roles(admin: Connection) -> AsyncIterator[dict[str, str]]:
    """Make an owner of a table ``t``, a member of that role, and another one; all may create."""
    database = await admin.fetchval("SELECT current_database()")
    names = {role: f"{database}_{role}" for role in ("owner", "member", "other")}
    for name in names.values():
        await admin.execute(f"CREATE ROLE {name}; GRANT CREATE, USAGE ON SCHEMA public TO {name}")
    await admin.execute(f"""
        GRANT {names["owner"]} TO {names["member"]};
        CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t OWNER TO {names["owner"]}
    """)
    yield names
    await admin.execute("RESET ROLE")
    for name in names.values():
        await admin.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


@pytest.mark.parametrize("installer", ["owner", "member", None])
async def test_a_function_of_a_role_without_rights_is_refused(
    admin: Connection, roles: dict[str, str], installer: str | None
) -> None:
    """That role could give it another body, which whoever writes to the table would execute."""
    table = Table("t", key="id")
    await admin.execute(f"SET ROLE {roles['other']}")
    for statement in table.upgrade_statements():
        await admin.execute(statement)
    await admin.execute("GRANT EXECUTE ON FUNCTION asyncnotify_t() TO PUBLIC; RESET ROLE")
    if installer is not None:
        await admin.execute(f"SET ROLE {roles[installer]}")
    assert (await table.status(admin)).function is TriggerState.OUTDATED
    with pytest.raises(asyncpg.DuplicateObjectError, match=f"belongs to role {roles['other']}"):
        await table.install(admin)
    with pytest.raises(asyncpg.DuplicateObjectError):
        await admin.execute(table.statements()[-1])
    await admin.execute("RESET ROLE")
    await admin.execute(f"ALTER FUNCTION asyncnotify_t() OWNER TO {roles['owner']}")
    await table.install(admin)
    assert (await table.status(admin)).is_fine


@pytest.mark.parametrize("owner", ["owner", "member", None])
async def test_a_function_of_a_role_with_rights_is_taken(
    admin: Connection, roles: dict[str, str], owner: str | None
) -> None:
    """Who may make triggers of the table may have made it: its owner, a member, a superuser."""
    table = Table("t", key="id")
    if owner is not None:
        await admin.execute(f"SET ROLE {roles[owner]}")
    await table.install(admin)
    for role in ("owner", "member"):
        await admin.execute(f"RESET ROLE; SET ROLE {roles[role]}")
        assert (await table.status(admin)).is_fine
        await table.install(admin)
