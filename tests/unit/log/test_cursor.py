"""How many ticks a cursor looks ahead at once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify.log._walk.cursor import Cursor
from asyncnotify.log._walk.ticks import Snapshot, Tick

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

NOW = datetime.now(UTC)


class EmptyTicks:
    """
    Walks 2,500 ticks, none of which has an event.

    Args:
        running: How many transactions each snapshot lists.

    Attributes:
        counts: How many ticks it was asked for at once.
    """

    def __init__(self, running: int) -> None:
        self.counts: list[int] = []
        listed = tuple(range(10, 10 + running))
        self._snapshot = Snapshot("", 10 + running, listed)

    async def ticks(self, first: int, count: int) -> list[Tick]:
        """Return ticks from a number on."""
        return [
            Tick(*(number, 1, 0, self._snapshot, 9, 0, 0, 0), whole=False, taken_at=NOW)
            for number in range(first, min(first + count, 2_500))
        ]

    async def news(self, first: int, count: int) -> list[Tick]:
        """Do the same, and note how many."""
        self.counts.append(count)
        return await self.ticks(first, count)

    def run_of(self, *_: object) -> list[Tick]:
        """Let each be read by itself."""
        return []

    async def events(self, *_: object) -> AsyncGenerator[Any]:
        """Yield nothing."""
        for column in list[Any]():
            yield column


@pytest.mark.parametrize(("running", "most"), [(0, 1_000), (300, 332), (5_000, 100)])
async def test_of_snapshots_of_many_transactions_fewer_are_read_at_once(
    running: int, most: int
) -> None:
    """A thousand ticks with a thousand transactions each would take 44 MB."""
    walk: Any = EmptyTicks(running)
    cursor = Cursor(walk, "orders")
    await cursor.at_start()
    assert await cursor.portion() is None
    assert cursor.last.number == 2_499
    assert walk.counts[0] == 100
    assert max(walk.counts) == most
