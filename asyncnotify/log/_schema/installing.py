"""Bringing the schema of a log in a database to the version of this library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import asyncpg

from asyncnotify._asyncpg import untraced
from asyncnotify.log._errors import LogError, SchemaVersionError
from asyncnotify.log._names import SCHEMA, Names
from asyncnotify.log._schema.tables import REGISTRY
from asyncnotify.log._schema.versions import CHANGES, statements_of
from asyncnotify.log._settings import GivenSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncnotify.log._schema.versions import Change

    Connection = asyncpg.Connection[Any]

_LOCK: Final = Names("").lock_key("install")
"""One key for all logs: they share a schema and a table."""

_LOCK_TIMEOUT: Final = "2s"
"""How long a change of a table may hold up the appends behind it."""


_NOTHING: Final = GivenSettings()


async def install(
    connection: Connection,
    log: str,
    given: GivenSettings = _NOTHING,
    changes: Sequence[Change] = CHANGES,
) -> int:
    """
    Bring a log to the newest version; return the version that it had, 0 for none.

    All or nothing, in a transaction of its own. Others that install wait, and find nothing left to
    be done. A lock of a table that cannot be had within 2 s ends it, because appends wait behind.

    Args:
        connection: In no transaction; of one who may create schemas, or owns this one.
        log: The checked name of the log.
        given: How long events are kept.
        changes: How the tables change, from version 1 on.

    Raises:
        LogError: Tables that are not of this log bear the names that it needs, or what was given
            does not go with what the log has.
        SchemaVersionError: The log is of a newer version than is known here.
        asyncpg.PostgresError: The server refused a statement.
    """
    async with untraced.transaction(connection, "read_committed"):
        await untraced.execute(connection, f"SELECT pg_catalog.pg_advisory_xact_lock({_LOCK})")
        await untraced.execute(connection, f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        # What the statements make must not depend on these
        await untraced.execute(connection, "SET LOCAL search_path = pg_catalog, pg_temp")
        await untraced.execute(connection, "SET LOCAL synchronous_commit = on")
        since, present = await installed(connection, log)
        if since > len(changes):
            raise SchemaVersionError(log, since, len(changes))
        settings = given.for_log(log, present)
        for statement in statements_of(log, settings, since=since, changes=changes):
            await _execute(connection, log, statement)
    return since


async def installed(connection: Connection, log: str) -> tuple[int, Settings | None]:
    """Return the version of a log and its settings; 0 and None if it is not there."""
    has_registry = f"SELECT pg_catalog.to_regclass('{REGISTRY}') IS NOT NULL"
    [registry] = await untraced.fetch(connection, has_registry)
    if not registry[0]:
        return 0, None
    query = f"""
        SELECT version, retention, keep_at_most, ring FROM {REGISTRY}
        WHERE name OPERATOR(pg_catalog.=) $1
    """
    rows = await untraced.fetch(connection, query, log)
    if not rows:
        return 0, None
    [row] = rows
    return row["version"], Settings(row["retention"], row["keep_at_most"], row["ring"])


async def _execute(connection: Connection, log: str, statement: str) -> None:
    try:
        await untraced.execute(connection, statement)
    except (asyncpg.DuplicateTableError, asyncpg.DuplicateObjectError) as error:
        msg = (
            f"log {log!r} cannot be installed: the schema {SCHEMA} has something of a name that"
            f" the log needs, and that is not the log's: {error}"
        )
        raise LogError(msg) from error
