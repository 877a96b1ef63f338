"""
Turns of the event loop that the consumers of one listener share.

Each consumer by itself may go on for a slice of time without waiting for anything. A hundred of
them, one after the other, would hold the loop for a hundred slices: so they have one budget.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from asyncnotify._tasks import SLICE

if TYPE_CHECKING:
    import asyncio

_MOST_AT_ONCE: Final = 1_024
"""Consumers that are let in for one turn, at most."""


class Turns:
    """
    One budget of time for all consumers in each turn of the loop; who comes too late queues.

    As many are let in at once as have lately fitted into one budget, the longest waiting first.
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
        """Return a future that is done when it is the caller's turn again, first come first."""
        turn = self._loop.create_future()
        self._waiting.append(turn)
        if not self._opens:
            self._opens = True
            self._loop.call_soon(self._open)
        return turn

    def _open(self) -> None:
        """Let in the next ones; they run before this is called again."""
        now = self._loop.time()
        if now - self._began > 2 * SLICE:
            self._at_once = max(1, self._at_once // 2)
        elif now - self._began < SLICE:
            self._at_once = min(_MOST_AT_ONCE, self._at_once * 2)
        self.begin(now)
        let_in = 0
        while self._waiting and let_in < self._at_once:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                let_in += 1
        if self._waiting:
            self._loop.call_soon(self._open)
        else:
            self._opens = False
