"""How long events are kept, and in how many partitions."""

import math
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from asyncnotify._arguments import check_count
from asyncnotify.log._errors import LogError

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
            of ``limit / (ring - 2)``, or of ``retention / (ring - 2)`` without a limit.

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
        # A partition that is written again while it keeps events is young again: it has to be old
        # enough before, by the longest time that events may be kept
        longest = self.limit or self.retention
        return max(1, math.ceil(longest.total_seconds() / (self.ring - 2)))


@dataclass(frozen=True, slots=True)
class GivenSettings:
    """
    What an installation was given of the settings.

    Attributes:
        retention: As of ``Settings``; None: as it is, or the default for a new log.
        limit: The same; where ``retention`` is given, None is none.
        ring: The same, of a new log only.

    Raises:
        ValueError: As of ``Settings``, for what was given.
    """

    retention: timedelta | None = None
    limit: timedelta | None = None
    ring: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None:
            check_duration("limit", self.limit)
        retention = DEFAULT_RETENTION if self.limit is None else self.limit
        self._over(Settings(retention))

    def for_new(self) -> Settings:
        """
        Return the settings of a new log.

        Raises:
            ValueError: What was given does not go with the defaults.
        """
        return self._over(Settings())

    def for_log(self, log: str, present: Settings | None) -> Settings:
        """
        Return the settings of a log that has these; None: there is none.

        Raises:
            LogError: What was given does not go with what the log has.
        """
        try:
            if present is None:
                return self.for_new()
            return replace(self._over(present), ring=present.ring)
        except ValueError as error:
            kept = (present or Settings()).retention
            msg = f"log {log!r} keeps events for {kept} at least: {error}"
            raise LogError(msg) from None

    def _over(self, present: Settings) -> Settings:
        keeps_limit = self.retention is None and self.limit is None
        return Settings(
            present.retention if self.retention is None else self.retention,
            present.limit if keeps_limit else self.limit,
            present.ring if self.ring is None else self.ring,
        )


def check_duration(name: str, value: object) -> None:
    """Raise ValueError unless the value is a positive timedelta."""
    if not isinstance(value, timedelta) or value <= timedelta(0):
        msg = f"{name} must be a positive timedelta, not {value!r}"
        raise ValueError(msg)
