"""The judges of the log find each falsification of a history, and nothing in a true one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.chaos.judge.log_history import (
    History,
    Kind,
    Mark,
    Rule,
    Seen,
    judge_history,
    judge_keys,
    order_of,
)
from tests.chaos.judge.log_seeks import judge_seeks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.judge.log_history import Entry, Place

COUNT: Final = 8
STARTED, CONNECTED, BATCH = map(Mark, (Kind.STARTED, Kind.CONNECTED, Kind.BATCH))
PAUSED, RESUMED, SOUGHT = map(Mark, (Kind.PAUSED, Kind.RESUMED, Kind.SOUGHT))


def seen(number: int, at: float = 0.0) -> Seen:
    """Return an event; they are of two keys and two channels in turn."""
    channel = "ab"[number % 2]
    return Seen((1, number // 3 + 1, number + 1), f"{channel}/key {number}", at)


def gap(dropped: int | None) -> Mark:
    """Return a Gap that stands for so many events."""
    return Mark(Kind.GAP, dropped=dropped)


def seek(place: Place | None) -> Mark:
    """Return the begin of a seek."""
    return Mark(Kind.SEEKING, place=place)


TRUTH: Final = History("truth", Rule.ONCE, entries=[seen(n) for n in range(COUNT)])
ORDER: Final = order_of([TRUTH])


def history(rule: Rule, items: Sequence[int | Entry]) -> History:
    """Return a history, in which a number stands for its event."""
    entries: list[Entry] = [seen(item) if isinstance(item, int) else item for item in items]
    return History("consumer", rule, entries=entries)


def test_true_histories_hold() -> None:
    """Everything once; the last batch again after a loss; what a Gap stands for left out."""
    assert not ORDER.faults
    cases: list[tuple[Rule, list[int | Entry]]] = [
        (Rule.ONCE, [0, 1, 2, 3, 4, 5, 6, 7]),
        (Rule.ONCE, [0, gap(3), 4, 5, 6, 7]),
        (Rule.ONCE, [gap(None), 4, 5, 6, 7]),
        (Rule.BATCHES, [BATCH, 0, 1, BATCH, 2, 3, CONNECTED, BATCH, 2, 3, 4, BATCH, 5, 6, 7]),
        (Rule.COMMITTED, [0, 1, 2, STARTED, 1, 2, 3, 4, 5, CONNECTED, 5, 6, 7]),
    ]
    for rule, items in cases:
        assert judge_history(history(rule, items), ORDER).faults == []


@pytest.mark.parametrize(
    ("rule", "items", "word"),
    [
        (Rule.ONCE, [0, 1, 3, 4, 5, 6, 7], "missing: 1 from 'a/key 2'"),
        (Rule.ONCE, [1, 2, 3, 4, 5, 6, 7], "missing"),
        (Rule.ONCE, [0, 1, 2, 3, 4, 5, 6], "missing"),
        (Rule.ONCE, [], "missing: 8"),
        (Rule.ONCE, [0, 1, gap(2), 3, 4, 5, 6, 7], "told of 2 events, and 1"),
        (Rule.ONCE, [0, gap(1), 1, 3, 4, 5, 6, 7], "missing"),
        (Rule.ONCE, [0, 1, 2, 2, 3, 4, 5, 6, 7], "doubled"),
        (Rule.ONCE, [0, 1, 2, CONNECTED, 2, 3, 4, 5, 6, 7], "doubled"),
        (Rule.ONCE, [0, 2, 1, 3, 4, 5, 6, 7], "doubled"),
        (Rule.COMMITTED, [0, 1, 2, 2, 3, 4, 5, 6, 7], "no session was lost"),
        (Rule.COMMITTED, [0, 1, STARTED, 1, 3, 4, 5, 6, 7], "missing"),
        (Rule.COMMITTED, [0, 1, STARTED, 3, 4, 5, 6, 7], "missing"),
        (Rule.BATCHES, [BATCH, 0, 1, BATCH, 2, STARTED, BATCH, 0, 1, 2, 3, 4, 5, 6, 7], "begin"),
        (Rule.BATCHES, [BATCH, 0, 1, STARTED, BATCH, 1, 2, 3, 4, 5, 6, 7], "begin"),
    ],
)
def test_a_falsified_history_is_found(rule: Rule, items: list[int | Entry], word: str) -> None:
    """An event left out, doubled or moved, a Gap that tells too much, a rewind too far."""
    faults = judge_history(history(rule, items), ORDER).faults
    assert any(word in fault for fault in faults), faults


def test_what_was_committed_must_not_come_again() -> None:
    """The cursor was behind it before: seen in the database, at a time before it came."""
    items: list[int | Entry] = [0, 1, 2, STARTED, seen(1, at=5.0), 2, 3, 4, 5, 6, 7]
    for at, place, count in [(4.0, 1, 0), (4.0, 2, 1), (6.0, 2, 0)]:
        consumer = history(Rule.COMMITTED, items)
        consumer.cursors.append((at, seen(place - 1).place))
        assert len(judge_history(consumer, ORDER).faults) == count


def test_more_than_a_portion_must_not_come_again() -> None:
    """A consumer commits before it reads the next thousand."""
    long = History("truth", Rule.ONCE, entries=[seen(n) for n in range(1_002)])
    again: list[int | Entry] = [*range(1_001), STARTED, *range(1_002)]
    faults = judge_history(history(Rule.COMMITTED, again), order_of([long])).faults
    assert [fault for fault in faults if "portion" in fault]


def test_what_nobody_has_seen_is_missing_for_each_that_consumes_its_channel() -> None:
    """No order is known of it, and it is looked for all the same."""
    for channel, count in [(None, 1), ("a", 1), ("b", 0)]:
        consumer = History("consumer", Rule.ONCE, channel)
        consumer.entries += [seen(n) for n in range(COUNT) if channel in (None, "ab"[n % 2])]
        assert len(judge_history(consumer, ORDER, ["a/key 99"]).faults) == count


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        ([seen(0), Seen((1, 1, 2), seen(0).name)], "elsewhere"),
        ([seen(0), Seen(seen(0).place, "b/key 9")], "one place"),
        ([Seen((1, 1, 1), "a/key 2"), Seen((1, 1, 2), "a/key 1")], "inversion"),
        ([Seen((1, 2, 1), "a/key 2"), Seen((1, 1, 2), "a/key 2")], "elsewhere"),
    ],
)
def test_a_contradiction_in_the_order_is_found(entries: list[Entry], word: str) -> None:
    """An event at two places, two at one, a key whose numbers fall."""
    first, second = (
        History(name, Rule.ONCE, entries=[e]) for name, e in zip("ab", entries, strict=True)
    )
    [*faults] = order_of([first, second]).faults
    assert any(word in fault for fault in faults), faults


@pytest.mark.parametrize(
    ("items", "word"),
    [
        ([1, 0, 3, 5, 2, 4, 7, 6], ""),
        ([0, 1, 2, 3, 4, 5, 6], "missing: 'b/key 7'"),
        ([0, 1, 2, 3, 4, 5, 6, 7, 3], "doubled: 'b/key 3', 2 times"),
        ([2, 0, 1, 3, 4, 5, 6, 7], "inversion: 'a/key 0'"),
    ],
)
def test_of_buckets_the_order_of_each_key_is_judged(items: list[int | Entry], word: str) -> None:
    """Other keys may overtake; each event comes, and once."""
    faults = judge_keys(history(Rule.ONCE, items), ORDER).faults
    assert [word in fault for fault in faults] == [True] * bool(word), faults


@pytest.mark.parametrize(
    ("items", "faults"),
    [
        ([BATCH, 0, 1, BATCH, 2, 3, 4, BATCH, 5, 6, 7], 0),
        ([BATCH, 0, 1, CONNECTED, BATCH, 0, 1, 2, BATCH, 3, 4, 5, 6, 7], 0),
        ([BATCH, 0, 1, seek((0, 0, 0)), SOUGHT, BATCH, *range(8)], 0),
        ([BATCH, 0, 1, seek((0, 0, 0)), SOUGHT, BATCH, 2, BATCH, *range(8)], 0),
        ([BATCH, 0, seek(seen(4).place), BATCH, 5, 6, 7], 0),
        ([seek((0, 0, 0)), BATCH, 0, 1, BATCH, 2, SOUGHT, BATCH, *range(8)], 0),
        ([BATCH, 0, seek(seen(0).place), SOUGHT, BATCH, 1, BATCH, 2, BATCH, *range(3, 8)], 0),
        ([BATCH, 0, seek(seen(0).place), SOUGHT, BATCH, 1, 2, BATCH, *range(1, 8)], 0),
        ([BATCH, 0, seek(seen(0).place), SOUGHT, BATCH, 1, BATCH, 2, BATCH, *range(1, 8)], 1),
        ([BATCH, 0, seek(seen(4).place), BATCH, 5, SOUGHT, BATCH, 6, 7], 0),
        ([BATCH, 0, 1, PAUSED, BATCH, 2, RESUMED, BATCH, 3, 4, 5, 6, 7], 0),
        ([BATCH, 0, 1, BATCH, 3, 4, 5, 6, 7], 1),
        ([BATCH, 0, 1, 3, 4, 5, 6, 7], 1),
        ([BATCH, 0, 1, BATCH, 0, 1, BATCH, 2, 3, 4, 5, 6, 7], 1),
        ([BATCH, 0, 1, BATCH, 2, 3, 4], 1),
        ([BATCH, 0, seek((0, 0, 0)), SOUGHT, BATCH, 1, BATCH, 2, BATCH, 3, 4, 5, 6, 7], 1),
        ([BATCH, 0, seek(seen(4).place), SOUGHT, BATCH, 6, 7], 1),
        ([BATCH, 0, PAUSED, BATCH, 1, BATCH, 2, BATCH, 3, RESUMED, BATCH, 4, 5, 6, 7], 2),
    ],
)
def test_seeks_and_pauses_are_heeded(items: list[int | Entry], faults: int) -> None:
    """A batch begins where nothing says so, in spite of a seek, or in a pause: each is found."""
    found = judge_seeks(history(Rule.BATCHES, items), ORDER).faults
    assert len(found) == faults, found
