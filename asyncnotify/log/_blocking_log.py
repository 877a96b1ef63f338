"""The log for threads: the same methods without ``await``."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

from asyncnotify import Channel
from asyncnotify._arguments import check_pairs
from asyncnotify._asyncpg.sqlalchemy import EngineConnect
from asyncnotify._asyncpg.transactions import call_within_thread
from asyncnotify._blocking.gateway import Gateway
from asyncnotify._blocking.pairs import send_pairs
from asyncnotify._blocking.portal import Portal
from asyncnotify._errors import NotStartedError
from asyncnotify.log._blocking import BlockingConsumer, BlockingLogStream
from asyncnotify.log._entries import entry_of
from asyncnotify.log._log import Log
from asyncnotify.log._portions import portions_of
from asyncnotify.log._reading.stream import After
from asyncnotify.log._status import DeadLetter, LogStatus
from asyncnotify.typing import Dsn

T = TypeVar("T")


class BlockingLog:
    """
    A Log for threads: the same methods without ``await``.

    It runs an event loop in a daemon thread of its own. ``with BlockingLog(name, dsn) as log``
    closes it; so does ``close()``. The first call opens it, in each process anew. There are no
    handlers: iterate a consumer in a thread.

    Args:
        name: As for Log.
        dsn: As for Listener.
        close_timeout: Seconds for ``close()``, unless that call gives its own.
        options: As for Log, without ``pool`` and ``listener``, which belong to another event loop.

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
        close_timeout: float = 5.0,
        **options: Any,  # noqa: ANN401 - as Log takes them
    ) -> None:
        for option in ("pool", "listener"):
            if option in options:
                msg = f"{option}= belongs to an event loop that is not this one's"
                raise TypeError(msg)
        self._log = Log(name, dsn, close_timeout=close_timeout, **options)
        self._gateway = Gateway(self._log.aclose, close_timeout)

    @classmethod
    def from_sqlalchemy(cls, name: str, engine: Any, **options: Any) -> Self:  # noqa: ANN401 - SQLAlchemy is an extra
        """Return a log that connects as this ``AsyncEngine`` does; as ``Log.from_sqlalchemy()``."""
        return cls(name, connect=EngineConnect(engine), **options)

    def __repr__(self) -> str:
        return f"<Blocking{repr(self._log)[1:]}"

    @property
    def name(self) -> str:
        """The name of the log."""
        return self._log.name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self, timeout: float | None = None) -> None:
        """Append what has been accepted, and close all; as ``Log.aclose()``."""
        self._gateway.close(timeout)

    # -- installing ---------------------------------------------------------------------------

    def install(
        self,
        *,
        retention: timedelta | None = None,
        limit: timedelta | None = None,
        ring: int | None = None,
    ) -> None:
        """Make the log in the database, or bring it up to date; as ``Log.install()``."""
        install = self._log.install
        self._call(functools.partial(install, retention=retention, limit=limit, ring=ring))

    def statements(self, **options: Any) -> list[str]:  # noqa: ANN401 - as Log takes them
        """Return what ``install()`` executes; as ``Log.statements()``."""
        return self._log.statements(**options)

    def grants(self, *, append: Iterable[str] = (), consume: Iterable[str] = ()) -> list[str]:
        """Return the statements that give roles their rights; as ``Log.grants()``."""
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
            connection: SQLAlchemy's Connection or Session, or psycopg's Connection: the event is
                part of its transaction.
        """
        entry = entry_of(channel, payload, key, headers)
        if connection is not None:
            call_within_thread(connection, self._log.call_for([entry]))
        else:
            self._call(lambda: self._log.append_entries([entry]))
        return entry.id

    def append_many(self, events: Iterable[tuple[Any, ...]], *, connection: object = None) -> int:
        """Append many events, in their order; return how many. As ``Log.append_many()``."""
        check_pairs(events, may_be_async=False)
        if connection is None:
            return send_pairs(self._portal(), self._log.append_many, events)
        appended = 0
        for portion in portions_of(events):
            call_within_thread(connection, self._log.call_for(portion))
            appended += len(portion)
        return appended

    def wake(self) -> None:
        """Wake those who read the log; as ``Log.wake()``."""
        self._call(self._log.wake)

    # -- reading and consuming ----------------------------------------------------------------

    def read(
        self, *channels: str | Channel[Any], after: After = "now", gaps: bool = False
    ) -> BlockingLogStream[Any]:
        """Return the events of some channels as an iterator; as ``Log.read()``."""
        stream = self._call(_made(lambda: self._log.read(*channels, after=after, gaps=gaps)))
        return BlockingLogStream(self._gateway, stream)

    def consumer(
        self,
        name: str,
        *channels: str | Channel[Any],
        start: After = "start",
        gaps: bool = False,
        buckets: int = 1,
    ) -> BlockingConsumer[Any]:
        """Return a durable consumer; as ``Log.consumer()``."""
        consumer = self._log.consumer
        made = _made(lambda: consumer(name, *channels, start=start, gaps=gaps, buckets=buckets))
        return BlockingConsumer(self._gateway, self._call(made))

    # -- operating ----------------------------------------------------------------------------

    def expire(self) -> int:
        """Remove events that are older than the log keeps; as ``Log.expire()``."""
        return self._call(self._log.expire)

    def status(self) -> LogStatus:
        """Return the state of the log; as ``Log.status()``."""
        return self._call(self._log.status)

    def dead_letters(self, consumer: str | None = None, *, limit: int = 100) -> list[DeadLetter]:
        """Return events that a consumer could not handle; as ``Log.dead_letters()``."""
        return self._call(lambda: self._log.dead_letters(consumer, limit=limit))

    def discard(self, letter: DeadLetter) -> bool:
        """Remove a dead letter; as ``Log.discard()``."""
        return self._call(lambda: self._log.discard(letter))

    def seek(self, consumer: str, to: After) -> None:
        """Move the cursor of a consumer; as ``Log.seek()``."""
        self._call(lambda: self._log.seek(consumer, to))

    def pause(self, consumer: str) -> None:
        """Let nobody serve a consumer, until ``resume()``; as ``Log.pause()``."""
        self._call(lambda: self._log.pause(consumer))

    def resume(self, consumer: str) -> None:
        """Let a consumer be served again; as ``Log.resume()``."""
        self._call(lambda: self._log.resume(consumer))

    def drop(self, consumer: str) -> None:
        """Remove a consumer for good; as ``Log.drop()``."""
        self._call(lambda: self._log.drop(consumer))

    # -- inside -------------------------------------------------------------------------------

    def _call(self, function: Callable[[], Awaitable[T]]) -> T:
        return self._portal().call(function)

    def _portal(self) -> Portal:
        try:
            return self._gateway.portal
        except NotStartedError:
            return self._gateway.open()


def _made(function: Callable[[], T]) -> Callable[[], Awaitable[T]]:
    """Return a coroutine function that calls a function which needs a running event loop."""

    async def call() -> T:
        return function()

    return call
