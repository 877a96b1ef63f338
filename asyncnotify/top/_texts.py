"""How figures are written: short, and the same everywhere."""

from __future__ import annotations

from typing import Final

UNKNOWN: Final = "-"

_SMALL: Final = 100
_UNITS: Final = (("G", 1e9), ("M", 1e6), ("k", 1e3))
_FROM: Final = 100_000
"""The first count that is written with a unit."""

_TIMES: Final = (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0))


def count(value: float | None) -> str:
    """Return a number in at most seven characters, as long as it is below 1,000,000 G."""
    if value is None:
        return UNKNOWN
    if value < _FROM:
        return f"{value:,.0f}"
    unit, size = next(one for one in _UNITS if value >= one[1])
    return f"{value / size:,.0f}{unit}"


def rate(value: float | None) -> str:
    """Return so many a second, with a decimal where it says something."""
    if value is not None and 0 < value < _SMALL:
        return f"{value:.1f}"
    return count(value)


def latency(seconds: float | None) -> str:
    """Return the time of a round trip."""
    if seconds is None:
        return UNKNOWN
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def duration(seconds: float | None) -> str:
    """Return how long something has lasted, in its largest unit."""
    if seconds is None:
        return UNKNOWN
    for unit, size in _TIMES:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(octets: float) -> str:
    """Return a number of bytes, in its largest unit."""
    for unit, number in _UNITS:
        if octets >= number:
            return f"{octets / number:.0f} {unit}B"
    return f"{octets:.0f} B"


def percentage(part: float) -> str:
    """Return a part of 1, so that what is not nothing does not look like nothing."""
    return f"{part:.4%}" if 0 < part < 0.0001 else f"{part:.2%}"  # noqa: PLR2004 - 0.01 %
