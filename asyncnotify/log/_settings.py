"""How long events are kept, and in how many partitions."""

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from asyncnotify._arguments import check_count

DEFAULT_RETENTION: Final = timedelta(days=7)
DEFAULT_RING: Final = 8
_SMALLEST_RING: Final = 3
"""One partition that is written, one that comes next and has to be empty, one that is kept."""

_LARGEST_RING: Final = 64
"""Every statement that reads plans for every partition."""


@dataclass(frozen=True, slots=True)
class Settings:
    """
    How long events are kept.

    Attributes:
        retention: For at least this long, by the server's clock.
        limit: For at most about this long, also where a consumer has not got so far; None: until
            every consumer has.
        ring: How many partitions there are. They are emptied one at a time: each holds the events
            of ``retention / (ring - 2)``.

    Raises:
        ValueError: A duration is not positive, ``limit`` is shorter than ``retention``, or
            ``ring`` is not 3 to 64.
    """

    retention: timedelta = DEFAULT_RETENTION
    limit: timedelta | None = None
    ring: int = DEFAULT_RING

    def __post_init__(self) -> None:
        check_duration("retention", self.retention)
        if self.limit is not None:
            check_duration("limit", self.limit)
            if self.limit < self.retention:
                msg = f"limit must be at least retention, not {self.limit}"
                raise ValueError(msg)
        check_count("ring", self.ring)
        if not _SMALLEST_RING <= self.ring <= _LARGEST_RING:
            msg = f"ring must be {_SMALLEST_RING} to {_LARGEST_RING}, not {self.ring}"
            raise ValueError(msg)

    @property
    def slot_seconds(self) -> int:
        """For how long events go into one partition, before the next one gets them."""
        return max(1, math.ceil(self.retention.total_seconds() / (self.ring - 2)))


def check_duration(name: str, value: object) -> None:
    """Raise ValueError unless the value is a positive timedelta."""
    if not isinstance(value, timedelta) or value <= timedelta(0):
        msg = f"{name} must be a positive timedelta, not {value!r}"
        raise ValueError(msg)
