"""Consumers: what is given, and taken back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asyncnotify import Gap, GapReason
from asyncnotify._delivery.turns import Turns
from asyncnotify._owner import Owner
from asyncnotify.log._consuming.consumer import Consumer
from asyncnotify.log._reading.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Sequence


class GapsOnly:
    """Gives one Gap, and then nothing, as a Feed."""

    def __init__(self, gap: Gap) -> None:
        self.gaps = [gap]

    async def next(self) -> Gap | Sequence[Any]:
        """Return the Gap, or wait for ever."""
        if not self.gaps:
            await asyncio.Event().wait()
        return self.gaps.pop()

    async def aclose(self) -> None:
        """Return."""

    def forget(self) -> None:
        """Return."""


async def test_a_gap_that_was_lost_on_its_way_comes_again() -> None:
    """As an event does: whoever is interrupted when it is given has not seen it."""
    gap = Gap(None, GapReason.EXPIRED, None, 2)
    feed: Any = GapsOnly(gap)
    turns = Turns(asyncio.get_running_loop())
    consumer: Consumer[Any] = Consumer(
        "mailer", feed, gaps=True, owner=Owner(), pace=Pace(turns), on_close=lambda _: None
    )
    assert await consumer.next_batch(1) == [gap]
    consumer.put_back()
    assert await consumer.next_batch(1) == [gap]
    await consumer.aclose()
