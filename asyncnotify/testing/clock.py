"""An event loop whose clock jumps to its next timer, so that hours pass in a moment."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Final

from asyncnotify._arguments import check_number

if TYPE_CHECKING:
    Ready = list[tuple[selectors.SelectorKey, int]]

__all__ = ["DayOverError", "NothingScheduledError", "SpinningError", "VirtualTimeLoop"]

START: Final = 100_000.0
"""What the clock shows first. Far from 0, which in places stands for «never»."""

DAY: Final = 90_000.0
"""Seconds that may pass: 24 hours, and one to look back on them."""

POLLS: Final = 20_000
"""Times that the loop may go round without any time passing."""


class NothingScheduledError(Exception):
    """Every task waits, and nothing is left that could wake one."""


class DayOverError(Exception):
    """A virtual day has passed: what the test waits for does not come."""


class SpinningError(Exception):
    """Some task is busy without end, and lets no time pass."""


class _Selector(selectors.DefaultSelector):
    """Polls; when nothing is ready, the time that it was given to wait has passed at once."""

    def __init__(self) -> None:
        super().__init__()
        self._limit = START + DAY
        self._polls = 0
        self.now = START

    def select(self, timeout: float | None = None) -> Ready:
        """Return what is ready now; else let the timeout pass."""
        ready = super().select(0)
        if not ready and timeout != 0:
            self._jump(timeout)
        self._polls += 1
        if self._polls > POLLS:
            self._polls = 0
            raise SpinningError
        return ready

    def _jump(self, timeout: float | None) -> None:
        if timeout is None:
            raise NothingScheduledError
        self._polls = 0
        self.now += max(0.0, timeout)
        if self.now > self._limit:
            self._limit += DAY  # the loop has to run once more, to be closed
            raise DayOverError


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop on which only sleeping takes time, and none of ours."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        """Return the virtual time."""
        return self._clock.now

    def spend(self, seconds: float) -> None:
        """
        Let time pass at once, as code does that computes for so long.

        Raises:
            ValueError: ``seconds`` is no number, or negative.
        """
        check_number("seconds", seconds, minimum=0)
        self._clock.now += seconds
