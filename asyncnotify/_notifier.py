"""The Notifier: publishing without listening. It wires the parts, and holds no logic."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from asyncnotify._arguments import check_callable, check_timeout
from asyncnotify._asyncpg.dial import Dialer, check_connect_arguments
from asyncnotify._asyncpg.publishing import OwnConnections, Pool, PooledConnections
from asyncnotify._asyncpg.sqlalchemy import EngineConnect
from asyncnotify._asyncpg.transactions import notify_within
from asyncnotify._backoff import Delays, ExponentialBackoff
from asyncnotify._channels.arguments import encoded
from asyncnotify._channels.channel import Channel
from asyncnotify._errors import (
    ClosedError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
)
from asyncnotify._keepalive import Keepalive
from asyncnotify._owner import Owner, leave_to_parent
from asyncnotify._publishing.batching import BATCH_COUNT, in_batches
from asyncnotify._publishing.limits import DEFAULT_QUEUE, PublishingLimits
from asyncnotify._publishing.ports import PublishingConnections
from asyncnotify._publishing.publisher import Publisher
from asyncnotify._tasks import cancel, start
from asyncnotify.typing import Backoff, Connect

T = TypeVar("T")

_DEFAULT_BACKOFF = ExponentialBackoff()
_DEFAULT_KEEPALIVE = Keepalive()


class Notifier:
    """
    Sends notifications, from any number of tasks at once, over one connection.

    Calls that come while another one is in flight are gathered, and go out together as soon as
    that is done: one statement and one commit for up to 1,000 of them. A call that is alone is
    sent at once. Each caller learns what became of its own.

    ``async with Notifier(dsn) as notifier`` opens and closes it; so do ``start()`` and
    ``aclose()``. Without ``start()`` the connection is opened by the first call. A connection
    that is lost is made anew for the next call. All methods are to be called from one event
    loop, by any number of tasks.

    Args:
        dsn: As for Listener.
        pool: An asyncpg pool to borrow a connection from while there is something to send.
        connect: An async callable that returns a fresh ``asyncpg.Connection``. Of ``dsn``,
            ``pool`` and ``connect`` one may be given; without any, PGHOST and the like count.
        connect_timeout: Seconds for making or borrowing a connection, for each host.
        operation_timeout: Seconds in which the server has to answer.
        keepalive: TCP keepalive for both ends, of connections that are not a pool's; None leaves
            it as it is.
        backoff: Called for each series of retries; returns an endless iterator of the seconds to
            wait before each attempt.
        queue: Calls that may wait to be sent; those beyond wait for their place in the queue.
        start_timeout: Seconds for which ``start()`` keeps trying.
        retry_timeout: Seconds for which a call with ``retry=True`` keeps trying.
        close_timeout: Seconds for ``aclose()``, unless that is given others.
        connect_kwargs: Anything else that ``asyncpg.connect`` takes.

    Raises:
        TypeError: An argument is unknown, or excluded by another one.
        ValueError: A number is not positive.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        # connection
        pool: Pool | None = None,
        connect: Connect | None = None,
        connect_timeout: float = 10.0,
        operation_timeout: float = 5.0,
        keepalive: Keepalive | None = _DEFAULT_KEEPALIVE,
        backoff: Backoff = _DEFAULT_BACKOFF,
        # limits
        queue: int = DEFAULT_QUEUE,
        start_timeout: float = 30.0,
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
        )
        check_callable("backoff", backoff)
        check_connect_arguments(dsn, connect, connect_kwargs)
        connections: PublishingConnections[Any]
        if pool is None:
            dialer = Dialer(dsn, connect, connect_kwargs, timeout=connect_timeout)
            connections = OwnConnections(dialer, keepalive, timeout=operation_timeout)
        else:
            if dsn is not None or connect is not None or connect_kwargs:
                msg = "pool= makes the connections: nothing else may say how"
                raise TypeError(msg)
            connections = PooledConnections(
                pool, connect_timeout=connect_timeout, timeout=operation_timeout
            )
        self._set_up(connections, limits, backoff)

    def _set_up(
        self,
        connections: PublishingConnections[Any],
        limits: PublishingLimits,
        backoff: Backoff,
    ) -> None:
        self._connections = connections
        self._limits = limits
        self._backoff = backoff
        self._owner: Owner | None = None
        self._publisher: Publisher | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def from_sqlalchemy(cls, engine: Any, **options: Any) -> Self:  # noqa: ANN401 - SQLAlchemy is an extra
        """
        Return a notifier that connects as this ``AsyncEngine`` of ``postgresql+asyncpg`` does.

        As for ``Listener.from_sqlalchemy()``. To send within a transaction of the engine's,
        give ``notify()`` the connection or the session.
        """
        return cls(connect=EngineConnect(engine), **options)

    def __repr__(self) -> str:
        return f"<Notifier {self._connections.target}>"

    # -- lifetime -----------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Connect; return once there is a connection.

        It need not be called: the first notification connects as well. It tells of a mistake
        early. A server that refuses, is starting up or is full is tried again until
        ``start_timeout``. After ``aclose()``, and in a fork of the process that it was used in,
        it begins anew. When it fails, or is cancelled, other calls are not concerned.

        Raises:
            ConfigurationError: The DSN or another argument is wrong.
            ConnectError: There is still no connection after ``start_timeout``.
            WrongLoopError: It runs in another event loop.
        """
        if self._owner is not None and self._owner.is_other_process:
            leave_to_parent(self._publisher, self._task)
            self._owner = None
        elif self._task is not None and self._task.done():
            self._owner = None
        is_new = self._owner is None
        publisher, task = self._running(), self._task
        try:
            await self._retrying(
                lambda: publisher.publish_all((), ()),
                self._limits.start_timeout,
                unless=self._connections.failures.is_permanent,
            )
        except ClosedError:
            raise  # somebody else has closed it, and may have begun anew
        except BaseException:
            if is_new and task and not publisher.is_closing and not publisher.is_used:
                self._owner = None  # the next call begins anew
                await _end(publisher, task, 0)
            raise

    async def aclose(self, timeout: float | None = None) -> None:
        """
        Send what has been accepted, and close the connection.

        At the timeout, which is ``close_timeout`` unless one is given here, in seconds, what is
        still unsent is given up: its callers get a ClosedError. Idempotent; may be
        called from any task. Cancelling it gives up at once.

        Raises:
            WrongLoopError: It runs in another event loop or process.
        """
        check_timeout("timeout", timeout)
        owner, publisher, task = self._owner, self._publisher, self._task
        if owner is None or publisher is None or task is None or owner.loop.is_closed():
            return
        owner.check()
        await _end(publisher, task, self._limits.close_timeout if timeout is None else timeout)

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
        Send a notification to everyone listening on ``channel``.

        It returns once the server has committed it. Nobody need have received it. One caller's
        notifications keep their order. Equal ones of several callers each arrive.

        Cancelling it leaves unknown whether it was sent.

        Args:
            channel: A name, or a Channel, which encodes the payload.
            payload: A text of 7,999 bytes at most, or what the Channel encodes.
            connection: Send it in the transaction of this connection instead: an asyncpg
                Connection (also one acquired from a pool), SQLAlchemy's AsyncConnection or
                AsyncSession, or psycopg's AsyncConnection. It is delivered when that commits,
                and never if it rolls back. PostgreSQL delivers equal ones of one transaction
                once; ``Channel(…, unique=True)`` makes each differ. It has no deadline but
                those of the connection.
            retry: Try again after a lost connection or a failed attempt to connect, for
                ``retry_timeout`` seconds. It may then arrive twice.

        Raises:
            ChannelNameError: The server would refuse the name.
            PayloadError: The payload cannot be encoded, or not be sent.
            PayloadTooLargeError: The payload is over 7,999 bytes.
            ConnectError: There is no connection: it was not sent.
            ConnectionLostError: The connection died in flight: it may have been sent.
            ClosedError: The notifier has been closed.
            WrongLoopError: The call came from another event loop or process.
            TypeError: ``connection`` is of another kind, or combined with ``retry``.
        """
        name, text = encoded(channel, payload)
        if connection is not None:
            if retry:
                msg = (
                    "retry= cannot be combined with connection=: a transaction is tried as a whole"
                )
                raise TypeError(msg)
            await notify_within(connection, name, text)
        elif retry:
            self._running()
            await self._retrying(
                lambda: self._running().publish(name, text), self._limits.retry_timeout
            )
        else:
            await self._running().publish(name, text)

    async def notify_many(
        self,
        pairs: Iterable[tuple[str | Channel[Any], Any]] | AsyncIterable[tuple[Any, Any]],
    ) -> int:
        """
        Send many notifications, in their order; return how many.

        They go out in transactions of up to 1,000, one after another; the next ones are taken
        from ``pairs`` while the server works on the last. Of equal ones within one transaction
        PostgreSQL delivers one: where each counts, use ``Channel(…, unique=True)``.

        The first failure ends it. What the transactions before it held has been sent; a note on
        the exception says how many. Cancelling it leaves unknown whether the last one was.

        Args:
            pairs: Of channel and payload, as ``notify()`` takes them; an asynchronous iterable
                will do as well.

        Raises:
            Exception: What ``notify()`` raises, or what ``pairs`` raised.
        """
        publisher = self._running()
        sent, size = 0, 0
        in_flight = publisher.publish_all((), ())
        try:
            async with contextlib.aclosing(in_batches(pairs, BATCH_COUNT)) as batches:
                async for channels, payloads in batches:
                    await in_flight
                    sent, size = sent + size, 0
                    in_flight = publisher.publish_all(channels, payloads)
                    size = len(channels)
                    await asyncio.sleep(0)  # it goes out before the next ones are encoded
            await in_flight
        except BaseException as error:
            if not isinstance(error, Exception):
                in_flight.cancel()  # nobody would retrieve what becomes of it
            elif await _succeeds(in_flight):
                sent += size
            error.add_note(f"{sent} notifications before it have been sent")
            raise
        return sent + size

    # -- inside -------------------------------------------------------------------------------

    def _running(self) -> Publisher:
        """Return what sends, in this event loop; begin if that has not been done."""
        owner, publisher = self._owner, self._publisher
        if owner is not None and publisher is not None:
            if owner.is_here:
                return publisher
            if owner.is_other_process or not owner.loop.is_closed():
                owner.check()
        return self._begin()

    def _begin(self) -> Publisher:
        self._owner = Owner()
        publisher = Publisher(
            self._connections, timeout=self._limits.operation_timeout, queue=self._limits.queue
        )
        self._publisher = publisher
        self._task = start(publisher.run(), name="asyncnotify publisher")
        return publisher

    async def _retrying(
        self,
        attempt: Callable[[], Awaitable[None]],
        seconds: float,
        *,
        unless: Callable[[BaseException], bool] | None = None,
    ) -> None:
        """Attempt until it succeeds; at the deadline, raise what the last attempt raised."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        delays = Delays(self._backoff)
        delays.next()  # the first attempt is made at once
        while True:
            try:
                return await attempt()
            except ConfigurationError:
                raise
            except (ConnectError, ConnectionLostError) as error:
                if unless is not None and error.__cause__ and unless(error.__cause__):
                    raise
                delay = delays.next()
                if loop.time() + delay > deadline:
                    raise
            await asyncio.sleep(delay)


async def _end(publisher: Publisher, task: asyncio.Task[None], seconds: float) -> None:
    publisher.close(seconds)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        await cancel({task})


class ListenersNotifier(Notifier):
    """The notifier of a listener: on connections that are made already, and ending with its run."""

    def __init__(
        self, connections: PublishingConnections[Any], limits: PublishingLimits, backoff: Backoff
    ) -> None:
        self._set_up(connections, limits, backoff)

    def abandon(self) -> None:
        """End at once: what still waits gets a ClosedError. To be called in its event loop."""
        if self._publisher is not None and self._task is not None:
            self._publisher.abandon()
            self._task.cancel()


async def _succeeds(sent: asyncio.Future[None]) -> bool:
    await asyncio.wait({sent})
    return not sent.cancelled() and sent.exception() is None
