"""The connections on which notifications are sent: of our own, or borrowed from a pool."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import asyncpg

from asyncnotify._arguments import type_name
from asyncnotify._asyncpg import failures, untraced
from asyncnotify._asyncpg.bounded import BoundedConnection
from asyncnotify._asyncpg.notification_queue import EMPTIED_QUEUE, EMPTY_QUEUE, FULL_QUEUE
from asyncnotify._asyncpg.sockets import ENDED, Arrivals, check_keepalive
from asyncnotify._asyncpg.statements import (
    HERE,
    NOTIFY,
    NOTIFY_ALL,
    NOTIFY_ALL_ON_ONE,
    before_statements,
    notify_all_as_text,
    notify_as_text,
    unused_name,
)
from asyncnotify._errors import ConfigurationError, describe_error, mark_as_callers
from asyncnotify._logs import Log, WarningLimit
from asyncnotify._tasks import CANCEL_GRACE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asyncnotify._asyncpg._connecting.dial import Dialer
    from asyncnotify._keepalive import Keepalive

    Pool: TypeAlias = asyncpg.Pool[Any]
else:
    Pool = asyncpg.Pool  # at run time the class takes no argument

log = Log("connection")

_NEVER_OPENED: Final = "pool is not initialized"
"""What the driver says of a pool that nobody has awaited or entered."""


class Statements(Protocol):
    """How notifications are put to the server. Each call is one transaction, all or nothing."""

    def notify(self, channel: str, payload: str) -> Awaitable[object]:
        """Send one notification."""
        ...

    def notify_all(self, channels: Sequence[str], payloads: Sequence[str]) -> Awaitable[object]:
        """Send these notifications, at least one, in this order."""
        ...


class TextStatements:
    """Each of them one message, which any session of the server may serve."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._execute = functools.partial(untraced.execute, connection)
        self._before = before_statements(connection)

    def notify(self, channel: str, payload: str) -> Awaitable[object]:
        """Send one notification."""
        return self._execute(self._before + notify_as_text(channel, payload))

    def notify_all(self, channels: Sequence[str], payloads: Sequence[str]) -> Awaitable[object]:
        """Send these notifications, at least one, in this order."""
        if len(channels) == 1:
            return self.notify(channels[0], payloads[0])
        return self._execute(self._before + notify_all_as_text(channels, payloads))


class PreparedStatements:
    """Each of them parsed once, and payloads in no log of the server: in a session of our own."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection
        self._prepared: dict[str, Callable[..., Awaitable[object]]] = {}

    def notify(self, channel: str, payload: str) -> Awaitable[object]:
        """Send one notification."""
        return self._run(NOTIFY, channel, payload)

    def notify_all(self, channels: Sequence[str], payloads: Sequence[str]) -> Awaitable[object]:
        """Send these notifications, at least one, in this order."""
        first = channels[0]
        if len(channels) == 1:
            return self._run(NOTIFY, first, payloads[0])
        if channels.count(first) == len(channels):  # each costs as much again as its payload
            return self._run(NOTIFY_ALL_ON_ONE, first, payloads)
        return self._run(NOTIFY_ALL, channels, payloads)

    def _run(self, query: str, *arguments: object) -> Awaitable[object]:
        fetch = self._prepared.get(query)
        return self._run_first(query, *arguments) if fetch is None else fetch(*arguments)

    async def _run_first(self, query: str, *arguments: object) -> None:
        # By a name of its own: a pooler may hide behind the backend's own pid, and a name
        # of the driver's would be one that other programs have as well
        try:
            fetch = await untraced.prepare(self._connection, query, unused_name())
        except Exception as error:
            failures.mark_unsent(error)
            raise
        self._prepared[query] = fetch
        await fetch(*arguments)


def _clean(error: Exception) -> None:
    """Escape what the server says in an error, and remove the statement; name a standby."""
    failures.escape_texts(error)
    failures.forget_statement(error)
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        error.add_note(_ON_STANDBY)


_ON_STANDBY: Final = (
    "not sent: the server is a standby, and notifications are sent on the primary: give its"
    " address, or all hosts and target_session_attrs=primary"
)


class PublishingSession(BoundedConnection):
    """
    A connection on which notifications are sent.

    Sending has no deadline of its own: the caller sets one, and terminates the connection when a
    call is overdue or was cancelled. A task and a timer for each call would cost a third of what
    the call costs.
    """

    def __init__(
        self,
        connection: asyncpg.Connection[Any],
        *,
        timeout: float,
        warnings: WarningLimit | None = None,
    ) -> None:
        super().__init__(connection, timeout=timeout)
        self._statements: Statements = TextStatements(connection)
        self._arrivals = Arrivals.of(connection)
        self._warnings = WarningLimit() if warnings is None else warnings

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be gone, or the server has ended it."""
        return super().lost or (self._arrivals is not None and self._arrivals.have_ended)

    def prepare_statements(self) -> None:
        """From now on prepare them: the server's session has been found to be our own."""
        self._statements = PreparedStatements(self._connection)

    async def notify(self, channel: str, payload: str) -> None:
        """Send one notification, in a transaction of its own."""
        try:
            if self._arrivals is not None and self._arrivals.wait():
                await self._read_what_arrived()
            await self._statements.notify(channel, payload)
        except asyncpg.ProgramLimitExceededError as error:
            await self._send_again(error, lambda: self._statements.notify(channel, payload))
        except Exception as error:
            _clean(error)
            raise

    async def notify_all(self, channels: Sequence[str], payloads: Sequence[str]) -> None:
        """Send these notifications, at least one, in this order, in one transaction."""
        try:
            if self._arrivals is not None and self._arrivals.wait():
                await self._read_what_arrived()
            await self._statements.notify_all(channels, payloads)
        except asyncpg.ProgramLimitExceededError as error:
            await self._send_again(error, lambda: self._statements.notify_all(channels, payloads))
        except Exception as error:
            _clean(error)
            raise

    async def _send_again(self, error: Exception, send: Callable[[], Awaitable[object]]) -> None:
        """
        Empty the queue, which was full, and send once more.

        What an aborted transaction has put into the queue stays there until a later one commits,
        and while the queue is full none does. Asking for its size removes what nobody has to read.
        """
        await self._empty_queue(error)
        try:
            await send()
        except asyncpg.ProgramLimitExceededError as again:
            await self._empty_queue(again)  # of what this attempt has put there
            log.warning(self._warnings, "full queue", FULL_QUEUE)
            raise
        except Exception as failure:
            _clean(failure)
            raise
        log.warning(self._warnings, "emptied queue", EMPTIED_QUEUE)

    async def _empty_queue(self, error: Exception) -> None:
        """Raise the error where the server refuses that, with a note of why."""
        _clean(error)
        before = before_statements(self._connection)
        try:
            await untraced.execute(self._connection, f"{before}{HERE}{EMPTY_QUEUE}")
        except Exception as failure:
            _clean(failure)
            if failures.is_refusal(failure):
                error.add_note(f"emptying the queue was refused: {describe_error(failure)}")
                raise error from None
            failures.mark_unsent(failure)
            raise

    async def _read_what_arrived(self) -> None:
        if self._arrivals is not None and await self._arrivals.read():
            raise asyncpg.InterfaceError(ENDED)

    async def rest(self) -> bool:
        """Keep the connection while there is nothing to send: a new one would take longer."""
        return True


class OwnConnections:
    """
    Connections of our own: one is held from the first notification on.

    Args:
        dialer: Makes them.
        keepalive: TCP keepalive for both ends of each; None leaves it as it is.
        timeout: Seconds in which the server has to answer each command.
        on_open: Called with the backend pid of each.
    """

    def __init__(
        self,
        dialer: Dialer,
        keepalive: Keepalive | None,
        *,
        timeout: float,
        on_open: Callable[[int], None] | None = None,
    ) -> None:
        check_keepalive(keepalive)
        self._on_open = on_open
        self._dialer = dialer
        self._keepalive = keepalive
        self._timeout = timeout
        self.failures = failures

    @property
    def target(self) -> str:
        """What they lead to, for logs and errors."""
        return self._dialer.target

    async def open(self) -> PublishingSession:
        """Return a new one. May be cancelled: none is left behind."""
        began = asyncio.get_running_loop().time()
        with self._dialer.opening():
            connection = await self._dialer.dial()
            with failures.introducing(connection):
                session = PublishingSession(
                    connection, timeout=self._timeout, warnings=self._dialer.warnings
                )
                if await session.introduce(self._keepalive, began=began):
                    session.prepare_statements()
        if self._on_open is not None:
            self._on_open(session.pid)
        return session


def check_pool(pool: object) -> None:
    """Raise TypeError unless it is a pool of asyncpg's."""
    if not isinstance(pool, asyncpg.Pool):
        msg = f"pool must be a pool of asyncpg's, not of type {type_name(pool)}"
        raise TypeError(msg)


class BorrowedSession(PublishingSession):
    """A connection of a pool. Once it is lost or given back, it is the pool's concern alone."""

    def __init__(
        self, pool: Pool, proxy: Any, *, timeout: float, warnings: WarningLimit | None = None
    ) -> None:
        super().__init__(proxy, timeout=timeout, warnings=warnings)
        self._pool = pool
        self._borrowed: Any = proxy

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be gone."""
        try:
            return super().lost
        except asyncpg.InterfaceError:
            return True

    async def rest(self) -> bool:
        """Give the connection back: nothing is to be sent for now."""
        await self.close(self._timeout)
        return False

    async def close(self, timeout: float) -> None:
        """Give the connection back, within this many seconds; or else terminate it."""
        borrowed, self._borrowed = self._borrowed, None
        if borrowed is None:
            return
        # A task of its own: the pool shields its part, and nobody would see that fail
        giving_back: asyncio.Future[None] = untraced.context().run(
            asyncio.ensure_future, self._pool.release(borrowed, timeout=timeout)
        )
        giving_back.add_done_callback(_note_failure)
        try:
            # Its own timeout does not bound all that a pool waits for
            await asyncio.wait({giving_back}, timeout=timeout + CANCEL_GRACE)
        finally:
            if not giving_back.done():
                self.terminate()  # the pool's part ends soon
                giving_back.cancel()

    def terminate(self) -> None:
        """Drop the connection at once, without waiting for anything."""
        self._borrowed = None
        with contextlib.suppress(asyncpg.InterfaceError):
            super().terminate()


class PooledConnections:
    """Connections borrowed from a pool, and given back whenever there is nothing to send."""

    target: str = "the pool"

    def __init__(self, pool: Pool, *, connect_timeout: float, timeout: float) -> None:
        check_pool(pool)
        self._pool = pool
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._warnings = WarningLimit()
        self.failures = failures

    async def open(self) -> PublishingSession:
        """
        Borrow a connection. May be cancelled: none is left behind.

        Raises:
            ConfigurationError: The pool is closed, or was never opened.
        """
        self._check_open()
        try:
            proxy: Any = await self._pool.acquire(timeout=self._connect_timeout)
        except Exception as error:
            failures.escape_texts(error)
            if isinstance(error, asyncpg.InterfaceError):
                self._check_open(error)
            elif isinstance(error, TimeoutError) and self._in_use >= self._pool.get_max_size():
                raise TimeoutError(self._none_free) from error
            else:
                mark_as_callers(error)  # the pool calls functions of the caller's
            raise
        return BorrowedSession(self._pool, proxy, timeout=self._timeout, warnings=self._warnings)

    @property
    def _in_use(self) -> int:
        return self._pool.get_size() - self._pool.get_idle_size()

    @property
    def _none_free(self) -> str:
        return (
            f"no connection of the pool became free within {self._connect_timeout:g} s:"
            f" all {self._in_use} are in use; give the pool a larger max_size"
        )

    def _check_open(self, error: Exception | None = None) -> None:
        """Raise ConfigurationError if no connection can be had of the pool, now or later."""
        if self._pool.is_closing():
            msg = "the pool is closed: give a new Notifier a pool that is open"
        elif error is not None and _NEVER_OPENED in str(error):
            msg = "the pool has not been opened: await what create_pool() returns, or enter it"
        else:
            return
        raise ConfigurationError(msg) from error


def _note_failure(giving_back: asyncio.Future[None]) -> None:
    error = None if giving_back.cancelled() else giving_back.exception()
    if error is not None:
        log.debug("a connection of the pool was lost: %s", describe_error(error))
