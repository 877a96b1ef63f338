"""The table of locks and its functions, as statements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncnotify._asyncpg import untraced
from asyncnotify.lock._errors import LockError, LockVersionError
from asyncnotify.lock._names import SCHEMA
from asyncnotify.log._names import CREATE_SCHEMA, Names

if TYPE_CHECKING:
    from collections.abc import Iterator

    import asyncpg

VERSION: Final = 1
"""The newest version of the schema."""

LOST: Final = "ANL01"
"""The SQLSTATE of a check that fails. No error of PostgreSQL's own has it."""

TABLE: Final = f"{SCHEMA}.locks"
KEY: Final = f"{SCHEMA}.lock_key(pg_catalog.text)"
NUMBER: Final = f"{SCHEMA}.lock_number(pg_catalog.text[], pg_catalog.interval)"
CHECK: Final = f"{SCHEMA}.lock_check(pg_catalog.text, pg_catalog.int8)"
HOLDERS: Final = f"{SCHEMA}.lock_holders(pg_catalog.text[])"
VERSION_FUNCTION: Final = f"{SCHEMA}.lock_version()"

_SAFE: Final = "SECURITY DEFINER SET search_path = pg_catalog, pg_temp"
"""Roles need no right to the table, and no schema of the caller's stands before pg_catalog."""

_MAKING: Final = Names("").lock_key("make a lock")
"""Of the advisory lock that all hold who make the row of a name."""

_PLANS: Final = "SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off"
"""The plan is to be the walk of an index, which is as short with many dead versions of the row."""

_GENERATION: Final = 50
"""How many tokens of a lock have the same entry in the index: as many as fit in a page, where a
new version of the row replaces a dead one."""


def _newest(alias: str, name: str) -> str:
    """Return the condition that walks the index to the newest version of a row, and to no other."""
    # While an old snapshot is open, the versions before it stay. An index scan that has to pass
    # them costs more with each token
    return f"""{alias}.name = {name} AND {alias}.generation = (
                SELECT newest.generation FROM {TABLE} AS newest WHERE newest.name = {name}
                ORDER BY newest.generation DESC LIMIT 1
            )"""


_STATEMENTS: Final = (
    CREATE_SCHEMA,
    # One row for each name. With free space in its page, a new version replaces a dead one there
    f"""
    CREATE TABLE IF NOT EXISTS {TABLE} (
        name pg_catalog.text NOT NULL,
        token pg_catalog.int8 NOT NULL,
        backend_pid pg_catalog.int4,
        life pg_catalog.interval,
        acquired_at pg_catalog.timestamptz,
        generation pg_catalog.int8 NOT NULL DEFAULT 0,
        PRIMARY KEY (name, generation)
    ) WITH (fillfactor = 10)
    """,
    f"""
    CREATE OR REPLACE FUNCTION {SCHEMA}.lock_key(name pg_catalog.text) RETURNS pg_catalog.int8
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
        SELECT ('x' || encode(substr(sha256(convert_to(name, 'UTF8')), 1, 8), 'hex'))::bit(64)::int8
    $$
    """,
    # SKIP LOCKED: a checked transaction of the last holder has a share lock of the row. To wait for
    # it here would hold up all locks of the session.
    # The primary key would let two generations of a name be: who makes a row meets no other who
    # does, and sees what was committed before, as READ COMMITTED does
    f"""
    CREATE OR REPLACE FUNCTION {SCHEMA}.lock_number(
        wanted pg_catalog.text[], life pg_catalog.interval,
        OUT of_lock pg_catalog.text, OUT its_token pg_catalog.int8
    ) RETURNS SETOF pg_catalog.record LANGUAGE plpgsql {_SAFE} {_PLANS} AS $$
    BEGIN
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'asyncnotify: a token is given in a READ COMMITTED transaction'
            USING ERRCODE = 'active_sql_transaction';
        END IF;
        FOREACH of_lock IN ARRAY wanted LOOP
            PERFORM FROM {TABLE} AS l WHERE l.name = of_lock ORDER BY l.generation DESC LIMIT 1;
            IF NOT FOUND THEN
                PERFORM pg_advisory_xact_lock({_MAKING});
                INSERT INTO {TABLE} AS l (name, token) SELECT of_lock, 0
                WHERE NOT EXISTS (SELECT FROM {TABLE} AS l WHERE l.name = of_lock);
            END IF;
            PERFORM FROM {TABLE} AS l WHERE {_newest("l", "of_lock")} FOR UPDATE SKIP LOCKED;
            CONTINUE WHEN NOT FOUND;
            UPDATE {TABLE} AS l
            SET token = l.token + 1, backend_pid = pg_backend_pid(), life = lock_number.life,
                acquired_at = clock_timestamp(), generation = (l.token + 1) / {_GENERATION}
            WHERE {_newest("l", "of_lock")}
            RETURNING l.token INTO its_token;
            RETURN NEXT;
        END LOOP;
    END
    $$
    """,
    f"""
    CREATE OR REPLACE FUNCTION {SCHEMA}.lock_check(name pg_catalog.text, token pg_catalog.int8)
    RETURNS pg_catalog.void LANGUAGE plpgsql {_SAFE} {_PLANS} AS $$
    BEGIN
        PERFORM FROM {TABLE} AS l
        WHERE {_newest("l", "lock_check.name")} AND l.token = lock_check.token FOR SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'lock % is not held with token % any more',
                quote_literal(lock_check.name), lock_check.token USING ERRCODE = '{LOST}';
        END IF;
    END
    $$
    """,
    # For who waits on PostgreSQL 13, and to be looked at
    f"""
    CREATE OR REPLACE FUNCTION {SCHEMA}.lock_holders(
        names pg_catalog.text[],
        OUT key pg_catalog.int8, OUT backend_pid pg_catalog.int4, OUT life pg_catalog.interval
    ) RETURNS SETOF pg_catalog.record LANGUAGE sql STABLE {_SAFE} {_PLANS} AS $$
        SELECT {SCHEMA}.lock_key(l.name), l.backend_pid, l.life
        FROM unnest(names) AS of_lock, LATERAL (
            SELECT * FROM {TABLE} AS l WHERE l.name = of_lock ORDER BY l.generation DESC LIMIT 1
        ) AS l
    $$
    """,
    f"""
    CREATE OR REPLACE FUNCTION {VERSION_FUNCTION} RETURNS pg_catalog.int4
    LANGUAGE sql IMMUTABLE AS $$ SELECT {VERSION} $$
    """,
    f"""
    REVOKE ALL ON FUNCTION {KEY}, {NUMBER}, {CHECK}, {HOLDERS}, {VERSION_FUNCTION} FROM PUBLIC
    """,
)

_INSTALLING: Final = "SELECT pg_catalog.pg_advisory_xact_lock({key})"


def statements() -> list[str]:
    """Return the statements that make the table of locks, or bring it to this version."""
    return list(_STATEMENTS)


def grants(hold: tuple[str, ...], check: tuple[str, ...]) -> Iterator[str]:
    """Yield the statements that let roles hold locks, or only check tokens."""
    for role in (*hold, *check):
        grantee = '"' + role.replace('"', '""') + '"'
        functions = (KEY, CHECK, VERSION_FUNCTION, *([NUMBER, HOLDERS] if role in hold else []))
        yield f"GRANT USAGE ON SCHEMA {SCHEMA} TO {grantee}"
        yield f"GRANT EXECUTE ON FUNCTION {', '.join(functions)} TO {grantee}"


async def install(connection: asyncpg.Connection[Any], key: int) -> None:
    """
    Bring the table of locks to this version, in a transaction of its own: all or nothing.

    Args:
        connection: In no transaction.
        key: Of the lock that all hold who install something in the schema.

    Raises:
        LockVersionError: The database has a newer version.
        LockError: The schema has another table of this name.
        asyncpg.PostgresError: The server refused a statement.
    """
    async with untraced.transaction(connection, "read_committed"):
        await untraced.execute(connection, _INSTALLING.format(key=key))
        await untraced.execute(connection, "SET LOCAL search_path = pg_catalog, pg_temp")
        await untraced.execute(connection, "SET LOCAL synchronous_commit = on")
        installed = await _installed(connection)
        if installed > VERSION:
            raise LockVersionError(installed, VERSION)
        if not installed:
            await _check_table_is_free(connection)
        for statement in _STATEMENTS:
            await untraced.execute(connection, statement)


async def _installed(connection: asyncpg.Connection[Any]) -> int:
    """Return the version in the database; 0 if there is none."""
    exists = f"SELECT pg_catalog.to_regprocedure('{VERSION_FUNCTION}') IS NOT NULL"
    [row] = await untraced.fetch(connection, exists)
    if not row[0]:
        return 0
    [row] = await untraced.fetch(connection, f"SELECT {VERSION_FUNCTION}")
    return int(row[0])


async def _check_table_is_free(connection: asyncpg.Connection[Any]) -> None:
    [row] = await untraced.fetch(connection, f"SELECT pg_catalog.to_regclass('{TABLE}') IS NULL")
    if not row[0]:
        msg = f"the schema {SCHEMA} has a table {TABLE} that is not of this library"
        raise LockError(msg)
