"""A moment that can still be told when the wall clock has been set since."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import NamedTuple


class Moment(NamedTuple):
    """
    A moment by two clocks, because neither is enough.

    The wall clock can be set: what it said then may lie in the future now. The monotonic clock
    stands still while the machine is suspended: what it has counted since may be too little.
    """

    wall: datetime
    monotonic: float

    @classmethod
    def now(cls) -> Moment:
        """Return this moment."""
        return cls(datetime.now(UTC), monotonic())

    def earliest(self) -> datetime:
        """
        Return the moment by the wall clock: as it was read then, or by the time elapsed since.

        The earlier of the two, which is right or too early in each of these cases: the clock
        was fast and has been set back, it has been set forward, or the machine was suspended.
        """
        wall = datetime.now(UTC)  # first: if we are interrupted here, the result is too early
        elapsed = timedelta(seconds=monotonic() - self.monotonic)
        return min(self.wall, wall - elapsed)
