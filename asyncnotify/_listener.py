"""The Listener, which connects the parts and holds no logic of its own."""

from __future__ import annotations

import functools
import weakref
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from asyncnotify._arguments import (
    check_backoff,
    check_callbacks,
    check_flag,
    check_kind,
    check_on_event,
    check_pairs,
    check_retry,
    check_timeout,
)
from asyncnotify._asyncpg._connecting.dial import check_connect_arguments
from asyncnotify._asyncpg._parameters.dsn import Dsn
from asyncnotify._asyncpg.sqlalchemy import EngineConnect
from asyncnotify._backoff import ExponentialBackoff
from asyncnotify._channels.arguments import channel_of, channels_of, encoded, name_of
from asyncnotify._channels.channel import Channel
from asyncnotify._connection.limits import Limits
from asyncnotify._delivery.buffering import Buffering
from asyncnotify._delivery.registry import Subscriber
from asyncnotify._errors import ConnectError
from asyncnotify._events import Announcer, EventStream
from asyncnotify._keepalive import Keepalive
from asyncnotify._model import Gap, Notification, State, Stats
from asyncnotify._notifier import ListenersNotifier
from asyncnotify._owner import OfOneProcess, leave_to_parent, see_to_unclosed
from asyncnotify._publishing.limits import PublishingLimits
from asyncnotify._run.lifetime import Lifetime
from asyncnotify._run.report import health_of
from asyncnotify._run.runs import Runs
from asyncnotify._sources import source_of
from asyncnotify._subscriptions.middleware import checked, with_outermost, without
from asyncnotify._subscriptions.registration import Registration
from asyncnotify._subscriptions.roster import Roster
from asyncnotify._subscriptions.stream import Stream
from asyncnotify._subscriptions.subscription import Subscription
from asyncnotify.typing import (
    Backoff,
    Connect,
    Handler,
    HandlerOptions,
    ListenOptions,
    Middleware,
    OnError,
    OnEvent,
    Overflow,
    Resync,
    StreamOptions,
)

T = TypeVar("T")
ResultT = TypeVar("ResultT")
HandlerT = TypeVar("HandlerT", bound=Handler[str])

_DEFAULT_BACKOFF = ExponentialBackoff()
_DEFAULT_KEEPALIVE = Keepalive()


class Listener(OfOneProcess):
    """
    Listens on channels of one PostgreSQL database, and reports where notifications may be missing.

    A listener has its own connection. When the connection is lost, the listener reconnects, listens
    again on every channel, and delivers a Gap to every subscription, in order with notifications.

    ``async with Listener(dsn) as listener`` starts and closes it; ``start()`` and ``aclose()``
    do the same, also from different tasks. The constructor touches neither the network nor an event
    loop. Any number of tasks may call the methods, all in the event loop that started the listener.
    A listener runs until it is closed; if the last reference to it is lost before, it keeps running
    and a ResourceWarning is issued. In IPython, where cells are run again, it is closed instead.

    Args:
        dsn: ``postgresql://user:password@host:port/database``, with one host or several;
            ``postgresql+asyncpg://`` as well. None: PGHOST and the other libpq variables are used.
        connect: An async callable that returns a fresh ``asyncpg.Connection``. It is called for
            every connection, and excludes ``dsn`` and ``connect_kwargs``.
        connect_timeout: Seconds for making a connection, for each host.
        heartbeat: Seconds without traffic after which the listener asks the server whether the
            session still listens. None: never; only TCP keepalive then detects a half-open
            connection, which dies without a FIN or RST.
        heartbeat_timeout: Seconds in which the server has to answer.
        operation_timeout: Seconds in which the server has to answer LISTEN, UNLISTEN or a notify.
        keepalive: TCP keepalive for both ends; None leaves the system settings unchanged.
        backoff: Called at the beginning of each outage; returns an infinite iterator of the
            seconds to wait before each attempt.
        max_connection_age: Seconds after which a new connection replaces the one that listens, up
            to a tenth earlier. The new one listens on every channel and has proved that it
            delivers before the old one is closed, so nothing is missed and there is no Gap. This
            lets listeners follow a host name that moves, rotated credentials and renewed
            certificates. None: never.
        start_timeout: Seconds for which ``start()`` keeps trying; None: forever.
        close_timeout: Seconds for ``aclose()``, unless that call gives its own.
        middleware: Async functions ``(notification, call_next)`` around each call of a handler;
            the first one is the outermost. ``await call_next(notification)`` calls the next one,
            and finally the handler; a middleware may also call it with another Notification, again
            after an error, or not at all. Its exceptions count as handler errors. It runs in the
            event loop, also around handlers in threads, and must not block. It is not called for
            Gaps, for payloads that cannot be decoded, or for streams. Without middleware a call has
            no overhead.
        on_event: A plain function, called with each connection event from the event loop. It must
            not block.
        connect_kwargs: Further arguments of ``asyncpg.connect``: ``user``, ``password`` and
            ``ssl`` (a callable is called for every connection), ``server_settings``, …

    Raises:
        TypeError: An argument is unknown or of the wrong type, or ``connect`` excludes it; or a
            function cannot be called as it would be.
        ValueError: A number of seconds is not positive and finite.
    """

    def __init__(
        self,
        dsn: Dsn | None = None,
        *,
        # connection
        connect: Connect | None = None,
        connect_timeout: float = 10.0,
        # liveness
        heartbeat: float | None = 10.0,
        heartbeat_timeout: float = 5.0,
        operation_timeout: float = 5.0,
        keepalive: Keepalive | None = _DEFAULT_KEEPALIVE,
        # reconnection
        backoff: Backoff = _DEFAULT_BACKOFF,
        max_connection_age: float | None = None,
        # limits
        start_timeout: float | None = 30.0,
        close_timeout: float = 5.0,
        # functions
        middleware: Sequence[Middleware] = (),
        on_event: OnEvent | None = None,
        **connect_kwargs: Any,  # noqa: ANN401 - as asyncpg.connect takes them
    ) -> None:
        check_backoff(backoff)
        check_on_event(on_event)
        check_kind("keepalive", keepalive, Keepalive)
        self._limits = Limits(
            connect_timeout=connect_timeout,
            heartbeat=heartbeat,
            heartbeat_timeout=heartbeat_timeout,
            operation_timeout=operation_timeout,
            start_timeout=start_timeout,
            close_timeout=close_timeout,
            max_connection_age=max_connection_age,
        )
        ours = Listener.__init__.__kwdefaults__ or ()
        check_connect_arguments(dsn, connect, connect_kwargs, ours)
        check_callbacks(connect=connect)
        self._source = source_of(
            dsn,
            connect,
            connect_kwargs,
            keepalive=keepalive,
            connect_timeout=connect_timeout,
            start_timeout=start_timeout,
        )
        self._backoff = backoff
        self._announcer = Announcer(self._source.target, on_event, start_timeout)
        self._middleware = checked(middleware)
        self._registrations: dict[Registration, None] = {}
        self._runs = Runs()
        self._notifier = self._new_notifier()

    def _new_notifier(self) -> ListenersNotifier:
        """Return what sends in the next run, on a connection that is not the listening one."""
        seconds = self._limits.operation_timeout
        # Weak: no run keeps a listener to which nobody has a reference any more
        method = weakref.WeakMethod(self._notifier_connected)

        def on_open(pid: int) -> None:
            if (notifier_connected := method()) is not None:
                notifier_connected(pid)

        return ListenersNotifier(
            self._source.publishing(
                connect_timeout=self._limits.connect_timeout, timeout=seconds, on_open=on_open
            ),
            PublishingLimits(
                connect_timeout=self._limits.connect_timeout,
                operation_timeout=seconds,
                start_timeout=self._limits.start_timeout,
                close_timeout=self._limits.close_timeout,
                max_connection_age=self._limits.max_connection_age,
            ),
            self._backoff,
        )

    def _notifier_connected(self, pid: int) -> None:
        if self._runs.last is not None:
            self._runs.last.note_other(pid)

    @classmethod
    def from_sqlalchemy(cls, engine: Any, **options: Any) -> Self:  # noqa: ANN401 - SQLAlchemy is an extra
        """
        Return a listener that connects as this ``AsyncEngine`` of ``postgresql+asyncpg`` does.

        Its URL, its ``connect_args`` and its ``do_connect`` events are read again for each
        connection. The connection is the listener's own: nothing is taken from the engine's pool,
        which would reset it.

        Args:
            engine: The engine that ``create_async_engine()`` returned.
            options: The arguments of Listener, without those that say where to connect.

        Raises:
            TypeError: ``engine`` is not such an engine, or an option is not as Listener takes it.
            ValueError: A number of seconds is not positive and finite.
        """
        return cls(connect=EngineConnect(engine), **options)

    def __repr__(self) -> str:
        return f"<Listener {self._source.target} {self.state}>"

    def __del__(self) -> None:
        runs: Runs | None = getattr(self, "_runs", None)  # a wrong argument: no object
        if runs is not None and (lifetime := runs.present_here) is not None:
            timeout = self._limits.close_timeout
            close = functools.partial(lifetime.end, drain=True, timeout=timeout)
            see_to_unclosed(self, close, lifetime.owner.loop)

    # -- lifetime -----------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Connect and listen; return once the server has confirmed.

        If the server does not accept connections, is starting up, is full, or is a standby, the
        listener retries until ``start_timeout``. After the first success it retries forever. While
        the listener runs, further calls only wait. A start that fails or is cancelled leaves
        nothing behind, and does not affect other calls of ``start()``. In a fork of the process
        that started the listener, it starts again there; the listener of the parent process is not
        affected.

        Raises:
            ConfigurationError: The DSN or another argument is wrong.
            ConnectError: The server refused the password, the role or the database.
            ConnectTimeoutError: The listener was not listening within ``start_timeout``.
            PoolerError: A pooler in front of the server would not deliver notifications.
            ClosedError: The listener was closed meanwhile.
            WrongLoopError: The listener runs in another event loop, or no loop of asyncio runs.
        """
        try:
            await self._start()
        except ConnectError as error:
            error.__traceback__ = None  # all of its frames are ours
            raise

    async def _start(self) -> None:
        while self._runs.present_here is not None:
            present = self._runs.running()
            if not present.start_has_failed:
                await present.wait_started()
                return
            await present.wait_ended(None)
        if self._runs.last_is_parents:
            leave_to_parent(self._runs.last, self._notifier)
        self._notifier = self._new_notifier()
        self._runs.last = lifetime = Lifetime(
            self._source.listening(
                connect_timeout=self._limits.connect_timeout, timeout=self._limits.command_timeout
            ),
            self._notifier,
            self._limits,
            backoff=self._backoff,
            announcer=self._announcer,
        )
        await lifetime.start(self._registrations, self._middleware)

    async def aclose(self, timeout: float | None = None) -> None:
        """
        Stop listening, let handlers finish what is buffered, and close the connections.

        Streams end after what they have buffered. Idempotent; may be called from any task, also
        from a handler, and in every state. Cancelling the call closes at once, without waiting for
        handlers.

        Args:
            timeout: Seconds after which handlers that still run are cancelled; None:
                ``close_timeout``.

        Raises:
            ValueError: ``timeout`` is not a number of seconds.
            WrongLoopError: The listener runs in another event loop or process.
        """
        check_timeout("timeout", timeout)
        seconds = self._limits.close_timeout if timeout is None else timeout
        await self._runs.end(drain=True, timeout=seconds)
        if not self._runs.has_present:
            self._announcer.end_streams()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close; after an exception without letting handlers finish."""
        if exc_type is None:
            await self.aclose()
        else:
            await self._runs.end(drain=False, timeout=self._limits.close_timeout)

    # -- listening ----------------------------------------------------------------------------

    @overload
    async def listen(
        self,
        channel: str,
        handler: Handler[str],
        *,
        in_thread: bool = ...,
        **options: Unpack[ListenOptions],
    ) -> Subscription: ...

    @overload
    async def listen(
        self,
        channel: Channel[T],
        handler: Handler[T],
        *,
        in_thread: bool = ...,
        **options: Unpack[ListenOptions],
    ) -> Subscription: ...

    async def listen(
        self,
        channel: str | Channel[Any],
        handler: Handler[Any],
        *,
        resync: Resync | None = None,
        on_error: OnError | None = None,
        concurrency: int = 1,
        in_thread: bool = False,
        slow_after: float | None = 30.0,
        # limits
        buffer: int | None = None,
        overflow: Overflow | None = None,
        latest: bool = False,
        timeout: float | None = 30.0,
    ) -> Subscription:
        """
        Call ``handler`` with every notification on ``channel``.

        The call returns once the server has confirmed: notifications committed after that are
        delivered, or covered by a Gap. While there is no connection, the call waits for the next
        one. If the call raises or is cancelled, the subscription is removed completely.

        Args:
            channel: A name, 1 to 63 bytes of UTF-8, case-sensitive; or a Channel, which decodes the
                payloads. A payload that cannot be decoded is counted, logged without its content,
                and passed to ``on_error`` instead of the handler.
            handler: An ``async def`` or a plain function. Each subscription calls it in its own
                task, so a slow handler delays no other. Its exceptions are logged, counted and
                passed to ``on_error``; the subscription continues.
            resync: Called with a Gap at the beginning and whenever notifications may be missing,
                before later notifications. If it raises, it is called again, with growing delays;
                until it has succeeded, the handler is not called.
            on_error: Called with the exception of handler or resync, and with the Notification or
                Gap that was its argument; or with a PayloadDecodeError, and the Notification as it
                arrived.
            concurrency: How many calls of the handler may run at once; 1 keeps the order.
            in_thread: Call the handler, a plain function that may block, in a thread, and so a
                ``resync`` that is a plain function. The order is kept; each call sees a copy of its
                context. A thread cannot be cancelled: after the timeout of ``aclose()`` its call is
                no longer waited for, and runs to its end. So does one that a middleware cancels;
                the next call waits until it has returned.
            slow_after: Seconds after which a warning names a handler or ``resync`` that has not
                returned, or after 1 s one that blocks the event loop; None: never.
            buffer: How many notifications may wait; None: 32,768.
            overflow: What happens when more wait: ``"drop_oldest"``, as for None, or
                ``"drop_newest"``, with a Gap at that place, or ``"fail"``, which ends the
                subscription.
            latest: Keep only the newest waiting notification, instead of a buffer; cannot be
                combined with ``buffer`` or ``overflow``.
            timeout: Seconds to wait for the server to confirm; None: forever.

        Raises:
            TypeError: A function cannot be called as it would be, or is an ``async def`` with
                ``in_thread``; or two options exclude each other.
            ValueError: A number, or ``overflow``, is not one of those allowed.
            ChannelNameError: The name is not valid for a channel.
            ChannelDirectionError: The Channel was made without ``decode``.
            ListenTimeoutError: The server did not confirm in time.
            NotStartedError: The listener has not been started.
            ClosedError: The listener has been closed.
            WrongLoopError: The call came from another event loop or process.
        """
        registration = Registration(
            channel=channel_of(channel),
            handler=handler,
            resync=resync,
            buffering=Buffering(buffer, overflow, latest),
            concurrency=concurrency,
            on_error=on_error,
            in_thread=in_thread,
            slow_after=slow_after,
        )
        check_timeout("timeout", timeout)
        lifetime = self._runs.running()
        worker = registration.new_worker(lifetime.router, self._middleware)
        await lifetime.roster.serve(worker, timeout)
        return Subscription(lifetime.roster, registration.channel.name, worker)

    @overload
    def on(
        self,
        channel: str,
        *,
        in_thread: bool = ...,
        **options: Unpack[HandlerOptions],
    ) -> Callable[[HandlerT], HandlerT]: ...

    @overload
    def on(
        self,
        channel: Channel[T],
        *,
        in_thread: bool = ...,
        **options: Unpack[HandlerOptions],
    ) -> Callable[[Callable[[Notification[T]], ResultT]], Callable[[Notification[T]], ResultT]]: ...

    def on(
        self,
        channel: str | Channel[Any],
        *,
        resync: Resync | None = None,
        on_error: OnError | None = None,
        concurrency: int = 1,
        in_thread: bool = False,
        slow_after: float | None = 30.0,
        # limits
        buffer: int | None = None,
        overflow: Overflow | None = None,
        latest: bool = False,
    ) -> Callable[[Any], Any]:
        """
        Register the decorated function as a handler, before the start or after it.

        The arguments are those of ``listen()``. Before the start, ``on()`` may be called from any
        thread; the handler then serves in each run of the listener. ``unlisten()`` ends it.

        Raises:
            TypeError: A function cannot be called as it would be, or is an ``async def`` with
                ``in_thread``; or two options exclude each other.
            ValueError: A number, or ``overflow``, is not one of those allowed.
            ChannelNameError: The name is not valid for a channel.
            ChannelDirectionError: The Channel was made without ``decode``.
            ClosedError: The listener is closing.
            WrongLoopError: The listener runs in another event loop or process.
        """
        buffering = Buffering(buffer, overflow, latest)
        meant = channel_of(channel)

        def register(handler: Any) -> Any:  # noqa: ANN401 - the overloads say it
            registration = Registration(
                channel=meant,
                handler=handler,
                resync=resync,
                buffering=buffering,
                concurrency=concurrency,
                on_error=on_error,
                in_thread=in_thread,
                slow_after=slow_after,
            )
            if self._runs.present_here is not None:
                lifetime = self._runs.running()
                worker = registration.new_worker(lifetime.router, self._middleware)
                lifetime.roster.serve_soon(worker)
            self._registrations[registration] = None
            return handler

        return register

    def add_middleware(self, function: Middleware) -> Callable[[], None]:
        """
        Put one more function around each call of a handler, outside of all others; see Listener.

        It serves handlers that are registered already, from their next call on; those that have
        notifications waiting come to the end of these first. Before the start, the method may be
        called from any thread.

        Returns:
            A function that removes it again, at once or later, any number of times.

        Raises:
            TypeError: It is not an async function that takes a Notification and ``call_next``.
            WrongLoopError: The listener runs in another event loop.
        """
        self._use(with_outermost(self._middleware, function))
        removed = False

        def remove() -> None:
            nonlocal removed
            if not removed:
                self._use(without(self._middleware, function))
            removed = True

        return remove

    def _use(self, middleware: tuple[Middleware, ...]) -> None:
        if (lifetime := self._runs.present_here) is not None:
            lifetime.roster.use(middleware)
        self._middleware = middleware

    @overload
    def stream(
        self,
        *channels: str,
        gaps: Literal[False] = False,
        **options: Unpack[StreamOptions],
    ) -> Stream[Notification[str]]: ...

    @overload
    def stream(
        self,
        *channels: Channel[T],
        gaps: Literal[False] = False,
        **options: Unpack[StreamOptions],
    ) -> Stream[Notification[T]]: ...

    @overload
    def stream(
        self,
        *channels: str | Channel[Any],
        gaps: Literal[False] = False,
        **options: Unpack[StreamOptions],
    ) -> Stream[Notification[Any]]: ...

    @overload
    def stream(
        self,
        *channels: str,
        gaps: bool,
        **options: Unpack[StreamOptions],
    ) -> Stream[Notification[str] | Gap]: ...

    @overload
    def stream(
        self,
        *channels: Channel[T],
        gaps: bool,
        **options: Unpack[StreamOptions],
    ) -> Stream[Notification[T] | Gap]: ...

    @overload
    def stream(
        self,
        *channels: str | Channel[Any],
        gaps: bool,
        **options: Unpack[StreamOptions],
    ) -> Stream[Notification[Any] | Gap]: ...

    def stream(
        self,
        *channels: str | Channel[Any],
        gaps: bool = False,
        on_error: OnError | None = None,
        # limits
        buffer: int | None = None,
        overflow: Overflow | None = None,
        latest: bool = False,
        timeout: float | None = 30.0,
    ) -> Stream[Any]:
        """
        Return the notifications on one or several channels as an asynchronous iterator.

        ``async for n in listener.stream("orders")`` listens from its first step;
        ``async with listener.stream("orders") as stream`` from the beginning of its block.
        The class of the iterator, Stream, says how it ends.

        Args:
            channels: One at least, each a name or a Channel, which decodes the payloads.
            gaps: Yield a Gap whenever notifications may be missing, the first one immediately.
            on_error: Called with a PayloadDecodeError for each payload that could not be
                decoded, and with the Notification as it arrived. The stream continues.
            buffer: As for ``listen()``.
            overflow: As for ``listen()``; ``"fail"`` raises BufferOverflowError.
            latest: As for ``listen()``, for each channel.
            timeout: Seconds to wait for the server to confirm; None: forever.

        Raises:
            TypeError: No channel is given, or one in two forms; ``on_error`` cannot be called as it
                would be; or two options exclude each other.
            ValueError: A number, or ``overflow``, is not one of those allowed.
            ChannelNameError: A name is not valid for a channel.
            ChannelDirectionError: A Channel was made without ``decode``.
        """
        if not channels:
            msg = "stream() needs at least one channel"
            raise TypeError(msg)
        check_flag("gaps", gaps)
        check_callbacks(on_error=on_error)
        check_timeout("timeout", timeout)
        meant = channels_of(channels)
        buffering = Buffering(buffer, overflow, latest)
        return Stream(
            functools.partial(self._enlist, tuple(meant), buffering, gaps_wanted=gaps),
            tuple(meant.values()),
            gaps=gaps,
            on_error=on_error,
            timeout=timeout,
        )

    async def unlisten(self, channel: str | Channel[Any]) -> None:
        """
        End every handler and stream of a channel, those registered with ``on()`` included.

        When the call returns, no handler of the channel will be started any more, and the server
        has confirmed, or the connection is lost. A stream of several channels continues with its
        others. Cancelling the call leaves the subscriptions ended. A listener that is not running
        forgets the handlers registered with ``on()``.

        Raises:
            ChannelNameError: ``channel`` cannot be the name of a channel.
            WrongLoopError: The listener runs in another event loop or process.
        """
        name = name_of(channel)
        lifetime = self._runs.running() if self._runs.has_present else None
        self._registrations = {r: None for r in self._registrations if r.channel.name != name}
        if lifetime is not None:
            await lifetime.roster.unlisten(name)

    def end_streams(self, *, also_new: bool = False) -> None:
        """
        End every open stream, after what it has buffered. Handlers, and the listener, go on.

        For a server that stops: it waits for its responses, and those that are fed by streams do
        not end by themselves. The call never waits: the streams end in the next turn of the event
        loop, one that still waits for the server included. Streams of ``events()`` go on. It may be
        called at any time, any number of times, from any thread, and from a signal handler; a
        listener that does not run in this process has no streams, and nothing happens.

        Args:
            also_new: End also each stream that begins later, at once, until the listener is closed:
                a request that comes in on an open connection must not keep the server from
                stopping.

        Raises:
            TypeError: ``also_new`` is not a bool.
        """
        check_flag("also_new", also_new)
        if (lifetime := self._runs.present_here) is not None:
            lifetime.roster.end_streams(also_new=also_new)

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
        it: a session that is not listening at that moment never will. It goes through a second
        connection, opened at the first call. Calls made at the same time are sent together, in
        their order.

        After a cancelled call nobody knows whether the notification was sent.

        Args:
            channel: A name, or a Channel, which encodes the payload.
            payload: A text of 7,999 bytes at most, or what the Channel encodes.
            connection: Send the notification in the transaction of this connection instead, as
                ``Notifier.notify()`` does; the listener need not run for that.
            retry: Try again after a lost connection or a failed attempt to connect, for 30
                seconds. The notification may then arrive twice.

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
            NotStartedError: The listener has not been started.
            ClosedError: The listener has been closed.
            WrongLoopError: The call came from another event loop or process.
            Exception: What the driver of ``connection`` raises.
        """
        check_retry(connection, retry=retry)
        name, text = encoded(channel, payload)
        lifetime = self._runs.running() if connection is None else None
        await self._notifier.notify(name, text, connection=connection, retry=retry)
        if lifetime is not None:
            lifetime.note_sent(name)

    async def notify_many(
        self,
        pairs: Iterable[tuple[str | Channel[Any], Any]] | AsyncIterable[tuple[Any, Any]],
    ) -> int:
        """
        Send many notifications, in their order; return how many. As ``Notifier.notify_many()``.

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
            NotStartedError: The listener has not been started.
            ClosedError: The listener has been closed.
            WrongLoopError: The call came from another event loop or process.
            Exception: What ``pairs`` raised.
        """
        check_pairs(pairs, may_be_async=True)
        self._runs.running()
        return await self._notifier.notify_many(pairs)

    # -- state --------------------------------------------------------------------------------

    @property
    def channels(self) -> frozenset[str]:
        """The channels of all subscriptions, whether or not the server has confirmed them yet."""
        if (lifetime := self._runs.present_here) is not None:
            return lifetime.roster.channels
        return frozenset(registration.channel.name for registration in self._registrations)

    @property
    def state(self) -> State:
        """What the listener is doing in this process: in a fork it is NEW until it is started."""
        return self._runs.state

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection on which LISTEN is in effect, as far as is known."""
        return self.state is State.CONNECTED

    async def wait_connected(self, timeout: float | None = None) -> None:
        """
        Return once there is a connection on which LISTEN is in effect.

        Args:
            timeout: Seconds to wait; None: forever.

        Raises:
            ValueError: ``timeout`` is not a number of seconds.
            ConnectTimeoutError: There was no such connection in time.
            NotStartedError: The listener has not been started.
            ClosedError: The listener has been closed.
            WrongLoopError: The call came from another event loop or process.
        """
        check_timeout("timeout", timeout)
        await self._runs.running().wait_connected(timeout)

    async def wait_closed(self, timeout: float | None = None) -> None:
        """
        Return when the listener has been closed: by ``aclose()``, or at the end of ``async with``.

        For a program that only listens: a signal handler, or another task, closes the listener.
        Returns at once if it is closed already.

        Args:
            timeout: Seconds to wait; None: forever.

        Raises:
            ValueError: ``timeout`` is not a number of seconds.
            TimeoutError: The listener was not closed in time.
            NotStartedError: The listener has not been started.
            ClosedError: A bug in asyncnotify has ended the listener; ``__cause__`` is its error.
            WrongLoopError: The call came from another event loop or process.
        """
        check_timeout("timeout", timeout)
        await self._runs.wait_ended(timeout)

    def stats(self) -> Stats:
        """
        Return a snapshot of the counters of this run, or of the last one. Never waits.

        In a fork they begin at 0 when the listener is started there.
        """
        return self._runs.stats()

    async def health(self, *, server: bool = True) -> dict[str, Any]:
        """
        Return the health of the listener as a plain dict that JSON can hold, for a health endpoint.

        ``state``, ``generation`` (how many connections there have been, without those that have
        replaced another because of its age), ``backend_pid``, ``connected_since``,
        ``last_contact_age`` (seconds since the last answer or notification of the server),
        ``heartbeat_round_trip`` (seconds), ``last_error``, ``channels_desired`` and
        ``channels_confirmed``, the counters of ``stats()``, and ``subscriptions`` with the backlog
        and drops of each. No payload and no secret.

        With ``server`` the listener also asks the server, on the listening connection:
        ``queue_usage`` (how full the notification queue of the whole server is, from 0 to 1; asking
        also frees a queue that stayed full), ``queue_holders`` (from 1 % on: the sessions that are
        in a transaction, or whose clients do not read, as far as the role may see them: those of
        other roles take ``pg_read_all_stats``) and ``server_error``, None if the server answered.
        Of ``queue_holders`` only those that listen keep the queue from being emptied, from
        PostgreSQL 19 on only those that listen on a channel that has been notified; the server does
        not tell which they are.

        The call never hangs: a server that does not answer within ``heartbeat_timeout`` is reported
        as such, and its connection is replaced. Without ``server`` the call returns at once.

        Raises:
            TypeError: ``server`` is not a bool.
            NotStartedError: The listener has not been started.
            ClosedError: The listener has been closed.
            WrongLoopError: The call came from another event loop or process.
        """
        check_flag("server", server)
        return await health_of(self._runs.running(), server=server)

    def events(self) -> EventStream:
        """Return the connection events from here on, as an asynchronous iterator."""
        return self._announcer.stream()

    # -- inside -------------------------------------------------------------------------------

    def _enlist(
        self, channels: tuple[str, ...], buffering: Buffering, *, gaps_wanted: bool
    ) -> tuple[Roster, Subscriber]:
        lifetime = self._runs.running()
        mailbox = buffering.new_mailbox(channels, lifetime.router)
        subscriber = Subscriber(channels, mailbox, gaps_wanted=gaps_wanted)
        lifetime.roster.enlist_stream(subscriber)
        return lifetime.roster, subscriber
