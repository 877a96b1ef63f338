"""Letting other tasks run, between events that are there already."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncnotify._delivery.turns import Turns


class Pace:
    """The turns of one who takes events, among all that do so in an event loop."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._has_waited = False

    async def turn(self) -> None:
        """
        Return at once, or in the next turn of the loop if those who take have used up theirs.

        Who is cancelled has let others run as well, and does not wait again.
        """
        if not self._has_waited and self._turns.is_over:
            self._has_waited = True
            await self._turns.next()
        self._has_waited = False
