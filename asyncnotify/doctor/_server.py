"""The server that is examined: short statements, which only read, each with its deadline."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg

from asyncnotify._asyncpg._connecting.dial import Dialer, check_connect_arguments
from asyncnotify._asyncpg._parameters.settings import Given

if TYPE_CHECKING:
    from asyncnotify._asyncpg._parameters.hosts import Host

Row: TypeAlias = Mapping[str, Any]
"""A row of the server's, by the names of its columns."""

APPLICATION_NAME: Final = "asyncnotify-doctor"

_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"
_LIMIT: Final = "; SET LOCAL statement_timeout = {0}; SET LOCAL lock_timeout = {0}"
_SHARE: Final = 0.9
"""How much of a check's time a Listener's attempts to connect may take."""

_LAST: Final = 0.95
"""When an attempt to connect is given up, of a check's time: slow lookups add to those of hosts."""

_SEES_ALL: Final = "SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')"


class Server:
    """
    Asks one server, on a connection that is made when it is needed and given up after an error.

    Args:
        dsn: As for Listener.
        arguments: Those of ``asyncpg.connect``.
        timeout: Seconds for each check, connecting included.

    Attributes:
        version: The major version.
        version_text: What the server calls its version; None without a connection.
        is_standby: Whether the server refuses LISTEN.
        is_pooled: Whether there is a pooler in the path.
        is_balanced: Whether another server may answer than the one that listens.
        lock_is_held: Whether a notification would wait behind the notify lock.

    Raises:
        ConfigurationError: The DSN or another argument cannot be honoured.
        TypeError: An argument is unknown, or of a type that it cannot have.
    """

    def __init__(self, dsn: Any, arguments: Mapping[str, Any], *, timeout: float) -> None:  # noqa: ANN401 - as Listener takes it
        check_connect_arguments(dsn, None, arguments)
        given: Mapping[str, str] = arguments.get("server_settings") or {}
        named = {"application_name": APPLICATION_NAME, **given}
        # A pooler may give each statement another session: there must be no named statement
        self.dsn, self.timeout = dsn, timeout
        self.arguments: dict[str, Any] = {
            "statement_cache_size": 0,
            **arguments,
            "server_settings": named,
        }
        self._begin = _BEGIN + _LIMIT.format(min(int(timeout * 1000), 2**31 - 1))
        self._dialer = Dialer(dsn, None, self.arguments, timeout=timeout, pass_timeout=timeout)
        self._connection: asyncpg.Connection[Any] | None = None
        self._sees_all: bool | None = None
        self.version: int = 0
        self.version_text: str | None = None
        self.is_standby = False
        self.is_pooled = False
        self.is_balanced = False
        self.lock_is_held = False

    @property
    def target(self) -> str:
        """Where it is, without a password."""
        return self._dialer.target

    @property
    def listener_arguments(self) -> dict[str, Any]:
        """What a Listener of the same server takes beside the DSN."""
        given = {n: v for n, v in self.arguments.items() if n != "statement_cache_size"}
        hosts = len(self.hosts)
        if hosts > 1:  # it connects twice within one check, each time past the hosts that are dead
            given["connect_timeout"] = self.timeout * _SHARE / 2 / hosts
        return given

    @property
    def hosts(self) -> list[Host]:
        """The hosts that are given; raises ConfigurationError if a file of libpq's is wrong."""
        return Given(self.dsn, self.arguments).complete(os.environ).hosts

    async def connection(self) -> asyncpg.Connection[Any]:
        """Return the connection; raises what the driver raises, or ConfigurationError."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._dial()
        return self._connection

    async def _dial(self) -> asyncpg.Connection[Any]:
        """Return a connection, or raise why there is none before the check's time has passed."""
        seconds = self.timeout * _LAST
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await self._dialer.dial()
        except TimeoutError as error:
            if not limit.expired():
                raise
            msg = f"no connection within {seconds:g} s"
            raise TimeoutError(msg) from error

    async def fetch(self, query: str, *arguments: object) -> list[Row]:
        """Return the rows of a query, in a READ ONLY transaction; raises what asyncpg raises."""
        return await self._fetch(self._begin, query, *arguments)

    async def fetch_settings(self, query: str, *arguments: object) -> list[Row]:
        """Do as ``fetch()``, with no setting changed: else a query about them tells of ours."""
        return await self._fetch(_BEGIN, query, *arguments)

    async def _fetch(self, begin: str, query: str, *arguments: object) -> list[Row]:
        connection = await self.connection()
        try:
            await connection.execute(begin)
            rows = await connection.fetch(query, *arguments)
            await connection.execute("ROLLBACK")
        except BaseException:
            self.close()
            raise
        return [dict(row) for row in rows]

    async def accepts(self, statement: str) -> bool:
        """Return whether the server executes a statement, which is sent without being prepared."""
        return await self._accepts(self._begin, statement, "ROLLBACK")

    async def accepts_alone(self, statement: str) -> bool:
        """Do as ``accepts()``, without a transaction: the statement must not write."""
        return await self._accepts(statement)

    async def _accepts(self, *statements: str) -> bool:
        connection = await self.connection()
        try:
            for each in statements:
                await connection.execute(each)
        except asyncpg.PostgresError:
            self.close()
            return False
        except BaseException:
            self.close()
            raise
        return True

    async def value(self, query: str, *arguments: object) -> Any:  # noqa: ANN401 - of any type of SQL
        """Return the first value of the only row; as ``fetch()``."""
        [row] = await self.fetch(query, *arguments)
        return next(iter(row.values()))

    async def sees_all(self) -> bool:
        """Return whether the role may see what other roles' sessions do."""
        if self._sees_all is None:
            self._sees_all = bool(await self.value(_SEES_ALL))
        return self._sees_all

    def close(self) -> None:
        """Give the connection up; the next statement makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
