"""Readers from stored positions, and a consumer whose cursor is moved; all in this process."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import asyncpg

from asyncnotify import AsyncNotifyError, Gap
from asyncnotify.log import Log, Position
from tests.chaos.judge.log_history import History, Kind, Mark, Rule, Seen
from tests.chaos.log.process import LIMITS, LOG
from tests.chaos.log.recorded import mark_of, name_of, seen_of

if TYPE_CHECKING:
    import random

    from asyncnotify.log import After, Event
    from tests.chaos.judge.log_history import Place

__all__ = ["LAST", "SOUGHT", "Reader", "Sought"]

LAST: Final = "a/last 1"
"""The name of the event that is appended last."""

SOUGHT: Final = "sought"
_FAILURES: Final = (AsyncNotifyError, asyncpg.PostgresError)
_BATCH: Final = 50


class Reader:
    """
    Reads some events, keeps the text of the last position, and begins there with a new stream.

    Args:
        name: To tell of it.
        log: The log.
        chance: Says how many events it takes at once.
        channel: The only one that it reads; None: all.
        rest: Seconds, at most, between two streams: long ones let events be removed meanwhile.
    """

    def __init__(
        self, name: str, log: Log, chance: random.Random, channel: str | None, rest: float
    ) -> None:
        self.history = History(name, Rule.ONCE, channel)
        self.streams = 0
        self._log = log
        self._chance = chance
        self._rest = rest
        self._position: str | None = None

    async def run(self) -> None:
        """Read to the last event."""
        while not await self._read_some():
            self.streams += 1
            await asyncio.sleep(self._chance.uniform(0.0, self._rest))

    async def _read_some(self) -> bool:
        """Return whether the last event has come."""
        after: After = "start" if self._position is None else Position.parse(self._position)
        channels = () if self.history.channel is None else (self.history.channel,)
        async with self._log.read(*channels, after=after, gaps=True) as stream:
            for _ in range(self._chance.randrange(1, 400)):
                if self._note(await anext(stream)):
                    return True
        return False

    def _note(self, item: Event[str] | Gap) -> bool:
        if isinstance(item, Gap):
            self.history.entries.append(mark_of(item))
            return False
        self.history.entries.append(seen_of(item))
        self._position = str(item.position)
        return name_of(item.payload) == LAST


class Sought:
    """
    A durable consumer that takes batches, while somebody moves its cursor and pauses it.

    Attributes:
        history: What it has seen, and what was done to it.
    """

    def __init__(self, dsn: str, chance: random.Random, *, expires: bool) -> None:
        self.history = History(SOUGHT, Rule.BATCHES)
        self._dsn = dsn
        self._chance = chance
        self._expires = expires
        self._is_to_end = asyncio.Event()
        self._calm = asyncio.Event()
        self._log = Log(LOG, connect=self._connect, **LIMITS)

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        settings = {"application_name": "asyncnotify"}
        connection = await asyncpg.connect(self._dsn, timeout=2.0, server_settings=settings)
        self._mark(Kind.CONNECTED)
        return connection

    @property
    def is_disturbed(self) -> bool:
        """Whether it has been moved or paused."""
        return any(
            isinstance(entry, Mark) and entry.kind in (Kind.SOUGHT, Kind.PAUSED)
            for entry in self.history.entries
        )

    def _mark(self, kind: Kind) -> None:
        self.history.entries.append(Mark(kind))

    async def run(self) -> None:
        """Consume until the last event has come."""
        async with self._log, self._log.consumer(SOUGHT, gaps=True) as consumer:
            async for batch in consumer.batches(_BATCH):
                self._mark(Kind.BATCH)
                noted = [mark_of(i) if isinstance(i, Gap) else seen_of(i) for i in batch]
                self.history.entries += noted
                if any(isinstance(entry, Seen) and entry.name == LAST for entry in noted):
                    return

    async def disturb(self, log: Log, pause: float) -> None:
        """Move its cursor, or pause it for a while, now and then; until it is to be left alone."""
        while not await self._is_over(self._chance.uniform(0.5, 1.5) * pause):
            if self._chance.random() < 0.5:
                await self._seek(log)
            else:
                await self._pause(log, pause / 2)
        self._calm.set()

    async def leave_alone(self, log: Log) -> None:
        """End this, and let it be served."""
        self._is_to_end.set()
        await self._calm.wait()
        await self._resume(log)

    async def _is_over(self, seconds: float) -> bool:
        """Return whether to end, after so many seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_to_end.wait()
        return self._is_to_end.is_set()

    async def _seek(self, log: Log) -> None:
        """Go back to an event that it has had, a later one with luck, or to the start."""
        seen = list(self.history.seen)[-2_000:]
        if self._chance.random() < 0.1 or not seen:
            place: Place | None = None if self._expires else (0, 0, 0)
            target: After = "start"
        else:
            place = self._chance.choice(seen).place
            target = Position(LOG, *place)
        self.history.entries.append(Mark(Kind.SEEKING, place=place))
        with suppress(*_FAILURES):
            await log.seek(SOUGHT, target)
            self._mark(Kind.SOUGHT)

    async def _pause(self, log: Log, seconds: float) -> None:
        with suppress(*_FAILURES):
            await log.pause(SOUGHT)
            self._mark(Kind.PAUSED)
            await self._is_over(self._chance.uniform(0.0, seconds))
        await self._resume(log)

    async def _resume(self, log: Log) -> None:
        """Let it be served again, for certain."""
        self._mark(Kind.RESUMED)
        while True:
            with suppress(*_FAILURES):
                await log.resume(SOUGHT)
                return
            await asyncio.sleep(0.05)
