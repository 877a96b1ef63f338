"""A durable consumer, as a user iterates it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from itertools import islice, takewhile
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, cast

from asyncnotify import ClosedError, Gap
from asyncnotify._arguments import check_count
from asyncnotify._channels.channel import RereadError
from asyncnotify._owner import OfOneProcess, Owner
from asyncnotify.log._consuming.feed import Feed
from asyncnotify.log._consuming.merging import MergedFeed
from asyncnotify.log._reading.decoding import Undecoded, shown
from asyncnotify.log._reading.pace import Pace
from asyncnotify.log._values import Event, Position

if TYPE_CHECKING:
    from asyncnotify._errors import PayloadDecodeError
    from asyncnotify.log._reading.decoding import Decoded

ItemT_co = TypeVar("ItemT_co", covariant=True)

_INTERVAL: Final = 0.1
"""Seconds after which the cursor is committed in the midst of a portion: its row is written at most
so often, as each version of it is one that VACUUM has to remove."""

DEFAULT_BATCH: Final = 1_000

_ONLY_EVENTS: Final = frozenset({Event})


class Consumer(OfOneProcess, Generic[ItemT_co]):
    """
    A durable consumer of a log, as returned by ``Log.consumer()``.

    Its place in the log is kept in the database under its name. One process at a time serves a
    name; others that iterate it wait, and one of them goes on when that one has left, or died.
    With ``buckets=`` this is true of each bucket: those who iterate have equal shares of them.
    Events of one key come in their order, those of different buckets in any.

    Each event comes at least once: an event is done when the next one is asked for. The cursor is
    committed behind what is done, at the latest when there is nothing more to be had. What was done
    since the last commit comes again after a crash.

    An event that cannot be decoded is kept as a dead letter. So is one that says "read again",
    unless the consumer has ``gaps=True``. Waiting may be cancelled, and loses nothing. One task
    may iterate at a time.
    """

    def __init__(
        self,
        name: str,
        feed: Feed | MergedFeed,
        *,
        gaps: bool,
        owner: Owner,
        pace: Pace,
        on_close: Callable[[Consumer[Any]], None],
    ) -> None:
        self._name = name
        self._feed = feed
        self._owner = owner
        self._pace = pace
        self._gaps = gaps
        self._on_close = on_close
        self._items: deque[Decoded | Gap] = deque()
        self._outstanding: list[Decoded | Gap] = []
        self._given: Position | None = None
        self._done: Position | None = None
        self._committed_at = 0.0
        self._is_closed = False
        self._is_taking = False

    def __del__(self) -> None:
        if not self._is_closed:
            self._feed.forget()

    def __repr__(self) -> str:
        return f"<Consumer {self._name!r}{' closed' if self._is_closed else ''}>"

    @property
    def name(self) -> str:
        """The name under which the cursor is kept."""
        return self._name

    @property
    def is_serving(self) -> bool:
        """Whether events come to this process now, as far as it knows."""
        return not self._owner.is_other_process and self._feed.is_serving

    async def __aenter__(self) -> Self:
        """
        Make the consumer in the database, if it is not there. Does not wait for its turn.

        Raises:
            ClosedError: The consumer has been closed.
            Exception: As of ``anext()``.
        """
        self._owner.check()
        self._check_open()
        await self._feed.ready()
        self._check_open()  # another task may have closed it meanwhile
        return self

    def _check_open(self) -> None:
        if self._is_closed:
            msg = f"consumer {self._name!r} has been closed"
            raise ClosedError(msg)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """
        Commit what is done, and let others serve the consumer. Idempotent.

        The event that was given last is not done: it comes again.

        Raises:
            WrongLoopError: The call came from another event loop or process.
        """
        self._owner.check()
        if self._is_closed:
            return
        self._is_closed = True
        self._items.clear()
        self._on_close(self)
        try:
            await self._commit()
        finally:
            await self._feed.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT_co:
        """
        Return the next event, or Gap; what was given before is done.

        Raises:
            StopAsyncIteration: The consumer or the log has been closed.
            NotInstalledError: The database has no such log.
            UnknownConsumerError: The consumer has been dropped.
            BucketCountError: The consumer was made, or made anew, with another number of buckets.
            ConfigurationError: The arguments for connecting are wrong.
            ConnectError: The server refuses the role or the database; only before the first event.
            PoolerError: A pooler is in between.
            WrongLoopError: The call came from another event loop or process.
            RuntimeError: Another task waits for the next event of this consumer.
            asyncpg.PostgresError: The server refused a statement.
        """
        self._begin_to_take()
        try:
            return await self._next()
        finally:
            self._is_taking = False

    async def _next(self) -> ItemT_co:
        self._finish()
        if self._items:
            await self._pace.turn()
        if self._is_due():
            await self._commit()
        while not self._is_closed:
            if not self._items:
                await self._fill()
            elif (item := await self._take()) is not None:
                return cast("ItemT_co", item)
        raise StopAsyncIteration

    def _begin_to_take(self) -> None:
        """Refuse a second task: what one is given would count as done when the other asks."""
        self._owner.check()
        if self._is_taking:
            msg = (
                f"another task waits for the next event of consumer {self._name!r}: one at a time"
                " may iterate it; to handle events side by side, give buckets="
            )
            raise RuntimeError(msg)
        self._is_taking = True

    async def batches(self, count: int = DEFAULT_BATCH) -> AsyncGenerator[list[ItemT_co]]:
        """
        Yield lists of events: those that are there, up to ``count``, and at least one.

        A batch is done when the next one is asked for. The cursor is committed then.

        Raises:
            ValueError: ``count`` is not a whole number, at least 1.
            Exception: As of ``anext()``.
        """
        check_count("count", count)
        while batch := await self.next_batch(count):
            yield batch

    async def next_batch(self, count: int) -> list[ItemT_co]:
        """
        Return the next of ``batches()``; none once the consumer has been closed.

        Raises:
            ValueError: ``count`` is no whole number above 0.
            Exception: As of ``anext()``.
        """
        check_count("count", count)
        self._begin_to_take()
        try:
            return await self._next_batch(count)
        finally:
            self._is_taking = False

    async def _next_batch(self, count: int) -> list[ItemT_co]:
        self._finish()
        while not self._is_closed:
            await self._commit()
            if not self._items:
                await self._fill()
            if batch := await self._batch(count):
                return batch
        return []

    async def _batch(self, count: int) -> list[ItemT_co]:
        batch = self._take_events(count)
        while self._items and len(batch) < count:
            try:
                item = await self._take()
            except BaseException:
                self.put_back()
                raise
            if item is not None:
                batch.append(cast("ItemT_co", item))
            batch += self._take_events(count - len(batch))
        return batch

    def _take_events(self, count: int) -> list[ItemT_co]:
        """Take the events that come first, up to ``count``; end before what is no event."""
        items = self._items
        taken: list[Any] = list(islice(items, count))
        if not _ONLY_EVENTS.issuperset(map(type, taken)):
            taken = list(takewhile(_is_event, taken))
        if len(taken) == len(items):
            items.clear()
        else:
            for _ in taken:
                items.popleft()
        if taken:
            self._given = taken[-1].position
            self._outstanding += taken
        return cast("list[ItemT_co]", taken)

    async def _take(self) -> Event[Any] | Gap | None:
        """Take an item; return None if it is nothing that the user wants to see."""
        item = self._items.popleft()
        if isinstance(item, Gap):
            if not self._gaps:
                return None
            self._outstanding.append(item)
            return item
        if isinstance(item, Undecoded) and not self._is_shown(item.error):
            try:
                await self._bury(item)
            except BaseException:
                self._items.appendleft(item)
                raise
            return None
        self._given = item.position
        self._outstanding.append(item)
        return shown(item)

    def _is_shown(self, error: PayloadDecodeError) -> bool:
        return self._gaps and isinstance(error, RereadError)

    def put_back(self) -> None:
        """Take back what was given last, and has been lost on its way: it comes again."""
        self._items.extendleft(reversed(self._outstanding))
        self._outstanding.clear()
        self._given = None

    def _finish(self) -> None:
        """Count as done what was given."""
        self._done, self._given = self._given or self._done, None
        self._outstanding.clear()

    async def _bury(self, item: Undecoded) -> None:
        if not await self._feed.bury(item.position, 1, str(item.error)):
            self._items.clear()
        elif self._given is None:
            self._done = item.position

    async def _fill(self) -> None:
        """Read on; what is done is committed before there may be a long wait."""
        await self._commit()
        found = await self._feed.next()
        self._items.extend([found] if isinstance(found, Gap) else found)

    def _is_due(self) -> bool:
        now = asyncio.get_running_loop().time()
        return self._done is not None and now - self._committed_at > _INTERVAL

    async def _commit(self) -> None:
        """Commit what is done. If that fails, all that is not committed comes again."""
        if self._done is not None:
            self._committed_at = asyncio.get_running_loop().time()
            is_kept = await self._feed.commit(self._done)
            self._done = None  # not before: one who is cancelled has not seen what became of it
            if not is_kept:
                self._items.clear()


def _is_event(item: object) -> bool:
    return type(item) in _ONLY_EVENTS
