"""The locks of a process: how they connect, and what they need in the database."""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Collection
from types import TracebackType
from typing import Any, Final, Self

from asyncnotify import ExponentialBackoff, Keepalive, Listener
from asyncnotify._arguments import (
    check_backoff,
    check_callbacks,
    check_count,
    check_kind,
    check_names,
    check_number,
    check_seconds,
    check_timeout,
)
from asyncnotify._asyncpg._connecting.dial import Dialer, check_connect_arguments
from asyncnotify._asyncpg.sqlalchemy import EngineConnect
from asyncnotify._backoff import first_at_once
from asyncnotify._owner import OfOneProcess, keep, leave_to_parent, see_to_unclosed
from asyncnotify.lock import _schema
from asyncnotify.lock._runtime import Options, Runtime
from asyncnotify.lock._session import answers, connecting, open_session
from asyncnotify.log._names import Names
from asyncnotify.sources import error_for_missing, registered
from asyncnotify.typing import Backoff, Connect, Dsn

DEFAULT_BACKOFF = ExponentialBackoff()
DEFAULT_KEEPALIVE = Keepalive()

_SHORTEST_LIFE: Final = 0.5
"""Seconds: of a fourth of it the server has to answer within."""

_LONGEST_LIFE: Final = 2_147_483
"""Seconds: the server keeps a timeout as milliseconds in 31 bits."""

_DDL_TIMEOUT: Final = 30.0
"""Seconds for each statement of an installation."""


class Locks(OfOneProcess):
    """
    The session of the server in which all locks of a process are held.

    ``Lock(dsn, name)`` makes one by itself, which all locks of that DSN share, and which is closed
    when the last of them has been released. Make one to keep the session between locks, or for
    other options. Nothing touches the network or an event loop in the constructor. Any number of
    tasks of one event loop may use it.

    Args:
        dsn: As for Listener.
        connect: An async callable that returns a fresh ``asyncpg.Connection``; excludes ``dsn``.
        life: Seconds after which the server ends the session of a process that has said nothing,
            because it is frozen, or the network is: then its locks are free. The process itself
            asks the server every fourth of it, and gives its locks up for lost after half of it.
            0.5 to 2,147,483. With PostgreSQL 13 those who wait end that session, if their role may.
        limit: How many names may be held or waited for at once.
        listener: A running Listener of this database, which wakes those who wait. None: one of its
            own, which begins when a lock is not free.
        connect_timeout: Seconds for making a connection, for each host.
        keepalive: TCP keepalive for both ends.
        backoff: As for Listener.
        start_timeout: Seconds for which the first session is tried; None: forever.
        close_timeout: Seconds for ``aclose()``, unless that call gives its own.
        connect_kwargs: Further arguments of ``asyncpg.connect``.

    Raises:
        TypeError: An argument is unknown or of the wrong type, or another one excludes it.
        ValueError: A number is out of its bounds.
        NotOnFakeError: The DSN is that of an ``asyncnotify.testing.fake.FakeServer``.
    """

    def __init__(
        self,
        dsn: Dsn | None = None,
        *,
        # connection
        connect: Connect | None = None,
        connect_timeout: float = 10.0,
        keepalive: Keepalive | None = DEFAULT_KEEPALIVE,
        # liveness
        life: float = 15.0,
        listener: Listener | None = None,
        # reconnection
        backoff: Backoff = DEFAULT_BACKOFF,
        # limits
        limit: int = 100,
        start_timeout: float | None = 30.0,
        close_timeout: float = 5.0,
        **connect_kwargs: Any,  # noqa: ANN401 - as asyncpg.connect takes them
    ) -> None:
        check_seconds("connect_timeout", connect_timeout)
        check_kind("keepalive", keepalive, Keepalive)
        check_number("life", life, minimum=_SHORTEST_LIFE, maximum=_LONGEST_LIFE)
        check_kind("listener", listener, Listener)
        check_backoff(backoff)
        check_count("limit", limit)
        check_seconds("start_timeout", start_timeout, or_none=True)
        check_seconds("close_timeout", close_timeout)
        ours = Locks.__init__.__kwdefaults__ or ()
        check_connect_arguments(dsn, connect, connect_kwargs, ours)
        check_callbacks(connect=connect)
        if connect is None and (source := registered(dsn)) is not None:
            raise error_for_missing(source, "locks")
        self._dialer = Dialer(dsn, connect, connect_kwargs, timeout=connect_timeout)
        self._options = Options(
            open=functools.partial(open_session, self._dialer, keepalive, life),
            target=self._dialer.target,
            listener=listener,
            new_listener=functools.partial(
                Listener,
                dsn,
                connect=connect,
                connect_timeout=connect_timeout,
                keepalive=keepalive,
                backoff=functools.partial(first_at_once, backoff),
                start_timeout=None,
                **connect_kwargs,
            ),
            life=life,
            limit=limit,
            backoff=backoff,
            start_timeout=start_timeout,
        )
        self._close_timeout = close_timeout
        self._runtime: Runtime | None = None

    @classmethod
    def from_sqlalchemy(cls, engine: Any, **options: Any) -> Self:  # noqa: ANN401 - SQLAlchemy is an extra
        """
        Return locks that connect as this ``AsyncEngine`` of ``postgresql+asyncpg`` does.

        Raises:
            TypeError: ``engine`` is not such an engine, or an option is not as Locks takes it.
            ValueError: An option is not as Locks takes it.
        """
        return cls(connect=EngineConnect(engine), **options)

    def __repr__(self) -> str:
        return f"<Locks {self._dialer.target}>"

    def __del__(self) -> None:
        runtime: Runtime | None = getattr(self, "_runtime", None)  # a wrong argument: no object
        if runtime is not None and runtime.runs:
            close = functools.partial(runtime.aclose, self._close_timeout)
            if not see_to_unclosed(self, close, runtime.owner.loop):
                keep(runtime)

    # -- in the database ----------------------------------------------------------------------

    async def install(self) -> None:
        """
        Make the table of locks in the database, or bring it to the version of this library.

        Idempotent, all or nothing; several processes may do it at once. Needs the right to create
        a schema, or to own the schema ``asyncnotify``.

        Raises:
            LockError: Another table has the name that is needed.
            LockVersionError: It was installed by a newer version of asyncnotify.
            ConnectError: There is no connection.
            ConnectionLostError: The connection died: it may have been installed.
            asyncpg.PostgresError: The server refused a statement.
        """
        with connecting(self._dialer.target), self._dialer.opening():
            connection = await self._dialer.dial()
        try:
            async with asyncio.timeout(_DDL_TIMEOUT):
                with answers():
                    await _schema.install(connection, Names("").lock_key("install"))
        finally:
            connection.terminate()

    def statements(self) -> list[str]:
        """Return what ``install()`` executes, for a migration: to be run in one transaction."""
        return _schema.statements()

    def grants(self, *, hold: Collection[str] = (), check: Collection[str] = ()) -> list[str]:
        """
        Return the statements that give roles the rights to hold locks, or only to check tokens.

        Args:
            hold: Names of roles that hold locks.
            check: Names of roles in whose transactions ``held.check()`` is called.

        Raises:
            TypeError: One of them is not a collection of names: a list, or a tuple.
        """
        check_names("hold", hold)
        check_names("check", check)
        return list(_schema.grants(tuple(hold), tuple(check)))

    # -- lifetime -----------------------------------------------------------------------------

    async def aclose(self, timeout: float | None = None) -> None:
        """
        Release what is to be released, and close the session.

        Locks that are still held are lost: their bodies are cancelled. Calls that wait raise
        ClosedError. Idempotent. Cancelling the call closes at once.

        Args:
            timeout: Seconds; None: ``close_timeout``.

        Raises:
            ValueError: ``timeout`` is not a number of seconds.
            WrongLoopError: The locks are used by another event loop or process.
        """
        check_timeout("timeout", timeout)
        runtime = self._runtime
        if runtime is None or runtime.owner.loop.is_closed():
            return
        runtime.owner.check()
        await runtime.aclose(self._close_timeout if timeout is None else timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _running(self) -> Runtime:
        """Return what runs in this event loop; it is created again in a fork, and after closing."""
        runtime = self._runtime
        if runtime is not None and runtime.owner.is_other_process:
            leave_to_parent(runtime)
            runtime = None
        if runtime is None or not runtime.runs:
            self._runtime = runtime = Runtime(self._options)
        runtime.owner.check()
        return runtime


def runtime_of(locks: Locks) -> Runtime:
    """
    Return what the locks of this process run on.

    Raises:
        WrongLoopError: The locks are used by another event loop.
    """
    return locks._running()  # noqa: SLF001 - not for users # pyright: ignore[reportPrivateUsage]


class _Shared:
    """Locks by their DSN, in one event loop, and how many use them."""

    def __init__(self) -> None:
        self.locks: dict[object, tuple[Locks, int]] = {}


_shared: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared]] = (
    weakref.WeakKeyDictionary()
)


def borrow(dsn: Dsn | None) -> Locks:
    """Return the locks that all users of a DSN in this event loop share; give them back."""
    shared = _shared.setdefault(asyncio.get_running_loop(), _Shared())
    locks, users = shared.locks.get(dsn) or (Locks(dsn), 0)
    shared.locks[dsn] = locks, users + 1
    return locks


async def give_back(dsn: Dsn | None) -> None:
    """End the use of shared locks; the last user closes their session."""
    shared = _shared[asyncio.get_running_loop()]
    locks, users = shared.locks[dsn]
    if users > 1:
        shared.locks[dsn] = locks, users - 1
        return
    del shared.locks[dsn]
    await locks.aclose()
