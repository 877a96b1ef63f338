"""Connections of a log's own: each statement has a deadline, and errors say what they mean."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from asyncnotify._asyncpg import failures, untraced
from asyncnotify._asyncpg.bounded import BoundedConnection
from asyncnotify._asyncpg.publishing import check_pool
from asyncnotify._asyncpg.sockets import ENDED, Arrivals
from asyncnotify._asyncpg.statements import OWN_DEFAULTS, literal
from asyncnotify._errors import (
    AsyncNotifyError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    PoolerError,
    describe_error,
)
from asyncnotify._logs import Log
from asyncnotify._tasks import start
from asyncnotify.log._calls import append_call
from asyncnotify.log._errors import LACKS_PRIVILEGE, NotInstalledError, StandbyError
from asyncnotify.log._names import Names
from asyncnotify.log._ports import Statement, UnsentError
from asyncnotify.log._schema.installing import install

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Generator, Sequence

    from asyncpg.transaction import Transaction

    from asyncnotify._asyncpg._connecting.dial import Dialer
    from asyncnotify._keepalive import Keepalive
    from asyncnotify.log._entries import Entry
    from asyncnotify.log._ports import LogSession, LogSessions
    from asyncnotify.log._settings import GivenSettings

log = Log("log")

_SETTINGS: Final = """
    SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;
    SET jit = off; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0
"""
"""A role may have other defaults. A tick needs READ COMMITTED; compiling a plan takes longer than
any of our statements."""

_CHANGED: Final = (
    *OWN_DEFAULTS,
    "default_transaction_read_only",
    "jit",
    "statement_timeout",
    "idle_in_transaction_session_timeout",
)
"""What these, and those of any session of ours, change."""

_NOT_INSTALLED: Final = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
)


class DriverSession(BoundedConnection):
    """
    A session on a connection of the driver's.

    Attributes:
        is_own: No pooler is in between, so statements may be prepared.
    """

    def __init__(self, connection: asyncpg.Connection[Any], name: str, *, timeout: float) -> None:
        super().__init__(connection, timeout=timeout)
        self._log = name
        self._names = Names(name)
        self._arrivals = Arrivals.of(connection)
        self.is_own: bool = False
        self._earlier: dict[str, str] = {}

    @property
    def connection(self) -> asyncpg.Connection[Any]:
        """The driver's connection, for what users run on it."""
        return self._connection

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be gone, or the server has ended it."""
        try:
            return super().lost or (self._arrivals is not None and self._arrivals.have_ended)
        except asyncpg.InterfaceError:  # a pool has taken it back, as it was closed
            return True

    def terminate(self) -> None:
        """Drop the connection at once, without waiting for anything."""
        with suppress(asyncpg.InterfaceError):  # as above
            super().terminate()

    async def check(self) -> None:
        """
        Return unless the server has ended the session, as far as that has arrived.

        Raises:
            asyncpg.InterfaceError: It has.
        """
        if self._arrivals is not None and self._arrivals.wait() and await self._arrivals.read():
            raise asyncpg.InterfaceError(ENDED)

    async def fetch(self, statement: Statement, /, *arguments: object) -> Sequence[Any]:
        """
        Return the rows of the answer.

        Raises:
            ConnectionLostError: The connection died, or the server did not answer in time.
            NotInstalledError: The database has no such log.
            StandbyError: The server is a standby.
            asyncpg.PostgresError: The server refused the statement.
        """
        with answers(self._log):
            await self.check()
            fetching = untraced.fetch(self._connection, statement.sql, *arguments)
            rows: Sequence[Any] = await self._command(fetching)
            return rows

    async def execute(self, statement: Statement, /) -> None:
        """Run a statement without arguments, in one message; raises as ``fetch()`` does."""
        with answers(self._log):
            await self.check()
            await self._command(self._execute(statement.sql))

    async def append(self, entries: Sequence[Entry], *, wake: bool) -> None:
        """Append entries, at least one, in one transaction; raises as ``fetch()`` does."""
        call = append_call(self._names, entries, wake=wake)
        if self.is_own:
            numbered = call.with_placeholders(lambda n: f"${n + 1}")
            await self.fetch(Statement("append", numbered), *call.arguments)
        else:  # behind a pooler nothing may be prepared
            await self.execute(Statement("append", call.as_text()))

    async def install(self, given: GivenSettings) -> None:
        """Bring the log to the newest version; raises as ``fetch()`` and ``install()`` do."""
        await self.run(install(self._connection, self._log, given))

    async def run(self, coroutine: Coroutine[Any, Any, Any], /) -> None:
        """Run what talks to the server on this session's connection; raises as ``fetch()``."""
        with answers(self._log):
            await self._command(coroutine)

    async def begin(self) -> DriverTransaction:
        """Begin a transaction; raises as ``fetch()``."""
        with answers(self._log):
            await self.check()
            # Within: a connection that has been closed refuses to make one
            transaction = untraced.transaction(self._connection)
            await self._command(transaction.start())
        return DriverTransaction(self, transaction)

    async def remember_settings(self) -> None:
        """Note what ``prepare()`` changes, for ``restore_settings()``."""
        names = ", ".join(f"pg_catalog.current_setting('{name}')" for name in _CHANGED)
        [row] = await self._command(untraced.fetch(self._connection, f"SELECT {names}"))
        self._earlier = dict(zip(_CHANGED, row, strict=True))

    async def restore_settings(self) -> None:
        """Undo what ``prepare()`` has changed."""
        if self._earlier and not self.lost:
            changes = (
                f"pg_catalog.set_config('{name}', {literal(value)}, false)"
                for name, value in self._earlier.items()
            )
            await self._command(self._execute(f"SELECT {', '.join(changes)}"))

    async def prepare(self, keepalive: Keepalive | None) -> bool:
        """Set what the statements rely on; return whether no pooler is in between."""
        self.is_own = await self.introduce(keepalive)
        if self.is_own:
            await self._command(self._execute(_SETTINGS))
        return self.is_own


class DriverTransaction:
    """A transaction on a session, each of whose ends has a deadline."""

    def __init__(self, session: DriverSession, transaction: Transaction) -> None:
        self._session = session
        self._transaction = transaction

    async def commit(self) -> None:
        """Commit; raises as ``DriverSession.fetch()``."""
        await self._session.run(self._transaction.commit())

    async def rollback(self) -> None:
        """Roll back; raises as ``DriverSession.fetch()``."""
        await self._session.run(self._transaction.rollback())


@contextmanager
def answers(name: str) -> Generator[None]:
    """Turn what the driver raises in here into what it means to the user of a log."""
    try:
        yield
    except _NOT_INSTALLED as error:
        raise NotInstalledError(name) from error
    except asyncpg.ReadOnlySQLTransactionError as error:
        msg = (
            f"log {name!r}: the server is a standby, which cannot order events: connect to the"
            " primary; readers and consumers go on here once this server is promoted"
        )
        raise StandbyError(msg) from error
    except asyncpg.InsufficientPrivilegeError as error:
        error.add_note(LACKS_PRIVILEGE.format(name))
        raise
    except Exception as error:
        if failures.is_refusal(error) or isinstance(error, AsyncNotifyError):
            raise
        raise ConnectionLostError(_loss(name, error)) from error


def _loss(name: str, error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return (
            f"log {name!r}: {describe_error(error)}, and the connection was dropped: the statement"
            " may be waiting for a lock (see pg_stat_activity), the server may be overloaded, or"
            " the network may be interrupted"
        )
    return f"the connection of log {name!r} was lost: {describe_error(error)}"


def is_unsent(error: BaseException | None) -> bool:
    """Return whether a session was lost before the server had a statement: nothing came of it."""
    if not isinstance(error, ConnectionLostError):
        return False
    cause = error.__cause__
    return cause is not None and (isinstance(cause, UnsentError) or failures.is_unsent(cause))


class OwnSessions:
    """Sessions on connections that are made for them."""

    def __init__(
        self, dialer: Dialer, keepalive: Keepalive | None, name: str, timeout: float
    ) -> None:
        self._dialer = dialer
        self._keepalive = keepalive
        self._log = name
        self._timeout = timeout
        self.target: str = dialer.target
        self.keep = True

    async def open(self, *, own: bool = True) -> DriverSession:
        """Return a session on a new connection."""
        with connecting(self.target), self._dialer.opening():
            connection = await self._dialer.dial()
            with failures.introducing(connection):
                session = DriverSession(connection, self._log, timeout=self._timeout)
                await _prepare(session, self._keepalive, own=own)
        return session

    async def close(self, session: DriverSession) -> None:
        """Say goodbye to the server."""
        await session.close(self._timeout)


class PooledSessions:
    """Sessions on connections that are borrowed from a pool of the caller's."""

    target: str = "the pool"
    keep: bool = False

    def __init__(self, pool: asyncpg.Pool[Any], name: str, timeout: float, connect: float) -> None:
        check_pool(pool)
        self._pool = pool
        self._log = name
        self._timeout = timeout
        self._connect_timeout = connect

    async def open(self, *, own: bool = True) -> DriverSession:
        """Return a session on a connection of the pool's: of those that have ended, on none."""
        with connecting(self.target):
            left = self._pool.get_max_size()
            while True:
                proxy: Any = await self._pool.acquire(timeout=self._connect_timeout)
                session = DriverSession(proxy, self._log, timeout=self._timeout)
                try:
                    await self._introduce(session, own=own)
                except BaseException as error:
                    session.terminate()
                    await self._pool.release(proxy)
                    left -= 1
                    if left < 0 or not failures.is_loss(error):
                        raise
                else:
                    return session

    async def _introduce(self, session: DriverSession, *, own: bool) -> None:
        await session.check()
        if not _is_reset(self._pool, session.connection):
            await session.remember_settings()
        await _prepare(session, None, own=own)

    async def close(self, session: DriverSession) -> None:
        """Give the connection back; the pool resets it, or else this does."""
        connection: Any = session.connection
        try:
            try:
                await session.restore_settings()
            finally:
                release = self._pool.release(connection, timeout=self._timeout)
                await start(release, name="asyncnotify log release", context=untraced.context())
        except Exception as error:  # noqa: BLE001 - what was done on it is done
            session.terminate()
            log.info("a connection of the pool was lost: %s", describe_error(error))


def _is_reset(pool: asyncpg.Pool[Any], connection: Any) -> bool:  # noqa: ANN401 - a proxy of the pool's
    """Return whether a pool resets each connection; users may have changed that."""
    method = getattr(connection, "get_reset_query", None)
    if method is None:  # asyncpg before 0.30 has a private one
        method = connection._get_reset_query  # noqa: SLF001 - see above
    resets: str = method()
    return "RESET ALL" in resets and getattr(pool, "_reset", None) is None


async def _prepare(session: DriverSession, keepalive: Keepalive | None, *, own: bool) -> None:
    if not await session.prepare(keepalive) and own:
        raise PoolerError(_POOLER)


_POOLER: Final = (
    "a pooler is in between, and a log needs sessions of its own, for its locks and its settings:"
    " connect to PostgreSQL itself; only append() goes through such a pooler"
)


@contextmanager
def connecting(target: str) -> Generator[None]:
    """Turn what connecting raises into a ConnectError."""
    try:
        yield
    except AsyncNotifyError:
        raise
    except Exception as error:  # the driver's InternalClientError too, of a session that was killed
        mistake = failures.is_permanent(error) and isinstance(error, ValueError | TypeError)
        kind = ConfigurationError if mistake else ConnectError
        msg = f"cannot connect to {target}: {describe_error(error)}"
        raise kind(msg) from error


@asynccontextmanager
async def session_of(sessions: LogSessions, *, own: bool = True) -> AsyncGenerator[LogSession]:
    """Open a session for as long as the block runs; drop it if the block raises."""
    session = await sessions.open(own=own)
    try:
        yield session
    except BaseException:
        session.terminate()
        raise
    finally:
        await sessions.close(session)
