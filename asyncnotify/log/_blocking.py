"""The log for threads: the same methods without ``await``."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar
from uuid import UUID

from asyncnotify import Channel
from asyncnotify._arguments import check_count, check_pairs, check_timeout
from asyncnotify._asyncpg.sqlalchemy import EngineConnect
from asyncnotify._asyncpg.transactions import call_within_thread
from asyncnotify._blocking.gateway import Gateway
from asyncnotify._blocking.pairs import send_pairs
from asyncnotify._blocking.portal import Portal
from asyncnotify._errors import NotStartedError
from asyncnotify.log._consuming.consumer import DEFAULT_BATCH, Consumer
from asyncnotify.log._entries import entry_of
from asyncnotify.log._log import Log
from asyncnotify.log._portions import portions_of
from asyncnotify.log._reading.stream import After, LogStream
from asyncnotify.log._status import DeadLetter, LogStatus
from asyncnotify.typing import Dsn

T = TypeVar("T")
ItemT_co = TypeVar("ItemT_co", covariant=True)

_FETCHED: Final = 1_000
"""Events that a thread fetches from the event loop at once."""

_ENDED: Final = "the stream has ended"


class BlockingLogStream(Generic[ItemT_co]):
    """
    Events of a log as an iterator for threads, as returned by ``BlockingLog.read()``.

    As LogStream. ``get()`` waits for one item, at most so many seconds; a TimeoutError, or what a
    signal handler raises, loses nothing. One thread at a time may take from a stream.
    """

    def __init__(self, gateway: Gateway, stream: LogStream[ItemT_co]) -> None:
        self._gateway = gateway
        self._stream = stream
        self._items: deque[ItemT_co] = deque()

    def __enter__(self) -> Self:
        """Take the place in the log where reading begins; raises as ``get()`` does."""
        self._gateway.call(self._stream.__aenter__)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[ItemT_co]:
        return self

    def __next__(self) -> ItemT_co:
        """
        Return the next event, or Gap; raises as ``get()`` does.

        Raises:
            StopIteration: The stream or the log has been closed.
        """
        try:
            return self.get()
        except EOFError:
            raise StopIteration from None

    def get(self, timeout: float | None = None) -> ItemT_co:
        """
        Return the next event, or Gap.

        Args:
            timeout: Seconds to wait for it; None: for ever.

        Raises:
            ValueError: ``timeout`` is not a number of seconds.
            TimeoutError: Nothing came in time.
            EOFError: The stream or the log has been closed.
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: As of the ``anext()`` of a LogStream.
        """
        check_timeout("timeout", timeout)
        if not self._items:
            fetch = functools.partial(self._fetch, timeout)
            self._items.extend(self._gateway.call(fetch, undo=self._put_back))
        if not self._items:
            raise EOFError(_ENDED)
        return self._items.popleft()

    async def _fetch(self, timeout: float | None) -> list[ItemT_co]:
        stream = self._stream
        async with asyncio.timeout(timeout):
            first = await anext(stream, None)
        return [] if first is None else [first, *stream.at_hand(_FETCHED)]

    async def _put_back(self, items: Iterable[ItemT_co]) -> None:
        self._stream.put_back([*items])

    def close(self) -> None:
        """End the stream. Idempotent."""
        self._items.clear()
        if self._gateway.is_open:
            self._gateway.call(self._stream.aclose)


class BlockingConsumer(Generic[ItemT_co]):
    """
    A durable consumer for threads, as returned by ``BlockingLog.consumer()``.

    As Consumer: an event is done when the next one is asked for. What a signal handler raises, such
    as Ctrl-C, loses nothing. One thread at a time may iterate.
    """

    def __init__(self, gateway: Gateway, consumer: Consumer[ItemT_co]) -> None:
        self._gateway = gateway
        self._consumer = consumer

    @property
    def name(self) -> str:
        """The name under which the cursor is kept."""
        return self._consumer.name

    @property
    def is_serving(self) -> bool:
        """Whether events come to this process now, as far as it knows."""
        return self._consumer.is_serving

    def __enter__(self) -> Self:
        """Make the consumer in the database, if it is not there; raises as Consumer does."""
        self._gateway.call(self._consumer.__aenter__)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[ItemT_co]:
        return self

    def __next__(self) -> ItemT_co:
        """
        Return the next event, or Gap; what was given before is done.

        Raises:
            StopIteration: The consumer or the log has been closed.
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: As of the ``anext()`` of a Consumer.
        """
        for batch in self.batches(1):
            return batch[0]
        raise StopIteration

    def batches(self, count: int = DEFAULT_BATCH) -> Iterator[list[ItemT_co]]:
        """
        Yield lists of events, as ``Consumer.batches()`` does.

        Raises:
            ValueError: ``count`` is not a whole number, at least 1.
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: As of the ``anext()`` of a Consumer.
        """
        check_count("count", count)
        fetch = functools.partial(self._consumer.next_batch, count)
        while batch := self._gateway.call(fetch, undo=self._put_back):
            yield batch

    async def _put_back(self, _: Iterable[ItemT_co]) -> None:
        self._consumer.put_back()

    def close(self) -> None:
        """Commit what is done, and let others serve the consumer. Idempotent."""
        if self._gateway.is_open:
            self._gateway.call(self._consumer.aclose)


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
    ) -> BlockingConsumer[Any]:
        """Return a durable consumer; as ``Log.consumer()``."""
        made = _made(lambda: self._log.consumer(name, *channels, start=start, gaps=gaps))
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
