"""The Log, which connects the parts and holds no logic of its own."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypeVar, overload
from uuid import UUID

import asyncpg

from asyncnotify import Channel, ExponentialBackoff, Gap, Keepalive, Listener
from asyncnotify._arguments import (
    check_backoff,
    check_callbacks,
    check_count,
    check_flag,
    check_kind,
    check_seconds,
    check_timeout,
)
from asyncnotify._asyncpg.dial import Dialer, check_connect_arguments
from asyncnotify._asyncpg.sqlalchemy import EngineConnect
from asyncnotify._asyncpg.transactions import Call, call_within
from asyncnotify._channels.arguments import channels_of
from asyncnotify._owner import leave_to_parent
from asyncnotify.log._calls import append_call
from asyncnotify.log._consuming.consumer import Consumer
from asyncnotify.log._consuming.handler import EventHandler, Handling, check_event_handler
from asyncnotify.log._entries import Entry, entry_of
from asyncnotify.log._errors import LogNameError, UnknownConsumerError
from asyncnotify.log._names import Names, check_consumer_name, check_log_name
from asyncnotify.log._portions import in_portions
from asyncnotify.log._reading.stream import After, LogStream, check_after
from asyncnotify.log._retry import Retry
from asyncnotify.log._runtime import Options, Runtime
from asyncnotify.log._schema.installing import install
from asyncnotify.log._schema.privileges import grants_to_append, grants_to_consume
from asyncnotify.log._schema.settings import Settings
from asyncnotify.log._schema.versions import statements_of
from asyncnotify.log._sessions import OwnSessions, PooledSessions, Sessions, session_of
from asyncnotify.log._status import DeadLetter, LogStatus
from asyncnotify.log._values import Event
from asyncnotify.typing import Backoff, Connect, Dsn

T = TypeVar("T")
Pool: TypeAlias = "asyncpg.Pool[Any]"
Wake: TypeAlias = Literal["commit", "after", "poll"]
"""How consumers learn of new events: see ``Log``."""

_DEFAULT_BACKOFF = ExponentialBackoff()
_DEFAULT_KEEPALIVE = Keepalive()
_DEFAULT_RETRY = Retry()
HandlerT = TypeVar("HandlerT", bound=EventHandler)


class Log:
    """
    A durable log in a PostgreSQL database: events in rows, which all readers see in one order.

    Nothing touches the network or an event loop in the constructor. Any number of tasks of one
    event loop may call the methods.

    Args:
        name: 1 to 40 of a-z, 0-9 and ``_``, with a letter at the beginning. A database may have
            several logs.
        dsn: As for Listener.
        pool: An asyncpg pool, from which connections are borrowed.
        connect: An async callable that returns a fresh ``asyncpg.Connection``. One of ``dsn``,
            ``pool`` and ``connect`` may be given.
        wake: ``"commit"``: a NOTIFY in the appending transaction wakes those who read.
            ``"after"``: a NOTIFY is sent after the commit, by a connection of its own, so that
            appending transactions do not wait for each other at their commit; call ``wake()``
            after the commit of a transaction of your own. ``"poll"``: none is sent; those who read
            look for new events at their interval.
        listener: A running Listener of this database, which wakes those who read. None: one of the
            log's own, which begins when somebody reads; with ``pool`` there is none.
        poll: Seconds after which those who read look for new events, woken or not.
        backoff: As for Listener; of those who read.
        connect_timeout: Seconds for making or borrowing a connection, for each host.
        operation_timeout: Seconds in which the server has to answer a statement.
        keepalive: TCP keepalive for both ends, of connections that are not from a pool.
        close_timeout: Seconds for ``aclose()``, unless that call gives its own.
        connect_kwargs: Further arguments of ``asyncpg.connect``.

    Raises:
        LogNameError: No log can have this name.
        TypeError: An argument is unknown or of the wrong type, or another one excludes it.
        ValueError: A number is not positive and finite, or ``wake`` is none of the three.
    """

    def __init__(
        self,
        name: str,
        dsn: Dsn | None = None,
        *,
        # connection
        pool: Pool | None = None,
        connect: Connect | None = None,
        connect_timeout: float = 10.0,
        operation_timeout: float = 30.0,
        keepalive: Keepalive | None = _DEFAULT_KEEPALIVE,
        # waking
        wake: Wake = "commit",
        listener: Listener | None = None,
        poll: float = 5.0,
        # reconnection
        backoff: Backoff = _DEFAULT_BACKOFF,
        # limits
        close_timeout: float = 5.0,
        **connect_kwargs: Any,  # noqa: ANN401 - as asyncpg.connect takes them
    ) -> None:
        self._names = Names(check_log_name(name))
        _check_wake(wake)
        check_seconds("connect_timeout", connect_timeout)
        check_seconds("operation_timeout", operation_timeout)
        check_seconds("close_timeout", close_timeout)
        check_seconds("poll", poll)
        check_kind("keepalive", keepalive, Keepalive)
        check_kind("listener", listener, Listener)
        check_backoff(backoff)
        sessions: Sessions
        new_listener: Callable[[], Listener] | None = None
        if pool is None:
            check_connect_arguments(dsn, connect, connect_kwargs)
            check_callbacks(connect=connect)
            dialer = Dialer(dsn, connect, connect_kwargs, timeout=connect_timeout)
            sessions = OwnSessions(dialer, keepalive, name, operation_timeout)
            new_listener = functools.partial(
                Listener, dsn, connect=connect, keepalive=keepalive, **connect_kwargs
            )
        else:
            if dsn is not None or connect is not None or connect_kwargs:
                msg = "pool= makes the connections: nothing else may say how"
                raise TypeError(msg)
            sessions = PooledSessions(pool, name, operation_timeout, connect_timeout)
        self._sessions = sessions
        self._wake: Wake = wake
        self._close_timeout = close_timeout
        self._runtime: Runtime | None = None
        self._handlings: dict[str, Handling] = {}
        self._options = Options(
            self._names,
            sessions,
            listener,
            new_listener,
            wakes_on_commit=wake == "commit",
            poll=poll,
            backoff=backoff,
        )

    @classmethod
    def from_sqlalchemy(cls, name: str, engine: Any, **options: Any) -> Self:  # noqa: ANN401 - SQLAlchemy is an extra
        """
        Return a log that connects as this ``AsyncEngine`` of ``postgresql+asyncpg`` does.

        As ``Listener.from_sqlalchemy()``. To append within a transaction of the engine, pass the
        connection or the session to ``append()``.

        Raises:
            LogNameError: No log can have this name.
            TypeError: ``engine`` is not such an engine, or an option is not as Log takes it.
            ValueError: An option is not as Log takes it.
        """
        return cls(name, connect=EngineConnect(engine), **options)

    def __repr__(self) -> str:
        return f"<Log {self.name!r} {self._sessions.target}>"

    @property
    def name(self) -> str:
        """The name of the log."""
        return self._names.log

    # -- installing ---------------------------------------------------------------------------

    async def install(
        self,
        *,
        retention: timedelta | None = None,
        limit: timedelta | None = None,
        ring: int | None = None,
    ) -> None:
        """
        Make the log in the database, or bring it to the version of this library.

        Idempotent, all or nothing; several processes may do it at once, and others may append
        meanwhile. Needs the right to create a schema, or to own the schema ``asyncnotify``.

        Args:
            retention: How long events are kept at least. None: as it is; 7 days for a new log.
            limit: How long events are kept at most where a consumer has not got so far; None:
                until every consumer has. Heeded together with ``retention``.
            ring: In how many partitions, 3 to 64; of a new log only. None: 8.

        Raises:
            ValueError: A setting is out of its bounds.
            LogError: Other tables bear the names that the log needs.
            SchemaVersionError: The log was installed by a newer version of asyncnotify.
            ConnectError: There is no connection.
            ConnectionLostError: The connection died: the log may have been installed.
            asyncpg.PostgresError: The server refused a statement.
        """
        wanted = _settings(retention, limit, ring)
        async with session_of(self._sessions) as session:
            await session.run(install(session.connection, self.name, wanted))

    def statements(
        self,
        *,
        since: int = 0,
        retention: timedelta | None = None,
        limit: timedelta | None = None,
        ring: int | None = None,
    ) -> list[str]:
        """
        Return what ``install()`` executes, for a migration: to be run in one transaction.

        Args:
            since: The version of the schema that is there; 0: none.
            retention: As for ``install()``; None: 7 days.
            limit: As for ``install()``.
            ring: As for ``install()``.

        Raises:
            ValueError: A setting is out of its bounds.
        """
        wanted = _settings(retention, limit, ring) or Settings()
        return statements_of(self.name, wanted, since=since)

    def grants(self, *, append: Iterable[str] = (), consume: Iterable[str] = ()) -> list[str]:
        """
        Return the statements that give roles the rights to append, or to read and consume.

        One who appends can neither read events nor set their place in the order; one who consumes
        cannot append.

        Args:
            append: Names of roles that append.
            consume: Names of roles that read and consume.
        """
        statements: list[str] = []
        for role in append:
            statements.extend(grants_to_append(self._names, role))
        for role in consume:
            statements.extend(grants_to_consume(self._names, role))
        return statements

    async def expire(self) -> int:
        """
        Remove events that are older than the log keeps; return how many partitions were emptied.

        Whoever consumes the log does so by itself, about once a minute. Never waits for a lock, and
        no append waits for it.

        Raises:
            NotInstalledError: The database has no such log.
            ConnectError: There is no connection.
            ConnectionLostError: The connection died.
            StandbyError: The server is a standby.
            WrongLoopError: The call came from another event loop or process.
            asyncpg.PostgresError: The server refused a statement.
        """
        return await self._running().expire()

    # -- lifetime -----------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Have the handlers called that ``on()`` has registered; return once their consumers exist.

        Appending and reading need no start. While it runs, further calls do nothing.

        Raises:
            NotInstalledError: The database has no such log.
            ConnectError: There is no connection.
            ConnectionLostError: The connection died.
            PoolerError: A pooler is in between.
            WrongLoopError: The log is used by another event loop.
            asyncpg.PostgresError: The server refused a statement.
        """
        runtime = self._running()
        if runtime.is_started:
            return
        runtime.is_started = True
        try:
            for handling in self._handlings.values():
                await runtime.register(handling.consumer, handling.begin)
        except BaseException:
            runtime.is_started = False
            raise
        for handling in self._handlings.values():
            runtime.serve(handling)

    async def aclose(self, timeout: float | None = None) -> None:
        """
        Append what has been accepted, and close the connections.

        Idempotent. Cancelling the call closes at once.

        Args:
            timeout: Seconds after which what is not appended is given up; None: ``close_timeout``.

        Raises:
            ValueError: ``timeout`` is not a number of seconds.
            WrongLoopError: The log is used by another event loop or process.
        """
        check_timeout("timeout", timeout)
        runtime = self._runtime
        if runtime is None or runtime.owner.loop.is_closed():
            return
        runtime.owner.check()
        self._runtime = None
        await runtime.aclose(self._close_timeout if timeout is None else timeout)

    async def __aenter__(self) -> Self:
        if self._handlings:
            await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # -- appending ----------------------------------------------------------------------------

    @overload
    async def append(
        self,
        channel: str,
        payload: str = "",
        *,
        key: str | None = ...,
        headers: Mapping[str, str] | None = ...,
        connection: object = ...,
    ) -> UUID: ...

    @overload
    async def append(
        self,
        channel: Channel[T],
        payload: T,
        *,
        key: str | None = ...,
        headers: Mapping[str, str] | None = ...,
        connection: object = ...,
    ) -> UUID: ...

    async def append(
        self,
        channel: str | Channel[Any],
        payload: object = "",
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        connection: object = None,
    ) -> UUID:
        """
        Append an event; return its id.

        With ``connection`` the event is part of the caller's transaction: it is there once that
        commits, and never if that rolls back. Without, the call returns once the event has been
        committed; calls that meet share a transaction, and each gets the result of its own.

        After a cancelled call without ``connection`` nobody knows whether the event was appended.

        Args:
            channel: A name, or a Channel, which encodes the payload.
            payload: A text, or what the Channel encodes; up to 256 MiB. One that compresses takes
                256 KiB.
            key: What the event is about, up to 1,024 bytes.
            headers: Texts by name, up to 64 KiB in all.
            connection: An asyncpg Connection (also one acquired from a pool), SQLAlchemy's
                AsyncConnection or AsyncSession, or psycopg's AsyncConnection. There is no deadline
                but those of the connection.

        Raises:
            ChannelNameError: The name is empty, over 63 bytes, or holds NUL or a lone surrogate.
            EntryError: The key or the headers cannot be stored.
            PayloadError: The payload cannot be encoded, or holds NUL or a lone surrogate.
            PayloadTooLargeError: The payload is too large.
            TypeError: ``connection`` is of another kind.
            NotInstalledError: The database has no such log.
            ConnectError: There is no connection: nothing was appended.
            ConnectionLostError: The connection died in flight: it may have been appended.
            StandbyError: The server is a standby.
            ClosedError: The log has been closed meanwhile.
            WrongLoopError: The call came from another event loop or process.
            Exception: What the server, or the driver of ``connection``, raises.
        """
        entry = entry_of(channel, payload, key, headers)
        await self._append([entry], connection)
        return entry.id

    async def append_many(
        self,
        events: Iterable[tuple[Any, ...]] | AsyncIterable[tuple[Any, ...]],
        *,
        connection: object = None,
    ) -> int:
        """
        Append many events, in their order; return how many.

        One statement for up to 1,000 events or 1 MiB. Without ``connection`` each of these is a
        transaction; the first failure ends the call, and a note on the exception says how many
        events have been appended before.

        Args:
            events: An iterable, or an asynchronous one, of tuples: channel and payload, and then
                the key and the headers where there are any, as ``append()`` takes them.
            connection: As for ``append()``: all events are part of its transaction.

        Raises:
            TypeError: ``events`` cannot be iterated over, or an element is not such a tuple.
            Exception: As of ``append()``, and what ``events`` raised.
        """
        appended = 0
        try:
            async for portion in in_portions(events):
                await self._append(portion, connection)
                appended += len(portion)
        except Exception as error:
            error.add_note(f"{appended} events before it have been appended")
            raise
        return appended

    async def wake(self) -> None:
        """
        Wake those who read the log, by a NOTIFY; for use after a commit with ``wake="after"``.

        Returns at once: the notification is sent by a task, calls that meet send one.

        Raises:
            WrongLoopError: The call came from another event loop or process.
        """
        self._running().wake_readers()

    # -- reading ------------------------------------------------------------------------------

    @overload
    def read(
        self, *channels: str, after: After = ..., gaps: Literal[False] = False
    ) -> LogStream[Event[str]]: ...

    @overload
    def read(
        self, *channels: Channel[T], after: After = ..., gaps: Literal[False] = False
    ) -> LogStream[Event[T]]: ...

    @overload
    def read(
        self, *channels: str | Channel[Any], after: After = ..., gaps: Literal[False] = False
    ) -> LogStream[Event[Any]]: ...

    @overload
    def read(
        self, *channels: str, after: After = ..., gaps: bool
    ) -> LogStream[Event[str] | Gap]: ...

    @overload
    def read(
        self, *channels: Channel[T], after: After = ..., gaps: bool
    ) -> LogStream[Event[T] | Gap]: ...

    @overload
    def read(
        self, *channels: str | Channel[Any], after: After = ..., gaps: bool
    ) -> LogStream[Event[Any] | Gap]: ...

    def read(
        self, *channels: str | Channel[Any], after: After = "now", gaps: bool = False
    ) -> LogStream[Any]:
        """
        Return the events of some channels, in the order of the log, as an asynchronous iterator.

        First those that are there, then new ones as they are committed: nothing is missed and
        nothing comes twice. The server keeps nothing of a reader; to go on later, keep
        ``event.position``.

        Args:
            channels: Names, or Channels, which decode the payloads. None: all, as texts.
            after: Where to begin: behind an event, by its Position; before all that was committed
                at a time, an aware datetime, or later; ``"start"``: before all events that are
                kept; ``"now"``: behind all that are committed when the reader begins.
            gaps: Yield a Gap where events had been removed before they were read (``EXPIRED``), and
                in place of an event that cannot be decoded (``UNDECODABLE``).

        Raises:
            ChannelNameError: One of the names cannot be that of a channel.
            TypeError: ``after`` is nothing of this, ``gaps`` is not a bool, or a channel is given
                in two forms.
            ValueError: ``after`` is a datetime without a time zone, or another word.
            WrongLoopError: The call came from another event loop or process.
        """
        check_after(after)
        check_flag("gaps", gaps)
        return self._running().stream(channels, after, gaps=gaps)

    # -- consuming ----------------------------------------------------------------------------

    @overload
    def consumer(
        self, name: str, *channels: str, start: After = ..., gaps: Literal[False] = False
    ) -> Consumer[Event[str]]: ...

    @overload
    def consumer(
        self, name: str, *channels: Channel[T], start: After = ..., gaps: Literal[False] = False
    ) -> Consumer[Event[T]]: ...

    @overload
    def consumer(
        self,
        name: str,
        *channels: str | Channel[Any],
        start: After = ...,
        gaps: Literal[False] = False,
    ) -> Consumer[Event[Any]]: ...

    @overload
    def consumer(
        self, name: str, *channels: str | Channel[Any], start: After = ..., gaps: bool
    ) -> Consumer[Event[Any] | Gap]: ...

    def consumer(
        self,
        name: str,
        *channels: str | Channel[Any],
        start: After = "start",
        gaps: bool = False,
    ) -> Consumer[Any]:
        """
        Return a durable consumer, whose place in the log is kept in the database under its name.

        ``async with log.consumer("mailer") as consumer: async for event in consumer: …``. The class
        of the consumer, Consumer, says what is guaranteed.

        Args:
            name: 1 to 200 printable characters.
            channels: As for ``read()``.
            start: Where a consumer begins that is not in the database, as ``after`` of ``read()``.
            gaps: Yield a Gap where events had been removed before they were consumed (``EXPIRED``).

        Raises:
            LogNameError: No consumer can have this name.
            ChannelNameError: One of the names cannot be that of a channel.
            TypeError: As of ``read()``.
            ValueError: As of ``read()``.
            WrongLoopError: The call came from another event loop or process.
        """
        check_consumer_name(name)
        check_after(start)
        check_flag("gaps", gaps)
        return self._running().consumer(name, channels, start, gaps=gaps)

    def on(
        self,
        name: str,
        *channels: str | Channel[Any],
        transactional: bool = False,
        on_error: Retry = _DEFAULT_RETRY,
        start: After = "start",
    ) -> Callable[[HandlerT], HandlerT]:
        """
        Register a handler: a durable consumer that calls a function with each event.

        It runs while the log is started, by ``async with log`` or ``start()``. Events come one at a
        time, in their order. What the function raises is logged, and the event is handed over
        again as ``on_error`` says.

        Args:
            name: The name of the consumer, as for ``consumer()``.
            channels: As for ``read()``.
            transactional: Call the function with the event and an asyncpg connection, in a
                transaction that also moves the cursor: what the function writes there and the
                cursor are committed together, so that each event has its effect exactly once.
                Otherwise the event comes at least once.
            on_error: What to do when the function raises.
            start: As for ``consumer()``.

        Raises:
            LogNameError: No consumer can have this name, or a handler has it.
            ChannelNameError: One of the names cannot be that of a channel.
            TypeError: The function cannot be called as it would be, or an argument is of a wrong
                type.
            ValueError: As of ``read()``.
        """
        check_consumer_name(name)
        check_after(start)
        check_flag("transactional", transactional)
        check_kind("on_error", on_error, Retry)
        channels_of(channels)
        if name in self._handlings:
            raise LogNameError(name, "consumer", "a handler of this log has this name")

        def register(function: HandlerT) -> HandlerT:
            check_event_handler(function, transactional=transactional)
            self._handlings[name] = Handling(
                name, channels, function, transactional, on_error, start
            )
            return function

        return register

    # -- operating ----------------------------------------------------------------------------

    async def status(self) -> LogStatus:
        """
        Return the state of the log: its size, its consumers and how far they are behind.

        Raises:
            NotInstalledError: The database has no such log.
            ConnectError: There is no connection.
            ConnectionLostError: The connection died.
            StandbyError: The server is a standby.
            WrongLoopError: The call came from another event loop or process.
            asyncpg.PostgresError: The server refused a statement.
        """
        return await self._running().operations.status()

    async def dead_letters(
        self, consumer: str | None = None, *, limit: int = 100
    ) -> list[DeadLetter]:
        """
        Return events that a consumer could not handle, the oldest first.

        Args:
            consumer: Its name; None: of all consumers.
            limit: How many at most.

        Raises:
            ValueError: ``limit`` is not a whole number, at least 1.
            Exception: As of ``status()``.
        """
        check_count("limit", limit)
        return await self._running().operations.dead_letters(consumer, limit)

    async def retry(self, letter: DeadLetter) -> None:
        """
        Call the handler of a dead letter once more, here, and discard the letter if it returns.

        A transactional handler and the discarding share a transaction.

        Raises:
            UnknownConsumerError: This Log has no handler for the consumer, by ``on()``.
            PayloadDecodeError: The payload still cannot be decoded.
            Exception: What the handler raised, or as of ``status()``: the letter stays.
        """
        handling = self._handlings.get(letter.consumer)
        if handling is None:
            raise UnknownConsumerError(letter.consumer)
        await self._running().try_again(handling, letter)

    async def discard(self, letter: DeadLetter) -> bool:
        """
        Remove a dead letter; return whether it was still there.

        Raises:
            Exception: As of ``status()``.
        """
        return await self._running().operations.discard(letter.consumer, letter.event.id)

    async def seek(self, consumer: str, to: After) -> None:
        """
        Move the cursor of a consumer, backward or forward; whoever serves it goes on from there.

        An event that is being handled meanwhile may still have its effect.

        Args:
            consumer: Its name.
            to: As ``after`` of ``read()``.

        Raises:
            UnknownConsumerError: The log has no such consumer.
            PositionError: This log has not given the position.
            TypeError: As of ``read()``.
            ValueError: As of ``read()``.
            Exception: As of ``status()``.
        """
        check_after(to)
        runtime = self._running()
        await runtime.operations.seek(consumer, await runtime.place(to))

    async def pause(self, consumer: str) -> None:
        """
        Let nobody serve a consumer, until ``resume()``; what it has before it is kept.

        Raises:
            UnknownConsumerError: The log has no such consumer.
            Exception: As of ``status()``.
        """
        await self._running().operations.pause(consumer, paused=True)

    async def resume(self, consumer: str) -> None:
        """
        Let a consumer be served again that was paused.

        Raises:
            UnknownConsumerError: The log has no such consumer.
            Exception: As of ``status()``.
        """
        await self._running().operations.pause(consumer, paused=False)

    async def drop(self, consumer: str) -> None:
        """
        Remove a consumer for good, with its cursor and its dead letters.

        It no longer keeps old events from being removed. One who still iterates it gets an
        UnknownConsumerError.

        Raises:
            UnknownConsumerError: The log has no such consumer.
            Exception: As of ``status()``.
        """
        await self._running().operations.drop(consumer)

    # -- inside -------------------------------------------------------------------------------

    async def _append(self, entries: list[Entry], connection: object) -> None:
        if connection is None:
            await self.append_entries(entries)
        else:
            await call_within(connection, self.call_for(entries))

    def call_for(self, entries: list[Entry]) -> Call:
        """Return the call that appends entries in a transaction of the caller's."""
        return append_call(self._names, entries, wake=self._wake == "commit")

    async def append_entries(self, entries: list[Entry]) -> None:
        """Append entries on a connection of the log's own."""
        runtime = self._running()
        await runtime.appender().append(entries)
        if self._wake == "after":
            runtime.wake_readers()

    def _running(self) -> Runtime:
        """Return what the log has in this event loop; refuse if another one has the log."""
        runtime = self._runtime
        if runtime is not None:
            if runtime.owner.is_here:
                return runtime
            if runtime.owner.is_other_process:
                leave_to_parent(runtime)
            elif not runtime.owner.loop.is_closed():
                runtime.owner.check()
        self._runtime = Runtime(self._options)
        return self._runtime


def _settings(
    retention: timedelta | None, limit: timedelta | None, ring: int | None
) -> Settings | None:
    if retention is None and limit is None and ring is None:
        return None
    given: dict[str, Any] = {"retention": retention, "limit": limit, "ring": ring}
    return Settings(**{name: value for name, value in given.items() if value is not None})


def _check_wake(wake: object) -> None:
    if wake not in ("commit", "after", "poll"):
        msg = f'wake must be "commit", "after" or "poll", not {wake!r}'
        raise ValueError(msg)
