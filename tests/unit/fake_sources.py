"""Who puts notifications into a mailbox, by itself: no delivery, no connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from asyncnotify._delivery.moment import Moment
from asyncnotify._delivery.turns import Turns

if TYPE_CHECKING:
    import asyncio
    from datetime import datetime

    from asyncnotify._delivery.bounded import BoundedMailbox


class _LoopAtRest:
    """Its time stands still."""

    def time(self) -> float:
        """Return when it stopped."""
        return 0.0


NO_LOOP: Final = cast("asyncio.AbstractEventLoop", _LoopAtRest())
"""For a router that is to hand on nothing."""


def at(wall: datetime) -> Moment:
    """Return a moment that is told as the wall clock showed it, however long ago that is."""
    return Moment(wall, 1e9)


class EndlessTurn(Turns):
    """Never over: nobody has to queue."""

    def __init__(self) -> None:
        super().__init__(NO_LOOP)

    @property
    def is_over(self) -> bool:
        """Say no."""
        return False


class RecordingSource:
    """Lets a mailbox have more than its limit, and notes that it was told so."""

    def __init__(self, verified_at: Moment | None = None) -> None:
        self.verified_at = verified_at
        self.full: list[BoundedMailbox] = []
        self.turns = EndlessTurn()

    def on_full(self, mailbox: BoundedMailbox) -> None:
        """Note it."""
        self.full.append(mailbox)


class TrimmingSource:
    """Gives the consumer no turn before an overflow is counted."""

    verified_at: Moment | None = None
    turns: Turns = EndlessTurn()

    def on_full(self, mailbox: BoundedMailbox) -> None:
        """Drop what is too much."""
        mailbox.trim()
