"""The events of a log as an asynchronous iterator."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Self, TypeAlias, TypeVar, cast

from asyncnotify import ClosedError, Gap, GapReason
from asyncnotify._arguments import check_count
from asyncnotify._backoff import Backoff, Delays
from asyncnotify._logs import Log, WarningLimit
from asyncnotify._owner import OfOneProcess, Owner
from asyncnotify._tasks import retrieve, start
from asyncnotify.log._reading.decoding import Decoder, shown
from asyncnotify.log._reading.failures import PASSING, needs_repair, raise_if_final
from asyncnotify.log._reading.pace import Pace
from asyncnotify.log._reading.wake_ups import WakeUps
from asyncnotify.log._reporting import Reports
from asyncnotify.log._values import Event, Position
from asyncnotify.log._walk.cursor import Cursor, Expired

if TYPE_CHECKING:
    from asyncnotify.log._walk.cursor import Portion

ItemT_co = TypeVar("ItemT_co", covariant=True)
After: TypeAlias = Position | datetime | Literal["start", "now"]
"""Where a reader begins."""

log = Log("log")
_reread_warnings = WarningLimit()

_numbers: Final = itertools.count()
"""Of the streams: the address of one that has gone may be that of the next."""

DEFAULT_BATCH: Final = 1_000


def next_number() -> int:
    """Return a number that is greater than those of all streams that there are."""
    return next(_numbers)


def check_after(after: object, name: str = "after") -> None:
    """
    Raise unless a reader can begin there.

    Args:
        after: The value of an argument.
        name: What the argument is called.

    Raises:
        TypeError: It is neither a Position, nor a datetime, nor a str.
        ValueError: It is a datetime without a time zone, or another word than the two.
    """
    match after:
        case Position() | "start" | "now":
            return
        case datetime():
            if after.tzinfo is None:
                msg = f"{name} must be an aware datetime: one without a time zone means any hour"
                raise ValueError(msg)
        case str():
            msg = (
                f'{name} must be "start" or "now", not {after!r:.100}; Position.parse() reads texts'
            )
            raise ValueError(msg)
        case _:
            msg = (
                f'{name} must be a Position, a datetime, "start" or "now", not of type'
                f" {type(after).__name__}"
            )
            raise TypeError(msg)


async def take_place(cursor: Cursor, after: After) -> Expired | None:
    """Let a cursor stand where a reader begins; return what has been removed there, if known."""
    if isinstance(after, Position):
        return await cursor.at_position(after)
    if isinstance(after, datetime):
        return await cursor.at_time(after)
    await (cursor.at_start() if after == "start" else cursor.at_end())
    return None


class LogStream(OfOneProcess, Generic[ItemT_co]):
    """
    Events of a log as an asynchronous iterator, as returned by ``Log.read()``.

    First those that are there, then new ones as they are committed. It holds no connection while
    it waits, and at most one portion of events, of up to 1,000 or about 1 MiB. When the connection
    is lost it connects again and goes on behind the last event. It ends with StopAsyncIteration
    when the log is closed, or at ``Log.end_streams()``.

    Waiting for the next item may be cancelled, and loses nothing: the next call gets it. One task
    at a time may take from a stream.
    """

    def __init__(
        self,
        cursor: Cursor,
        decoder: Decoder,
        wake_ups: WakeUps,
        after: After,
        *,
        gaps: bool,
        poll: float,
        backoff: Backoff,
        losses: Callable[[], int],
        reports: Reports,
        owner: Owner,
        pace: Pace,
        on_close: Callable[[LogStream[Any]], None],
    ) -> None:
        self.number: int = next_number()
        self._cursor = cursor
        self._losses = losses
        self._losses_seen = 0
        self._reports = reports
        self._owner = owner
        self._pace = pace
        self._work: asyncio.Task[None] | None = None
        self._is_at_end = False
        self._seen = 0
        self._retry_at = 0.0
        self._decoder = decoder
        self._wake_ups = wake_ups
        self._after: After = after
        self._gaps = gaps
        self._poll = poll
        self._backoff = backoff
        self._delays = Delays(backoff)
        self._on_close = on_close
        self._items: deque[Event[Any] | Gap] = deque()
        self._is_placed = False
        self._is_closed = False
        self._ending: asyncio.Future[None] = owner.loop.create_future()
        self._is_new = True

    def __repr__(self) -> str:
        return f"<LogStream after {self._after}{' closed' if self._is_closed else ''}>"

    @property
    def position(self) -> Position | None:
        """The place behind the last event that was taken; None before the first."""
        return self._after if isinstance(self._after, Position) else None

    async def __aenter__(self) -> Self:
        """
        Take the place in the log where reading begins: with ``after="now"``, its end.

        Raises:
            ClosedError: The stream or the log has been closed, also meanwhile.
            AsyncNotifyError: As of the first ``anext()``.
        """
        self._owner.check()
        while not self._is_placed and not self._is_closed and not self._ending.done():
            await self._done(self._start, self._ending)
        if self._is_closed:
            msg = "the stream has been closed; make another with Log.read()"
            raise ClosedError(msg)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """
        End the stream. Idempotent; never waits.

        Raises:
            WrongLoopError: The call came from another event loop or process.
        """
        self._owner.check()
        self.end()
        self._on_close(self)

    def end(self) -> None:
        """Let whoever waits for the next item learn that there is none."""
        self._is_closed = True
        self._reports.gone(self)
        self._items.clear()
        if self._work is not None:
            self._work.cancel()

    def end_after_portion(self) -> None:
        """Yield what has been read, and no more; but an ``until_end()`` goes on to its end."""
        self._reports.gone(self)
        if not self._ending.done():
            self._ending.set_result(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT_co:
        """
        Return the next event, or Gap.

        Raises:
            StopAsyncIteration: The stream or the log has been closed, or ``Log.end_streams()`` has
                been called.
            NotInstalledError: The database has no such log.
            PositionError: This log has not given the position after which to read.
            ConfigurationError: The arguments for connecting are wrong.
            ConnectError: The server refuses the role or the database; only before the first event.
            PoolerError: A pooler is in between.
            ClosedError: The listener that the log was given has been closed.
            WrongLoopError: The call came from another event loop or process.
            asyncpg.PostgresError: The server refused a statement.
        """
        self._owner.check()
        if self._items:
            await self._pace.turn()
        while not self._is_closed:
            if (item := self._taken()) is not None:
                return item
            if self._ending.done():
                break
            await self._fill()
        raise StopAsyncIteration

    def _taken(self) -> ItemT_co | None:
        """Take an item that has been read, if there is one that the user wants to see."""
        while self._items:
            item = self._items.popleft()
            if isinstance(item, Event):
                self._after = item.position
            if isinstance(item, Event) or self._gaps:
                return cast("ItemT_co", item)
            if item.reason is GapReason.REREAD:
                self._warn_of(item)
        return None

    def _warn_of(self, gap: Gap) -> None:
        text = 'an event on %r says "read again": pass gaps=True to read(), to get a Gap for it'
        log.warning(_reread_warnings, self.number, text, gap.channel)

    async def batches(self, limit: int = DEFAULT_BATCH) -> AsyncGenerator[list[ItemT_co]]:
        """
        Yield lists of items: those that have been read, up to ``limit``, and at least one.

        Raises:
            ValueError: ``limit`` is not a whole number, at least 1.
            Exception: As of ``anext()``.
        """
        check_count("limit", limit)
        async for item in self:
            yield [item, *self.at_hand(limit - 1)]

    async def until_end(self) -> AsyncGenerator[ItemT_co]:
        """
        Yield the items that are there, and end at the end of the log instead of waiting for more.

        What is committed while it yields may be among them. Afterwards the stream continues from
        there.

        Raises:
            Exception: As of ``anext()``.
        """
        self._owner.check()
        self._is_at_end = False
        while not self._is_closed:
            while (item := self._taken()) is not None:
                yield item
            if self._is_at_end:
                return
            await self._done(self._read)

    def at_hand(self, limit: int) -> list[ItemT_co]:
        """
        Return items that have been read, at most so many; none if there are none.

        Raises nothing.
        """
        found: list[ItemT_co] = []
        while len(found) < limit and (item := self._taken()) is not None:
            found.append(item)
        return found

    async def _fill(self) -> None:
        """Read the next portion; if there is none, wait until there may be."""
        if self._is_at_end:
            await self._wake_ups.wait(self._seen, self._poll)
            self._is_at_end = False
        if not self._ending.done():
            await self._done(self._read, self._ending)

    async def _read(self) -> None:
        self._seen = self._wake_ups.count
        await self._start()
        portion = await self._cursor.portion()
        self._recovered()
        if portion is None:
            self._is_at_end = True
        else:
            self._add(portion)

    async def _done(
        self, what: Callable[[], Coroutine[Any, Any, None]], *ends: asyncio.Future[None]
    ) -> None:
        """
        Return once this is done, or has failed in a way that may pass, or one of the ends has come.

        A task does it, so that a caller that is cancelled, again and again, costs no connection.
        """
        if self._work is None:
            self._work = start(self._when_due(what), name="asyncnotify log reader")
            self._work.add_done_callback(retrieve)
        work = self._work
        if not work.done():
            await asyncio.wait({work, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if self._work is not work or not work.done():
            return  # another task that takes from this stream has seen to it, or the end has come
        self._work = None
        if work.cancelled() or self._is_closed:
            return
        try:
            try:
                work.result()
            except PASSING as error:
                self._wait_to_retry(error)
        except BaseException:
            self._reports.gone(self)  # its caller may hold it, and try no more
            raise

    async def _when_due(self, what: Callable[[], Coroutine[Any, Any, None]]) -> None:
        delay = self._retry_at - asyncio.get_running_loop().time()
        if delay > 0:
            await asyncio.sleep(delay)
        await what()

    def _add(self, portion: Portion | Expired) -> None:
        if isinstance(portion, Expired):
            self._items.append(self._reports.expired(portion))
        else:
            self._items.extend(map(shown, self._decoder.decoded(portion)))

    # -- the place ----------------------------------------------------------------------------

    async def _start(self) -> None:
        """Listen for wake-ups before looking, so that none is missed; then take the place."""
        self._see_losses()
        if not self._is_placed:
            await self._wake_ups.start()
            expired = await self._take_place()
            self._is_placed = True
            self._is_new = False
            if expired is not None:
                self._add(expired)

    async def _take_place(self) -> Expired | None:
        expired = await take_place(self._cursor, self._after)
        if not isinstance(self._after, Position):
            self._after = self._cursor.position
        return expired

    # -- losses -------------------------------------------------------------------------------

    def _wait_to_retry(self, error: Exception) -> None:
        raise_if_final(error, is_new=self._is_new)
        self._take_place_anew()
        delay = self._delays.next()
        self._reports.interrupted(self, error, delay, needs_repair=needs_repair(error))
        self._retry_at = asyncio.get_running_loop().time() + delay

    def _see_losses(self) -> None:
        """Notice connections that were lost while no query ran on them."""
        losses = self._losses()
        if losses != self._losses_seen:
            self._losses_seen = losses
            self._take_place_anew()

    def _take_place_anew(self) -> None:
        """The server that comes back may have been restored, or be another one."""
        if self._is_placed:
            self._after = self._cursor.position
            self._is_placed = False

    def _recovered(self) -> None:
        if self._retry_at:
            self._retry_at = 0.0
            self._delays = Delays(self._backoff)
        self._reports.succeeded(self)
