"""
The time that the consumers of one listener share in each turn of the event loop.

A consumer that never waits may run for a slice of time. A hundred of them, one after the other,
would block the loop for a hundred slices; so all of them together have one slice.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

from asyncnotify._tasks import SLICE

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_MAX_AT_ONCE: Final = 64
"""Consumers that may run in one turn, at most; each has its share of the slice."""


_UVLOOP_STEP: Final = 0.001
"""Seconds by which uvloop's time is behind the clock, at most: it counts in milliseconds."""


def clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """
    Return the clock of a loop: the monotonic one, or one of its own, which tests may set.

    By uvloop's steps of a millisecond, a share of a tenth of one would last ten times as long.
    """
    earliest = time.monotonic() - _UVLOOP_STEP
    is_monotonic = earliest <= loop.time() <= time.monotonic()
    return time.monotonic if is_monotonic else loop.time


class Turns:
    """
    One budget of time for all consumers in each turn of the loop. The others wait in a queue.

    What wakes consumers begins a budget for them. What is left when it is used up waits, in
    order; in each further turn some of the queue run, each for its share of one more slice. Who
    comes while others wait goes behind them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.clock: Callable[[], float] = clock_of(loop)
        self._now = self.clock
        self._ends = 0.0
        self._opened = 0.0
        self._share = SLICE
        self._at_once = _MAX_AT_ONCE
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._opens = False
        self._woken = 0
        self._left_of_round = 0
        self.begun: int = 0  # how often consumers have been woken
        self.rounds: int = 0  # how often all that waited together have had their turn

    def begin(self) -> None:
        """Consumers have been woken: those that run next have a budget, unless others wait."""
        self.begun += 1
        if not self._opens:
            self._ends = self._now() + SLICE

    def begin_with_first(self) -> None:
        """As begin(), but the budget begins when the first of them asks for it."""
        self.begun += 1
        if not self._opens:
            self._ends = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the budget of who runs is used up."""
        now = self._now()
        if not self._ends:
            self._ends = now + SLICE
        return now > self._ends

    @property
    def overrun(self) -> float:
        """Seconds by which who runs has exceeded the budget; not positive before that."""
        return self._now() - self._ends if self._ends else 0.0

    @property
    def is_taken(self) -> bool:
        """Whether who has just been woken has to wait for its turn."""
        return bool(self._waiting) or self.is_over

    @property
    def share(self) -> float:
        """The part of a slice that a consumer has in a round; 1 if nobody has to wait."""
        return self._share / SLICE if self._opens else 1.0

    def is_past(self, round_: int) -> bool:
        """Whether this round is over, or nobody has to wait."""
        return self.rounds > round_ or not self._opens

    def next(self) -> asyncio.Future[None]:
        """Return a future that is done when the caller may run again."""
        turn = self._loop.create_future()
        turn.add_done_callback(self._begin_share)  # before whoever awaits it runs
        self._waiting.append(turn)
        if not self._opens:
            self._begin_to_open()
        return turn

    def _begin_to_open(self) -> None:
        self._opens = True
        try:
            self._opened = self._now()
            self._loop.call_soon(self._open)
        except BaseException:  # of a signal handler's
            self._opens = False
            raise

    def _begin_share(self, turn: asyncio.Future[None]) -> None:
        if not turn.cancelled():
            self._ends = self._now() + self._share

    def _open(self) -> None:
        """Wake the next consumers; they run before this is called again."""
        now = self._now()
        took, self._opened = now - self._opened, now
        if took > 2 * SLICE:
            self._at_once = max(1, self._at_once // 2)
        elif took < SLICE:
            self._at_once = min(_MAX_AT_ONCE, self._at_once * 2)
        self._left_of_round -= self._woken
        if not self._left_of_round:
            self.rounds += 1
            self._left_of_round = len(self._waiting)
        self._woken = min(self._at_once, self._left_of_round)
        if not self._woken:
            self._opens = False
            return
        self._share = SLICE / self._woken
        for _ in range(self._woken):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
        self._loop.call_soon(self._open)
