"""Walking ticks on a connection: events in their order, in portions of bounded size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asyncnotify.log._errors import PositionError
from asyncnotify.log._walk.columns import columns_of, unpacked
from asyncnotify.log._walk.ticks import Tick, late_xids

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from datetime import datetime

    from asyncnotify.log._ports import Queries, Statement
    from asyncnotify.log._values import Position
    from asyncnotify.log._walk.columns import Columns
    from asyncnotify.log._walk.statements import Statements

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
    """Events between two ids: those of a portion, how many there are, and the oldest tick kept."""

    columns: Columns | None
    found: int
    first_tick: int


_BEHIND_ALL: Final = 2**63 - 1


class Walk:
    """Reads ticks and their events on one connection, one query at a time."""

    def __init__(self, queries: Queries, statements: Statements, size: Size = DEFAULT_SIZE) -> None:
        self._queries = queries
        self._statements = statements
        self._size = size
        self._are_short = True

    async def take_tick(self) -> int:
        """Take a tick if something is new; return the number of the newest."""
        rows = await self._queries.fetch(self._statements.tick)
        return int(rows[0][0])

    async def newest(self) -> Tick:
        """Take a tick if something is new; return the newest."""
        [tick] = await self.ticks(await self.take_tick(), 1)
        return tick

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
        size, step = self._size, self._size.rows
        while after < top:
            end = min(top, after + step)
            columns, found, first_tick = await self._between(query, after, end, *arguments)
            if first_tick > last.number:
                raise ExpiredError(first_tick)
            if columns is not None:
                yield columns
            count = 0 if columns is None else columns.size
            if columns is None or (count == found and (found < size.rows or end - after <= found)):
                after = end
                step = step * 2 if found * 2 < size.rows else step
            else:  # cut off, by the number of rows or by bytes
                after = columns.ids[-1]
                step = size.rows

    async def _between(self, query: Statement, after: int, end: int, *arguments: object) -> _Answer:
        """Return the events between two ids, as many as a portion may have."""
        if query is self._statements.visible and self._are_short:
            answer = await self._short(after, end, *arguments)
            if answer.columns is not None or not answer.found:
                return answer
        size, chosen = self._size, self._statements.chosen
        rows = await self._queries.fetch(
            query, after, end, size.rows, size.bytes, *chosen, *arguments
        )
        columns = columns_of(rows) if rows[0]["found"] else None
        if columns is not None:
            self._are_short = max(map(len, columns.payloads)) <= size.short
        return _Answer(columns, rows[0]["found"] or 0, rows[0]["first_tick"])

    async def _short(self, after: int, end: int, *arguments: object) -> _Answer:
        """Return the events up to the first long one, the quicker way."""
        size, sql = self._size, self._statements
        [row] = await self._queries.fetch(
            sql.short, after, end, size.rows, size.short, *sql.chosen, *arguments
        )
        *packed, short, first_tick = row
        if packed[0] is None:
            return _Answer(None, 0, first_tick)
        columns = unpacked(*packed)
        found = columns.size
        self._are_short = short == found
        if self._are_short:
            return _Answer(columns, found, first_tick)
        first_long = _first_long(columns.payloads)
        return _Answer(columns.up_to(first_long) if first_long else None, found, first_tick)


def _first_long(payloads: Sequence[str | None]) -> int:
    return payloads.index(None)
