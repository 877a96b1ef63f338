"""Streams and consumers of a log for threads: iterators without ``await``."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Generic, Self, TypeAlias, TypeVar

from asyncnotify._arguments import check_count, check_timeout
from asyncnotify._blocking.gateway import Gateway
from asyncnotify._errors import ClosedError, NotStartedError
from asyncnotify._owner import OfOneProcess
from asyncnotify.log._consuming.consumer import DEFAULT_BATCH, Consumer
from asyncnotify.log._reading.stream import LogStream
from asyncnotify.log._values import Event, Position

T = TypeVar("T")
ItemT_co = TypeVar("ItemT_co", covariant=True)

_FETCHED: Final = 1_000
"""Events that a thread fetches from the event loop at once."""

_ENDED: Final = "the stream has ended"

# Items that have been fetched, how many of them have been taken, and the place before the first.
# It is replaced as a whole: no call stands between that and the return of what was taken, so no
# signal handler runs there, whose exception would lose it.
_State: TypeAlias = "tuple[list[T], int, Position | None]"


class BlockingLogStream(OfOneProcess, Generic[ItemT_co]):
    """
    Events of a log as an iterator for threads, as returned by ``BlockingLog.read()``.

    As LogStream. ``get()`` waits for one item, at most so many seconds; a TimeoutError, or what a
    signal handler raises, loses nothing. One thread at a time may take from a stream.
    """

    def __init__(self, gateway: Gateway, stream: LogStream[ItemT_co]) -> None:
        self._gateway = gateway
        self._stream = stream
        self._state: _State[ItemT_co] = [], 0, stream.position

    def __enter__(self) -> Self:
        """Take the place in the log where reading begins; raises as ``get()`` does."""
        self._gateway.call(self._enter)
        return self

    async def _enter(self) -> None:
        await self._stream.__aenter__()
        if not self._state[0]:
            self._state = [], 0, self._stream.position

    @property
    def position(self) -> Position | None:
        """The place behind the last event that was taken; as ``LogStream.position``."""
        items, taken, before = self._state
        events = (item for item in reversed(items[:taken]) if isinstance(item, Event))
        last = next(events, None)
        return before if last is None else last.position

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
            timeout: Seconds to wait for it; None: forever.

        Raises:
            ValueError: ``timeout`` is not a number of seconds.
            TimeoutError: Nothing came in time.
            EOFError: The stream or the log has been closed.
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: As of the ``anext()`` of a LogStream.
        """
        check_timeout("timeout", timeout)
        self._wait(timeout)
        items, taken, before = self._state
        item = items[taken]
        self._state = items, taken + 1, before
        return item

    def _wait(self, timeout: float | None) -> None:
        """Return when there is an item to be taken."""
        items, taken, _ = self._state
        if taken == len(items):
            with contextlib.suppress(ClosedError):  # of the log: this is an end as well
                self._gateway.call(functools.partial(self._fetch, timeout))
            items, taken, _ = self._state
            if taken == len(items):
                raise EOFError(_ENDED)

    def batches(self, limit: int = DEFAULT_BATCH) -> Iterator[list[ItemT_co]]:
        """
        Yield lists of items: those that have been read, up to ``limit``, and at least one.

        Raises:
            ValueError: ``limit`` is not a whole number, at least 1.
            Exception: As of ``get()``, but for EOFError.
        """
        check_count("limit", limit)
        with contextlib.suppress(EOFError):
            while True:
                self._wait(None)
                items, taken, before = self._state
                batch = items[taken : taken + limit]
                end = taken + len(batch)
                self._state = items, end, before
                yield batch

    def until_end(self) -> Iterator[ItemT_co]:
        """
        Yield the items that are there, and end at the end of the log instead of waiting for more.

        What is committed while it yields may be among them. Afterwards the stream continues from
        there.

        Raises:
            WrongLoopError: The call came from the thread of an event loop, or another process.
            Exception: As of the ``anext()`` of a LogStream.
        """
        is_at_end = False
        while True:
            items, taken, before = self._state
            if taken < len(items):
                self._state = items, taken + 1, before
                yield items[taken]
            elif is_at_end:
                return
            else:
                with contextlib.suppress(ClosedError):  # of the log: this is an end as well
                    is_at_end = self._gateway.call(self._fetch_what_is_there)
                    continue
                return

    async def _fetch_what_is_there(self) -> bool:
        """Put items where a thread takes them; return whether those are the last for now."""
        found: list[ItemT_co] = []
        async with contextlib.aclosing(self._stream.until_end()) as stream:
            async for item in stream:
                found.append(item)
                found += self._stream.at_hand(_FETCHED - 1)
                if len(found) >= _FETCHED:
                    break
        self._put(found)
        return len(found) < _FETCHED

    def _put(self, found: list[ItemT_co]) -> None:
        items, taken, _ = self._state
        if taken == len(items):  # nobody can take anything: only the loop changes it then
            self._state = found, 0, self.position
        else:
            items.extend(found)

    async def _fetch(self, timeout: float | None) -> None:
        """Put items where a thread takes them, which may be interrupted while it waits."""
        async with asyncio.timeout(timeout):
            first = await anext(self._stream, None)
        if first is None:
            return
        self._put([first, *self._stream.at_hand(_FETCHED)])

    def close(self) -> None:
        """End the stream. Idempotent."""
        self._state = [], 0, self.position
        with contextlib.suppress(ClosedError, NotStartedError):
            self._gateway.call(self._stream.aclose)


class BlockingConsumer(OfOneProcess, Generic[ItemT_co]):
    """
    A durable consumer for threads, as returned by ``BlockingLog.consumer()``.

    As Consumer: an event is done when the next one is asked for. What a signal handler raises, such
    as Ctrl-C, loses nothing. One thread at a time may iterate.
    """

    def __init__(self, gateway: Gateway, consumer: Consumer[ItemT_co]) -> None:
        self._gateway = gateway
        self._consumer = consumer
        self._fetched: list[ItemT_co] = []  # until the thread that asked for them returns them

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
        self._fetch(1)
        batch = self._fetched
        self._fetched = []  # no call stands between this and the return: no signal handler runs
        if batch:
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
        while True:
            self._fetch(count)
            batch = self._fetched
            self._fetched = []
            if not batch:
                return
            yield batch

    def _fetch(self, count: int) -> None:
        with contextlib.suppress(ClosedError):  # of the log
            self._gateway.call(functools.partial(self._next_batch, count))

    async def _next_batch(self, count: int) -> None:
        """Fetch the next events; those come again that a thread was to return, and did not."""
        if self._fetched:
            self._fetched = []
            self._consumer.put_back()
        self._fetched = await self._consumer.next_batch(count)

    def close(self) -> None:
        """Commit what is done, and let others serve the consumer. Idempotent."""
        with contextlib.suppress(ClosedError, NotStartedError):
            self._gateway.call(self._consumer.aclose)
