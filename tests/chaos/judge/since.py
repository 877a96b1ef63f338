"""The judge of ``Gap.since``: it must not lie after the commit of what is missing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.chaos.judge.numbers import Record, Told

__all__ = ["WallClock", "late"]

_DRIFT: Final = 0.002
"""Seconds by which the two clocks may drift apart while chaos runs."""

_MADE_WITHIN: Final = 0.2
"""Seconds between the making of a Gap and its being told, to a consumer that is prompt."""


class WallClock:
    """The wall clock of this process, by what it was at the beginning, and how wrong it is."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()
        self._errors: list[tuple[float, float]] = [(time.monotonic(), 0.0)]

    def stepped(self, error: float) -> None:
        """Note that it is wrong by so many seconds from here on."""
        self._errors.append((time.monotonic(), error))

    def right(self, monotonic: float) -> float:
        """Return the right time of a moment, in seconds since 1970."""
        return self._offset + monotonic

    def fast_by(self, moment: float) -> float:
        """Return by how much it may have been fast when a Gap was made that is told now."""
        before = [error for at, error in self._errors if at <= moment - _MADE_WITHIN]
        lately = [error for at, error in self._errors if moment - _MADE_WITHIN < at <= moment]
        return max(0.0, *before[-1:], *lately)


def late(
    record: Record, missing: Iterable[int], committed_by: Mapping[int, float], clock: WallClock
) -> list[str]:
    """
    Return a line for each missing number that was committed before the since of its Gap.

    Where several Gaps stand in its place, one of them has to be early enough. A clock that is
    fast when the Gap is made is allowed for: that is the difference of the clocks, of which the
    documentation tells.
    """
    found = []
    for number in missing:
        told = record.candidates(number)
        if number not in committed_by or not told:
            continue
        commit = clock.right(committed_by[number]) + _DRIFT
        excess = min(_since(t) - commit - clock.fast_by(t.at) for t in told)
        if excess > 0:
            found.append(f"{record.channels}: {number} was committed {excess:.3f} s before since")
    return found


def _since(told: Told) -> float:
    since = told.gap.since
    return float("-inf") if since is None else since.timestamp()
