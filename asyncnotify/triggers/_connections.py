"""Executing steps on a connection of the caller's, of whichever library."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import asyncpg

from asyncnotify._arguments import type_name
from asyncnotify._asyncpg.cursors import cursor_on
from asyncnotify._asyncpg.statements import unused_name
from asyncnotify._asyncpg.transactions import TAKEN_IN_THREADS, explaining, refusal
from asyncnotify._asyncpg.untraced import prepare
from asyncnotify.sources import Transaction, error_for_missing
from asyncnotify.triggers._errors import LockTimeoutError
from asyncnotify.triggers._steps import Query

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from asyncnotify.triggers._steps import Rows, Steps

T = TypeVar("T")

_PASSING: Final = {"55P03", "40P01"}
"""The server's words for a lock that was not to be had, and for a deadlock that it has ended."""

_PAUSE: Final = 0.2
"""Seconds between two attempts at a lock, in which those who wait behind it can go on."""

_TAKEN: Final = (
    "an asyncpg Connection, a connection acquired from its Pool, SQLAlchemy's AsyncConnection or"
    " AsyncSession, or psycopg's AsyncConnection"
)


class AsyncSession(Protocol):
    """What is needed of a connection that is awaited."""

    async def execute(self, query: Query) -> Rows:
        """Execute a statement; return its rows, if it has any."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """Begin a transaction, or a savepoint in the one of the caller's."""
        ...


class BlockingSession(Protocol):
    """What is needed of a connection that blocks."""

    def execute(self, query: Query) -> Rows:
        """Execute a statement; return its rows, if it has any."""
        ...

    def transaction(self) -> AbstractContextManager[object]:
        """Begin a transaction, or a savepoint in the one of the caller's."""
        ...


async def take(session: AsyncSession, steps: Steps[T]) -> T:
    """Take steps in one transaction; raises what the driver raises."""
    async with session.transaction():
        try:
            query = next(steps)
            while True:
                query = steps.send(await session.execute(query))
        except StopIteration as end:
            result: T = end.value
            return result


def take_in_thread(session: BlockingSession, steps: Steps[T]) -> T:
    """Do as ``take()``, on a connection that blocks."""
    with session.transaction():
        try:
            query = next(steps)
            while True:
                query = steps.send(session.execute(query))
        except StopIteration as end:
            result: T = end.value
            return result


async def take_when_unlocked(
    session: AsyncSession, steps: Callable[[], Steps[T]], table: str, timeout: float
) -> T:
    """
    Take steps, and again where a lock was not to be had, for so many seconds.

    Raises:
        LockTimeoutError: There was no lock within this time.
        Exception: What the driver raises.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return await take(session, steps())
        except Exception as error:
            if not _again(error, deadline, table, timeout):
                raise
        await asyncio.sleep(_PAUSE)


def take_in_thread_when_unlocked(
    session: BlockingSession, steps: Callable[[], Steps[T]], table: str, timeout: float
) -> T:
    """Do as ``take_when_unlocked()``, on a connection that blocks."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return take_in_thread(session, steps())
        except Exception as error:
            if not _again(error, deadline, table, timeout):
                raise
        time.sleep(_PAUSE)


def _again(error: Exception, deadline: float, table: str, timeout: float) -> bool:
    """Return whether an error may pass, and there is time left."""
    driver = getattr(error, "orig", error)
    if getattr(driver, "sqlstate", None) not in _PASSING:
        return False
    if time.monotonic() + _PAUSE > deadline:
        raise LockTimeoutError(table, timeout) from error
    return True


_REASONS: Final = {
    "25P01": (
        "the connection commits each statement by itself, and all have to be in one transaction:"
        " give one of another isolation level than AUTOCOMMIT"
    ),
    "42501": (
        "the role has to own the table, and to have the right to create in its schema;"
        " statements() returns the SQL, for a migration by one that has these rights"
    ),
    "42601": "when= of the Table is to be a condition in SQL",
    "42703": (
        "key=, payload=, watch= and when= of the Table name columns as the catalog of the database"
        " has them"
    ),
    "42883": (
        "in when= of the Table, what is not PostgreSQL's own needs its schema; the columns of key="
        " need types that PostgreSQL's own operator = compares: not json, hstore or ltree"
    ),
}
"""What is to be done, by the SQLSTATE of a refusal."""


def explaining_steps(connection: object) -> AbstractContextManager[None]:
    """Add to what a driver raises that nothing was changed, and why."""
    return explaining(connection, "changed", _REASONS)


# -- the libraries --------------------------------------------------------------------------------


def _check_has_triggers(connection: object) -> None:
    if isinstance(connection, Transaction):
        raise error_for_missing(connection, "triggers")


def session_on(connection: Any) -> AsyncSession:  # noqa: ANN401 - of several libraries
    """
    Return a connection of the caller's as what steps are taken on.

    Raises:
        TypeError: It is of another kind.
        NotOnFakeError: It is a transaction of the fake server.
    """
    _check_has_triggers(connection)
    if isinstance(connection, asyncpg.Connection):  # also one of a pool: its metaclass says so
        return _OnAsyncpg(connection)
    if _is_of(connection, "sqlalchemy.ext.asyncio", "AsyncConnection", "AsyncSession"):
        return _OnSqlalchemy(connection)
    if _is_of(connection, "psycopg", "AsyncConnection"):
        return _OnPsycopg(connection)
    if _is_blocking(connection):
        msg = f"a connection of type {type_name(connection)} blocks: use BlockingTable(table)"
        raise TypeError(msg)
    raise refusal(connection, _TAKEN)


def blocking_session_on(connection: Any) -> BlockingSession:  # noqa: ANN401 - of several libraries
    """
    Return a connection of the caller's that blocks as what steps are taken on.

    Raises:
        TypeError: It is of another kind.
        NotOnFakeError: It is a transaction of the fake server.
    """
    _check_has_triggers(connection)
    if _is_of(connection, "sqlalchemy", "Connection"):
        return _OnBlockingSqlalchemy(connection)
    if _is_of(connection, "sqlalchemy.orm", "Session"):
        return _OnBlockingSqlalchemy(connection.connection())
    if _is_of(connection, "psycopg", "Connection"):
        return _OnBlockingPsycopg(connection)
    raise refusal(connection, TAKEN_IN_THREADS)


def _session_on_driver(connection: Any) -> AsyncSession | None:  # noqa: ANN401 - of several libraries
    """Return a connection of a driver's as what reads rows, which SQLAlchemy would change."""
    if isinstance(connection, asyncpg.Connection):
        return _OnAsyncpg(connection)
    return _OnPsycopg(connection) if _is_of(connection, "psycopg", "AsyncConnection") else None


def _is_blocking(connection: object) -> bool:
    return _is_of(connection, "sqlalchemy", "Connection") or any(
        _is_of(connection, module, name)
        for module, name in (("sqlalchemy.orm", "Session"), ("psycopg", "Connection"))
    )


def _is_of(connection: object, module: str, *names: str) -> bool:
    """Return whether it is of a library, which need not be installed for anything else."""
    library = sys.modules.get(module)
    classes = tuple(kind for name in names if (kind := getattr(library, name, None)) is not None)
    return isinstance(connection, classes)


class _OnAsyncpg:
    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection

    async def execute(self, query: Query) -> Rows:
        if query.has_rows:
            # Not connection.fetch(): codecs and records of the caller's would make other rows, and
            # behind a pooler the driver's name may be that of another program's statement
            fetch = await prepare(self._connection, query.text, unused_name())
            return [tuple(row) for row in await fetch()]
        await self._connection.execute(query.text)
        return ()

    def transaction(self) -> AbstractAsyncContextManager[object]:
        is_within = self._connection.is_in_transaction()
        return self._connection.transaction(isolation=None if is_within else "read_committed")


_RAW: Final = {"no_parameters": True}
"""Nothing in a statement is a placeholder, whatever signs are in the name of a column."""


class _OnSqlalchemy:
    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - an extra
        self._given = connection
        self._connection: Any = None
        self._driver: AsyncSession | None = None

    async def execute(self, query: Query) -> Rows:
        if query.has_rows and self._driver is not None:
            return await self._driver.execute(query)
        result = await self._connection.exec_driver_sql(query.text, execution_options=_RAW)
        return [tuple(row) for row in result.all()] if query.has_rows else ()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncGenerator[None]:
        is_session = _is_of(self._given, "sqlalchemy.ext.asyncio", "AsyncSession")
        self._connection = await self._given.connection() if is_session else self._given
        async with self._connection.begin_nested():
            driver = (await self._connection.get_raw_connection()).driver_connection
            self._driver = _session_on_driver(driver)
            yield


class _OnBlockingSqlalchemy:
    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - an extra
        self._connection = connection
        self._driver: BlockingSession | None = None

    def execute(self, query: Query) -> Rows:
        if query.has_rows and self._driver is not None:
            return self._driver.execute(query)
        result = self._connection.exec_driver_sql(query.text, execution_options=_RAW)
        return [tuple(row) for row in result.all()] if query.has_rows else ()

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        with self._connection.begin_nested():
            driver = self._connection.connection.driver_connection
            if _is_of(driver, "psycopg", "Connection"):
                self._driver = _OnBlockingPsycopg(driver)
            yield


_SEE_OTHERS: Final = Query("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
"""In a transaction of another level, which may be a database's default, the catalogs are as they
were before others have installed for whom it has waited, and all is made once more."""


def _is_in_transaction(connection: Any) -> bool:  # noqa: ANN401 - psycopg's, which is an extra
    return bool(connection.info.transaction_status)  # 0 where it is idle


class _OnPsycopg:
    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - an extra
        self._connection = connection

    async def execute(self, query: Query) -> Rows:
        async with cursor_on(self._connection) as cursor:
            await cursor.execute(query.text, prepare=False)
            return await cursor.fetchall() if query.has_rows else ()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncGenerator[None]:
        is_within = _is_in_transaction(self._connection)
        async with self._connection.transaction():
            if not is_within:
                await self.execute(_SEE_OTHERS)
            yield


class _OnBlockingPsycopg:
    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - an extra
        self._connection = connection

    def execute(self, query: Query) -> Rows:
        with cursor_on(self._connection) as cursor:
            cursor.execute(query.text, prepare=False)
            return cursor.fetchall() if query.has_rows else ()

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        is_within = _is_in_transaction(self._connection)
        with self._connection.transaction():
            if not is_within:
                self.execute(_SEE_OTHERS)
            yield
