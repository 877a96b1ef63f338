"""Which ticks are read together, and how their events are put in order."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import accumulate
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from asyncnotify.log._walk.runs import in_order, run_of, up_to
from asyncnotify.log._walk.ticks import Snapshot, Tick
from asyncnotify.testing._fake.log_rows import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = datetime.now(UTC)
EVENT = ("id", "uid", "channel", "key", "payload", "headers", "appended_at", "x")


def tick(number: int, total: int, *, top: int | None = None, epoch: int = 1) -> Tick:
    """Return a tick behind so many events, each of a transaction of its own."""
    top = total if top is None else top
    snapshot = Snapshot.parse(f"{top + 3}:{top + 3}:")
    return Tick(number, epoch, 0, snapshot, top + 3, top, top, total, whole=False, taken_at=NOW)


def ticks_of(*sizes: int) -> list[Tick]:
    """Return ticks that hold so many events each."""
    return [tick(number, total) for number, total in enumerate(accumulate(sizes, initial=0))]


@pytest.mark.parametrize(
    ("sizes", "together"),
    [
        ((1, 1, 1), 3),
        ((1, 0, 2), 3),
        ((1,) * 2_000, 1_000),
        ((600, 300, 200), 0),
        ((1_001, 1), 0),
        ((1, 1, 1_000), 2),
        ((300, 1, 1), 3),
        ((300, 300, 300), 0),
        ((1, 1, 300, 300), 3),
        ((100,) * 20, 10),
        ((), 0),
    ],
)
def test_small_ticks_are_read_together(sizes: Sequence[int], together: int) -> None:
    """Up to a portion, and as long as they are small: others are read in a quicker form."""
    last, *ticks = ticks_of(*sizes)
    assert run_of(last, ticks, 1_000) == ticks[:together]


def test_a_run_is_of_one_epoch_and_of_near_ids() -> None:
    """What is in another epoch has other xids; what is far away has many rows in between."""
    last, *ticks = ticks_of(1, 1, 1)
    assert run_of(last, [*ticks[:2], tick(3, 3, epoch=2)], 1_000) == ticks[:2]
    assert run_of(last, [*ticks[:2], tick(3, 3, top=5_000)], 1_000) == ticks[:2]


def test_ticks_up_to_an_id() -> None:
    """Those that go no further: all of their events are there."""
    _, *ticks = ticks_of(2, 2, 2)
    assert [len(up_to(ticks, event)) for event in range(1, 8)] == [0, 1, 1, 2, 2, 3, 3]


def test_events_are_ordered_by_tick_and_id() -> None:
    """A late one comes in the tick that sees it first; one of a later tick is left for that."""

    def row(number: int, xid: int) -> Row:
        return Row(EVENT, (number, UUID(int=number), "things", None, str(number), None, NOW, xid))

    first = Tick(
        *(7, 1, 0, Snapshot.parse("5:6:5"), 9, 2, 2, 1), whole=False, taken_at=NOW
    )  # does not see 5
    second = Tick(*(8, 1, 0, Snapshot.parse("9:9:"), 9, 3, 3, 3), whole=False, taken_at=NOW)
    rows = [row(1, 5), row(2, 4), row(3, 6), row(4, 7)]
    run = in_order([first, second], rows)
    assert (run.size, run.ticks) == (2, [7, 8, 8])
    assert list(run.columns.payloads) == ["2", "1", "3"]
    assert in_order([first], rows).ticks == [7]
    assert not in_order([first], rows[3:]).columns.ids
