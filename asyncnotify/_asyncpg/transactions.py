"""
Calling functions of the server within a caller's transaction, on whichever driver that runs.

The caller may have set codecs, dumpers or adapters on the connection, which would change what is
sent. So asyncpg gets a statement without arguments, psycopg a cursor with adapters of its own, and
of SQLAlchemy's connections those of the drivers are used.
"""

from __future__ import annotations

import contextlib
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import asyncpg

from asyncnotify._arguments import type_name
from asyncnotify._asyncpg.cursors import cursor_on
from asyncnotify._asyncpg.failures import forget_statement, is_refusal
from asyncnotify._asyncpg.statements import notify_as_text
from asyncnotify._asyncpg.untraced import unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

_NOTIFY: Final = "SELECT pg_catalog.pg_notify({}, {})"

TAKEN_IN_THREADS: Final = "SQLAlchemy's Connection or Session, or psycopg's Connection"

_TAKEN: Final = (
    "an asyncpg Connection, a connection acquired from its Pool, SQLAlchemy's AsyncConnection or"
    " AsyncSession, psycopg's AsyncConnection, Tortoise's connection, or a Database of databases"
)

_BLOCKS: Final = (
    "it blocks: use the async one of its library, or the class that has Blocking in its name"
)
_AWAITS: Final = (
    "it has to be awaited: use one of a library for threads, or the class without Blocking in its"
    " name"
)
_NEEDS_CONNECTION: Final = "give the connection that it belongs to"
_FROM_POOL: Final = "use `async with pool.acquire() as connection`"

_REMEDIES: Final = {
    "coroutine": "await it",
    "asyncpg.Connection": _AWAITS,
    "asyncpg.PoolAcquireContext": _FROM_POOL,
    "asyncpg.PoolConnectionProxy": _AWAITS,
    "asyncpg.Transaction": _NEEDS_CONNECTION,
    "psycopg.AsyncCursor": _NEEDS_CONNECTION,
    "psycopg.AsyncTransaction": _NEEDS_CONNECTION,
    "psycopg.Cursor": _NEEDS_CONNECTION,
    "psycopg.Transaction": _NEEDS_CONNECTION,
    "psycopg2.connection": "use psycopg 3, or SQLAlchemy",
    "psycopg_pool.AsyncConnectionPool": "use `async with pool.connection() as connection`",
    "psycopg_pool.ConnectionPool": "use `with pool.connection() as connection`",
    "psycopg.AsyncConnection": _AWAITS,
    "psycopg.Connection": _BLOCKS,
    "sqlalchemy.AsyncConnection": _AWAITS,
    "sqlalchemy.AsyncSession": _AWAITS,
    "sqlalchemy.Connection": _BLOCKS,
    "sqlalchemy.Session": _BLOCKS,
    "sqlalchemy.AsyncEngine": "use `async with engine.begin() as connection`",
    "sqlalchemy.Engine": "use `with engine.begin() as connection`",
    "sqlalchemy.async_sessionmaker": "use `async with maker.begin() as session`",
    "sqlalchemy.sessionmaker": "use `with maker.begin() as session`",
    "asyncpg.Pool": _FROM_POOL,
}

_REASONS: Final = {
    "25P02": "roll the transaction of connection= back first",
    "25006": (
        "the server is a standby, or the transaction is read-only: use a transaction that may"
        " write, on the primary"
    ),
}
"""What is to be done, by the SQLSTATE of a refusal."""

_REASONS_OF_DRIVERS: Final = {
    "another operation is in progress": (
        "another task uses connection=: give each task a connection of its own"
    ),
    "released back to the pool": (
        "connection= has gone back to its pool: send within the block that has acquired it"
    ),
    "context has not been started": "connection= has not begun: enter it by `async with`",
    "Could not locate a bind": "the session has no engine: make it with one, or by a sessionmaker",
    "in a manually started transaction": (
        "begin the transaction by `async with connection.transaction()`, not by a BEGIN of your own"
    ),
}
"""What is to be done, by a part of what a driver says, or SQLAlchemy, before anything is sent."""

_OF_ASYNCPG: Final = (asyncpg.PostgresError, asyncpg.InternalClientError)
"""What it raises of the server, or when it no longer understands that."""

_RAW: Final = {"no_parameters": True}
"""Nothing in a statement is a placeholder, whatever signs are in it."""


class Call(NamedTuple):
    """
    A call of a function of the server's, in both forms in which it may have to be sent.

    Attributes:
        template: A statement with ``{}`` for each argument.
        arguments: The arguments.
        as_text: Returns the same as a statement without arguments, which depends on no setting.
        outside: What is wrong if the connection is in no transaction, for a call that means nothing
            there; None: it may be called anywhere.
    """

    template: str
    arguments: tuple[Any, ...]
    as_text: Callable[[], str]
    outside: str | None = None

    def check_was_within(self, *, is_within: bool) -> None:
        """
        Raise ValueError if the call, which the server has executed, should be in a transaction.

        Asked behind it, and of the driver: in autocommit mode what stands above a driver says that
        there is a transaction, and there is none at the server.
        """
        if self.outside is not None and not is_within:
            raise ValueError(self.outside)

    def with_placeholders(self, placeholder: Callable[[int], str]) -> str:
        """Return the statement with the placeholder of a driver for the n-th argument."""
        return self.template.format(*map(placeholder, range(len(self.arguments))))


async def notify_within(connection: Any, channel: str, payload: str) -> None:
    """Send a notification when the transaction commits; raises as ``call_within()`` does."""
    with explaining(connection, "sent"):
        await call_within(connection, _notification(channel, payload))


def notify_within_thread(connection: Any, channel: str, payload: str) -> None:
    """Do as ``notify_within()``, on a connection that blocks, in the calling thread."""
    with explaining(connection, "sent"):
        call_within_thread(connection, _notification(channel, payload))


@contextlib.contextmanager
def explaining(
    connection: Any, done: str, reasons: Mapping[str, str] = MappingProxyType({})
) -> Generator[None]:
    """
    Add to what a driver raises, where its words do not tell, that nothing was done, and why.

    Args:
        connection: The caller's.
        done: What was not done, as "sent".
        reasons: What is to be done, by the SQLSTATE, where that depends on what was asked for.
    """
    was_closed = _is_closed(connection)
    try:
        yield
    except Exception as error:
        reason = _CLOSED if was_closed else _reason_of(error, reasons)
        if reason is not None:
            error.add_note(f"nothing was {done}: {reason}")
        raise


_CLOSED: Final = "connection= was closed before; give one that is open"


def _reason_of(error: Exception, reasons: Mapping[str, str]) -> str | None:
    """Return what is to be done about an error, where its own words do not say that."""
    state = sqlstate_of(error)
    if state is not None:
        return reasons.get(str(state)) or _REASONS.get(str(state))
    text = str(error)
    return next((_REASONS_OF_DRIVERS[part] for part in _REASONS_OF_DRIVERS if part in text), None)


def sqlstate_of(error: Exception) -> object:
    """Return the SQLSTATE of what a driver, or SQLAlchemy, has raised; None without any."""
    return getattr(getattr(error, "orig", error), "sqlstate", None)


def _is_closed(connection: Any) -> bool:
    """Return whether a connection says that it is closed."""
    if type_name(connection) == "asyncpg.Connection":
        return bool(connection.is_closed())
    with contextlib.suppress(Exception):  # SQLAlchemy's, if it has not begun
        return getattr(connection, "closed", False) is True
    return False


def _notification(channel: str, payload: str) -> Call:
    return Call(_NOTIFY, (channel, payload), lambda: notify_as_text(channel, payload))


async def call_within(connection: Any, call: Call) -> None:
    """
    Call a function in the transaction of this connection; what it returns is dropped.

    No statement is prepared where a pooler may give the server's session to others.

    Raises:
        TypeError: The connection is of another kind.
        ValueError: There is no transaction, and the call needs one.
        Exception: What the driver raises.
    """
    if _is_of_asyncpg(connection):
        await _send_as_text(connection, call)
    elif _is_of(connection, "sqlalchemy.ext.asyncio", ("AsyncConnection", "AsyncSession")):
        await _call_by_sqlalchemy(connection, call)
    elif _is_of(connection, "sqlalchemy.ext.asyncio", ("async_scoped_session",)):
        await _call_by_sqlalchemy(connection(), call)
    elif _is_of(connection, "psycopg", ("AsyncConnection",)):
        async with cursor_on(connection) as cursor:
            await cursor.execute(_for_psycopg(call), call.arguments, prepare=False)
        call.check_was_within(is_within=_is_in_transaction_of_psycopg(connection))
    elif _is_of(connection, "tortoise.backends.base.client", ("BaseDBAsyncClient",)):
        async with connection.acquire_connection() as drivers:
            await call_within(drivers, call)
    elif _is_of(connection, "databases", ("Database",)):
        async with connection.connection() as tasks_own:
            await call_within(tasks_own.raw_connection, call)
    else:
        raise refusal(connection, _TAKEN)


async def _send_as_text(connection: Any, call: Call) -> None:
    try:
        await connection.execute(call.as_text())
    except asyncpg.PostgresError as error:
        forget_statement(error)
        raise
    call.check_was_within(is_within=connection.is_in_transaction())


def _is_in_transaction_of_psycopg(connection: Any) -> bool:
    # In a pipeline it is active: then nothing is known yet
    return bool(connection.info.transaction_status.name != "IDLE")


def call_within_thread(connection: Any, call: Call) -> None:
    """
    Do as ``call_within()``, on a connection that blocks, in the calling thread.

    Raises:
        TypeError: The connection is of another kind.
        Exception: What the driver raises.
    """
    if _is_of(connection, "sqlalchemy.orm", ("scoped_session",)):
        connection = connection()
    if _is_of(connection, "sqlalchemy.orm", ("Session",)):
        # Not by its execute(), which SQLModel's session warns of
        connection = connection.connection(bind_arguments=_bind_arguments(call))
    if _is_of(connection, "sqlalchemy", ("Connection",)):
        _call_by_blocking_sqlalchemy(connection, call)
    elif _is_of(connection, "psycopg", ("Connection",)):
        with cursor_on(connection) as cursor:
            cursor.execute(_for_psycopg(call), call.arguments, prepare=False)
    else:
        raise refusal(connection, TAKEN_IN_THREADS)


def _for_psycopg(call: Call) -> str:
    return call.with_placeholders(lambda _: "%s")


def refusal(connection: object, taken: str) -> TypeError:
    """Return the error for an object that is none of the connections that are taken."""
    name = type_name(connection)
    remedy = f": {_REMEDIES[name]}" if name in _REMEDIES else ""
    return TypeError(f"connection must be {taken}, not of type {name}{remedy}")


def _is_of(connection: object, module: str, names: tuple[str, ...]) -> bool:
    """Return whether it is of a library, which need not be installed for anything else."""
    connection = unwrapped(connection)
    library = sys.modules.get(module)
    classes = tuple(getattr(library, name, type(None)) for name in names)
    return library is not None and connection is not None and isinstance(connection, classes)


def _is_of_asyncpg(connection: object) -> bool:
    """Return whether it is a connection of asyncpg's, or a pool's: its metaclass says so."""
    return isinstance(unwrapped(connection), asyncpg.Connection)


# -- SQLAlchemy -----------------------------------------------------------------------------------


def _bind_arguments(call: Call) -> dict[str, Any]:
    """Return what a session that has several engines looks at to choose one."""
    return {"clause": sys.modules["sqlalchemy"].text(call.with_placeholders(str))}


async def _call_by_sqlalchemy(caller: Any, call: Call) -> None:
    connection = caller
    if _is_of(caller, "sqlalchemy.ext.asyncio", ("AsyncSession",)):
        connection = await caller.connection(bind_arguments=_bind_arguments(call))
    lent = await connection.get_raw_connection()
    try:
        if not connection.in_transaction():
            await connection.begin()
        await _begin_on_asyncpg(lent)
        await call_within(lent.driver_connection, call)
    except Exception as error:
        failure = _Failure(connection.dialect, lent, call, error)
        if failure.is_loss:
            await connection.invalidate(error)
        failure.raise_as_sqlalchemy()
        raise


def _call_by_blocking_sqlalchemy(connection: Any, call: Call) -> None:
    lent = connection.connection
    if not _is_of(lent.driver_connection, "psycopg", ("Connection",)):
        _call_by_other_driver(connection, call)
        return
    try:
        if not connection.in_transaction():
            connection.begin()
        call_within_thread(lent.driver_connection, call)
    except Exception as error:
        failure = _Failure(connection.dialect, lent, call, error)
        if failure.is_loss:
            connection.invalidate(error)
        failure.raise_as_sqlalchemy()
        raise


def _call_by_other_driver(connection: Any, call: Call) -> None:
    """Send as text by SQLAlchemy, whose errors tell statements."""
    try:
        connection.exec_driver_sql(call.as_text(), execution_options=_RAW)
    except sys.modules["sqlalchemy.exc"].StatementError as error:
        error.statement = call.template
        raise


async def _begin_on_asyncpg(lent: Any) -> None:
    """Let SQLAlchemy begin its transaction at the server; none in autocommit mode."""
    driver = lent.driver_connection
    if _is_of_asyncpg(driver) and not driver.is_in_transaction():
        # Private. The public way is to execute something: that would leave a prepared statement
        # behind, in a session that others may get
        await lent.dbapi_connection._start_transaction()  # noqa: SLF001 - as above


class _Failure:
    """What a driver has raised, to be treated as SQLAlchemy treats that of its own statements."""

    def __init__(self, dialect: Any, lent: Any, call: Call, error: Exception) -> None:
        self._dialect = dialect
        self._call = call
        self._error = error
        self._adapted = _adapted(lent.dbapi_connection, error)
        of_driver = (*_OF_ASYNCPG, asyncpg.InterfaceError, dialect.loaded_dbapi.Error)
        self._is_of_driver = isinstance(error, of_driver)
        driver = lent.driver_connection
        is_closed = driver.is_closed() if _is_of_asyncpg(driver) else driver.closed
        not_understood = isinstance(error, _OF_ASYNCPG) and not is_refusal(error)
        self.is_loss: bool = self._is_of_driver and (is_closed or not_understood)

    def raise_as_sqlalchemy(self) -> None:
        """Raise what SQLAlchemy raises; return if it would raise the error as it is."""
        if not self._is_of_driver:
            return
        raise sys.modules["sqlalchemy.exc"].DBAPIError.instance(
            self._call.template,
            None,
            self._adapted,
            self._dialect.loaded_dbapi.Error,
            connection_invalidated=self.is_loss,
            dialect=self._dialect,
        ) from self._error


def _adapted(connection: Any, error: Exception) -> Exception:
    """Return the error as SQLAlchemy's own layer above a driver that is awaited raises it."""
    adapt = getattr(connection, "_handle_exception", None)
    if adapt is not None:
        try:
            adapt(error)
        except Exception as adapted:  # noqa: BLE001 - the one that is to be raised
            return adapted
    return error
