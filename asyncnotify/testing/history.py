"""
Judging what a consumer saw against what was published.

Its one question: was anything lost without being told?

::

    history = History()
    history.published(1)                 # its NOTIFY has committed
    history.in_doubt(2)                  # its connection died in flight: sent or not, nobody knows
    history.saw("orders", 1)             # number by number, and ...
    history.gap("orders")                # ... gap by gap, in the order the consumer saw them
    verdict = history.verdict("orders")
    assert verdict.holds, verdict

One history is for one publisher, which numbers its notifications upwards in the order in which it
commits them. Several publishers at once have no common order, so each gets a history of its own;
a gap that a subscription saw goes into all of them. Nothing here does I/O.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final, final

from asyncnotify._arguments import check_iterable, check_present, check_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["GAP", "GapMark", "History", "Verdict", "judge"]

RANGES_SHOWN = 8


@final
class GapMark:
    """The type of `GAP`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "GAP"


GAP: Final = GapMark()
"""Stands in a sequence of what was seen for a gap that the consumer was told of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """
    What became of the numbers published, for one subscription.

    Every number sent has either been received, or is among ``covered`` or ``untold``.

    Attributes:
        sent: How many numbers were published for certain.
        received: How many different numbers arrived, those in doubt among them.
        gaps: How many gaps the consumer was told of.
        covered: Numbers missing, inside a gap: the consumer knows.
        untold: Numbers missing and inside no gap: lost in silence.
        duplicated: Numbers that arrived more than once.
        reordered: Numbers that first arrived after a greater one, without those in doubt.
        foreign: Numbers that arrived but were neither published nor in doubt.
    """

    sent: int
    received: int
    gaps: int
    covered: tuple[int, ...] = ()
    untold: tuple[int, ...] = ()
    duplicated: tuple[int, ...] = ()
    reordered: tuple[int, ...] = ()
    foreign: tuple[int, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nothing was lost in silence, duplicated, reordered or made up."""
        return not (self.untold or self.duplicated or self.reordered or self.foreign)

    def __str__(self) -> str:
        """Return one line: the counts, and of what is wrong the first numbers, as ranges."""
        told = f"{self.sent} sent, {self.received} received"
        covered = f"{len(self.covered)} covered (gaps: {self.gaps})"
        wrong = (
            _listed("untold", self.untold),
            _listed("duplicated", self.duplicated),
            _listed("reordered", self.reordered),
            _listed("foreign", self.foreign),
        )
        judgement = "holds" if self.holds else "BROKEN"
        return f"{judgement}: {', '.join((told, covered, *wrong))}"


class History:
    """Collects what was published and what each subscription saw, and judges it at the end."""

    def __init__(self) -> None:
        self._published: set[int] = set()
        self._in_doubt: set[int] = set()
        self._seen: dict[str, list[int | GapMark]] = {}

    def published(self, *numbers: int) -> None:
        """
        Note numbers whose publishing is known to have committed.

        Raises:
            ValueError: One of them is no whole number; then none is noted.
        """
        _check_numbers("number", numbers)
        self._published.update(numbers)

    def in_doubt(self, *numbers: int) -> None:
        """
        Note numbers that may have been published or not; `published()` overrides it.

        Raises:
            ValueError: One of them is no whole number; then none is noted.
        """
        _check_numbers("number", numbers)
        self._in_doubt.update(numbers)

    def saw(self, subscription: str, number: int) -> None:
        """
        Note the next number that a subscription saw.

        Raises:
            TypeError: The name of the subscription is no str.
            ValueError: ``number`` is no whole number.
        """
        check_present("subscription", subscription, str)
        check_whole("number", number)
        self._seen.setdefault(subscription, []).append(number)

    def gap(self, subscription: str) -> None:
        """
        Note that a gap was the next that a subscription saw.

        Raises:
            TypeError: The name of the subscription is no str.
        """
        check_present("subscription", subscription, str)
        self._seen.setdefault(subscription, []).append(GAP)

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """The subscriptions that saw anything, sorted."""
        return tuple(sorted(self._seen))

    def verdict(self, subscription: str) -> Verdict:
        """
        Judge one subscription; one that has noted nothing saw nothing.

        Raises:
            TypeError: The name of the subscription is no str.
        """
        check_present("subscription", subscription, str)
        seen = self._seen.get(subscription, ())
        return _verdict(self._published, list(seen), self._in_doubt)

    def verdicts(self) -> dict[str, Verdict]:
        """Judge every subscription that saw anything."""
        return {subscription: self.verdict(subscription) for subscription in self.subscriptions}


def judge(
    published: Collection[int], seen: Iterable[int | GapMark], *, in_doubt: Collection[int] = ()
) -> Verdict:
    """
    Judge one sequence of numbers, and `GAP` between them, against the numbers published.

    A published number m that was not seen is *inside a gap* if a gap stands after **every** smaller
    number seen and before **every** greater one. So it stands between the neighbours of m where
    order was kept; before the first number if all that was seen is greater; after the last if all
    is smaller; anywhere if no number was seen at all. Where order was not kept there may be no such
    place: then m is untold, as is every m with no gap in its place.

    A number in doubt may be missing without a gap, and may be late: the session that had it may be
    slow to commit it, when what was published later has another one. Its place then says nothing.
    If it was seen otherwise it counts like any other.

    Takes O(n log n) time.

    Raises:
        TypeError: An argument is no iterable.
        ValueError: One of the numbers is no whole number.
    """
    for name, value in (("published", published), ("seen", seen), ("in_doubt", in_doubt)):
        check_iterable(name, value, "an iterable of numbers")
    items, certain, doubtful = list(seen), list(published), list(in_doubt)
    _check_numbers("each of published", certain)
    _check_numbers("each of seen", (item for item in items if not isinstance(item, GapMark)))
    _check_numbers("each of in_doubt", doubtful)
    return _verdict(certain, items, doubtful)


def _check_numbers(name: str, numbers: Iterable[object]) -> None:
    for number in numbers:
        check_whole(name, number)


def _verdict(
    published: Iterable[int], items: Sequence[int | GapMark], in_doubt: Iterable[int]
) -> Verdict:
    numbers = [item for item in items if not isinstance(item, GapMark)]
    received, certain = set(numbers), set(published)
    late = _reordered(numbers)
    excused = late & set(in_doubt) - certain
    places = _Places([item for item in items if item not in excused])
    covered, untold = _parted(sorted(certain - received), places)
    return Verdict(
        sent=len(certain),
        received=len(received),
        gaps=len(places.gaps),
        covered=covered,
        untold=untold,
        duplicated=_duplicated(numbers),
        reordered=tuple(sorted(late - excused)),
        foreign=tuple(sorted(received - certain - set(in_doubt))),
    )


class _Places:
    """Where in a sequence the gaps stand, and between which bounds a missing number belongs."""

    def __init__(self, items: Sequence[int | GapMark]) -> None:
        self.gaps = [place for place, item in enumerate(items) if isinstance(item, GapMark)]
        found = sorted(
            (item, place) for place, item in enumerate(items) if not isinstance(item, GapMark)
        )
        places = [place for _, place in found]
        self._numbers = [number for number, _ in found]
        # [i]: the last place of the i smallest; the first place of all but the i smallest.
        self._last_of_smaller = list(accumulate(places, max, initial=-1))
        self._first_of_greater = list(accumulate(reversed(places), min, initial=len(items)))[::-1]

    def has_gap_for(self, missing: int) -> bool:
        """Tell whether a gap stands after all that is smaller and before all that is greater."""
        rank = bisect_left(self._numbers, missing)
        gap = bisect_right(self.gaps, self._last_of_smaller[rank])
        return gap < len(self.gaps) and self.gaps[gap] < self._first_of_greater[rank]


def _parted(missing: Iterable[int], places: _Places) -> tuple[tuple[int, ...], tuple[int, ...]]:
    covered: list[int] = []
    untold: list[int] = []
    for number in missing:
        (covered if places.has_gap_for(number) else untold).append(number)
    return tuple(covered), tuple(untold)


def _duplicated(numbers: Iterable[int]) -> tuple[int, ...]:
    once: set[int] = set()
    again: set[int] = set()
    for number in numbers:
        (again if number in once else once).add(number)
    return tuple(sorted(again))


def _reordered(numbers: Iterable[int]) -> set[int]:
    seen: set[int] = set()
    late: set[int] = set()
    greatest: int | None = None
    for number in numbers:
        if greatest is not None and number < greatest and number not in seen:
            late.add(number)
        seen.add(number)
        greatest = number if greatest is None else max(greatest, number)
    return late


def _listed(name: str, numbers: Sequence[int]) -> str:
    if not numbers:
        return f"0 {name}"
    ranges = _ranges(numbers)
    shown = ", ".join(ranges[:RANGES_SHOWN])
    rest = ", ..." if len(ranges) > RANGES_SHOWN else ""
    return f"{len(numbers)} {name} ({shown}{rest})"


def _ranges(numbers: Sequence[int]) -> list[str]:
    """Return ascending numbers as ``["3", "5-9"]``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [f"{first}" if first == last else f"{first}-{last}" for first, last in runs]
