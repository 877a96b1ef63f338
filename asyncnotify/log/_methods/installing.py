"""Making a log in the database, its rights, and its upkeep."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from asyncnotify._arguments import check_names
from asyncnotify.log._methods.running import Running
from asyncnotify.log._schema.privileges import grants_to_append, grants_to_consume
from asyncnotify.log._schema.tables import REGISTRY
from asyncnotify.log._schema.versions import check_since, statements_of
from asyncnotify.log._sessions import session_of
from asyncnotify.log._settings import GivenSettings


class Installing(Running):
    """The methods that make and keep what a log has in the database."""

    async def install(
        self,
        *,
        retention: timedelta | None = None,
        limit: timedelta | None = None,
        ring: int | None = None,
    ) -> None:
        """
        Make the log in the database, or bring it to the version of this library.

        Idempotent, all or nothing; several processes may do it at once, and others may append
        meanwhile. Needs the right to create a schema, or to own the schema ``asyncnotify``.

        Args:
            retention: How long events are kept at least. None: as it is; 7 days for a new log.
            limit: How long events are kept at most where a consumer has not got so far; None:
                until every consumer has, or as it is where ``retention`` is not given either.
            ring: In how many partitions, 3 to 64; of a new log only. None: 8.

        Raises:
            ValueError: A setting is out of its bounds.
            LogError: Other tables bear the names that the log needs, or ``limit`` is shorter than
                the retention that the log has.
            SchemaVersionError: The log was installed by a newer version of asyncnotify.
            ConnectError: There is no connection.
            ConnectionLostError: The connection died: the log may have been installed.
            asyncpg.PostgresError: The server refused a statement.
        """
        given = GivenSettings(retention, limit, ring)
        async with session_of(self._sessions) as session:
            await session.install(given)

    def statements(
        self,
        *,
        since: int = 0,
        retention: timedelta | None = None,
        limit: timedelta | None = None,
        ring: int | None = None,
    ) -> list[str]:
        """
        Return what ``install()`` executes, for a migration: to be run in one transaction.

        Args:
            since: The version of the schema that is there; 0: none. Of a log that is there,
                ``retention``, ``ring``, and ``limit`` if it has one, have to be told as
                ``asyncnotify.logs`` has them: they are in the texts of its functions.
            retention: As for ``install()``; None: 7 days.
            limit: As for ``install()``.
            ring: As for ``install()``.

        Raises:
            ValueError: A setting is out of its bounds, or missing, or ``since`` is no version that
                is known.
        """
        check_since(since)
        if since > 0 and (retention is None or ring is None):
            msg = f"since={since} needs retention= and ring= as they are: see table {REGISTRY}"
            raise ValueError(msg)
        settings = GivenSettings(retention, limit, ring).for_new()
        return statements_of(self.name, settings, since=since)

    def grants(self, *, append: Collection[str] = (), consume: Collection[str] = ()) -> list[str]:
        """
        Return the statements that give roles the rights to append, or to read and consume.

        One who appends can neither read events nor set their place in the order; one who consumes
        cannot append.

        Args:
            append: Names of roles that append.
            consume: Names of roles that read and consume.

        Raises:
            TypeError: One of them is not a collection of names: a list, or a tuple.
        """
        check_names("append", append)
        check_names("consume", consume)
        statements: list[str] = []
        for role in append:
            statements.extend(grants_to_append(self._names, role))
        for role in consume:
            statements.extend(grants_to_consume(self._names, role))
        return statements

    async def expire(self) -> int:
        """
        Remove events that are older than the log keeps; return how many partitions were emptied.

        Whoever consumes the log does so by itself, about once a minute. Never waits for a lock, and
        no append waits for it.

        Raises:
            NotInstalledError: The database has no such log.
            ConnectError: There is no connection.
            ConnectionLostError: The connection died.
            StandbyError: The server is a standby.
            WrongLoopError: The call came from another event loop or process.
            asyncpg.PostgresError: The server refused a statement.
        """
        return await self._running().expire()
