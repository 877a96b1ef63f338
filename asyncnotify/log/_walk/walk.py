"""Walking ticks on a connection: events in their order, in portions of bounded size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asyncnotify.log._errors import PositionError
from asyncnotify.log._walk.ticks import Tick, late_xids

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from datetime import datetime

    from asyncnotify.log._ports import Queries, Statement
    from asyncnotify.log._values import Position
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


DEFAULT_SIZE: Final = Size()
_BEHIND_ALL: Final = 2**63 - 1


class Walk:
    """Reads ticks and their events on one connection, one query at a time."""

    def __init__(self, queries: Queries, statements: Statements, size: Size = DEFAULT_SIZE) -> None:
        self._queries = queries
        self._statements = statements
        self._size = size

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

    async def events(self, last: Tick, tick: Tick, after: int = 0) -> AsyncGenerator[Sequence[Any]]:
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
            async for rows in self._portions(last, sql.late, first - 1, last.top, late):
                yield rows
        start = max(after, last.top)
        if tick.whole:
            async for rows in self._portions(last, sql.whole, start, tick.top):
                yield rows
        else:
            async for rows in self._portions(
                last, sql.visible, start, tick.top, tick.snapshot.text
            ):
                yield rows

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
    ) -> AsyncGenerator[Sequence[Any]]:
        # Between near ids: of a wide range a planner without statistics expects little, reads all
        # of it and sorts that, for each portion anew. Where ids are sparse the steps grow
        size, chosen, step = self._size, self._statements.chosen, self._size.rows
        while after < top:
            end = min(top, after + step)
            rows = await self._queries.fetch(
                query, after, end, size.rows, size.bytes, *chosen, *arguments
            )
            if rows[0]["first_tick"] > last.number:
                raise ExpiredError(rows[0]["first_tick"])
            found = rows[0]["found"] or 0
            if found:
                yield rows
            if not found or (len(rows) == found and (found < size.rows or end - after <= found)):
                after = end
                step = step * 2 if found * 2 < size.rows else step
            else:  # cut off, by the number of rows or by bytes
                after = rows[-1]["id"]
                step = size.rows
