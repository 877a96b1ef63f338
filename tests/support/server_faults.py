"""
What an administrator can do to a server, on purpose: faults by SQL.

```python
async with ServerFaults(server.dsn) as faults:
    await faults.terminate(application_name="asyncnotify")
    async with faults.connections_exhausted():
        ...
```

What is done to its processes, such as ``kill -9``, freezing or restarting, is the matter of
`asyncnotify.testing.server`.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import asyncpg

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from types import TracebackType

__all__ = ["ServerFaults"]

_SESSIONS = """
    SELECT pid FROM pg_catalog.pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
        AND application_name = $1 AND datname = coalesce($2, datname)
    ORDER BY backend_start
"""
_TIMEOUT = 10.0


class ServerFaults:
    """
    Inflicts faults over a superuser's connection of its own, which no fault here ends.

    An async context manager. ``database`` narrows the calls that go by application name.
    Every call has a deadline of 10 seconds; it raises what asyncpg raises.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._admin: asyncpg.Connection[Any] | None = None

    async def __aenter__(self) -> Self:
        """Connect."""
        self._admin = await asyncpg.connect(
            self._dsn,
            timeout=_TIMEOUT,
            command_timeout=_TIMEOUT,
            server_settings={"application_name": "asyncnotify faults"},
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect; the server may be gone."""
        self._connection.terminate()

    @property
    def _connection(self) -> asyncpg.Connection[Any]:
        if self._admin is None:
            message = "enter it first: async with ServerFaults(dsn) as faults"
            raise RuntimeError(message)
        return self._admin

    async def sessions(
        self, application_name: str = "asyncnotify", *, database: str | None = None
    ) -> list[int]:
        """Return the backend pids of the sessions of that name, the oldest first."""
        rows = await self._connection.fetch(_SESSIONS, application_name, database)
        return [row["pid"] for row in rows]

    async def terminate(
        self,
        pid: int | None = None,
        *,
        application_name: str = "asyncnotify",
        database: str | None = None,
    ) -> list[int]:
        """End one session, or all of that name; return the pids of those that were told."""
        pids = [pid] if pid else await self.sessions(application_name, database=database)
        return [p for p in pids if await self._signal("pg_terminate_backend", p)]

    async def cancel(
        self,
        pid: int | None = None,
        *,
        application_name: str = "asyncnotify",
        database: str | None = None,
    ) -> list[int]:
        """Cancel what one session is running, or all of that name; idle ones do not notice."""
        pids = [pid] if pid else await self.sessions(application_name, database=database)
        return [p for p in pids if await self._signal("pg_cancel_backend", p)]

    async def _signal(self, function: str, pid: int) -> bool:
        return bool(await self._connection.fetchval(f"SELECT {function}($1)", pid))

    @asynccontextmanager
    async def connections_exhausted(self) -> AsyncGenerator[None]:
        """Hold every connection that the server has to give: every further client gets 53300."""
        held: list[asyncpg.Connection[Any]] = []
        try:
            while True:
                try:
                    held.append(await asyncpg.connect(self._dsn, timeout=_TIMEOUT))
                except asyncpg.TooManyConnectionsError:
                    break
            yield
        finally:
            for connection in held:
                connection.terminate()

    @asynccontextmanager
    async def database_refused(self, name: str) -> AsyncGenerator[None]:
        """Let a database take no new connections (55000); sessions in it go on."""
        await self._allow_connections(name, allowed=False)
        try:
            yield
        finally:
            await self._allow_connections(name, allowed=True)

    async def _allow_connections(self, name: str, *, allowed: bool) -> None:
        await self._connection.execute(
            "UPDATE pg_catalog.pg_database SET datallowconn = $1 WHERE datname = $2", allowed, name
        )

    async def drop_database(self, name: str) -> None:
        """Drop a database with all connections to it; connecting then gets 3D000."""
        await self._connection.execute(f"DROP DATABASE {_quoted(name)} WITH (FORCE)")

    async def set_password(self, role: str, password: str) -> None:
        """Change the password of a role: sessions go on, connecting needs the new one."""
        secret = password.replace("'", "''")
        await self._connection.execute(f"ALTER ROLE {_quoted(role)} PASSWORD E'{_escaped(secret)}'")

    @asynccontextmanager
    async def queue_held(self, *channels: str) -> AsyncGenerator[asyncpg.Connection[Any]]:
        """
        Keep the notification queue from being emptied: a listener sits in a transaction.

        It listens on these channels, which those are to be that are notified: from PostgreSQL 19
        on a session does not hold what it does not listen to.

        With few ``max_notify_queue_pages`` (PostgreSQL 17 and newer; a setting of the server) it
        is soon full, and notifying gets 54000. Yields the connection that holds it.
        """
        holder = await asyncpg.connect(self._dsn, timeout=_TIMEOUT)
        try:
            for channel in channels:
                await holder.execute(f"LISTEN {_quoted(channel)}")
            await holder.execute("BEGIN; SELECT 1")
            yield holder
        finally:
            holder.terminate()

    async def until_gone(self, pid: int, *, timeout: float = _TIMEOUT) -> None:
        """Return once a backend is gone; TimeoutError if it is not within this many seconds."""
        query = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE pid = $1"
        async with asyncio.timeout(timeout):
            while await self._connection.fetchval(query, pid):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)  # polls the server


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\")
