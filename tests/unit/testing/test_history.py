from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from asyncnotify.testing.history import GAP, GapMark, History, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    Seen = Sequence[int | GapMark]

SMALL = st.integers(min_value=0, max_value=12)
NUMBERS = st.frozensets(SMALL)
SEQUENCES = st.lists(SMALL | st.just(GAP), max_size=20)


def told(missing: int, seen: Seen) -> bool:
    """Say by brute force whether any gap has all that is smaller before it, all greater after."""
    return any(
        all(item > missing for item in seen[place + 1 :] if not isinstance(item, GapMark))
        and all(item < missing for item in seen[:place] if not isinstance(item, GapMark))
        for place, mark in enumerate(seen)
        if isinstance(mark, GapMark) and missing not in seen
    )


def between_neighbours(missing: int, seen: Seen) -> bool:
    """Say whether a gap stands where the number would have stood in a sequence in order."""
    after = next((i for i, n in enumerate(seen) if isinstance(n, int) and n > missing), len(seen))
    before = max((i for i, n in enumerate(seen) if isinstance(n, int) and n < missing), default=-1)
    return GAP in seen[before + 1 : after]


@given(NUMBERS, SEQUENCES)
def test_missing_numbers_are_covered_exactly_as_brute_force_says(
    published: frozenset[int], seen: list[int | GapMark]
) -> None:
    """A missing number is covered if some gap parts the smaller from the greater, else untold."""
    missing = sorted(published - set(seen))
    verdict = judge(published, seen)
    assert verdict.covered == tuple(number for number in missing if told(number, seen))
    assert verdict.untold == tuple(number for number in missing if not told(number, seen))


@given(NUMBERS, NUMBERS, st.data())
def test_in_order_a_gap_counts_between_the_neighbours_of_what_is_missing(
    published: frozenset[int], received: frozenset[int], data: st.DataObject
) -> None:
    """Where order was kept, what counts is a gap between the missing number's neighbours."""
    seen: list[int | GapMark] = [*sorted(received)]
    for place in sorted(data.draw(st.lists(st.integers(0, len(seen)), max_size=4)), reverse=True):
        seen.insert(place, GAP)
    verdict = judge(published, seen)
    assert all(between_neighbours(number, seen) for number in verdict.covered)
    assert not any(between_neighbours(number, seen) for number in verdict.untold)


@given(NUMBERS, NUMBERS, SEQUENCES)
def test_the_counts_add_up(
    published: frozenset[int], in_doubt: frozenset[int], seen: list[int | GapMark]
) -> None:
    """Every number is in exactly one of: received, covered, untold, in doubt, foreign."""
    verdict = judge(published, seen, in_doubt=in_doubt)
    received = {item for item in seen if isinstance(item, int)}
    assert verdict.sent == len(published)
    assert verdict.received == len(received)
    assert verdict.gaps == seen.count(GAP)
    assert verdict.foreign == tuple(sorted(received - published - in_doubt))
    assert len(received & published) + len(verdict.covered) + len(verdict.untold) == verdict.sent


@given(SEQUENCES)
def test_duplicated_and_reordered_as_brute_force_says(seen: list[int | GapMark]) -> None:
    """A number counts once: duplicated if it is there twice, reordered if first seen too late."""
    numbers = [item for item in seen if isinstance(item, int)]
    verdict = judge(numbers, seen)
    assert verdict.duplicated == tuple(sorted({n for n in numbers if numbers.count(n) > 1}))
    late = {n for n in numbers if any(m > n for m in numbers[: numbers.index(n)])}
    assert verdict.reordered == tuple(sorted(late))


@given(SEQUENCES, NUMBERS)
def test_a_gap_at_every_place_covers_all_that_is_missing(
    seen: list[int | GapMark], published: frozenset[int]
) -> None:
    """Where order was kept and every place has its gap, nothing is untold."""
    numbers = sorted({item for item in seen if isinstance(item, int)})
    everywhere: list[int | GapMark] = [GAP]
    for number in numbers:
        everywhere += [number, GAP]
    assert judge(published, everywhere).untold == ()


@pytest.mark.parametrize(
    ("seen", "covered", "untold"),
    [
        ([1, 2, 3, 4], (), ()),
        ([1, 4], (), (2, 3)),
        ([1, GAP, 4], (2, 3), ()),
        ([GAP, 1, 4], (), (2, 3)),
        ([1, 4, GAP], (), (2, 3)),
        ([1, 2, GAP], (3, 4), ()),
        ([GAP, 1, 2], (), (3, 4)),
        ([GAP, 3, 4], (1, 2), ()),
        ([3, 4, GAP], (), (1, 2)),
        ([GAP], (1, 2, 3, 4), ()),
        ([], (), (1, 2, 3, 4)),
        ([GAP, 1, GAP, 3, 4], (2,), ()),
        ([4, GAP, 1], (), (2, 3)),
        ([1, GAP, 1, 4], (), (2, 3)),
    ],
)
def test_a_gap_covers_what_is_missing_at_its_place_only(
    seen: list[int | GapMark], covered: tuple[int, ...], untold: tuple[int, ...]
) -> None:
    """Before the first, between two, after the last: a gap speaks for its own place."""
    verdict = judge([1, 2, 3, 4], seen)
    assert (verdict.covered, verdict.untold) == (covered, untold)


def test_a_number_in_doubt_may_be_missing_but_not_come_twice() -> None:
    """Whether it was sent nobody knows; that it arrives twice is wrong all the same."""
    assert judge([1, 3], [1, 3], in_doubt=[2]).holds
    assert judge([1, 3], [1, 2, 3], in_doubt=[2]).holds
    assert judge([1, 3], [1, 2, 2, 3], in_doubt=[2]).duplicated == (2,)


@pytest.mark.parametrize(
    ("seen", "reordered", "untold"),
    [
        ([1, 4, 2], (), (3,)),
        ([1, 2, 4, 3], (3,), ()),
        ([1, GAP, 4, 2], (), ()),
        ([1, GAP, 2, 4], (), (3,)),
        ([2, 1, 3, 4], (1,), ()),
    ],
)
def test_a_number_in_doubt_may_be_late(
    seen: list[int | GapMark], reordered: tuple[int, ...], untold: tuple[int, ...]
) -> None:
    """A slow session may commit it after the next; all others keep their order, also around it."""
    verdict = judge([1, 3, 4], seen, in_doubt=[2])
    assert (verdict.reordered, verdict.untold) == (reordered, untold)


@given(SEQUENCES, NUMBERS, st.data())
def test_where_one_in_doubt_is_late_changes_nothing_else(
    seen: list[int | GapMark], published: frozenset[int], data: st.DataObject
) -> None:
    """Neither what counts as reordered, nor what a gap covers."""
    numbers = [item for item in seen if isinstance(item, int)]
    doubtful = max(numbers, default=0) - 1
    assume(numbers and doubtful not in numbers and doubtful not in published)
    first = seen.index(doubtful + 1) + 1
    place = data.draw(st.integers(first, len(seen)))
    late = judge(published, [*seen[:place], doubtful, *seen[place:]], in_doubt=[doubtful])
    without = judge(published, seen)
    assert (late.reordered, late.covered, late.untold) == (
        without.reordered,
        without.covered,
        without.untold,
    )


def test_published_overrides_in_doubt() -> None:
    """A number known to have committed is no longer in doubt, whichever was noted first."""
    history = History()
    history.published(1)
    history.in_doubt(1, 2)
    history.published(2)
    assert history.verdict("nobody").untold == (1, 2)


@pytest.mark.parametrize("wrong", ["untold", "duplicated", "reordered", "foreign"])
def test_each_kind_of_wrong_breaks_the_verdict(wrong: str) -> None:
    """Nothing lost in silence, duplicated, reordered, made up: all four must hold."""
    assert Verdict(sent=1, received=1, gaps=0).holds
    broken = Verdict(sent=1, received=1, gaps=0, **{wrong: (7,)})
    assert not broken.holds
    assert f"1 {wrong} (7)" in str(broken)


def test_covered_loss_does_not_break_the_verdict() -> None:
    """What the consumer was told of is no failure."""
    assert judge([1, 2, 3], [1, GAP, 3]).holds


def test_a_history_judges_every_subscription_apart() -> None:
    """One subscription's gap says nothing to another."""
    history = History()
    history.published(1, 2, 3)
    for subscription in ("told", "untold"):
        history.saw(subscription, 1)
    history.gap("told")
    for subscription in ("told", "untold"):
        history.saw(subscription, 3)
    assert history.subscriptions == ("told", "untold")
    assert {name: verdict.holds for name, verdict in history.verdicts().items()} == {
        "told": True,
        "untold": False,
    }


def test_a_verdict_reads_as_one_line() -> None:
    """The text gives the counts and, of what is wrong, the numbers as ranges."""
    assert str(judge([1, 2, 3], [1, GAP, 3])) == (
        "holds: 3 sent, 2 received, 1 covered (gaps: 1), "
        "0 untold, 0 duplicated, 0 reordered, 0 foreign"
    )
    assert "BROKEN" in str(judge([1, 2, 3, 5], [1]))
    assert "3 untold (2-3, 5)" in str(judge([1, 2, 3, 5], [1]))


def test_a_long_list_of_wrong_numbers_is_cut_short() -> None:
    """The text stays readable, whatever is missing."""
    text = str(judge(range(0, 100_000, 2), []))
    assert "50000 untold (0, 2, 4, " in text
    assert text.count(",") < 20
    assert "..." in text


def test_judging_takes_no_quadratic_time() -> None:
    """50,000 numbers, every second one missing in a gap of its own, are judged at once."""
    seen: list[int | GapMark] = [item for n in range(0, 50_000, 2) for item in (n, GAP)]
    assert len(judge(range(50_000), seen).covered) == 25_000


def test_the_gap_mark_shows_its_name() -> None:
    """A failing test that prints a sequence is readable."""
    assert repr([1, GAP]) == "[1, GAP]"
