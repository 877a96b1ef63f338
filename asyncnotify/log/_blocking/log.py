"""The log for threads: the same methods without ``await``."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

from asyncnotify import Channel, Closed, Keepalive
from asyncnotify._arguments import check_on_incident, is_async
from asyncnotify._asyncpg.sqlalchemy import EngineConnect
from asyncnotify._blocking.gateway import Gateway, awaitable
from asyncnotify._blocking.pairs import send_pairs
from asyncnotify._blocking.threads import InWorkerThread
from asyncnotify._owner import OfOneProcess
from asyncnotify._subscriptions.slow import DEFAULT_SLOW_AFTER
from asyncnotify.log._blocking.connection import BlockingConnection
from asyncnotify.log._blocking.incidents import BlockingIncidentStream, IncidentRelay
from asyncnotify.log._blocking.iterating import BlockingConsumer, BlockingLogStream
from asyncnotify.log._calls import append_within_thread
from asyncnotify.log._consuming.calling import (
    EventHandler,
    check_event_handler,
    outside_handlers,
)
from asyncnotify.log._entries import Entry, entry_of
from asyncnotify.log._incidents import OnIncident
from asyncnotify.log._log import DEFAULT_BACKOFF, DEFAULT_KEEPALIVE, Log
from asyncnotify.log._methods.consuming import DEFAULT_RETRY, HandlerT
from asyncnotify.log._names import Names
from asyncnotify.log._options import Wake
from asyncnotify.log._portions import check_events, portions_of
from asyncnotify.log._ports import LogTransaction
from asyncnotify.log._reading.stream import After
from asyncnotify.log._retry import Retry
from asyncnotify.log._status import DeadLetter, LogStatus
from asyncnotify.typing import Backoff, Connect, Dsn

T = TypeVar("T")


class BlockingLog(OfOneProcess):
    """
    A Log for threads: the same methods without ``await``.

    It runs an event loop in a daemon thread of its own. ``with BlockingLog(name, dsn) as log``
    closes it; so does ``close()``. The first call opens it, once in each process. Handlers are
    plain functions, which are called in worker threads.

    Args:
        name: As for Log.
        dsn: As for Listener.
        connect: As for Listener: an async callable, called in the event loop.
        connect_timeout: Seconds for making a connection, for each host.
        operation_timeout: Seconds in which the server has to answer a statement.
        keepalive: TCP keepalive for both ends.
        wake: As for Log.
        poll: Seconds after which those who read look for new events, woken or not.
        backoff: As for Listener; of those who read.
        start_timeout: Seconds for which ``start()`` keeps trying; None: forever.
        close_timeout: Seconds for ``close()``, unless that call gives its own.
        on_incident: As for Log: a plain function, called in the loop's thread with each incident.
        connect_kwargs: Further arguments of ``asyncpg.connect``. There are no ``pool`` and no
            ``listener``, which belong to another event loop.

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
        connect: Connect | None = None,
        connect_timeout: float = 10.0,
        operation_timeout: float = 30.0,
        keepalive: Keepalive | None = DEFAULT_KEEPALIVE,
        # waking
        wake: Wake = "commit",
        poll: float = 5.0,
        # reconnection
        backoff: Backoff = DEFAULT_BACKOFF,
        # limits
        start_timeout: float | None = 30.0,
        close_timeout: float = 5.0,
        # reporting
        on_incident: OnIncident | None = None,
        **connect_kwargs: Any,  # noqa: ANN401 - as asyncpg.connect takes them
    ) -> None:
        for option in ("pool", "listener"):
            if option in connect_kwargs:
                msg = f"{option}= belongs to an event loop that is not this one's"
                raise TypeError(msg)
        check_on_incident(on_incident)
        self._incidents = IncidentRelay(on_incident)
        self._log = Log(
            name,
            dsn,
            connect=connect,
            connect_timeout=connect_timeout,
            operation_timeout=operation_timeout,
            keepalive=keepalive,
            wake=wake,
            poll=poll,
            backoff=backoff,
            start_timeout=start_timeout,
            close_timeout=close_timeout,
            on_incident=self._incidents,
            **connect_kwargs,
        )
        self._gateway = Gateway(self._end, close_timeout)
        self._has_handlers = False

    async def _end(self, timeout: float) -> None:
        """Close the log; a handler whose function asks for that does not wait, so it is awaited."""
        await outside_handlers(functools.partial(self._log.aclose, timeout))

    @classmethod
    def from_sqlalchemy(cls, name: str, engine: Any, **options: Any) -> Self:  # noqa: ANN401 - SQLAlchemy is an extra
        """
        Return a log that connects as this ``AsyncEngine`` does; as ``Log.from_sqlalchemy()``.

        Raises:
            Exception: As of ``Log.from_sqlalchemy()``.
        """
        return cls(name, connect=EngineConnect(engine), **options)

    def __repr__(self) -> str:
        return f"<Blocking{repr(self._log)[1:]}"

    @property
    def name(self) -> str:
        """The name of the log."""
        return self._log.name

    def __enter__(self) -> Self:
        """Start what ``on()`` has registered, if anything; raises as ``Log.start()``."""
        if self._has_handlers:
            self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """
        Have the handlers called that ``on()`` has registered; as ``Log.start()``.

        Also after ``close()``.
        """
        self._gateway.start(self._log.start)

    def close(self, timeout: float | None = None) -> None:
        """
        Append what has been accepted, and close all; as ``Log.aclose()``.

        Raises:
            ValueError: ``timeout`` is not a number of seconds.
            WrongLoopError: The log is used by another process.
        """
        self._gateway.close(timeout)
        if not self._gateway.has_begun:
            self._incidents.put(Closed())  # else whoever waits for one would wait for ever

    # -- installing ---------------------------------------------------------------------------

    def install(
        self,
        *,
        retention: timedelta | None = None,
        limit: timedelta | None = None,
        ring: int | None = None,
    ) -> None:
        """
        Make the log in the database, or bring it up to date; as ``Log.install()``.

        Raises:
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: As of ``Log.install()``.
        """
        install = self._log.install
        self._call(functools.partial(install, retention=retention, limit=limit, ring=ring))

    def statements(
        self,
        *,
        since: int = 0,
        retention: timedelta | None = None,
        limit: timedelta | None = None,
        ring: int | None = None,
    ) -> list[str]:
        """
        Return what ``install()`` executes; as ``Log.statements()``.

        Raises:
            Exception: As of ``Log.statements()``.
        """
        return self._log.statements(since=since, retention=retention, limit=limit, ring=ring)

    def grants(self, *, append: Collection[str] = (), consume: Collection[str] = ()) -> list[str]:
        """
        Return the statements that give roles their rights; as ``Log.grants()``.

        Raises:
            Exception: As of ``Log.grants()``.
        """
        return self._log.grants(append=append, consume=consume)

    # -- appending ----------------------------------------------------------------------------

    def append(
        self,
        channel: str | Channel[Any],
        payload: object = "",
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        connection: object = None,
    ) -> UUID:
        """
        Append an event; return its id. As ``Log.append()``.

        Args:
            channel: A name, or a Channel, which encodes the payload.
            payload: A text, or what the Channel encodes.
            key: What the event is about.
            headers: Texts by name.
            connection: SQLAlchemy's Connection or Session, psycopg's Connection, or what a handler
                was given: the event is part of its transaction.

        Raises:
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: As of ``Log.append()``.
        """
        entry = entry_of(channel, payload, key, headers)
        if connection is None:
            self._call(lambda: self._log.append_entries([entry]))
        else:
            self._append_within(connection, [entry])
        return entry.id

    def append_many(self, events: Iterable[tuple[Any, ...]], *, connection: object = None) -> int:
        """
        Append many events, in their order; return how many. As ``Log.append_many()``.

        Raises:
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: As of ``Log.append_many()``.
        """
        check_events(events, may_be_async=False)
        if connection is None:
            return send_pairs(self._gateway.portal_by_itself, self._log.append_many, events)
        appended = 0
        for portion in portions_of(events):
            self._append_within(connection, portion)
            appended += len(portion)
        return appended

    def wake(self) -> None:
        """Wake those who read the log; as ``Log.wake()``."""
        self._call(self._log.wake)

    # -- reading and consuming ----------------------------------------------------------------

    def read(
        self, *channels: str | Channel[Any], after: After = "now", gaps: bool = False
    ) -> BlockingLogStream[Any]:
        """
        Return the events of some channels as an iterator; as ``Log.read()``.

        Raises:
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: As of ``Log.read()``.
        """
        stream = self._call(awaitable(lambda: self._log.read(*channels, after=after, gaps=gaps)))
        return BlockingLogStream(self._gateway, stream)

    def end_streams(self, *, also_new: bool = False) -> None:
        """
        End every stream of ``read()``, after what it has read; as ``Log.end_streams()``.

        Raises:
            Exception: As of ``Log.end_streams()``.
        """
        self._log.end_streams(also_new=also_new)

    def consumer(
        self,
        name: str,
        *channels: str | Channel[Any],
        start: After = "start",
        gaps: bool = False,
        buckets: int = 1,
    ) -> BlockingConsumer[Any]:
        """
        Return a durable consumer; as ``Log.consumer()``.

        Raises:
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: As of ``Log.consumer()``.
        """
        consumer = self._log.consumer
        options: dict[str, Any] = {"start": start, "gaps": gaps, "buckets": buckets}
        made = awaitable(lambda: consumer(name, *channels, **options))
        return BlockingConsumer(self._gateway, self._call(made))

    def on(
        self,
        name: str,
        *channels: str | Channel[Any],
        transactional: bool = False,
        on_error: Retry = DEFAULT_RETRY,
        start: After = "start",
        buckets: int = 1,
        slow_after: float | None = DEFAULT_SLOW_AFTER,
    ) -> Callable[[HandlerT], HandlerT]:
        """
        Register a plain function as a handler; as ``Log.on()``.

        It is called in worker threads, one event at a time, and of several buckets at the same
        time. With ``transactional=True`` it gets the event and a BlockingConnection.

        Raises:
            TypeError: The function is an ``async def``, which is for Log.
            Exception: As of ``Log.on()``.
        """
        register = self._log.on(
            name,
            *channels,
            transactional=transactional,
            on_error=on_error,
            start=start,
            buckets=buckets,
            slow_after=slow_after,
        )

        def register_served(function: HandlerT) -> HandlerT:
            check_event_handler(function, transactional=transactional)
            if is_async(function):
                msg = "an async handler needs an event loop: use Log, or make it a plain function"
                raise TypeError(msg)
            called = InWorkerThread(function, self._gateway)
            served = self._lending(called) if transactional else called
            change = functools.partial(register, served)
            self._gateway.call_or(awaitable(change), change)
            self._has_handlers = True
            return function

        return register_served

    # -- operating ----------------------------------------------------------------------------

    def expire(self) -> int:
        """Remove events that are older than the log keeps; as ``Log.expire()``."""
        return self._call(self._log.expire)

    def status(self) -> LogStatus:
        """Return the state of the log; as ``Log.status()``."""
        return self._call(self._log.status)

    def incidents(self) -> BlockingIncidentStream:
        """Return the incidents of readers and consumers from now on: an iterator for any thread."""
        return self._incidents.stream(self._gateway)

    def dead_letters(self, consumer: str | None = None, *, limit: int = 100) -> list[DeadLetter]:
        """
        Return events that a consumer could not handle; as ``Log.dead_letters()``.

        Raises:
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: As of ``Log.dead_letters()``.
        """
        return self._call(lambda: self._log.dead_letters(consumer, limit=limit))

    def retry(self, letter: DeadLetter) -> None:
        """
        Call the handler of a dead letter once more; as ``Log.retry()``.

        Raises:
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: As of ``Log.retry()``.
        """
        self._call(lambda: self._log.retry(letter))

    def discard(self, letter: DeadLetter) -> bool:
        """
        Remove a dead letter; as ``Log.discard()``.

        Raises:
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: As of ``Log.discard()``.
        """
        return self._call(lambda: self._log.discard(letter))

    def seek(self, consumer: str, to: After) -> None:
        """
        Move the cursor of a consumer; as ``Log.seek()``.

        Raises:
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: As of ``Log.seek()``.
        """
        self._call(lambda: self._log.seek(consumer, to))

    def pause(self, consumer: str) -> None:
        """
        Let nobody serve a consumer, until ``resume()``; as ``Log.pause()``.

        Raises:
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: As of ``Log.pause()``.
        """
        self._call(lambda: self._log.pause(consumer))

    def resume(self, consumer: str) -> None:
        """
        Let a consumer be served again; as ``Log.resume()``.

        Raises:
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: As of ``Log.resume()``.
        """
        self._call(lambda: self._log.resume(consumer))

    def drop(self, consumer: str) -> None:
        """
        Remove a consumer for good; as ``Log.drop()``.

        Raises:
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: As of ``Log.drop()``.
        """
        self._call(lambda: self._log.drop(consumer))

    # -- inside -------------------------------------------------------------------------------

    def _append_within(self, connection: object, entries: list[Entry]) -> None:
        if isinstance(connection, BlockingConnection):
            connection.call(lambda inner: self._log.append_within(inner, entries))
        elif isinstance(connection, LogTransaction):
            self._log.append_in(connection, entries)
        else:
            append_within_thread(connection, Names(self._log.name), self._log.call_for(entries))

    def _lending(self, called: InWorkerThread) -> EventHandler:
        """Return an async function that lends its connection to one in a worker thread."""

        async def call(event: object, connection: Any) -> None:  # noqa: ANN401 - the driver's
            lent = BlockingConnection(self._gateway, connection)
            try:
                await called(event, lent)
            finally:
                await lent.end()

        return call

    def _call(self, function: Callable[[], Awaitable[T]]) -> T:
        return self._gateway.portal_by_itself.call(function)
