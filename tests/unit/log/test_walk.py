"""How a tick is cut into portions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from asyncnotify.log._names import Names
from asyncnotify.log._walk.columns import columns_of, packed, unpacked
from asyncnotify.log._walk.statements import Statements
from asyncnotify.log._walk.ticks import Snapshot, Tick
from asyncnotify.log._walk.walk import Size, Walk
from asyncnotify.testing._fake.log_rows import Row

if TYPE_CHECKING:
    from asyncnotify.log._ports import Statement

NOW = datetime.now(UTC)
PORTION = ("id", "uid", "channel", "key", "payload", "headers", "at", "found", "first_tick")
NOTHING = Tick(0, 1, 0, Snapshot.parse("3:3:"), 3, 0, 0, 0, whole=False, taken_at=NOW)


class FakeTable:
    """
    Answers as the statements of a walk do.

    Args:
        sizes: The payloads' lengths, by id.

    Attributes:
        steps: Between which ids it was asked for events.
        verbs: By which statements.
    """

    def __init__(self, sizes: dict[int, int]) -> None:
        self._sizes = sizes
        self.steps: list[tuple[int, int]] = []
        self.verbs: list[str] = []

    async def fetch(self, statement: Statement, /, *arguments: Any) -> list[Any]:
        """Return the events between two ids, cut by number and by bytes."""
        after, end, rows, size, *others = arguments
        self.steps.append((after, end))
        self.verbs.append(statement.verb)
        found = sorted(id_ for id_ in self._sizes if after < id_ <= end)[:rows]
        if statement.verb == "short":
            return [self._short(found, size, others[-2])]
        return self._portion(found, size)

    def _row(self, id_: int) -> tuple[Any, ...]:
        return id_, UUID(int=id_), "things", None, "x" * self._sizes[id_], None, NOW

    def _short(self, found: list[int], longest: int, usual: str | None) -> tuple[Any, ...]:
        short = [id_ for id_ in found if self._sizes[id_] <= longest]
        if not found:
            return *(None,) * 6, 0, 0
        columns = columns_of([self._row(id_) for id_ in found])
        payloads: Any = [text if len(text) <= longest else None for text in columns.payloads]
        return *packed(columns._replace(payloads=payloads), usual), len(short), 0

    def _portion(self, found: list[int], size: int) -> list[Row]:
        kept: list[int] = []
        for id_ in found:
            if kept and sum(self._sizes[k] for k in kept) >= size:
                break
            kept.append(id_)
        rows = [Row(PORTION, (*self._row(id_), len(found), 0)) for id_ in kept]
        return rows or [Row(PORTION, (*[None] * 7, 0, 0))]


async def walked(table: FakeTable, top: int, size: Size) -> list[list[int]]:
    """Return the ids of each portion of one tick."""
    tick = Tick(1, 1, 0, Snapshot.parse("9:9:"), 9, top, top, 0, whole=False, taken_at=NOW)
    walk = Walk(table, Statements(Names("orders")), size)
    return [list(columns.ids) async for columns in walk.events(NOTHING, tick)]


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


async def test_short_payloads_are_read_up_to_the_first_long_one() -> None:
    """What is long is read the other way, and what follows too while there are long ones."""
    table = FakeTable({**dict.fromkeys(range(1, 61), 10), 15: 11, 28: 11})
    portions = await walked(table, 60, Size(10, 100))
    assert list(chain.from_iterable(portions)) == list(range(1, 61))
    assert [portion[-1] for portion in portions] == [10, 14, 24, 34, 44, 54, 60]
    assert table.verbs == ["short", "short", *["visible"] * 3, "short", "short"]


async def test_many_short_payloads_are_within_the_bytes_of_a_portion() -> None:
    """No portion has more bytes than it may, nor asks for events that it would have to drop."""
    table = FakeTable(dict.fromkeys(range(1, 31), 10))
    assert [len(portion) for portion in await walked(table, 30, Size(10, 100))] == [10] * 3
    assert table.verbs == ["short"] * 3


async def test_times_are_unpacked_to_the_microsecond() -> None:
    """Of one second, of the next and of the one before, before 2000 too, as they were packed."""
    step = timedelta(microseconds=1)
    times = [NOW, NOW + step, NOW + timedelta(seconds=1), NOW, datetime(2000, 1, 1, tzinfo=UTC)]
    times += [times[-1] - step, times[-1] + step, datetime(1970, 1, 1, tzinfo=UTC)]
    rows = [(n, UUID(int=n), "things", "k", "", "{}", time) for n, time in enumerate(times)]
    columns = unpacked(None, *packed(columns_of(rows)))
    assert [(n, *columns.of(n)) for n in columns.ids] == [
        (n, uid, channel, text, key, headers, time)
        for n, uid, channel, key, text, headers, time in rows
    ]


@pytest.mark.parametrize("headers", [[None] * 4, [None, "{}", None, '{"a":"b"}'], ["{}"] * 4])
@pytest.mark.parametrize("channels", ["aaaa", "bbbb", "abca"])
@pytest.mark.parametrize("usual", [None, "a", "x"])
async def test_what_is_left_out_of_a_packed_portion(
    usual: str | None, channels: str, headers: list[str | None]
) -> None:
    """The usual channel, and headers of events that have none, are there once it is unpacked."""
    rows = [
        (2**40 + n, UUID(int=n), channel, None, "", text, NOW)
        for n, (channel, text) in enumerate(zip(channels, headers, strict=True))
    ]
    expected = columns_of(rows)
    columns = unpacked(usual, *packed(expected, usual))
    assert [list(column) for column in columns] == [list(column) for column in expected]
