"""Walking ticks on a connection: events in their order, in portions of bounded size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asyncnotify.log._bounds import MOST_TICK_IDS
from asyncnotify.log._errors import PositionError
from asyncnotify.log._walk.columns import columns_of, last_packed, number_packed, unpacked
from asyncnotify.log._walk.runs import in_order, run_of, up_to
from asyncnotify.log._walk.ticks import Tick, late_xids

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
    from datetime import datetime

    from asyncnotify.log._ports import Queries, Statement
    from asyncnotify.log._values import Position
    from asyncnotify.log._walk.columns import Columns
    from asyncnotify.log._walk.runs import Run
    from asyncnotify.log._walk.statements import Statements

    Expect = Callable[..., Awaitable[None]]

DEFAULT_ROWS: Final = 1_000
DEFAULT_BYTES: Final = 1_048_576


class ExpiredError(Exception):
    """
    Events that were to be read have been removed, as they were too old.

    Attributes:
        first: The oldest tick that is kept: of the events up to it any may be missing.
    """

    def __init__(self, first: int) -> None:
        super().__init__(first)
        self.first = first


class SqlQueries:
    """
    Sends the SQL of statements, for those who have a connection of their own.

    Args:
        connection: Has a ``fetch(query, *arguments)``.
    """

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - of any kind
        self._connection = connection

    async def fetch(self, statement: Statement, /, *arguments: object) -> Sequence[Any]:
        """Return the rows of the answer; raises what the connection raises."""
        rows: Sequence[Any] = await self._connection.fetch(statement.sql, *arguments)
        return rows


@dataclass(frozen=True, slots=True)
class Size:
    """
    How much is read at once.

    Attributes:
        rows: At most so many events.
        bytes: Of payloads. The first event is read whatever its size, so that the walk goes on.
    """

    rows: int = DEFAULT_ROWS
    bytes: int = DEFAULT_BYTES

    @property
    def short(self) -> int:
        """The bytes of a payload of which as many as ``rows`` are no more than ``bytes``."""
        return self.bytes // self.rows


DEFAULT_SIZE: Final = Size()


class _Answer(NamedTuple):
    """
    Events between two ids.

    Attributes:
        size: How many there are in this portion.
        last: The id of the last one.
        found: How many there are.
        first_tick: The oldest tick that is kept.
        columns: Returns them, if there are any.
    """

    size: int
    last: int
    found: int
    first_tick: int
    columns: Callable[[], Columns]

    @classmethod
    def of(cls, columns: Columns, found: int, first_tick: int) -> _Answer:
        """Return the answer that has these events."""
        return cls(columns.size, columns.ids[-1], found, first_tick, lambda: columns)

    @classmethod
    def none(cls, found: int, first_tick: int) -> _Answer:
        """Return the answer that has no event."""
        return cls(0, 0, found, first_tick, partial(columns_of, ()))


_BEHIND_ALL: Final = 2**63 - 1


async def _nothing_ahead(*_: object) -> None:
    """Send no query before its answer is asked for."""


class Walk:
    """
    Reads ticks and their events on one connection, one query at a time.

    Args:
        queries: The connection.
        statements: For the log, and the events that are wanted.
        size: How much is read at once.
        expect: Called with the query that will come next, unless the walk ends, where its answer
            cannot have more than a portion of short events: it may be sent already.
    """

    def __init__(
        self,
        queries: Queries,
        statements: Statements,
        size: Size = DEFAULT_SIZE,
        *,
        expect: Expect = _nothing_ahead,
    ) -> None:
        self._queries = queries
        self._statements = statements
        self._size = size
        self._expect = expect
        self._are_short = True
        self._usual: str | None = None

    @property
    def reads_all(self) -> bool:
        """Whether the events of all channels and buckets are wanted."""
        return not self._statements.chosen

    async def take_tick(self) -> int:
        """Take a tick if something is new; return the number of the newest."""
        rows = await self._queries.fetch(self._statements.tick)
        return int(rows[0][0])

    async def newest(self) -> Tick:
        """Take ticks until all that is visible is in one; return the newest."""
        last = -1
        while True:
            number = await self.take_tick()
            *before, tick = await self.ticks(max(number - 1, 0), 2)
            if number == last or not before or not _may_leave_some(before[0], tick):
                return tick
            last = number

    async def last_before(self, time: datetime) -> int | None:
        """Return the number of the newest tick that had been taken before a time, if any."""
        rows = await self._queries.fetch(self._statements.last_before, time)
        return int(rows[0][0]) if rows else None

    async def place_of(self, position: Position) -> tuple[int, int]:
        """
        Return the tick and the id of a position, as this server knows them.

        A server that has been promoted may not have the last ticks of the epoch before. A position
        in them counts as one at the end of what the server has.

        Raises:
            PositionError: The position is ahead of the log.
        """
        [row] = await self._queries.fetch(self._statements.place, position.epoch)
        next_first = row["next_first"]
        if position.epoch >= 1 and next_first is not None and position.tick >= next_first:
            return next_first - 1, _BEHIND_ALL
        if position.epoch < 1 or position.epoch > row["epoch"] or position.tick > row["newest"]:
            msg = f"position {position} is ahead of the log, or of another one of its name"
            raise PositionError(msg)
        return position.tick, position.id

    async def ticks(self, first: int, count: int) -> list[Tick]:
        """Return the ticks from a number on, ascending, at most so many."""
        rows = await self._queries.fetch(self._statements.ticks, first, count)
        return [Tick.of_row(row) for row in rows]

    async def news(self, first: int, count: int) -> list[Tick]:
        """Take a tick if something is new; then do as ``ticks()``."""
        rows = await self._queries.fetch(self._statements.news, first, count)
        return [Tick.of_row(row) for row in rows]

    async def events(self, last: Tick, tick: Tick, after: int = 0) -> AsyncGenerator[Columns]:
        """
        Yield the events of a tick whose ids are above ``after``, ascending, in portions.

        First come those of transactions that the last tick did not see, with ids up to its ``top``;
        then those with greater ids. Each portion is one query, and has at least one event.

        Args:
            last: The tick before.
            tick: The tick.
            after: An id.

        Raises:
            ExpiredError: Events of this tick have been removed. Nothing of the portion counts.
        """
        sql = self._statements
        start = max(after, last.base)
        late = await self._late(last, tick) if start < last.top else []
        if late and (first := await self._first_late(start, last.top, late)) is not None:
            async for columns in self._portions(last, sql.late, first - 1, last.top, late):
                yield columns
        start = max(after, last.top)
        if tick.whole:
            async for columns in self._portions(last, sql.whole, start, tick.top):
                yield columns
        else:
            async for columns in self._portions(
                last, sql.visible, start, tick.top, tick.snapshot.text
            ):
                yield columns

    def run_of(self, last: Tick, ticks: Iterable[Tick]) -> list[Tick]:
        """Return the ticks, from the first one on, that ``run()`` may read at once."""
        return run_of(last, ticks, self._size.rows)

    async def run(self, last: Tick, ticks: Sequence[Tick]) -> Run | None:
        """
        Return the events of several ticks, or of the first of them, as many as a portion may have.

        None if those of the first one alone are too many.

        Args:
            last: The tick before the first.
            ticks: As ``run_of()`` returns them, at least one.

        Raises:
            ExpiredError: Events of these ticks have been removed.
        """
        sql, end, left = self._statements, ticks[-1], self._size.bytes
        rows: Sequence[Any] = []
        late = await self._late(last, end) if last.base < last.top else []
        if late and (first := await self._first_late(last.base, last.top, late)) is not None:
            rows, is_all = await self._rows(last, sql.late, first - 1, last.top, left, late)
            left -= sum(len(row["payload"].encode()) for row in rows)
            if not is_all or left <= 0:  # the first event of the next query has any size
                return None
        fresh, is_all = await self._rows(
            last, sql.visible, last.top, end.top, left, end.snapshot.text
        )
        whole = ticks if is_all else up_to(ticks, fresh[-1]["id"])
        return in_order(whole, [*rows, *fresh]) if whole else None

    async def _rows(
        self, last: Tick, query: Statement, after: int, end: int, size: int, *arguments: object
    ) -> tuple[Sequence[Any], bool]:
        """Return the events of a query, up to so many bytes, and whether there are no others."""
        rows, chosen = self._size.rows, self._statements.chosen
        answer = await self._queries.fetch(query, after, end, rows + 1, size, *chosen, *arguments)
        if answer[0]["first_tick"] > last.number:
            raise ExpiredError(answer[0]["first_tick"])
        found = answer[0]["found"] or 0
        return answer[:found], found <= min(len(answer), rows)

    async def _first_late(self, after: int, top: int, xids: list[str]) -> int | None:
        """Return the smallest id of these transactions between two: most have no events."""
        rows = await self._queries.fetch(self._statements.first_late, after, top, xids)
        first: int | None = rows[0][0]
        return first

    async def _late(self, last: Tick, tick: Tick) -> list[str]:
        """Return the xids whose events, with ids up to the last tick's top, belong to this one."""
        late = late_xids(last, tick)
        xids = list(map(str, late.xids))
        if late.first is not None:
            rows = await self._queries.fetch(
                self._statements.late_in_range, str(late.first), str(late.end)
            )
            xids += [row[0] for row in rows if tick.whole or tick.snapshot.sees(int(row[0]))]
        return xids

    async def _portions(
        self, last: Tick, query: Statement, after: int, top: int, *arguments: object
    ) -> AsyncGenerator[Columns]:
        # Between near ids: of a wide range a planner without statistics expects little, reads all
        # of it and sorts that, for each portion anew. Where ids are sparse the steps grow
        rows, step = self._size.rows, self._size.rows
        while after < top:
            end = min(top, after + step)
            answer = await self._between(query, after, end, *arguments)
            if answer.first_tick > last.number:
                raise ExpiredError(answer.first_tick)
            size, found = answer.size, answer.found
            if not size or (size == found and (found < rows or end - after <= found)):
                after = end
                step = step * 2 if found * 2 < rows else step
            else:  # cut off, by the number of rows or by bytes
                after, step = answer.last, rows
            if size == rows and after < top and self._is_short(query):
                await self._expect(*self._query_of_short(after, min(top, after + step), *arguments))
            if size:
                yield answer.columns()

    def _is_short(self, query: Statement) -> bool:
        """Return whether the events of this query are read the quicker way."""
        return self._are_short and query is self._statements.visible

    def _query_of_short(self, after: int, end: int, *arguments: object) -> tuple[Any, ...]:
        size, sql = self._size, self._statements
        return sql.short, after, end, size.rows, size.short, *sql.chosen, self._usual, *arguments

    async def _between(self, query: Statement, after: int, end: int, *arguments: object) -> _Answer:
        """Return the events between two ids, as many as a portion may have."""
        if self._is_short(query):
            answer = await self._short(after, end, *arguments)
            if answer.size or not answer.found:
                return answer
        size, chosen = self._size, self._statements.chosen
        rows = await self._queries.fetch(
            query, after, end, size.rows, size.bytes, *chosen, *arguments
        )
        found, first_tick = rows[0]["found"] or 0, rows[0]["first_tick"]
        if not found:
            return _Answer.none(found, first_tick)
        columns = columns_of(rows)
        self._are_short = max(map(len, columns.payloads)) <= size.short
        return _Answer.of(columns, found, first_tick)

    async def _short(self, after: int, end: int, *arguments: object) -> _Answer:
        """Return the events up to the first long one, the quicker way."""
        usual = self._usual
        [row] = await self._queries.fetch(*self._query_of_short(after, end, *arguments))
        *packed, short, first_tick = row
        if packed[0] is None:
            return _Answer.none(0, first_tick)
        found = number_packed(packed[0])
        self._usual = packed[1][-1] or usual
        self._are_short = short == found
        if self._are_short:
            last = last_packed(packed[0])
            return _Answer(found, last, found, first_tick, partial(unpacked, usual, *packed))
        columns = unpacked(usual, *packed)
        if first_long := _first_long(columns.payloads):
            return _Answer.of(columns.up_to(first_long), found, first_tick)
        return _Answer.none(found, first_tick)


def _first_long(payloads: Sequence[str | None]) -> int:
    return payloads.index(None)


def _may_leave_some(last: Tick, tick: Tick) -> bool:
    """Return whether events may be visible that a new tick does not hold."""
    return tick.epoch != last.epoch or tick.top - last.top >= MOST_TICK_IDS
