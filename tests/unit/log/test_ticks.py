"""What a tick holds, told from its snapshot and the one before."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from asyncnotify.log._walk.ticks import LateXids, Snapshot, Tick, late_xids

NOW = datetime.now(UTC)


def tick(snapshot: str, own: int, *, top: int = 100, whole: bool = False) -> Tick:
    """Return a tick with this snapshot."""
    return Tick(1, 1, 0, Snapshot.parse(snapshot), own, top, 100, 100, whole=whole, taken_at=NOW)


@pytest.mark.parametrize(
    ("text", "seen", "not_seen"),
    [
        ("3:3:", [1, 2], [3, 4]),
        ("5:9:5,7", [4, 6, 8], [5, 7, 9, 10]),
        ("10:20:10,11,12,19", [9, 13, 18], [10, 11, 12, 19, 20]),
    ],
)
def test_a_snapshot_sees_what_the_server_says(
    text: str, seen: list[int], not_seen: list[int]
) -> None:
    """All below xmax except those that were running."""
    snapshot = Snapshot.parse(text)
    assert snapshot.text == text
    assert [xid for xid in [*seen, *not_seen] if snapshot.sees(xid)] == seen


def test_trap_1_late_xids_are_the_listed_ones_and_those_up_to_own() -> None:
    """The range from xmax to the tick's own xid holds transactions that no list has."""
    late = late_xids(tick("5:9:5,7", own=12), tick("7:14:7,13", own=15))
    assert late == LateXids((5, 9, 10, 11), None, 12)


def test_what_still_runs_is_not_late_so_far() -> None:
    """It comes with the tick that sees it."""
    first, second, third = tick("5:9:5", 9), tick("5:11:5,10", 11), tick("12:12:", 12)
    assert late_xids(first, second).xids == ()
    assert late_xids(second, third).xids == (5, 10)


def test_a_long_range_is_not_enumerated() -> None:
    """It is left to the index: subtransactions make it long, and most have no event."""
    late = late_xids(tick("5:9:5", own=1_000_000), tick("2000000:2000000:", own=2_000_000))
    assert late == LateXids((5,), 9, 1_000_000)


def test_trap_6_the_first_tick_of_a_copy_holds_all_that_is_left() -> None:
    """Its own snapshot speaks of other xids."""
    assert late_xids(tick("500:502:500", own=502), tick("3:3:", 3, whole=True)).xids == (500,)


def test_a_row_of_the_server_makes_a_tick() -> None:
    """Snapshot and xid come as texts."""
    row = {
        "number": 1,
        "epoch": 1,
        "base": 0,
        "snapshot": "3:5:4",
        "own": "7",
        "top": 9,
        "final": 9,
        "total": 8,
        "whole": False,
        "taken_at": NOW,
    }
    made = Tick.of_row(row)
    assert made == Tick(1, 1, 0, Snapshot("3:5:4", 5, (4,)), 7, 9, 9, 8, whole=False, taken_at=NOW)
