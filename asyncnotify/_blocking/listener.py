"""The BlockingListener: the Listener for threads. It connects the parts, and holds no logic."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from asyncnotify._arguments import (
    check_flag,
    check_on_event,
    check_pairs,
    check_retry,
    check_timeout,
)
from asyncnotify._asyncpg._parameters.dsn import Dsn
from asyncnotify._asyncpg.sqlalchemy import EngineConnect
from asyncnotify._backoff import ExponentialBackoff
from asyncnotify._blocking.events import BlockingEventStream, EventRelay
from asyncnotify._blocking.gateway import Gateway, awaitable
from asyncnotify._blocking.pairs import send_pairs
from asyncnotify._blocking.stream import BlockingStream, fetch_the_rest
from asyncnotify._blocking.subscription import BlockingSubscription, withdraw
from asyncnotify._blocking.threads import in_worker_thread
from asyncnotify._blocking.waiting import Instances
from asyncnotify._channels.arguments import channel_of, encoded
from asyncnotify._channels.channel import Channel
from asyncnotify._delivery.buffering import Buffering
from asyncnotify._errors import ClosedError
from asyncnotify._events import Closed
from asyncnotify._keepalive import Keepalive
from asyncnotify._listener import Listener
from asyncnotify._model import Gap, Notification, State, Stats
from asyncnotify._owner import OfOneProcess
from asyncnotify._sources import notify_within_thread
from asyncnotify._subscriptions.batches import DEFAULT_BATCH
from asyncnotify._subscriptions.registration import Registration
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


class BlockingListener(OfOneProcess):
    """
    A Listener for threads: the same methods without ``await``.

    It runs in an event loop in a daemon thread, which all blocking listeners and notifiers of a
    process share, and calls handlers, ``resync`` and ``on_error``, which are plain functions, in
    worker threads: those of one subscription one at a time, unless ``concurrency`` says otherwise.
    One that blocks does not delay other subscriptions. They may call every method of this class, as
    may any number of threads at once.

    ``with BlockingListener(dsn) as listener`` starts and closes it; so do ``start()`` and
    ``close()``. The constructor touches neither the network nor a thread. Calls that would block an
    event loop raise WrongLoopError: calls from coroutines, which use Listener instead, and from
    ``on_event``. So do calls in a process that was forked after the start, until ``start()`` there
    starts the listener again. Ctrl-C ends every call at once and cancels what the call was waiting
    for; all objects remain usable.

    It runs until it is closed, even if no reference to it is left. A program can exit without
    closing it: then the connections are closed, buffered notifications are discarded, and running
    handlers are stopped.

    Args:
        dsn: As for Listener.
        connect: As for Listener: an async callable, called in the event loop.
        connect_timeout: Seconds for making a connection, for each host.
        heartbeat: Seconds without traffic after which the listener asks the server whether the
            session still listens; None: never.
        heartbeat_timeout: Seconds in which the server has to answer.
        operation_timeout: Seconds in which the server has to answer LISTEN, UNLISTEN or a notify.
        keepalive: TCP keepalive for both ends; None leaves the system settings unchanged.
        backoff: As for Listener.
        max_connection_age: Seconds after which a new connection replaces the one that listens, as
            for Listener. None: never.
        start_timeout: Seconds for which ``start()`` keeps trying; None: forever.
        close_timeout: Seconds for ``close()``, unless that call gives its own.
        middleware: As for Listener: async functions, which run in the event loop's thread, around
            each call of a handler in its worker thread. They must not block.
        on_event: A plain function, called with each connection event in the event loop's thread: it
            must not block, which would delay every blocking listener and notifier of the process,
            and cannot call them. ``events()`` has no such limits.
        connect_kwargs: Further arguments of ``asyncpg.connect``.

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
        check_on_event(on_event)
        self._events = EventRelay(on_event)
        self._listener = Listener(
            dsn,
            connect=connect,
            connect_timeout=connect_timeout,
            heartbeat=heartbeat,
            heartbeat_timeout=heartbeat_timeout,
            operation_timeout=operation_timeout,
            keepalive=keepalive,
            backoff=backoff,
            max_connection_age=max_connection_age,
            start_timeout=start_timeout,
            close_timeout=close_timeout,
            middleware=middleware,
            on_event=self._events,
            **connect_kwargs,
        )
        self._gateway = Gateway(self._end, close_timeout)
        self._streams: Instances[BlockingStream[Any]] = Instances()

    @classmethod
    def from_sqlalchemy(cls, engine: Any, **options: Any) -> Self:  # noqa: ANN401 - SQLAlchemy is an extra
        """
        Return a listener that connects as this ``AsyncEngine`` of ``postgresql+asyncpg`` does.

        As ``Listener.from_sqlalchemy()``.

        Raises:
            TypeError: ``engine`` is not such an engine, or an option is not as BlockingListener
                takes it.
            ValueError: A number of seconds is not positive and finite.
        """
        return cls(connect=EngineConnect(engine), **options)

    def __repr__(self) -> str:
        return f"<Blocking{repr(self._listener)[1:]}"

    # -- lifetime -----------------------------------------------------------------------------

    def start(self) -> None:
        """
        Connect and listen; return once the server has confirmed.

        If the server does not accept connections, is starting up, is full, or is a standby, the
        listener retries until ``start_timeout``. After the first success it retries forever. While
        the listener runs, further calls only wait. After ``close()``, and in a fork of the process
        that started the listener, it starts again. A start that fails or is interrupted leaves
        nothing behind, and does not affect other calls of ``start()``.

        Raises:
            ConfigurationError: The DSN or another argument is wrong.
            ConnectError: The server refused the password, the role or the database; or the system
                has no more threads or file descriptors for an event loop.
            ConnectTimeoutError: The listener was not listening within ``start_timeout``.
            PoolerError: A pooler in front of the server would not deliver notifications.
            ClosedError: The listener was closed meanwhile.
            WrongLoopError: The call came from the thread of an event loop, or another process.
        """
        self._gateway.start(self._listener.start)

    def close(self, timeout: float | None = None) -> None:
        """
        Stop listening, let handlers finish what is buffered, and close connections and threads.

        Streams end after what they have buffered. The call returns within half a second after the
        timeout, in every state and whatever blocks. Idempotent; may be called from any thread. A
        handler, ``resync`` or ``on_error``, which the call would wait for, only begins the closing;
        so does a call in the thread of an event loop, such as that of ``on_event``, or that of a
        ``__del__`` that runs there. An interrupted call leaves the listener closing.

        Args:
            timeout: Seconds after which handlers that still run are no longer waited for, and no
                further one is called; None: ``close_timeout``.

        Raises:
            ValueError: ``timeout`` is not a number of seconds.
            WrongLoopError: The listener runs in another process.
        """
        self._gateway.close(timeout)
        if not self._gateway.has_begun:
            self._events.put(Closed())  # else whoever waits for one would wait for ever

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Close; after an exception without letting handlers finish.

        In a forked process, where there is nothing to close, an exception is raised on.
        """
        if exc_type is None:
            self.close()
        elif not self._gateway.is_of_other_process:
            self._gateway.close(end=lambda _: self._end_after(exc_type))

    # -- listening ----------------------------------------------------------------------------

    @overload
    def listen(
        self,
        channel: str,
        handler: Handler[str],
        **options: Unpack[ListenOptions],
    ) -> BlockingSubscription: ...

    @overload
    def listen(
        self,
        channel: Channel[T],
        handler: Handler[T],
        **options: Unpack[ListenOptions],
    ) -> BlockingSubscription: ...

    def listen(
        self,
        channel: str | Channel[Any],
        handler: Handler[Any],
        *,
        resync: Resync | None = None,
        on_error: OnError | None = None,
        concurrency: int = 1,
        slow_after: float | None = 30.0,
        # limits
        buffer: int | None = None,
        overflow: Overflow | None = None,
        latest: bool = False,
        timeout: float | None = 30.0,
    ) -> BlockingSubscription:
        """
        Call ``handler`` with every notification on ``channel``, in a worker thread.

        The call returns once the server has confirmed: notifications committed after that are
        delivered, or covered by a Gap. While there is no connection, the call waits for the next
        one. If the call raises or is interrupted, the subscription is removed completely.

        Args:
            channel: A name, 1 to 63 bytes of UTF-8, case-sensitive; or a Channel, which decodes the
                payloads in the event loop's thread.
            handler: A plain function. It may block: that only delays its own subscription. Its
                exceptions are logged, counted and passed to ``on_error``; the subscription
                continues. SystemExit counts as well: a worker thread cannot end the program.
            resync: A plain function, called with a Gap at the beginning and whenever notifications
                may be missing, before later notifications. If it raises, it is called again, with
                growing delays; until it has succeeded, the handler is not called.
            on_error: A plain function, called with the exception of handler or resync, and with the
                Notification or Gap that was its argument; or with a PayloadDecodeError, and the
                Notification as it arrived.
            concurrency: How many calls of the handler may run at once, each in a thread of its
                own; 1 keeps the order.
            slow_after: Seconds after which a warning names a handler or ``resync`` that has not
                returned; None: never.
            buffer: How many notifications may wait; None: 32,768.
            overflow: What happens when more wait: ``"drop_oldest"``, as for None, or
                ``"drop_newest"``, with a Gap at that place, or ``"fail"``, which ends the
                subscription.
            latest: Keep only the newest waiting notification, instead of a buffer; cannot be
                combined with ``buffer`` or ``overflow``.
            timeout: Seconds to wait for the server to confirm; None: forever.

        Raises:
            TypeError: A function is an ``async def``, which is for Listener, or cannot be called as
                it would be; or two options exclude each other.
            ValueError: A number, or ``overflow``, is not one of those allowed.
            ChannelNameError: The name is not valid for a channel.
            ChannelDirectionError: The Channel was made without ``decode``.
            ListenTimeoutError: The server did not confirm in time.
            NotStartedError: The listener has not been started.
            ClosedError: The listener has been closed.
            WrongLoopError: The call came from the thread of an event loop, or another process.
        """
        registration = Registration(
            channel=channel_of(channel),
            handler=self._in_worker_thread("handler", handler, concurrency),
            resync=self._in_worker_thread("resync", resync, 1),
            buffering=Buffering(buffer, overflow, latest),
            concurrency=concurrency,
            on_error=self._in_worker_thread("on_error", on_error),
            slow_after=slow_after,
        )
        check_timeout("timeout", timeout)
        listen = functools.partial(
            self._listener.listen,
            registration.channel,
            registration.handler,
            resync=registration.resync,
            on_error=registration.on_error,
            concurrency=concurrency,
            slow_after=slow_after,
            buffer=buffer,
            overflow=overflow,
            latest=latest,
            timeout=timeout,
        )

        async def listen_for_threads() -> BlockingSubscription:
            return BlockingSubscription(self._gateway, await listen())

        # made in the loop: once this has returned, an interrupt would lose what is not withdrawn
        return self._gateway.call(listen_for_threads, undo=withdraw)

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
        slow_after: float | None = 30.0,
        # limits
        buffer: int | None = None,
        overflow: Overflow | None = None,
        latest: bool = False,
    ) -> Callable[[Any], Any]:
        """
        Register the decorated plain function as a handler, before the start or after it.

        The arguments are those of ``listen()``. The handler serves in each run of the listener.
        ``unlisten()`` ends it.

        Raises:
            TypeError: A function is an ``async def``, which is for Listener, or cannot be called as
                it would be; or two options exclude each other.
            ValueError: A number, or ``overflow``, is not one of those allowed.
            ChannelNameError: The name is not valid for a channel.
            ChannelDirectionError: The Channel was made without ``decode``.
            ClosedError: The listener is closing.
            WrongLoopError: The call came from the thread of an event loop, or another process.
        """
        register = self._listener.on(
            channel,
            resync=self._in_worker_thread("resync", resync, 1),
            on_error=self._in_worker_thread("on_error", on_error),
            concurrency=concurrency,
            slow_after=slow_after,
            buffer=buffer,
            overflow=overflow,
            latest=latest,
        )

        def register_served(handler: Any) -> Any:  # noqa: ANN401 - the overloads say it
            self._changed(
                functools.partial(register, self._in_worker_thread("handler", handler, concurrency))
            )
            return handler

        return register_served

    def add_middleware(self, function: Middleware) -> Callable[[], None]:
        """
        Put one more async function around each call of a handler, outside of all others.

        As ``Listener.add_middleware()``, from any thread.

        Raises:
            TypeError: It is not an async function that takes a Notification and ``call_next``.
            WrongLoopError: The call came from the thread of an event loop, or another process.
        """
        removers: list[Callable[[], None]] = []
        self._changed(lambda: removers.append(self._listener.add_middleware(function)))
        return lambda: self._changed(removers[0])

    @overload
    def stream(
        self,
        *channels: str,
        gaps: Literal[False] = False,
        **options: Unpack[StreamOptions],
    ) -> BlockingStream[Notification[str]]: ...

    @overload
    def stream(
        self,
        *channels: Channel[T],
        gaps: Literal[False] = False,
        **options: Unpack[StreamOptions],
    ) -> BlockingStream[Notification[T]]: ...

    @overload
    def stream(
        self,
        *channels: str | Channel[Any],
        gaps: Literal[False] = False,
        **options: Unpack[StreamOptions],
    ) -> BlockingStream[Notification[Any]]: ...

    @overload
    def stream(
        self,
        *channels: str,
        gaps: bool,
        **options: Unpack[StreamOptions],
    ) -> BlockingStream[Notification[str] | Gap]: ...

    @overload
    def stream(
        self,
        *channels: Channel[T],
        gaps: bool,
        **options: Unpack[StreamOptions],
    ) -> BlockingStream[Notification[T] | Gap]: ...

    @overload
    def stream(
        self,
        *channels: str | Channel[Any],
        gaps: bool,
        **options: Unpack[StreamOptions],
    ) -> BlockingStream[Notification[Any] | Gap]: ...

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
    ) -> BlockingStream[Any]:
        """
        Return the notifications on one or several channels as an iterator.

        ``for n in listener.stream("orders")`` listens from its first step;
        ``with listener.stream("orders") as stream`` from the beginning of its block.
        The class of the iterator, BlockingStream, says how it ends, and how to wait with a timeout.

        Args:
            channels: One at least, each a name or a Channel, which decodes the payloads in the
                event loop's thread.
            gaps: Yield a Gap wherever notifications may be missing, the first one at once.
            on_error: A plain function, called in a worker thread with a PayloadDecodeError for
                each payload that could not be decoded, and with the Notification as it arrived.
            buffer: As for ``listen()``.
            overflow: As for ``listen()``; ``"fail"`` raises BufferOverflowError.
            latest: As for ``listen()``, for each channel.
            timeout: Seconds to wait for the server to confirm; None: forever.

        Raises:
            TypeError: No channel is given, or one in two forms; ``on_error`` is an ``async def``,
                or cannot be called as it would be; or two options exclude each other.
            ValueError: A number, or ``overflow``, is not one of those allowed.
            ChannelNameError: A name is not valid for a channel.
            ChannelDirectionError: A Channel was made without ``decode``.
        """
        new_stream: Any = self._listener.stream  # as the overloads above say
        inner = new_stream(
            *channels,
            gaps=gaps,
            on_error=in_worker_thread("on_error", on_error, self._gateway, shielded=True),
            buffer=buffer,
            overflow=overflow,
            latest=latest,
            timeout=timeout,
        )
        # of several items fetched at once, none but the last would be the newest
        limit = 1 if latest else min(buffer or DEFAULT_BATCH, DEFAULT_BATCH)
        stream: BlockingStream[Any] = BlockingStream(self._gateway, inner, limit)
        self._streams.add(stream)
        return stream

    def unlisten(self, channel: str | Channel[Any]) -> None:
        """
        End every handler and stream of a channel, those registered with ``on()`` included.

        When the call returns, no handler of the channel will be started any more, and the server
        has confirmed, or the connection is lost. A handler that is running at that moment runs to
        its end. A stream of several channels continues with its others. An interrupted call leaves
        the subscriptions ended. A listener that is not running forgets the handlers registered with
        ``on()``.

        Raises:
            ChannelNameError: ``channel`` cannot be the name of a channel.
            WrongLoopError: The call came from the thread of an event loop, or another process.
        """
        unlisten = functools.partial(self._listener.unlisten, channel)
        self._gateway.call_or(unlisten, lambda: _finish_at_once(unlisten()))

    def end_streams(self, *, also_new: bool = False) -> None:
        """
        End every open stream, after what it has buffered. Handlers, and the listener, go on.

        For a server that stops: it waits for its responses, and those that are fed by streams do
        not end by themselves. The call never waits: the streams end in the next turn of the
        listener's event loop, one that still waits for the server included. Streams of ``events()``
        go on. It may be called at any time, any number of times, from any thread, and from a signal
        handler; a listener that does not run in this process has no streams, and nothing happens.

        Args:
            also_new: End also each stream that begins later, at once, until the listener is closed:
                a request that comes in on an open connection must not keep the server from
                stopping.

        Raises:
            TypeError: ``also_new`` is not a bool.
        """
        self._listener.end_streams(also_new=also_new)

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
        it: a session that is not listening at that moment never will. It goes through a second
        connection, opened at the first call. Calls of several threads at the same time are sent
        together; a Channel encodes in the calling thread.

        After an interrupted call nobody knows whether the notification was sent.

        Args:
            channel: A name, or a Channel, which encodes the payload.
            payload: A text of 7,999 bytes at most, or what the Channel encodes.
            connection: Send the notification in the transaction of this connection instead, as
                ``BlockingNotifier.notify()`` does; the listener need not run for that.
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
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: What the driver of ``connection`` raises.
        """
        check_retry(connection, retry=retry)
        name, text = encoded(channel, payload)
        if connection is not None:
            notify_within_thread(connection, name, text)
        else:
            notify = self._listener.notify
            self._gateway.call(functools.partial(notify, name, text, retry=retry))

    def notify_many(self, pairs: Iterable[tuple[str | Channel[Any], Any]]) -> int:
        """
        Send many notifications, in their order; return how many.

        As ``BlockingNotifier.notify_many()``.

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
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: What ``pairs`` raised.
        """
        check_pairs(pairs, may_be_async=False)
        return send_pairs(self._gateway.portal, self._listener.notify_many, pairs)

    # -- state --------------------------------------------------------------------------------

    @property
    def channels(self) -> frozenset[str]:
        """The channels of all subscriptions, whether or not the server has confirmed them yet."""
        return self._gateway.look(lambda: self._listener.channels)

    @property
    def state(self) -> State:
        """What the listener is doing. Never waits; from any thread."""
        return self._listener.state

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection on which LISTEN is in effect, as far as is known."""
        return self._listener.is_connected

    def wait_connected(self, timeout: float | None = None) -> None:
        """
        Return once there is a connection on which LISTEN is in effect.

        Args:
            timeout: Seconds to wait; None: forever.

        Raises:
            ValueError: ``timeout`` is not a number of seconds.
            ConnectTimeoutError: There was no such connection in time.
            NotStartedError: The listener has not been started.
            ClosedError: The listener has been closed.
            WrongLoopError: The call came from the thread of an event loop, or another process.
        """
        check_timeout("timeout", timeout)
        self._gateway.call(functools.partial(self._listener.wait_connected, timeout))

    def wait_closed(self, timeout: float | None = None) -> None:
        """
        Return when the listener has been closed: by ``close()``, or at the end of ``with``.

        For a program that only listens: a signal handler, or another thread, closes the listener.
        Returns at once if it is closed already.

        Args:
            timeout: Seconds to wait; None: forever.

        Raises:
            ValueError: ``timeout`` is not a number of seconds.
            TimeoutError: The listener was not closed in time.
            NotStartedError: The listener has not been started.
            ClosedError: A bug in asyncnotify has ended the listener; ``__cause__`` is its error.
            WrongLoopError: The call came from the thread of an event loop, or another process.
        """
        check_timeout("timeout", timeout)
        try:
            self._gateway.call(functools.partial(self._listener.wait_closed, timeout))
        except ClosedError as error:
            if error.__cause__ is not None:
                raise

    def stats(self) -> Stats:
        """Return a snapshot of the counters of this run, or of the last one; from any thread."""
        return self._gateway.look(self._listener.stats)

    def health(self, *, server: bool = True) -> dict[str, Any]:
        """
        Return the health of the listener as a plain dict that JSON can hold, for a health endpoint.

        ``Listener.health()`` says what the dict contains. The call never hangs: a server that does
        not answer within ``heartbeat_timeout`` is reported as such.

        Raises:
            TypeError: ``server`` is not a bool.
            NotStartedError: The listener has not been started.
            ClosedError: The listener has been closed.
            WrongLoopError: The call came from the thread of an event loop, or another process.
        """
        check_flag("server", server)
        return self._gateway.call(functools.partial(self._listener.health, server=server))

    def events(self) -> BlockingEventStream:
        """Return the connection events from here on, as an iterator for any thread."""
        return self._events.stream(self._gateway)

    # -- inside -------------------------------------------------------------------------------

    def _in_worker_thread(self, name: str, function: object, limit: int | None = None) -> Any:  # noqa: ANN401 - None stays None
        return in_worker_thread(name, function, self._gateway, limit=limit)

    def _changed(self, change: Callable[[], object]) -> None:
        """Make a change where nothing else changes: in the loop, or before there is one."""
        self._gateway.call_or(awaitable(change), change)

    async def _end(self, seconds: float) -> None:
        await self._listener.aclose(seconds)
        await self._end_streams()

    async def _end_after(self, exc_type: type[BaseException]) -> None:
        await self._listener.__aexit__(exc_type, None, None)
        await self._end_streams()

    async def _end_streams(self) -> None:
        for stream in self._streams:
            await fetch_the_rest(stream)


def _finish_at_once(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that does not wait, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
