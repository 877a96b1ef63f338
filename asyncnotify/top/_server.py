"""What the server tells, on a connection that reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import asyncpg

from asyncnotify.top._model import LockWaiter, PossibleListener, ServerFigures

if TYPE_CHECKING:
    from collections.abc import Collection

APPLICATION_NAME: Final = "asyncnotify top"
"""What its own sessions call themselves; they are not shown."""

ANSWER_TIMEOUT: Final = 3.0
"""Seconds for connecting, and for an answer."""

_SERVER: Final = """
    SELECT pg_catalog.current_setting('server_version') AS version,
        pg_catalog.current_database() AS database,
        pg_catalog.pg_is_in_recovery() AS is_standby,
        extract(
            epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_postmaster_start_time()
        )::pg_catalog.float8 AS uptime,
        pg_catalog.pg_notification_queue_usage() AS queue_usage,
        pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_all
"""

_LOCK: Final = """
    SELECT l.pid, l.granted, a.datname AS database, a.application_name, a.wait_event,
        extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::pg_catalog.float8
            AS seconds
    FROM pg_catalog.pg_locks AS l LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.locktype = 'object' AND l.database = 0 AND l.objid = 0
        AND l.classid = 'pg_catalog.pg_database'::pg_catalog.regclass
        AND a.application_name IS DISTINCT FROM $1
    ORDER BY l.granted DESC, a.xact_start
    LIMIT 50
"""
"""LockSharedObject(DatabaseRelationId, InvalidOid, 0) in the server's async.c."""

_LISTENERS: Final = r"""
    SELECT pid, datname AS database, application_name, state,
        extract(epoch FROM pg_catalog.clock_timestamp() - state_change)::pg_catalog.float8
            AS seconds,
        CASE WHEN query ~* '^\s*listen\M' THEN 'last statement: LISTEN'
            ELSE 'asked for its channels' END AS reason
    FROM pg_catalog.pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid()
        AND application_name <> $1 AND pid <> ALL ($2::pg_catalog.int4[])
        AND (query ~* '^\s*listen\M' OR query ~* '\mpg_listening_channels\M')
    ORDER BY state_change
    LIMIT 50
"""

_LOGS: Final = "SELECT name FROM asyncnotify.logs ORDER BY name LIMIT 50"
_HAS_LOGS: Final = """
    SELECT pg_catalog.to_regclass('asyncnotify.logs') IS NOT NULL
        AND pg_catalog.has_schema_privilege('asyncnotify', 'USAGE')
        AND pg_catalog.has_table_privilege('asyncnotify.logs', 'SELECT')
"""


class Server:
    """
    One connection to the server, made when it is needed, and again after any failure.

    Args:
        dsn: As for ``asyncpg.connect()``; ``postgresql+asyncpg://`` as well.
    """

    def __init__(self, dsn: str | None) -> None:
        self._dsn = dsn and dsn.replace("+asyncpg://", "://", 1)
        self._options: dict[str, Any] = {
            "timeout": ANSWER_TIMEOUT,
            "command_timeout": ANSWER_TIMEOUT,
            "statement_cache_size": 0,  # a pooler may be in between
            "server_settings": {"application_name": APPLICATION_NAME},
        }
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    async def pool(self) -> asyncpg.Pool[asyncpg.Record]:
        """Return a pool of one connection, which is made when it is needed."""
        return await asyncpg.create_pool(self._dsn, min_size=0, max_size=1, **self._options)

    async def figures(self, known: Collection[int]) -> ServerFigures:
        """
        Return what the server tells.

        Args:
            known: The backend pids of the services that report: about them nothing is guessed.
        """
        [server] = await self._fetch(_SERVER)
        lock = await self._fetch(_LOCK, APPLICATION_NAME)
        listeners = await self._fetch(_LISTENERS, APPLICATION_NAME, [*known])
        return ServerFigures(
            **server,
            lock=tuple(LockWaiter(**row) for row in lock),
            possible_listeners=tuple(PossibleListener(**row) for row in listeners),
        )

    async def logs(self) -> list[str]:
        """Return the names of the logs in this database, as far as the role may see them."""
        [[there_are]] = await self._fetch("SELECT pg_catalog.to_regclass('asyncnotify.logs')")
        if there_are is None:
            return []
        [[may_see]] = await self._fetch(_HAS_LOGS)
        return [row["name"] for row in await self._fetch(_LOGS)] if may_see else []

    async def _fetch(self, query: str, *values: object) -> list[Any]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._dsn, **self._options)
        try:
            return await self._connection.fetch(query, *values)
        except BaseException:
            self.terminate()  # whatever state it is in
            raise

    def terminate(self) -> None:
        """Close the connection at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def aclose(self) -> None:
        """Close the connection in good order."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close(timeout=1.0)
