"""The judge of numbers: which of those sent a subscription did not see, and whether it was told."""

from __future__ import annotations

import time
from bisect import bisect_left
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from asyncnotify import Gap, GapReason
from asyncnotify.testing.history import GAP, GapMark, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Record", "Told"]


class Told(NamedTuple):
    """A Gap as it was told."""

    gap: Gap
    after: int
    """The greatest number seen before it; 0 if none was."""
    at: float
    """By the monotonic clock."""


class Record:
    """
    What one subscription saw, in order.

    Attributes:
        channels: Its channels.
        floor: The last number begun when it was known to listen: every later one has to arrive,
            or to lie in a gap other than the one at the start.
        complete: Whether it has seen everything up to the last number sent.
    """

    def __init__(self, *channels: str) -> None:
        self.channels = channels
        self.floor = 0
        self.complete = False
        self.greatest: int = 0
        self.told: list[Told] = []
        self._seen: list[int | GapMark] = []

    def saw(self, number: int) -> None:
        """Note the next number."""
        self._seen.append(number)
        self.greatest = max(self.greatest, number)

    def tell(self, gap: Gap, *, merged: bool = False) -> None:
        """
        Note that a Gap comes next; once, however often resync is called with it.

        ``merged`` if it may stand for several. The one at the start alone is none in which a
        later number may be missing.
        """
        if self.told or merged:
            self._seen.append(GAP)
        self.told.append(Told(gap, self.greatest, time.monotonic()))

    @property
    def begins_with_its_gap(self) -> bool:
        """Whether the first gap is that of the start, and no other is."""
        first, *others = [told.gap.reason for told in self.told] or [GapReason.START]
        return first is GapReason.START and GapReason.START not in others

    @property
    def rereads(self) -> int:
        """How many Gaps it was told of because the sender said "read again"."""
        return sum(told.gap.reason is GapReason.REREAD for told in self.told)

    def verdict(self, sent: Mapping[str, Sequence[int]]) -> Verdict:
        """Judge it by what was sent on its channels while it listened."""
        numbers = {item for item in self._seen if isinstance(item, int)}
        ours = set(self._sent(sent))
        last = max(ours, default=0) if self.complete else self.greatest
        due = {number for number in ours if self.floor < number <= last}
        return judge(due | (numbers & ours), self._seen)

    def _sent(self, sent: Mapping[str, Sequence[int]]) -> Iterable[int]:
        return chain.from_iterable(sent[channel] for channel in self.channels)

    def candidates(self, missing: int) -> list[Told]:
        """Return the Gaps that stand where a missing number belongs."""
        numbers = sorted(item for item in self._seen if isinstance(item, int))
        place = bisect_left(numbers, missing)
        before = numbers[place - 1] if place else 0
        return [told for told in self.told[1:] if told.after == before]
