"""A place in a log, and the next portion of events behind it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncnotify.log._errors import PositionError
from asyncnotify.log._values import Position
from asyncnotify.log._walk.walk import ExpiredError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from datetime import datetime

    from asyncnotify.log._walk.columns import Columns
    from asyncnotify.log._walk.ticks import Tick
    from asyncnotify.log._walk.walk import Walk

_AHEAD: Final = 100
"""Ticks that are read at once."""

_FAR_AHEAD: Final = 1_000
"""The same where more follow: so many may hold an event each, and are read together."""

_RUNNING: Final = 100_000
"""Transactions, in all, in the snapshots of the ticks that are read at once: they take 5 MB."""

_LONG_WAY: Final = 100
_IDS: Final = 10_000
"""After a hundred ticks without an event the place is kept; so many ids count as a tick more."""


class Portion(NamedTuple):
    """
    Events that follow each other in the order.

    Attributes:
        epoch: In which their ticks were taken.
        ticks: The number of the tick to which each event belongs.
        columns: Of the events, at least one.
    """

    epoch: int
    ticks: Sequence[int]
    columns: Columns


class Expired(NamedTuple):
    """
    Events have been removed at this place, as they were too old.

    Attributes:
        dropped: How many events that were to be read; None if nobody knows.
        since: When the last tick that was read had been taken; None if nobody knows.
        most: How many events at most, those of other channels and buckets included; None if nobody
            knows.
    """

    dropped: int | None
    since: datetime | None
    most: int | None = None

    @property
    def number(self) -> str:
        """How many, in words."""
        if self.dropped is not None:
            return str(self.dropped)
        return "unknown how many" if self.most is None else f"at most {self.most}"


class Behind(NamedTuple):
    """
    What one has behind it whose place has been removed.

    Attributes:
        total: How many events of the log it had behind it, at least.
        since: When the last tick that it had read had been taken.
        is_exact: Whether it had no more behind it.
    """

    total: int
    since: datetime
    is_exact: bool


async def _nothing() -> None:
    """Let the walk go on: there is no place to keep."""


class _OtherServerError(Exception):
    """The last tick that was read is not one of this server's: it does not know what was read."""


class Cursor:
    """
    A place in the order of a log, which only moves forward.

    One of the ``at_…()`` methods has to be called first, and again after a failure: a server that
    has been restored, or a standby that has been promoted, may know less than was read. Where
    no failure told of another server, the ticks do: the place is then taken anew.

    Attributes:
        last: The last tick that has been read as a whole.
        on_passed: Called on the way through ticks in which nothing is wanted: behind a hundred, or
            a thousand small ones, or one of a million ids.
    """

    last: Tick

    def __init__(self, walk: Walk, log: str) -> None:
        self._walk = walk
        self._log = log
        self.on_passed: Callable[[], Awaitable[None]] = _nothing
        self._is_far = False
        self._passed = 0
        self._ahead: deque[Tick] = deque()
        self._events: AsyncGenerator[Columns] | None = None
        self._after = 0
        self._read = 0
        self._is_read_known = True
        self._is_placed = False

    @property
    def position(self) -> Position:
        """The place behind all that has been read."""
        if self._after:
            tick = self._ahead[0]
            return Position(self._log, tick.epoch, tick.number, self._after)
        return Position(self._log, self.last.epoch, self.last.number, self.last.top)

    # -- beginning ----------------------------------------------------------------------------

    async def at_start(self) -> None:
        """Stand before all events that are kept."""
        [self.last] = await self._walk.ticks(0, 1)
        self._forget()

    async def at_end(self) -> None:
        """Stand behind all events that have been committed."""
        self.last = await self._walk.newest()
        self._forget()

    async def at_time(self, time: datetime) -> Expired | None:
        """Stand before all events that were committed at this time or later, and some others."""
        await self._walk.take_tick()
        number = await self._walk.last_before(time)
        if number is not None:
            [self.last] = await self._walk.ticks(number, 1)
            self._forget()
            return None
        await self.at_start()
        return Expired(None, None) if self.last.number > 0 else None

    async def at_position(self, position: Position, behind: Behind | None = None) -> Expired | None:
        """
        Stand behind an event; return what has been removed there, if anything.

        Args:
            position: Of the event.
            behind: What the log has noted when it removed what is there, if it has.

        Raises:
            PositionError: This log has not given the position.
        """
        if position.log != self._log:
            msg = f"{position} is a position of log {position.log!r}, not of {self._log!r}"
            raise PositionError(msg)
        await self._walk.take_tick()  # on a promoted server the first one begins an epoch
        number, after = await self._walk.place_of(position)
        own = self._behind(position)
        first, *ahead = await self._walk.ticks(max(number - 1, 0), _AHEAD)
        self._forget()
        if first.number < max(number, 1):
            self.last = first
            self._ahead.extend(ahead)
            self._is_far = len(ahead) == _AHEAD - 1
            self._after = after if number else 0
            self._skip_finished()
            self._is_read_known = not self._after
            return None
        self.last = first
        if first.number == number and after >= first.final:
            return None
        if behind is None and own is not None and position.epoch == first.epoch:
            behind = own
        return self._removed(behind)

    def _behind(self, position: Position) -> Behind | None:
        """Return what has been read, if it ends at this position."""
        if not self._is_placed or position != self.position:
            return None
        total = self.last.total + self._read
        return Behind(total, self.last.taken_at, self._is_read_known)

    def _removed(self, behind: Behind | None) -> Expired:
        """Return what was between what had been read and the oldest tick, behind which it is."""
        if behind is None:
            return Expired(None, None)
        # Ticks count the events of all channels, and what is gone cannot be counted any more
        most = self.last.total - behind.total
        is_known = behind.is_exact and self._walk.reads_all
        return Expired(most if is_known or not most else None, behind.since, most)

    def _skip_finished(self) -> None:
        """Stand behind the tick of a position, if that is its last event."""
        if self._ahead and self._after >= max(self._ahead[0].final, 1):
            self.last = self._ahead.popleft()
            self._after = 0

    def _forget(self) -> None:
        self._ahead.clear()
        self._is_far = False
        self._events = None
        self._after = 0
        self._read = 0
        self._is_read_known = True
        self._is_placed = True

    # -- going on -----------------------------------------------------------------------------

    async def portion(self) -> Portion | Expired | None:
        """
        Return the next events; or that some have been removed; or None at the end of the log.

        A failure, or a cancellation, loses nothing: ``at_position()`` goes on behind what was
        returned.
        """
        try:
            while self._ahead or await self._look_ahead():
                portion = await self._next()
                if portion is not None:
                    self._passed = 0
                    return portion
                if self._passed >= _LONG_WAY:
                    self._passed = 0
                    await self.on_passed()
        except ExpiredError as error:
            return await self._expired(error.first)
        except _OtherServerError:
            return await self.at_position(self.position) or await self.portion()
        return None

    async def _next(self) -> Portion | None:
        """Return the events that come next; or None, behind one tick or several without any."""
        if self._events is None and not self._after:
            run = self._walk.run_of(self.last, self._ahead)
            if len(run) > 1 and (found := await self._walk.run(self.last, run)) is not None:
                self._pass(found.size)
                return Portion(run[0].epoch, found.ticks, found.columns) if found.ticks else None
        tick = self._ahead[0]
        columns = await self._next_columns()
        if columns is not None:
            return Portion(tick.epoch, [tick.number] * columns.size, columns)
        self._pass(1)
        return None

    def _pass(self, count: int) -> None:
        """Stand behind the next ticks."""
        before = self.last.top
        for _ in range(count):
            self.last = self._ahead.popleft()
        self._passed += count + (self.last.top - before) // _IDS
        self._events = None
        self._after = self._read = 0
        self._is_read_known = True

    async def _look_ahead(self) -> bool:
        """Learn of the ticks that follow; return whether there are any."""
        count = _AHEAD
        if self._is_far:
            running = len(self.last.snapshot.running)
            count = max(_AHEAD, min(_FAR_AHEAD, _RUNNING // (running + 1)))
        ticks = await self._walk.news(self.last.number, count)
        if ticks and ticks[0].number > self.last.number:
            raise ExpiredError(ticks[0].number)
        if not ticks or ticks[0] != self.last:
            raise _OtherServerError
        self._ahead.extend(ticks[1:])
        self._is_far = len(ticks) == count
        return bool(self._ahead)

    async def _next_columns(self) -> Columns | None:
        if self._events is None:
            self._events = self._walk.events(self.last, self._ahead[0], self._after)
        try:
            columns = await anext(self._events, None)
        except BaseException:
            self._events = None  # it has ended, and would seem to be finished
            raise
        if columns is not None:
            self._after = columns.ids[-1]
            self._read += columns.size
        return columns

    async def _expired(self, first: int) -> Expired:
        """Go to the oldest tick that is kept, and tell what was skipped."""
        behind = self._behind(self.position)
        [self.last] = await self._walk.ticks(first, 1)
        self._forget()
        return self._removed(behind)
