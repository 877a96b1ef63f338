"""
The time that the consumers of one listener share in each turn of the event loop.

A consumer that never waits may run for a slice of time. A hundred of them, one after the other,
would block the loop for a hundred slices; so all of them together have one slice.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from asyncnotify._tasks import SLICE

if TYPE_CHECKING:
    import asyncio

_MAX_AT_ONCE: Final = 1_024
"""Consumers that may run in one turn, at most."""


class Turns:
    """
    One budget of time for all consumers in each turn of the loop. The others wait in a queue.

    In each turn as many consumers run as have fitted into the last budgets, in the order in
    which they came.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ends = 0.0
        self._began = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._opens = False
        self._at_once = 1

    def begin(self, now: float) -> None:
        """A turn begins: the consumers that run in it have a budget of their own."""
        self._began = now
        self._ends = now + SLICE

    @property
    def is_over(self) -> bool:
        """Whether the budget of this turn is used up."""
        return self._loop.time() > self._ends

    def next(self) -> asyncio.Future[None]:
        """Return a future that is done when the caller may run again."""
        turn = self._loop.create_future()
        self._waiting.append(turn)
        if not self._opens:
            self._opens = True
            self._loop.call_soon(self._open)
        return turn

    def _open(self) -> None:
        """Begin a turn and wake the next consumers; they run before this is called again."""
        now = self._loop.time()
        if now - self._began > 2 * SLICE:
            self._at_once = max(1, self._at_once // 2)
        elif now - self._began < SLICE:
            self._at_once = min(_MAX_AT_ONCE, self._at_once * 2)
        self.begin(now)
        woken = 0
        while self._waiting and woken < self._at_once:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                woken += 1
        if self._waiting:
            self._loop.call_soon(self._open)
        else:
            self._opens = False
