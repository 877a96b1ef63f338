"""A point in time that stays right when the wall clock is set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import NamedTuple


class Moment(NamedTuple):
    """
    A point in time by two clocks, because neither is enough.

    The wall clock can be set back: the time that it showed may be in the future now. The
    monotonic clock stands still while the machine is suspended: it may count too few seconds.
    """

    wall: datetime
    monotonic: float

    @classmethod
    def now(cls) -> Moment:
        """Return the present."""
        return cls(datetime.now(UTC), monotonic())

    def earliest(self) -> datetime:
        """
        Return the time by the wall clock: as read then, or now less the seconds since, if earlier.

        That is right or too early in each of these cases: the clock was fast and has been set
        back, the clock has been set forward, or the machine was suspended.
        """
        wall = datetime.now(UTC)  # first: a pause between the two lines makes the result earlier
        elapsed = timedelta(seconds=monotonic() - self.monotonic)
        return min(self.wall, wall - elapsed)
