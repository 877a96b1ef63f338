"""The BlockingNotifier: publishing from threads. It connects the parts, and holds no logic."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from asyncnotify._arguments import check_pairs, check_retry
from asyncnotify._asyncpg._parameters.dsn import Dsn
from asyncnotify._asyncpg.sqlalchemy import EngineConnect
from asyncnotify._backoff import ExponentialBackoff
from asyncnotify._blocking.gateway import Gateway
from asyncnotify._blocking.pairs import send_pairs
from asyncnotify._channels.arguments import encoded
from asyncnotify._channels.channel import Channel
from asyncnotify._keepalive import Keepalive
from asyncnotify._notifier import Notifier
from asyncnotify._owner import OfOneProcess
from asyncnotify._publishing.limits import DEFAULT_QUEUE
from asyncnotify._sources import notify_within_thread
from asyncnotify.typing import Backoff, Connect

T = TypeVar("T")

_DEFAULT_BACKOFF = ExponentialBackoff()
_DEFAULT_KEEPALIVE = Keepalive()


class BlockingNotifier(OfOneProcess):
    """
    A Notifier for threads: the same methods without ``await``.

    It runs in an event loop in a daemon thread, which all blocking listeners and notifiers of a
    process share. Calls of many threads at the same time are sent together.

    ``with BlockingNotifier(dsn) as notifier`` opens and closes it; so do ``start()`` and
    ``close()``. Without ``start()`` the first call opens it, so that one made by a module serves in
    every process that a web server forks afterwards.

    All methods may be called from any thread, and may be interrupted by Ctrl-C. Calls that would
    block an event loop raise WrongLoopError: coroutines use Notifier instead. So do calls in a
    process forked after the notifier was opened, until ``start()`` there starts it again.

    Args:
        dsn: As for Listener.
        connect: As for Notifier: an async callable, called in the event loop.
        connect_timeout: Seconds for making a connection, for each host.
        operation_timeout: Seconds in which the server has to answer.
        keepalive: TCP keepalive for both ends; None leaves the settings of the systems as they are.
        backoff: As for Notifier.
        max_connection_age: As for Notifier.
        queue: How many calls may wait to be sent; further calls wait for their place in the queue.
        start_timeout: Seconds for which ``start()`` keeps trying; None: forever.
        retry_timeout: Seconds for which a call with ``retry=True`` keeps trying.
        close_timeout: Seconds for ``close()``, unless that call gives its own.
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
        if "pool" in connect_kwargs:
            msg = "a pool belongs to an event loop that is not this one's: give a DSN or connect="
            raise TypeError(msg)
        self._notifier = Notifier(
            dsn,
            connect=connect,
            connect_timeout=connect_timeout,
            operation_timeout=operation_timeout,
            keepalive=keepalive,
            backoff=backoff,
            max_connection_age=max_connection_age,
            queue=queue,
            start_timeout=start_timeout,
            retry_timeout=retry_timeout,
            close_timeout=close_timeout,
            **connect_kwargs,
        )
        self._gateway = Gateway(self._notifier.aclose, close_timeout)

    @classmethod
    def from_sqlalchemy(cls, engine: Any, **options: Any) -> Self:  # noqa: ANN401 - SQLAlchemy is an extra
        """
        Return a notifier that connects as this ``AsyncEngine`` of ``postgresql+asyncpg`` does.

        As ``Listener.from_sqlalchemy()``.

        Raises:
            TypeError: ``engine`` is not such an engine, or an option is not as BlockingNotifier
                takes it.
            ValueError: A number is not positive and finite.
        """
        return cls(connect=EngineConnect(engine), **options)

    def __repr__(self) -> str:
        return f"<Blocking{repr(self._notifier)[1:]}"

    # -- lifetime -----------------------------------------------------------------------------

    def start(self) -> None:
        """
        Connect; return once there is a connection.

        The first notification connects as well: ``start()`` shows a mistake earlier. When a server
        refuses the connection, is starting up or is full, the notifier tries again until
        ``start_timeout``. After ``close()``, and in a fork of the process that used the notifier,
        it starts again. After a start that fails the next call connects, as it does without
        ``start()``.

        Raises:
            ConfigurationError: The DSN or another argument is wrong.
            ConnectError: There is still no connection after ``start_timeout``; or the system has no
                more threads or file descriptors for an event loop.
            ConnectionLostError: The connection died while it was tried, until ``start_timeout``.
            ClosedError: The notifier was closed meanwhile.
            WrongLoopError: The call came from the thread of an event loop, or another process.
        """
        self._gateway.start(self._notifier.start)

    def close(self, timeout: float | None = None) -> None:
        """
        Send what has been accepted, and close the connection, the event loop and its thread.

        The call returns within half a second after the timeout, whatever happens. Idempotent. In
        the thread of an event loop, where a ``__del__`` may run, it only begins the closing.

        Args:
            timeout: Seconds after which unsent notifications are given up: their callers get a
                ClosedError. None: ``close_timeout``.

        Raises:
            ValueError: ``timeout`` is not a number of seconds.
            WrongLoopError: The notifier runs in another process.
        """
        self._gateway.close(timeout)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None or not self._gateway.is_of_other_process:
            self.close()

    # -- publishing ---------------------------------------------------------------------------

    @overload
    def notify(
        self, channel: str, payload: str = "", *, connection: object = ..., retry: bool = ...
    ) -> None: ...

    @overload
    def notify(
        self, channel: Channel[T], payload: T, *, connection: object = ..., retry: bool = ...
    ) -> None: ...

    def notify(
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
        it. One thread's notifications keep their order. A Channel encodes in the calling thread.

        After an interrupted call nobody knows whether the notification was sent.

        Args:
            channel: A name, or a Channel, which encodes the payload.
            payload: A text of 7,999 bytes at most, or what the Channel encodes.
            connection: Send the notification in the transaction of this connection instead:
                SQLAlchemy's Connection or Session, or psycopg's Connection. It is delivered when
                the transaction commits, and never if that rolls back. PostgreSQL delivers equal
                notifications of one transaction once; ``Channel(…, unique=True)`` makes each
                differ. There is no deadline but those of the connection.
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
            ConnectionLostError: The connection died in flight: the notification may have been sent.
            ClosedError: The notifier has been closed.
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: What the driver of ``connection`` raises.
        """
        check_retry(connection, retry=retry)
        name, text = encoded(channel, payload)
        if connection is not None:
            notify_within_thread(connection, name, text)
        else:
            notify = self._notifier.notify
            self._gateway.portal_by_itself.call(functools.partial(notify, name, text, retry=retry))

    def notify_many(self, pairs: Iterable[tuple[str | Channel[Any], Any]]) -> int:
        """
        Send many notifications, in their order; return how many.

        As ``Notifier.notify_many()``: in transactions of up to 1,000. This thread iterates over
        ``pairs``, while the server works on the transaction before. After an interrupted call
        nobody knows whether the last transaction was sent.

        Args:
            pairs: An iterable of channel and payload, as ``notify()`` takes them.

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
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: What ``pairs`` raised. A note says how many notifications had been sent.
        """
        check_pairs(pairs, may_be_async=False)
        return send_pairs(self._gateway.portal_by_itself, self._notifier.notify_many, pairs)
