"""The Notifier: publishing without listening. It connects the parts, and holds no logic."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from asyncnotify._arguments import (
    check_backoff,
    check_callbacks,
    check_kind,
    check_pairs,
    check_retry,
    check_timeout,
)
from asyncnotify._asyncpg._connecting.dial import check_connect_arguments
from asyncnotify._asyncpg._parameters.dsn import Dsn
from asyncnotify._asyncpg.publishing import Pool, PooledConnections
from asyncnotify._asyncpg.sqlalchemy import EngineConnect
from asyncnotify._backoff import ExponentialBackoff
from asyncnotify._channels.arguments import encoded
from asyncnotify._channels.channel import Channel
from asyncnotify._errors import ClosedError, ConnectError
from asyncnotify._keepalive import Keepalive
from asyncnotify._owner import OfOneProcess, leave_to_parent, see_to_unclosed
from asyncnotify._publishing.limits import DEFAULT_QUEUE, PublishingLimits
from asyncnotify._publishing.many import publish_many
from asyncnotify._publishing.ports import PublishingConnections
from asyncnotify._publishing.retrying import Retrying
from asyncnotify._publishing.run import PublishingRun
from asyncnotify._sources import notify_within, source_of
from asyncnotify.typing import Backoff, Connect

T = TypeVar("T")

_DEFAULT_BACKOFF = ExponentialBackoff()
_DEFAULT_KEEPALIVE = Keepalive()


class Notifier(OfOneProcess):
    """
    Sends notifications, from any number of tasks at once, over one connection.

    Calls made while another one is in flight are collected, and sent together once it is done: one
    statement and one commit for up to 1,000 of them. A single call is sent at once. Each caller
    gets the result of its own call.

    ``async with Notifier(dsn) as notifier`` opens and closes it; so do ``start()`` and
    ``aclose()``. Without ``start()`` the first call opens the connection. When a connection is
    lost, the next call makes a new one. Any number of tasks of one event loop may call the methods.

    Args:
        dsn: As for Listener.
        pool: An asyncpg pool, from which a connection is borrowed while there is something to send.
        connect: An async callable that returns a fresh ``asyncpg.Connection``. One of ``dsn``,
            ``pool`` and ``connect`` may be given; without any, PGHOST and the other variables of
            libpq are used.
        connect_timeout: Seconds for making or borrowing a connection, for each host.
        operation_timeout: Seconds in which the server has to answer, and for which a call may
            wait behind other calls before it is sent.
        keepalive: TCP keepalive for both ends, of connections that are not from a pool; None leaves
            the system settings unchanged.
        backoff: Called for each series of retries; returns an infinite iterator of the seconds to
            wait before each attempt.
        max_connection_age: Seconds after which a connection is closed, up to a tenth earlier, and
            as soon as nothing is being sent on it; the next call makes a new one. None: never.
        queue: How many calls may wait to be sent; further calls wait for their place in the queue.
        start_timeout: Seconds for which ``start()`` keeps trying; None: forever.
        retry_timeout: Seconds for which a call with ``retry=True`` keeps trying.
        close_timeout: Seconds for ``aclose()``, unless that call gives its own.
        connect_kwargs: Further arguments of ``asyncpg.connect``.

    Raises:
        TypeError: An argument is unknown or of the wrong type, or another one excludes it; or a
            function cannot be called as it would be.
        ValueError: A number is not positive and finite.
    """

    def __init__(
        self,
        dsn: Dsn | None = None,
        *,
        # connection
        pool: Pool | None = None,
        connect: Connect | None = None,
        connect_timeout: float = 10.0,
        operation_timeout: float = 5.0,
        keepalive: Keepalive | None = _DEFAULT_KEEPALIVE,
        backoff: Backoff = _DEFAULT_BACKOFF,
        max_connection_age: float | None = None,
        # limits
        queue: int = DEFAULT_QUEUE,
        start_timeout: float | None = 30.0,
        retry_timeout: float = 30.0,
        close_timeout: float = 5.0,
        **connect_kwargs: Any,  # noqa: ANN401 - as asyncpg.connect takes them
    ) -> None:
        limits = PublishingLimits(
            connect_timeout=connect_timeout,
            operation_timeout=operation_timeout,
            start_timeout=start_timeout,
            retry_timeout=retry_timeout,
            close_timeout=close_timeout,
            queue=queue,
            max_connection_age=max_connection_age,
        )
        check_backoff(backoff)
        check_kind("keepalive", keepalive, Keepalive)
        ours = Notifier.__init__.__kwdefaults__ or ()
        check_connect_arguments(dsn, connect, connect_kwargs, ours)
        check_callbacks(connect=connect)
        connections: PublishingConnections
        if pool is None:
            source = source_of(
                dsn,
                connect,
                connect_kwargs,
                keepalive=keepalive,
                connect_timeout=connect_timeout,
                start_timeout=start_timeout,
            )
            connections = source.publishing(
                connect_timeout=connect_timeout, timeout=operation_timeout
            )
        else:
            if dsn is not None or connect is not None or connect_kwargs:
                others = {"dsn": dsn, "connect": connect, **connect_kwargs}
                given = ", ".join(name for name, value in others.items() if value is not None)
                msg = f"{given} would go unused: pool= makes the connections"
                raise TypeError(msg)
            if max_connection_age is not None:
                msg = (
                    "max_connection_age= cannot be combined with pool=, whose connections these are"
                )
                raise TypeError(msg)
            connections = PooledConnections(
                pool, connect_timeout=connect_timeout, timeout=operation_timeout
            )
        self._set_up(connections, limits, backoff)

    def _set_up(
        self,
        connections: PublishingConnections,
        limits: PublishingLimits,
        backoff: Backoff,
    ) -> None:
        self._connections = connections
        self._limits = limits
        self._retrying = Retrying(connections, backoff)
        self._run: PublishingRun | None = None

    @classmethod
    def from_sqlalchemy(cls, engine: Any, **options: Any) -> Self:  # noqa: ANN401 - SQLAlchemy is an extra
        """
        Return a notifier that connects as this ``AsyncEngine`` of ``postgresql+asyncpg`` does.

        As ``Listener.from_sqlalchemy()``. To send within a transaction of the engine, pass the
        connection or the session to ``notify()``.

        Raises:
            TypeError: ``engine`` is not such an engine, or an option is not as Notifier takes it.
            ValueError: A number is not positive and finite.
        """
        return cls(connect=EngineConnect(engine), **options)

    def __repr__(self) -> str:
        return f"<Notifier {self._connections.target}>"

    def __del__(self) -> None:
        run: PublishingRun | None = getattr(self, "_run", None)  # a wrong argument: no object
        if run is not None and run.is_unclosed:
            close = functools.partial(run.end, self._limits.close_timeout)
            see_to_unclosed(self, close, run.owner.loop)

    # -- lifetime -----------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Connect; return once there is a connection.

        The first notification connects as well: ``start()`` shows a mistake earlier. When a server
        refuses the connection, is starting up or is full, the notifier tries again until
        ``start_timeout``. After ``aclose()``, and in a fork of the process that used the notifier,
        it starts again. A start that fails or is cancelled does not affect other calls.

        Raises:
            ConfigurationError: The DSN or another argument is wrong.
            ConnectError: There is still no connection after ``start_timeout``.
            ConnectionLostError: The connection died while it was tried, until ``start_timeout``.
            ClosedError: The notifier was closed meanwhile.
            WrongLoopError: The notifier runs in another event loop, or no loop of asyncio runs.
        """
        if self._run is not None and self._run.owner.is_other_process:
            leave_to_parent(self._run)
            self._run = None
        elif self._run is not None and self._run.has_ended:
            self._run = None
        is_new = self._run is None
        run = self._running()
        run.is_starting = run.is_starting or is_new
        try:
            with run.in_use():
                await self._retrying.until_success(
                    lambda: run.publisher.publish_all((), ()),
                    self._limits.start_timeout,
                    what="start()",
                    unless=self._connections.failures.is_permanent,
                )
            run.is_starting = False
        except ClosedError:
            raise  # another task has closed the notifier, and may have started it again
        except BaseException as error:
            if isinstance(error, ConnectError):
                error.__traceback__ = None  # all of its frames are ours
            if run.is_starting and not run.is_used:
                self._run = None  # the next call starts again
                await run.end(0)
            raise

    async def aclose(self, timeout: float | None = None) -> None:
        """
        Send what has been accepted, and close the connection.

        Idempotent; may be called from any task. Cancelling the call gives up at once.

        Args:
            timeout: Seconds after which unsent notifications are given up: their callers get a
                ClosedError. None: ``close_timeout``.

        Raises:
            ValueError: ``timeout`` is not a number of seconds.
            WrongLoopError: The notifier runs in another event loop or process.
        """
        check_timeout("timeout", timeout)
        run = self._run
        if run is None or run.owner.loop.is_closed():
            return
        run.owner.check()
        await run.end(self._limits.close_timeout if timeout is None else timeout)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # -- publishing ---------------------------------------------------------------------------

    @overload
    async def notify(
        self, channel: str, payload: str = "", *, connection: object = ..., retry: bool = ...
    ) -> None: ...

    @overload
    async def notify(
        self, channel: Channel[T], payload: T, *, connection: object = ..., retry: bool = ...
    ) -> None: ...

    async def notify(
        self,
        channel: str | Channel[Any],
        payload: object = "",
        *,
        connection: object = None,
        retry: bool = False,
    ) -> None:
        """
        Send a notification to every session that listens on ``channel``.

        The call returns once the server has committed it. This does not mean that anyone received
        it. One caller's notifications keep their order. Equal notifications of several callers each
        arrive.

        After a cancelled call nobody knows whether the notification was sent.

        Args:
            channel: A name, or a Channel, which encodes the payload.
            payload: A text of 7,999 bytes at most, or what the Channel encodes.
            connection: Send the notification in the transaction of this connection instead: an
                asyncpg Connection (also one acquired from a pool), SQLAlchemy's AsyncConnection or
                AsyncSession (also SQLModel's, and an async_scoped_session), psycopg's
                AsyncConnection, the connection of Tortoise's ``in_transaction()``, or a Database of
                ``databases``. It is delivered when the transaction commits, and never if that rolls
                back. PostgreSQL delivers equal notifications of one transaction once;
                ``Channel(…, unique=True)`` makes each differ. There is no deadline but those of the
                connection.
            retry: Try again after a lost connection or a failed attempt to connect, for
                ``retry_timeout`` seconds. The notification may then arrive twice.

        Raises:
            TypeError: ``connection`` is of another kind, or combined with ``retry``; or ``retry``
                is not a bool.
            ChannelNameError: The name is not valid for a channel.
            ChannelDirectionError: The Channel was made without ``encode``.
            PayloadError: The payload cannot be encoded, or contains NUL or a lone surrogate.
            PayloadTooLargeError: The payload is over 7,999 bytes.
            ConnectError: There is no connection: nothing was sent.
            NotifyTimeoutError: The call waited for ``operation_timeout`` behind other calls:
                nothing was sent.
            ConnectionLostError: The connection died in flight, with ``retry`` in one attempt or
                more: the notification may have been sent.
            ClosedError: The notifier has been closed.
            WrongLoopError: The call came from another event loop or process.
            Exception: What the driver of ``connection`` raises.
        """
        check_retry(connection, retry=retry)
        name, text = encoded(channel, payload)
        if connection is not None:
            await notify_within(connection, name, text)
        elif retry:
            self._running()  # raises where no attempt would help
            await self._retrying.publish(
                lambda: self._running().publisher.publish(name, text), self._limits.retry_timeout
            )
        else:
            await self._running().publisher.publish(name, text)

    async def notify_many(
        self,
        pairs: Iterable[tuple[str | Channel[Any], Any]] | AsyncIterable[tuple[Any, Any]],
    ) -> int:
        """
        Send many notifications, in their order; return how many.

        They are sent in transactions of up to 1,000, one after another; the next ones are taken
        from ``pairs`` while the server works on the last. Of equal notifications in one transaction
        PostgreSQL delivers one: where each counts, use ``Channel(…, unique=True)``.

        The first failure ends the call. The transactions before it have been sent; a note on the
        exception says how many notifications that are, and how many more may have been sent: those
        of a transaction whose connection died, or of the last one of a cancelled call.

        Args:
            pairs: An iterable, or an asynchronous one, of channel and payload, as ``notify()``
                takes them.

        Raises:
            TypeError: ``pairs`` cannot be iterated over, or an element is not a pair.
            ChannelNameError: A name is not valid for a channel.
            ChannelDirectionError: A Channel was made without ``encode``.
            PayloadError: A payload cannot be encoded, or contains NUL or a lone surrogate.
            PayloadTooLargeError: A payload is over 7,999 bytes.
            ConnectError: There is no connection: these notifications were not sent.
            NotifyTimeoutError: The call waited for ``operation_timeout`` behind other calls:
                these notifications were not sent.
            ConnectionLostError: The connection died in flight: they may have been sent.
            ClosedError: The notifier has been closed.
            WrongLoopError: The call came from another event loop or process.
            Exception: What ``pairs`` raised.
        """
        check_pairs(pairs, may_be_async=True)
        run = self._running()
        with run.in_use():
            return await publish_many(run.publisher, pairs)

    # -- inside -------------------------------------------------------------------------------

    def _running(self) -> PublishingRun:
        """Return the run in this event loop; start one if there is none."""
        if (run := self._run) is not None:
            if run.owner.is_here:
                return run
            if run.owner.is_other_process or not run.owner.loop.is_closed():
                run.owner.check()
        self._run = PublishingRun(self._connections, self._limits)
        return self._run


class ListenersNotifier(Notifier):
    """The notifier of a listener: it uses connections made for it, and ends with the run."""

    def __init__(
        self, connections: PublishingConnections, limits: PublishingLimits, backoff: Backoff
    ) -> None:
        self._set_up(connections, limits, backoff)

    def abandon(self) -> None:
        """End at once: what still waits gets a ClosedError. To be called in its event loop."""
        if self._run is not None:
            self._run.abandon()
