"""The session in which a process holds its locks: each statement has a deadline."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from asyncnotify._asyncpg import failures, untraced
from asyncnotify._asyncpg.bounded import BoundedConnection
from asyncnotify._errors import (
    AsyncNotifyError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    PoolerError,
    describe_error,
)
from asyncnotify._logs import Log
from asyncnotify.lock._errors import LACKS_PRIVILEGE, LockNotInstalledError
from asyncnotify.lock._names import CHANNEL, SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence

    from asyncnotify._asyncpg._connecting.dial import Dialer
    from asyncnotify._keepalive import Keepalive

log = Log("lock")

_SETTINGS: Final = """
    SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;
    SET jit = off; SET synchronous_commit = on; SET idle_in_transaction_session_timeout = 0;
    SET statement_timeout = {life}; SET lock_timeout = 0
"""
"""A role may have other defaults. A token that a crash undoes would be given out twice."""

_SESSION_TIMEOUT: Final = "SET idle_session_timeout = {life}"
"""From PostgreSQL 14 on the server itself ends a session whose client is frozen or gone."""

_ENDED_BY_SERVER_SINCE: Final = 14

_STANDBY: Final = "SELECT pg_catalog.pg_is_in_recovery()"

# As texts: the driver would read other arrays from its catalogs, with codecs of the caller's
_KEYS: Final = "pg_catalog.unnest($1::pg_catalog.text[]::pg_catalog.int8[]) AS key"

_TRY: Final = f"SELECT key FROM {_KEYS} WHERE pg_catalog.pg_try_advisory_lock(key)"

_UNLOCK: Final = f"SELECT key, pg_catalog.pg_advisory_unlock(key) FROM {_KEYS}"

# Unlocked first: whoever is woken finds it free. The notification goes out at the commit
_RELEASE: Final = f"""
    SELECT key, pg_catalog.pg_advisory_unlock(key),
        pg_catalog.pg_notify('{CHANNEL}', key::pg_catalog.text)
    FROM {_KEYS}
"""

_NOTIFY: Final = f"SELECT pg_catalog.pg_notify('{CHANNEL}', $1)"

_INSTALLED: Final = f"SELECT {SCHEMA}.lock_version()"

_NUMBER: Final = f"SELECT * FROM {SCHEMA}.lock_number($1::pg_catalog.text[], $2)"

_END_FROZEN: Final = f"""
    SELECT pg_catalog.pg_terminate_backend(a.pid)
    FROM {SCHEMA}.lock_holders($1::pg_catalog.text[]) AS held
    JOIN pg_catalog.pg_locks AS l ON l.pid OPERATOR(pg_catalog.=) held.backend_pid
    JOIN pg_catalog.pg_stat_activity AS a ON a.pid OPERATOR(pg_catalog.=) held.backend_pid
    WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.granted
        AND l.objsubid OPERATOR(pg_catalog.=) 1
        AND l.database OPERATOR(pg_catalog.=) a.datid
        AND ((l.classid::pg_catalog.int8 OPERATOR(pg_catalog.<<) 32)
            OPERATOR(pg_catalog.|) l.objid::pg_catalog.int8) OPERATOR(pg_catalog.=) held.key
        AND a.state OPERATOR(pg_catalog.=) 'idle'
        AND a.state_change OPERATOR(pg_catalog.<)
            (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) held.life)
"""
"""For PostgreSQL 13, which ends no idle session: those who wait end that of a frozen holder."""

_NOT_INSTALLED: Final = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
)

_POOLER: Final = (
    "a pooler is in between, and a lock belongs to one session of the server, which a pooler gives"
    " to others: connect to PostgreSQL itself"
)

_IS_STANDBY: Final = "the server is a standby, and locks are taken on the primary"


class LockSession(BoundedConnection):
    """
    The session that holds the locks of a process. One task gives its commands.

    A statement that exceeds its deadline, or is cancelled, ends the connection: the server frees
    the locks then.

    Attributes:
        timeout: Seconds in which the server has to answer.
        beat_after: Seconds after which a silent server is asked. With ``timeout`` that is half of
            the life: this process knows of a loss before the server frees the locks.
        asked: When the last command that was answered had been sent, by the loop's clock.
        ends_frozen: Whether the server leaves it to those who wait to end a frozen session.
    """

    def __init__(self, connection: asyncpg.Connection[Any], *, life: float) -> None:
        super().__init__(connection, timeout=life / 4)
        self._life = life
        self.timeout: float = life / 4
        self.beat_after: float = life / 4
        self.asked = self._loop.time()
        self.ends_frozen = False

    @property
    def connection(self) -> asyncpg.Connection[Any]:
        """The driver's connection."""
        return self._connection

    def on_end(self, call: Callable[[], None]) -> None:
        """Have this called when the connection has ended."""
        self._connection.add_termination_listener(lambda _: call())

    async def prepare(self, keepalive: Keepalive | None) -> None:
        """
        Set what the statements rely on, and how long the server keeps an idle session.

        Raises:
            PoolerError: The session of the server is not the connection's own.
            ConnectError: The server is a standby.
        """
        if not await self.introduce(keepalive):
            raise PoolerError(_POOLER)
        life = f"{self._life * 1_000:.0f}"
        script = _SETTINGS.format(life=life)
        self.ends_frozen = self._version < _ENDED_BY_SERVER_SINCE
        if not self.ends_frozen:
            script = f"{script};{_SESSION_TIMEOUT.format(life=life)}"
        await self._command(self._execute(script))
        [row] = await self._command(untraced.fetch(self._connection, _STANDBY))
        if row[0]:
            raise ConnectError(_IS_STANDBY)
        self.asked = self._loop.time()

    @property
    def _version(self) -> int:
        return int(self._connection.get_server_version().major)

    async def try_locks(self, keys: Iterable[int]) -> set[int]:
        """Return those of the keys whose lock was free, and is this session's now."""
        return {row["key"] for row in await self._fetch(_TRY, list(map(str, keys)))}

    async def unlock(self, keys: Iterable[int]) -> None:
        """Unlock those of the keys whose lock is this session's, without telling anybody."""
        await self._fetch(_UNLOCK, list(map(str, keys)))

    async def release(self, keys: Iterable[int]) -> set[int]:
        """
        Unlock, and wake those who wait; return the keys whose lock was this session's.

        A notification that the server refuses, as its queue is full, does not undo the unlocking.
        """
        rows = await self._fetch(_RELEASE, list(map(str, keys)))
        return {row["key"] for row in rows if row["pg_advisory_unlock"]}

    async def number(self, names: Sequence[str]) -> dict[str, int]:
        """Return new tokens; without those names whose last one is being checked by somebody."""
        life = timedelta(seconds=self._life)
        return {row[0]: row[1] for row in await self._fetch(_NUMBER, list(names), life)}

    async def end_frozen(self, names: Iterable[str]) -> None:
        """End the sessions of frozen holders, where the server does not do so itself."""
        if not self.ends_frozen:
            return
        try:
            await self._fetch(_END_FROZEN, list(names))
        except asyncpg.InsufficientPrivilegeError as error:
            log.debug("the session of another role was not ended: %s", describe_error(error))

    async def beat(self) -> None:
        """Show the server that this process lives, and this process that the server does."""
        await self._ask(self._execute("SELECT 1"))

    async def notify(self, payload: str) -> None:
        """Send this on the channel of locks."""
        await self._fetch(_NOTIFY, payload)

    async def check_installed(self) -> None:
        """Raise LockNotInstalledError unless the database has a table of locks."""
        await self._fetch(_INSTALLED)

    async def _fetch(self, query: str, *arguments: object) -> Sequence[Any]:
        rows: Sequence[Any] = await self._ask(untraced.fetch(self._connection, query, *arguments))
        return rows

    async def _ask(self, command: Coroutine[Any, Any, Any] | Any) -> Any:  # noqa: ANN401 - what the driver awaits, and returns
        asked = self._loop.time()
        with answers():
            result = await self._command(command)
        self.asked = asked
        return result


@contextmanager
def answers() -> Generator[None]:
    """Turn what the driver raises in here into what it means to the user of a lock."""
    try:
        yield
    except _NOT_INSTALLED as error:
        raise LockNotInstalledError from error
    except asyncpg.ReadOnlySQLTransactionError as error:
        raise ConnectionLostError(_IS_STANDBY) from error
    except asyncpg.InsufficientPrivilegeError as error:
        error.add_note(LACKS_PRIVILEGE)
        raise
    except Exception as error:
        if failures.is_refusal(error) or isinstance(error, AsyncNotifyError):
            raise
        msg = f"the session of the locks was lost: {describe_error(error)}"
        raise ConnectionLostError(msg) from error


async def open_session(dialer: Dialer, keepalive: Keepalive | None, life: float) -> LockSession:
    """
    Return a session on a new connection. May be cancelled: no connection is left behind.

    Raises:
        ConfigurationError: The arguments for connecting are wrong.
        PoolerError: A pooler is in between.
        ConnectError: There is no connection.
    """
    with connecting(dialer.target), dialer.opening():
        connection = await dialer.dial()
        with failures.introducing(connection):
            session = LockSession(connection, life=life)
            await session.prepare(keepalive)
    return session


@contextmanager
def connecting(target: str) -> Generator[None]:
    """Turn what connecting raises into a ConnectError."""
    try:
        yield
    except ConnectError:
        raise
    except Exception as error:  # also of a session that was lost before it was prepared
        mistake = failures.is_permanent(error) and isinstance(error, ValueError | TypeError)
        kind = ConfigurationError if mistake else ConnectError
        msg = f"cannot connect to {target}: {describe_error(error)}"
        raise kind(msg) from error
