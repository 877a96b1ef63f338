"""The table of locks and its functions, as statements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncnotify._asyncpg import untraced
from asyncnotify.lock._errors import LockError, LockVersionError
from asyncnotify.lock._names import SCHEMA

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

_STATEMENTS: Final = (
    f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}",
    f"""
    CREATE TABLE IF NOT EXISTS {TABLE} (
        name pg_catalog.text PRIMARY KEY,
        token pg_catalog.int8 NOT NULL,
        backend_pid pg_catalog.int4,
        life pg_catalog.interval,
        acquired_at pg_catalog.timestamptz
    )
    """,
    f"""
    CREATE OR REPLACE FUNCTION {SCHEMA}.lock_key(name pg_catalog.text) RETURNS pg_catalog.int8
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
        SELECT ('x' || encode(substr(sha256(convert_to(name, 'UTF8')), 1, 8), 'hex'))::bit(64)::int8
    $$
    """,
    # SKIP LOCKED: a checked transaction of the last holder has a share lock of the row. To wait for
    # it here would hold up all locks of the session
    f"""
    CREATE OR REPLACE FUNCTION {SCHEMA}.lock_number(
        wanted pg_catalog.text[], life pg_catalog.interval,
        OUT of_lock pg_catalog.text, OUT its_token pg_catalog.int8
    ) RETURNS SETOF pg_catalog.record LANGUAGE plpgsql {_SAFE} AS $$
    BEGIN
        INSERT INTO {TABLE} AS l (name, token) SELECT w, 0 FROM unnest(wanted) AS w
        ON CONFLICT DO NOTHING;
        RETURN QUERY UPDATE {TABLE} AS l
        SET token = l.token + 1, backend_pid = pg_backend_pid(), life = lock_number.life,
            acquired_at = clock_timestamp()
        WHERE l.name IN (
            SELECT free.name FROM {TABLE} AS free WHERE free.name = ANY (wanted)
            FOR NO KEY UPDATE SKIP LOCKED
        )
        RETURNING l.name, l.token;
    END
    $$
    """,
    f"""
    CREATE OR REPLACE FUNCTION {SCHEMA}.lock_check(name pg_catalog.text, token pg_catalog.int8)
    RETURNS pg_catalog.void LANGUAGE plpgsql {_SAFE} AS $$
    BEGIN
        PERFORM FROM {TABLE} AS l
        WHERE l.name = lock_check.name AND l.token = lock_check.token FOR SHARE;
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
    ) RETURNS SETOF pg_catalog.record LANGUAGE sql STABLE {_SAFE} AS $$
        SELECT {SCHEMA}.lock_key(l.name), l.backend_pid, l.life
        FROM {TABLE} AS l WHERE l.name = ANY (names)
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
