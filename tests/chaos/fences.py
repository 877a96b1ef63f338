"""
Fences: moments at which every consumer's copy has to equal the table.

While nothing is being sent, a notification on a channel of its own goes out. A listener that has
heard it has received everything that was sent before, or has put a Gap in its place: so what is
left is in the buffers of its consumers, or in their hands.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.chaos.changes import CHANNELS, FENCE
from tests.chaos.sender import WAIT_LIMIT
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncnotify import Listener, Notification
    from tests.chaos.consumers import Consumer, Context

__all__ = ["Fences"]

_AGAIN = 0.3
"""Seconds after which another fence goes out: the one before may have met a dead connection."""

_SETTLED_WITHIN = scaled(30.0)
"""Seconds: a resync that has failed for some time is tried again after up to 5."""


class Fences:
    """Makes fences, and compares what consumers keep with the table."""

    def __init__(self, context: Context, consumers: Sequence[Consumer]) -> None:
        self._context = context
        self._consumers = consumers
        self._listeners = 0
        self._heard: Counter[int] = Counter()
        self._news = asyncio.Event()
        self.passed: int = 0
        self.wrong: list[str] = []

    async def listen(self, listener: Listener) -> None:
        """Hear fences by this listener."""
        number = self._listeners
        self._listeners += 1

        def note(n: Notification[str]) -> None:
            self._heard[number] += 1
            self._news.set()

        await listener.listen(FENCE, note)

    async def compare(self, *, last: bool = False) -> None:
        """
        Compare every consumer with the table; the network and the server have to be all right.

        ``last`` if nothing is sent any more.

        Raises:
            TimeoutError: Somebody has not worked in what was sent; the message says who.
        """
        async with self._context.sender.pause:
            await self._arrive()
            await self._settle()
            table = await self._context.table.rows(CHANNELS)
        self.passed += 1
        for consumer in self._consumers:
            wrong = consumer.wrong(table)
            self.wrong += [f"fence {self.passed}: {line}" for line in wrong]
            consumer.record.complete = last

    async def converge(self, within: float) -> None:
        """Return once every listener has heard a fence; TimeoutError after so many seconds."""
        async with asyncio.timeout(within), self._context.sender.pause:
            await self._arrive()

    async def _arrive(self) -> None:
        """Return once every listener has heard a fence that has been sent from here on."""
        self._heard.clear()
        async with asyncio.timeout(WAIT_LIMIT):
            while len(self._heard) < self._listeners:
                await self._context.sender.fence()
                await self._heard_by_all_soon()

    async def _heard_by_all_soon(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_AGAIN):
                while len(self._heard) < self._listeners:
                    self._news.clear()
                    await self._news.wait()

    async def _settle(self) -> None:
        """Return once every consumer has worked in what it was given."""
        try:
            async with asyncio.timeout(_SETTLED_WITHIN):
                while self._unsettled() or await self._unsettled_after_a_turn():  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.005)
        except TimeoutError as error:
            names = ", ".join(consumer.name for consumer in self._unsettled())
            message = f"not settled at fence {self.passed + 1}: {names}"
            raise TimeoutError(message) from error

    def _unsettled(self) -> list[Consumer]:
        return [consumer for consumer in self._consumers if not consumer.settled]

    async def _unsettled_after_a_turn(self) -> bool:
        """Look again when the calls have begun whose tasks were made a moment ago."""
        await asyncio.sleep(0)
        return bool(self._unsettled())
