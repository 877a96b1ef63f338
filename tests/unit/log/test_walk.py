"""How a tick is cut into portions."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

from asyncnotify.log._names import Names
from asyncnotify.log._walk.statements import Statements
from asyncnotify.log._walk.ticks import Snapshot, Tick
from asyncnotify.log._walk.walk import Size, Walk

if TYPE_CHECKING:
    from asyncnotify.log._ports import Statement

NOW = datetime.now(UTC)
NOTHING = Tick(0, 1, 0, Snapshot.parse("3:3:"), 3, 0, 0, 0, whole=False, taken_at=NOW)


class FakeTable:
    """Answers as the statements of a walk do: ``sizes`` are the payloads' lengths, by id."""

    def __init__(self, sizes: dict[int, int]) -> None:
        self._sizes = sizes
        self.steps: list[tuple[int, int]] = []

    async def fetch(self, statement: Statement, /, *arguments: Any) -> list[dict[str, int | None]]:
        """Return the rows between two ids, cut by number and by bytes."""
        after, end, rows, size, *_ = arguments
        self.steps.append((after, end))
        found = sorted(id_ for id_ in self._sizes if after < id_ <= end)[:rows]
        kept: list[int] = []
        for id_ in found:
            if kept and sum(self._sizes[k] for k in kept) >= size:
                break
            kept.append(id_)
        shown: list[int | None] = [*kept] or [None]
        return [{"id": id_, "found": len(found), "first_tick": 0} for id_ in shown]


async def walked(table: FakeTable, top: int, size: Size) -> list[list[int]]:
    """Return the ids of each portion of one tick."""
    tick = Tick(1, 1, 0, Snapshot.parse("9:9:"), 9, top, top, 0, whole=False, taken_at=NOW)
    walk = Walk(table, Statements(Names("orders")), size)
    return [[row["id"] for row in rows] async for rows in walk.events(NOTHING, tick)]


async def test_steps_are_as_wide_as_a_portion() -> None:
    """So that no plan can read much more than it gives."""
    table = FakeTable(dict.fromkeys(range(1, 26), 1))
    assert await walked(table, 25, Size(10, 10**6)) == [
        [*range(1, 11)],
        [*range(11, 21)],
        [*range(21, 26)],
    ]
    assert table.steps == [(0, 10), (10, 20), (20, 25)]


async def test_steps_grow_where_ids_are_sparse_and_shrink_again() -> None:
    """A transaction of a million that was rolled back takes some queries, not a thousand."""
    events = [1, 1_000_000, *range(1_000_001, 1_000_101)]
    table = FakeTable(dict.fromkeys(events, 1))
    portions = await walked(table, 1_000_100, Size(10, 10**6))
    assert list(chain.from_iterable(portions)) == events
    assert all(len(portion) <= 10 for portion in portions)
    assert len(table.steps) < 40


async def test_a_portion_that_bytes_cut_goes_on_behind_it() -> None:
    """Nothing is left out, and one event above the bound is given alone."""
    table = FakeTable({1: 60, 2: 60, 3: 500, 4: 1, 5: 1})
    assert await walked(table, 5, Size(10, 100)) == [[1, 2], [3], [4, 5]]
