"""Walking ticks on a connection: events in their order, in portions of bounded size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from asyncnotify.log._walk.ticks import Tick, late_xids

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from asyncnotify.log._walk.statements import Statements

DEFAULT_ROWS: Final = 1_000
DEFAULT_BYTES: Final = 1_048_576


class Queries(Protocol):
    """A connection on which each query has a snapshot of its own."""

    async def fetch(self, query: str, /, *arguments: Any) -> Sequence[Any]:  # noqa: ANN401 - as the driver
        """Return the rows of the answer."""
        ...


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

    async def first_tick(self) -> int:
        """Return the oldest tick that is kept: events up to it may have been removed."""
        rows = await self._queries.fetch(self._statements.first_tick)
        return int(rows[0][0])

    async def ticks(self, first: int, count: int) -> list[Tick]:
        """Return the ticks from a number on, ascending, at most so many."""
        rows = await self._queries.fetch(self._statements.ticks, first, count)
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
        """
        sql = self._statements
        start = max(after, last.base)
        if start < last.top and (late := await self._late(last, tick)):
            async for rows in self._portions(sql.late, start, last.top, late):
                yield rows
        start = max(after, last.top)
        if tick.whole:
            async for rows in self._portions(sql.whole, start, tick.top):
                yield rows
        else:
            async for rows in self._portions(sql.visible, start, tick.top, tick.snapshot.text):
                yield rows

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
        self, query: str, after: int, top: int, *arguments: object
    ) -> AsyncGenerator[Sequence[Any]]:
        # Between near ids: of a wide range a planner without statistics expects little, reads all
        # of it and sorts that, for each portion anew. Where ids are sparse the steps grow
        size, chosen, step = self._size, self._statements.chosen, self._size.rows
        while after < top:
            end = min(top, after + step)
            rows = await self._queries.fetch(
                query, after, end, size.rows, size.bytes, *chosen, *arguments
            )
            found = rows[0]["found"] if rows else 0
            if rows:
                yield rows
            if len(rows) == found and (found < size.rows or end - after <= size.rows):
                after = end
                step = step * 2 if found * 2 < size.rows else step
            else:  # cut off, by the number of rows or by bytes
                after = rows[-1]["id"]
                step = size.rows
