"""The Listener: what users hold in their hands. It wires the parts, and holds no logic."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable, Callable, Iterable
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from asyncnotify._arguments import check_callable, check_callbacks, check_timeout, is_async
from asyncnotify._asyncpg.dial import Dialer, check_connect_arguments
from asyncnotify._asyncpg.listening import ListeningConnections
from asyncnotify._asyncpg.publishing import OwnConnections
from asyncnotify._asyncpg.sqlalchemy import EngineConnect
from asyncnotify._backoff import ExponentialBackoff
from asyncnotify._channels.arguments import channel_of, channels_of, encoded, name_of
from asyncnotify._channels.channel import Channel
from asyncnotify._connection.limits import Limits
from asyncnotify._delivery.buffering import Buffering
from asyncnotify._delivery.registry import Subscriber
from asyncnotify._errors import ClosedError, NotStartedError
from asyncnotify._events import Announcer, EventStream
from asyncnotify._keepalive import Keepalive
from asyncnotify._model import Gap, Notification, State, Stats
from asyncnotify._notifier import ListenersNotifier
from asyncnotify._owner import leave_to_parent
from asyncnotify._publishing.limits import PublishingLimits
from asyncnotify._run.lifetime import Lifetime
from asyncnotify._run.report import health_of
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


class Listener:
    """
    Listens on channels of one PostgreSQL database, for ever, and tells what it may have missed.

    It holds one connection of its own. When that is lost, it makes another, listens again on
    every channel, and puts a Gap at that place of every subscription.

    ``async with Listener(dsn) as listener`` starts and closes it; ``start()`` and ``aclose()``
    do so from different tasks. Making one touches neither the network nor an event loop. All
    methods are to be called from the event loop that started it, by any number of tasks.

    Args:
        dsn: ``postgresql://user:password@host:port/database``, with several hosts if wanted;
            ``postgresql+asyncpg://`` as well. Without one, PGHOST and the like say where.
        connect: An async callable that returns a fresh ``asyncpg.Connection``; it is called for
            every connection, and excludes ``dsn`` and ``connect_kwargs``.
        connect_timeout: Seconds for making a connection, for each host.
        heartbeat: Seconds of silence after which the server is asked whether it is there and
            still listens for us. None: never ask; a connection that dies without a FIN or RST
            is then noticed by TCP alone, if at all.
        heartbeat_timeout: Seconds in which it has to answer.
        operation_timeout: Seconds in which LISTEN, UNLISTEN or a notify has to be answered.
        keepalive: TCP keepalive for both ends; None leaves it as it is.
        backoff: Called at the beginning of each outage; returns an endless iterator of the
            seconds to wait before each attempt.
        start_timeout: Seconds for which ``start()`` keeps trying.
        close_timeout: Seconds for ``aclose()``, unless that is given others.
        on_event: Called with each connection event, from the event loop; must not block.
        connect_kwargs: Anything else that ``asyncpg.connect`` takes: ``user``, ``password`` (a
            callable is asked for every connection), ``ssl``, ``server_settings``, …

    Raises:
        TypeError: An argument is unknown, or excluded by ``connect``.
        ValueError: A number of seconds is not positive.
    """

    def __init__(
        self,
        dsn: str | None = None,
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
        # limits
        start_timeout: float = 30.0,
        close_timeout: float = 5.0,
        on_event: OnEvent | None = None,
        **connect_kwargs: Any,  # noqa: ANN401 - as asyncpg.connect takes them
    ) -> None:
        check_callable("backoff", backoff)
        check_callbacks(on_event=on_event)
        _refuse_async(on_event)
        self._limits = Limits(
            connect_timeout=connect_timeout,
            heartbeat=heartbeat,
            heartbeat_timeout=heartbeat_timeout,
            operation_timeout=operation_timeout,
            start_timeout=start_timeout,
            close_timeout=close_timeout,
        )
        check_connect_arguments(dsn, connect, connect_kwargs)
        self._dialer = Dialer(dsn, connect, connect_kwargs, timeout=connect_timeout)
        self._backoff = backoff
        self._keepalive = keepalive
        self._announcer = Announcer(self._dialer.target, on_event)
        self._registrations: dict[Registration, None] = {}
        self._lifetime: Lifetime | None = None
        self._notifier = self._new_notifier()

    def _new_notifier(self) -> ListenersNotifier:
        """Return what sends in the next run, on a connection that is not the listening one."""
        seconds = self._limits.operation_timeout
        return ListenersNotifier(
            OwnConnections(self._dialer, self._keepalive, timeout=seconds),
            PublishingLimits(
                connect_timeout=self._limits.connect_timeout,
                operation_timeout=seconds,
                start_timeout=self._limits.start_timeout,
                close_timeout=self._limits.close_timeout,
            ),
            self._backoff,
        )

    @classmethod
    def from_sqlalchemy(cls, engine: Any, **options: Any) -> Self:  # noqa: ANN401 - SQLAlchemy is an extra
        """
        Return a listener that connects as this ``AsyncEngine`` of ``postgresql+asyncpg`` does.

        With its URL, its ``connect_args`` and its ``do_connect`` events, asked for anew at each
        connection. The connection is the listener's own: nothing is taken from the engine's
        pool, which would reset it.

        Args:
            engine: The engine, as ``create_async_engine()`` returns it.
            options: As for the Listener, without what says where to connect.

        Raises:
            TypeError: It is no such engine.
        """
        return cls(connect=EngineConnect(engine), **options)

    def __repr__(self) -> str:
        return f"<Listener {self._dialer.target} {self.state}>"

    # -- lifetime -----------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Connect and listen; return once the server has confirmed.

        A server that refuses, is starting up, is full, or a standby is tried again until
        ``start_timeout``. After this has succeeded once, everything is tried again for ever.
        While the listener runs, further calls only wait. Cancelling it leaves nothing behind.
        In a fork of the process that started it, it starts anew, and the parent's goes on.

        Raises:
            ConfigurationError: The DSN or another argument is wrong.
            ConnectError: The server refused the password, the role or the database.
            ConnectTimeoutError: Not listening within ``start_timeout``.
            ClosedError: It was closed meanwhile.
            WrongLoopError: It runs in another event loop.
        """
        if self._run_here is not None:
            await self._running().wait_started()
            return
        if self._is_fork:
            leave_to_parent(self._lifetime, self._notifier)
        self._notifier = self._new_notifier()
        self._lifetime = Lifetime(
            ListeningConnections(
                self._dialer, self._keepalive, timeout=self._limits.command_timeout
            ),
            self._notifier,
            self._limits,
            backoff=self._backoff,
            announcer=self._announcer,
        )
        await self._lifetime.start(self._registrations)

    async def aclose(self, timeout: float | None = None) -> None:
        """
        Stop listening, let handlers finish what is buffered, and close the connections.

        Streams end after what they have buffered. At the timeout, which is ``close_timeout``
        unless one is given here, in seconds, handlers that still run are cancelled. Idempotent;
        may be called from any task, a handler included, and in every state. Cancelling it
        closes at once, without waiting for handlers.

        Raises:
            WrongLoopError: The listener runs in another event loop or process.
        """
        check_timeout("timeout", timeout)
        if self._lifetime is not None and not self._lifetime.has_ended:
            self._lifetime.owner.check()
            seconds = self._limits.close_timeout if timeout is None else timeout
            await self._lifetime.end(drain=True, timeout=seconds)

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
        elif self._lifetime is not None and not self._lifetime.has_ended:
            self._lifetime.owner.check()
            await self._lifetime.end(drain=False, timeout=self._limits.close_timeout)

    # -- listening ----------------------------------------------------------------------------

    @overload
    async def listen(
        self,
        channel: str,
        handler: Handler[str],
        **options: Unpack[ListenOptions],
    ) -> Subscription: ...

    @overload
    async def listen(
        self,
        channel: Channel[T],
        handler: Handler[T],
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
        # limits
        buffer: int | None = None,
        overflow: Overflow | None = None,
        latest: bool = False,
        timeout: float | None = 30.0,
    ) -> Subscription:
        """
        Call ``handler`` with every notification on ``channel``.

        It returns once the server has confirmed: what is committed after that is handed over,
        or covered by a Gap. While there is no connection it waits for the next one. If it
        raises or is cancelled, the subscription is withdrawn whole.

        Args:
            channel: Its name, 1 to 63 bytes of UTF-8, case-sensitive; or a Channel, which
                decodes the payloads. One that cannot be decoded is counted, logged without its
                content, and handed to ``on_error`` instead of the handler.
            handler: An ``async def`` or a plain function. It is called by a task of this
                subscription's own: a slow handler delays no other. What it raises is logged,
                counted and handed to ``on_error``; it goes on.
            resync: Called with a Gap at the beginning and wherever notifications may be
                missing, before what follows the Gap. If it raises it is called again, with
                growing delays; until it has succeeded the handler is not called.
            on_error: Called with what handler or resync raised, and with the Notification or
                Gap it was given; or with a PayloadDecodeError, and the Notification as it
                arrived.
            concurrency: How many calls of the handler may run at once; 1 keeps the order.
            buffer: How many notifications may wait; None: 32,768.
            overflow: What to do when more wait: ``"drop_oldest"``, as for None, or
                ``"drop_newest"``, with a Gap at that place, or ``"fail"``, which ends the
                subscription.
            latest: Keep only the newest notification that waits, instead of a buffer: neither
                ``buffer`` nor ``overflow`` may be given then.
            timeout: Seconds to wait for the server; None: for ever.

        Raises:
            ChannelNameError: The server would refuse or cut the name.
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
        )
        lifetime = self._running()
        worker = registration.new_worker(lifetime.router)
        await lifetime.roster.serve(worker, timeout)
        return Subscription(lifetime.roster, registration.channel.name, worker)

    @overload
    def on(
        self,
        channel: str,
        **options: Unpack[HandlerOptions],
    ) -> Callable[[HandlerT], HandlerT]: ...

    @overload
    def on(
        self,
        channel: Channel[T],
        **options: Unpack[HandlerOptions],
    ) -> Callable[[Callable[[Notification[T]], ResultT]], Callable[[Notification[T]], ResultT]]: ...

    def on(
        self,
        channel: str | Channel[Any],
        *,
        resync: Resync | None = None,
        on_error: OnError | None = None,
        concurrency: int = 1,
        # limits
        buffer: int | None = None,
        overflow: Overflow | None = None,
        latest: bool = False,
    ) -> Callable[[Any], Any]:
        """
        Register the decorated function as a handler, before the start or after it.

        The arguments are those of ``listen()``. Before the start it may be called from
        anywhere; the handler is then served each time the listener runs. ``unlisten()`` ends it.

        Raises:
            ChannelNameError: The server would refuse or cut the name.
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
            )
            if self._run_here is not None:
                lifetime = self._running()
                lifetime.roster.serve_soon(registration.new_worker(lifetime.router))
            self._registrations[registration] = None
            return handler

        return register

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
        The iterator's class, Stream, says how it ends.

        Args:
            channels: At least one, each a name or a Channel, which decodes the payloads.
            gaps: Yield a Gap wherever notifications may be missing, the first one at once.
            on_error: Called with a PayloadDecodeError for each payload that could not be
                decoded, and with the Notification as it arrived. The stream goes on.
            buffer: As for ``listen()``.
            overflow: As for ``listen()``; ``"fail"`` raises BufferOverflowError.
            latest: As for ``listen()``, for each channel.
            timeout: Seconds to wait for the server to confirm; None: for ever.

        Raises:
            ChannelNameError: The server would refuse or cut a name.
            TypeError: No channel is given.
        """
        if not channels:
            msg = "stream() needs at least one channel"
            raise TypeError(msg)
        check_callbacks(on_error=on_error)
        meant = channels_of(channels)
        return Stream(
            functools.partial(
                self._enlist, tuple(meant), Buffering(buffer, overflow, latest), gaps_wanted=gaps
            ),
            tuple(meant.values()),
            gaps=gaps,
            on_error=on_error,
            timeout=timeout,
        )

    async def unlisten(self, channel: str | Channel[Any]) -> None:
        """
        End every handler and stream of a channel, those registered with ``on()`` included.

        When it returns, no handler of it will be started any more, and the server has
        confirmed, or the connection is gone. A stream of several channels goes on with its
        others. Cancelling the call leaves the subscriptions ended. A listener that does not run
        forgets what ``on()`` has registered.

        Raises:
            ChannelNameError: This cannot be a channel.
            WrongLoopError: The call came from another event loop or process.
        """
        name = name_of(channel)
        running = self._lifetime is not None and not self._lifetime.has_ended
        lifetime = self._running() if running else None
        self._registrations = {r: None for r in self._registrations if r.channel.name != name}
        if lifetime is not None:
            await lifetime.roster.unlisten(name)

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
        Send a notification to everyone listening on ``channel``, as a Notifier does.

        It returns once the server has committed it. Nobody need have received it: a session
        that is not listening at that moment never will. It goes through a second connection,
        opened at the first call. Calls that meet are sent together, in the order they came.

        Cancelling it leaves unknown whether it was sent.

        Args:
            channel: A name, or a Channel, which encodes the payload.
            payload: A text of 7,999 bytes at most, or what the Channel encodes.
            connection: Send it in the transaction of this connection instead, as
                ``Notifier.notify()`` does; the listener need not run for that.
            retry: Try again after a lost connection or a failed attempt to connect, for 30
                seconds. It may then arrive twice.

        Raises:
            ChannelNameError: The server would refuse the name.
            PayloadError: The payload holds NUL or a lone surrogate, or its Channel cannot
                encode it.
            PayloadTooLargeError: The payload is over 7,999 bytes.
            ConnectError: There is no connection: it was not sent.
            ConnectionLostError: The connection died in flight: it may have been sent.
            NotStartedError: The listener has not been started.
            ClosedError: The listener has been closed.
            WrongLoopError: The call came from another event loop or process.
            TypeError: ``connection`` is of another kind, or combined with ``retry``.
        """
        name, text = encoded(channel, payload)
        if connection is None:
            self._running()
        await self._notifier.notify(name, text, connection=connection, retry=retry)

    async def notify_many(
        self,
        pairs: Iterable[tuple[str | Channel[Any], Any]] | AsyncIterable[tuple[Any, Any]],
    ) -> int:
        """
        Send many notifications, in their order; return how many. As ``Notifier.notify_many()``.

        Raises:
            Exception: What ``notify()`` raises, or what ``pairs`` raised.
        """
        self._running()
        return await self._notifier.notify_many(pairs)

    # -- looking at it ------------------------------------------------------------------------

    @property
    def channels(self) -> frozenset[str]:
        """The channels that are asked for, whether or not the server has confirmed them yet."""
        if (run := self._run_here) is not None:
            return run.roster.channels
        return frozenset(registration.channel.name for registration in self._registrations)

    @property
    def state(self) -> State:
        """What the listener is doing in this process: in a fork it is NEW until it is started."""
        return State.NEW if self._lifetime is None or self._is_fork else self._lifetime.state

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection and LISTEN is in force, as far as anybody knows."""
        return self.state is State.CONNECTED

    async def wait_connected(self, timeout: float | None = None) -> None:
        """
        Return once there is a connection and LISTEN is in force.

        Args:
            timeout: Seconds to wait; None: for ever.

        Raises:
            ConnectTimeoutError: There was none in time.
            NotStartedError: The listener has not been started.
            ClosedError: The listener has been closed.
            WrongLoopError: The call came from another event loop or process.
        """
        await self._running().wait_connected(timeout)

    def stats(self) -> Stats:
        """
        Return a snapshot of the counters of this run, or of the last one. Never waits.

        In a fork there has been none until the listener is started there.
        """
        return Stats() if self._lifetime is None or self._is_fork else self._lifetime.stats()

    async def health(self, *, server: bool = True) -> dict[str, Any]:
        """
        Return how the listener is, as a plain dict that JSON can hold, for a health endpoint.

        ``state``, ``generation`` (how many connections there have been), ``backend_pid``,
        ``connected_since``, ``last_contact_age`` (seconds since the server was last heard),
        ``heartbeat_round_trip`` (seconds), ``last_error``, ``channels_desired`` and
        ``channels_confirmed``, the counters of ``stats()``, and ``subscriptions`` with the
        backlog and drops of each. No payload and no secret.

        With ``server`` it also asks the server, on the listening connection:
        ``queue_usage`` (how full the notification queue of the whole server is, from 0 to 1;
        asking also frees a queue that stayed full), ``queue_holders`` (from 1 % on: the sessions
        that may keep it from being emptied, as far as the role may see them: those of others
        take ``pg_read_all_stats``) and ``server_error``, None if it answered.

        It never hangs: a server that does not answer within ``heartbeat_timeout`` is reported
        as such, and its connection is replaced. Without ``server`` it returns at once.

        Raises:
            NotStartedError: The listener has not been started.
            ClosedError: The listener has been closed.
            WrongLoopError: The call came from another event loop or process.
        """
        return await health_of(self._running(), server=server)

    def events(self) -> EventStream:
        """Return the connection events from here on, as an asynchronous iterator."""
        return self._announcer.stream()

    # -- inside -------------------------------------------------------------------------------

    @property
    def _is_fork(self) -> bool:
        """Whether the last run was begun by the process of which this one is a fork."""
        return self._lifetime is not None and self._lifetime.owner.is_other_process

    @property
    def _run_here(self) -> Lifetime | None:
        """The present run of this process, in whatever event loop."""
        run = self._lifetime
        return None if run is None or run.has_ended or self._is_fork else run

    def _running(self) -> Lifetime:
        """Return the present run; raise if there is none, or if it belongs elsewhere."""
        if self._lifetime is None:
            msg = "the listener has not been started: use `async with` or `await start()`"
            raise NotStartedError(msg)
        if self._lifetime.has_ended and not self._is_fork:
            msg = "the listener is closed"
            raise ClosedError(msg)
        self._lifetime.owner.check()
        return self._lifetime

    def _enlist(
        self, channels: tuple[str, ...], buffering: Buffering, *, gaps_wanted: bool
    ) -> tuple[Roster, Subscriber]:
        lifetime = self._running()
        mailbox = buffering.new_mailbox(channels, lifetime.router)
        subscriber = Subscriber(channels, mailbox, gaps_wanted=gaps_wanted)
        lifetime.roster.enlist(subscriber)
        return lifetime.roster, subscriber


def _refuse_async(on_event: object) -> None:
    if is_async(on_event):
        msg = "on_event must be a plain function: it is called, and not awaited"
        raise TypeError(msg)
