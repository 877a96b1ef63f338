"""The Log, which connects the parts and holds no logic of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, Self

import asyncpg

from asyncnotify import ExponentialBackoff, Keepalive, Listener
from asyncnotify._arguments import (
    check_backoff,
    check_callbacks,
    check_kind,
    check_on_incident,
    check_seconds,
    check_timeout,
)
from asyncnotify._asyncpg._connecting.dial import Dialer, check_connect_arguments
from asyncnotify._asyncpg.publishing import Pool
from asyncnotify._asyncpg.sqlalchemy import EngineConnect
from asyncnotify._backoff import first_at_once
from asyncnotify._owner import keep, see_to_unclosed
from asyncnotify._publishing.retrying import Retrying
from asyncnotify.log._consuming.calling import Handling
from asyncnotify.log._incidents import OnIncident
from asyncnotify.log._methods.appending import Appending
from asyncnotify.log._methods.consuming import Consuming
from asyncnotify.log._methods.installing import Installing
from asyncnotify.log._methods.operating import Operating
from asyncnotify.log._methods.reading import Reading
from asyncnotify.log._names import Names, check_log_name
from asyncnotify.log._options import Options, Wake
from asyncnotify.log._ports import LogSessions, source_of_logs
from asyncnotify.log._reading.failures import PASSING, is_final
from asyncnotify.log._runtime import Runtime
from asyncnotify.log._sessions import OwnSessions, PooledSessions
from asyncnotify.sources import registered
from asyncnotify.typing import Backoff, Connect, Dsn

DEFAULT_BACKOFF = ExponentialBackoff()
DEFAULT_KEEPALIVE = Keepalive()

_LOCK_WAIT: Final = 0.8
"""Of the time for a statement, for which it may wait for a lock: the rest is for the answer."""


class Log(Installing, Appending, Reading, Consuming, Operating):
    """
    A durable log in a PostgreSQL database: events are rows, which all readers see in one order.

    The constructor touches neither the network nor an event loop. Any number of tasks of one event
    loop may call the methods.

    Args:
        name: 1 to 40 of a-z, 0-9 and ``_``, with a letter at the beginning. A database may have
            several logs.
        dsn: As for Listener.
        pool: An asyncpg pool, from which connections are borrowed.
        connect: An async callable that returns a fresh ``asyncpg.Connection``. One of ``dsn``,
            ``pool`` and ``connect`` may be given.
        wake: ``"commit"``: a NOTIFY in the appending transaction wakes readers and consumers.
            ``"after"``: a NOTIFY is sent after the commit, on a separate connection, so that
            appending transactions do not wait for each other when they commit; call ``wake()``
            after the commit of your own transaction. ``"poll"``: no NOTIFY is sent; readers and
            consumers poll. No NOTIFY is sent while the server's notification queue is full: it
            would fail the commit of the appending transaction.
        listener: A running Listener of this database, which wakes readers and consumers. None: the
            log starts its own when the first of them reads; with ``pool`` there is none.
        poll: Seconds after which readers and consumers look for new events, woken or not.
        backoff: As for Listener, for readers, consumers and the listener that wakes them.
        connect_timeout: Seconds for making or borrowing a connection, for each host.
        operation_timeout: Seconds in which the server has to answer a statement.
        keepalive: TCP keepalive for both ends, of connections that are not from a pool.
        start_timeout: Seconds for which ``start()`` keeps trying; None: forever.
        close_timeout: Seconds for ``aclose()``, unless that call gives its own.
        on_incident: A plain function, called in the event loop with each incident: a consumer, or
            reading, is interrupted, or goes on; events expired unread; an event is a dead letter; a
            handler has ended. It must not block. What it raises is logged.
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
        keepalive: Keepalive | None = DEFAULT_KEEPALIVE,
        # waking
        wake: Wake = "commit",
        listener: Listener | None = None,
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
        names = Names(check_log_name(name))
        _check_wake(wake)
        check_seconds("connect_timeout", connect_timeout)
        check_seconds("operation_timeout", operation_timeout)
        if start_timeout is not None:
            check_seconds("start_timeout", start_timeout)
        check_seconds("close_timeout", close_timeout)
        check_seconds("poll", poll)
        check_kind("keepalive", keepalive, Keepalive)
        check_kind("listener", listener, Listener)
        check_backoff(backoff)
        sessions: LogSessions
        new_listener: Callable[[], Listener] | None = None
        _check_no_pool(dsn)
        ours = Log.__init__.__kwdefaults__ or ()
        check_connect_arguments(dsn, connect, connect_kwargs, ours)
        check_callbacks(connect=connect)
        check_on_incident(on_incident)
        if pool is None:
            source = None if connect else registered(dsn)
            if source is not None:
                sessions = source_of_logs(source).log_sessions(
                    name, connect_timeout=connect_timeout, timeout=operation_timeout
                )
            else:
                dialer = Dialer(dsn, connect, connect_kwargs, timeout=connect_timeout)
                sessions = OwnSessions(dialer, keepalive, name, operation_timeout)
            new_listener = functools.partial(
                Listener,
                dsn,
                connect=connect,
                connect_timeout=connect_timeout,
                operation_timeout=operation_timeout,
                keepalive=keepalive,
                backoff=functools.partial(first_at_once, backoff),
                start_timeout=None,  # who waits for it reports a failure
                **connect_kwargs,
            )
        else:
            if dsn is not None or connect is not None or connect_kwargs:
                others = {"dsn": dsn, "connect": connect, **connect_kwargs}
                given = ", ".join(name for name, value in others.items() if value is not None)
                msg = f"{given} would go unused: pool= makes the connections"
                raise TypeError(msg)
            sessions = PooledSessions(pool, name, operation_timeout, connect_timeout)
        super().__init__(
            Options(
                names,
                sessions,
                listener,
                new_listener,
                wake=wake,
                poll=poll,
                backoff=backoff,
                lock_wait=operation_timeout * _LOCK_WAIT,
                on_incident=on_incident,
            )
        )
        self._retrying = Retrying(sessions, backoff)
        self._start_timeout = start_timeout
        self._close_timeout = close_timeout

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

    def __del__(self) -> None:
        runtime: Runtime | None = getattr(self, "_runtime", None)  # a wrong argument: no object
        if runtime is not None and runtime.runs:
            close = functools.partial(runtime.aclose, self._close_timeout)
            if not see_to_unclosed(self, close, runtime.owner.loop):
                keep(runtime)

    # -- lifetime -----------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Have the handlers called that ``on()`` has registered; return once their consumers exist.

        Appending and reading need no start. While it runs, further calls do nothing; a call during
        another one waits for that, and tries by itself if that fails or is cancelled. When a server
        refuses the connection, is starting up, is full or is a standby, the log tries again until
        ``start_timeout``.

        Raises:
            NotInstalledError: The database has no such log.
            BucketCountError: A consumer has another number of buckets.
            ConfigurationError: The arguments for connecting are wrong.
            ConnectError: There is still no connection after ``start_timeout``.
            ConnectionLostError: The connection died while it was tried, until ``start_timeout``.
            StandbyError: The server was a standby until ``start_timeout``.
            PoolerError: A pooler is in between.
            ClosedError: The log is being closed.
            WrongLoopError: The log is used by another event loop.
            asyncpg.PostgresError: The server refused a statement.
        """
        runtime = self._running()
        runtime.check_open()
        async with runtime.starting:
            runtime.check_open()
            if not runtime.is_started:
                await self._start(runtime)

    async def _start(self, runtime: Runtime) -> None:
        await self._retrying.until_success(
            functools.partial(_register, runtime, self._handlings.values()),
            self._start_timeout,
            what="start()",
            unless=is_final,
            passing=PASSING,
        )
        runtime.is_started = runtime.serves_handlers = True
        for handling in self._handlings.values():
            runtime.serve(handling)

    async def aclose(self, timeout: float | None = None) -> None:
        """
        Append what has been accepted, and close the connections.

        Handlers finish the event that they have; streams and consumers end. Idempotent; may be
        called from any task, also from a handler, for which it does not wait then. Cancelling the
        call closes at once.

        Args:
            timeout: Seconds after which what is not done is given up; None: ``close_timeout``.

        Raises:
            ValueError: ``timeout`` is not a number of seconds.
            WrongLoopError: The log is used by another event loop or process.
        """
        check_timeout("timeout", timeout)
        runtime = self._runtime
        if runtime is not None and not runtime.owner.loop.is_closed():
            runtime.owner.check()
            await runtime.aclose(self._close_timeout if timeout is None else timeout)
        self._ends_new_streams = False

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


async def _register(runtime: Runtime, handlings: Iterable[Handling]) -> None:
    for handling in list(handlings):
        runtime.check_open()
        await runtime.register(handling.consumer, handling.begin, handling.buckets)


def _check_no_pool(dsn: object) -> None:
    if isinstance(dsn, asyncpg.Pool):
        msg = "a pool is given as pool="
        raise TypeError(msg)


def _check_wake(wake: object) -> None:
    if wake not in ("commit", "after", "poll"):
        msg = f'wake must be "commit", "after" or "poll", not {wake!r}'
        raise ValueError(msg)
