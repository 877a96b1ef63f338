"""The judges find what they are there to find, and nothing else."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from asyncnotify import Gap, GapReason
from tests.chaos.judge.numbers import Record
from tests.chaos.judge.publishing import Call, Ledger, Outcome
from tests.chaos.judge.since import WallClock, late
from tests.chaos.judge.table import differences

START = Gap("orders", GapReason.START)
SENT = {"orders": [1, 2, 3, 4, 5]}


def lost(since: datetime | None = None) -> Gap:
    """Return a Gap after a loss."""
    return Gap("orders", GapReason.RECONNECT, since)


def record_of(*items: int | Gap) -> Record:
    """Return what a subscription saw."""
    record = Record("orders")
    for item in items:
        if isinstance(item, Gap):
            record.tell(item)
        else:
            record.saw(item)
    return record


@pytest.mark.parametrize(
    ("items", "untold"),
    [
        ((START, 1, 2, 3, 4, 5), ()),
        ((START, 1, lost(), 4, 5), ()),
        ((START, 1, 4, 5), (2, 3)),
        ((START, 1, 2, lost(), 4, 5), ()),
        ((START, lost(), 1, 4, 5), (2, 3)),
        ((START, 2, 3, 4, 5), (1,)),
        ((START, 1, 2, 3), ()),
    ],
)
def test_a_missing_number_needs_a_gap_in_its_place(
    items: tuple[int | Gap, ...], untold: tuple[int, ...]
) -> None:
    """Up to the last number seen; the Gap at the start covers nothing that was sent later."""
    assert record_of(*items).verdict(SENT).untold == untold


def test_the_end_is_judged_once_everything_must_have_come() -> None:
    """What is missing behind the last number is untold, too, unless a Gap stands there."""
    record = record_of(START, 1, 2, 3)
    record.complete = True
    assert record.verdict(SENT).untold == (4, 5)
    record.tell(lost())
    assert record.verdict(SENT).holds


def test_gaps_that_were_merged_with_the_first_one_cover_later_numbers() -> None:
    """A resync that was tried again may stand for a loss after the start."""
    record = Record("orders")
    record.tell(START, merged=True)
    for number in (3, 4, 5):
        record.saw(number)
    assert record.verdict(SENT).covered == (1, 2)


def test_rows_that_differ_are_named() -> None:
    """Missing, stale, or removed from the table."""
    kept = {("orders", 1): 7, ("orders", 2): 8, ("orders", 3): 9}
    table = {("orders", 1): 7, ("orders", 2): 10, ("orders", 4): 11}
    assert differences(kept, kept) == []
    assert differences(kept, table) == [
        "orders 2: kept 8, in the table 10",
        "orders 3: kept 9, in the table None",
        "orders 4: kept None, in the table 11",
    ]


def test_a_since_after_the_commit_of_what_is_missing_is_late() -> None:
    """By the right time of the commit; of several Gaps in one place the earliest counts."""
    clock, committed = WallClock(), time.monotonic()
    commit = datetime.fromtimestamp(clock.right(committed), UTC)
    minute = timedelta(minutes=1)
    for gaps, found in [
        ([lost(commit - minute)], 0),
        ([lost(commit + minute)], 1),
        ([lost(commit + minute), lost(commit - minute)], 0),
        ([lost(None)], 0),
    ]:
        record = record_of(START, 1, *gaps, 3)
        assert len(late(record, [2], {2: committed}, clock)) == found


def test_a_clock_that_is_fast_when_the_gap_is_made_is_allowed_for() -> None:
    """That is the difference of the clocks; one that has been set back long ago is not."""
    clock, committed = WallClock(), time.monotonic()
    clock.stepped(60.0)
    commit = datetime.fromtimestamp(clock.right(committed), UTC)
    record = record_of(START, 1, lost(commit + timedelta(seconds=59)), 3)
    assert late(record, [2], {2: committed}, clock) == []
    assert clock.fast_by(time.monotonic()) == 60.0
    clock.stepped(0.0)
    assert clock.fast_by(time.monotonic() + 10) == 0.0


@pytest.mark.parametrize(
    ("outcome", "repeats", "heard", "holds"),
    [
        (Outcome.RETURNED, False, 1, True),
        (Outcome.RETURNED, False, 0, False),
        (Outcome.RETURNED, False, 2, False),
        (Outcome.RETURNED, True, 2, True),
        (Outcome.REFUSED, False, 0, True),
        (Outcome.REFUSED, False, 1, False),
        (Outcome.IN_DOUBT, False, 0, True),
        (Outcome.IN_DOUBT, False, 1, True),
        (Outcome.IN_DOUBT, False, 2, False),
        (Outcome.UNEXPECTED, False, 0, False),
    ],
)
def test_r47_a_call_has_to_tell_what_became_of_it(
    outcome: Outcome, *, repeats: bool, heard: int, holds: bool
) -> None:
    """What returned has arrived once, what was refused has not, the rest may have."""
    ledger = Ledger([Call("0.0 1", outcome, repeats=repeats)], ["0.0 1"] * heard)
    assert (ledger.false == []) == holds


def test_r47_what_nobody_sent_and_what_others_were_made_to_do_is_found() -> None:
    """A payload that no call had, a row that another program's statement wrote, another order."""
    first, second = (Call(f"0.0 {number}", Outcome.RETURNED) for number in (1, 2))
    assert Ledger([first, second], ["0.0 1", "0.0 2"]).false == []
    assert len(Ledger([first, second], ["0.0 2", "0.0 1"]).false) == 1
    assert len(Ledger([first], ["0.0 1", "0.0 2"]).false) == 1
    assert len(Ledger([first], ["0.0 1"], foreign_rows=1).false) == 1
