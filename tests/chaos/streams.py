"""Those who listen with streams; on a Gap they read the table, until they succeed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from asyncnotify import BufferOverflowError, Gap, PayloadDecodeError
from tests.chaos.changes import CHANNELS, NEWEST, TYPED, Change
from tests.chaos.consumers import SMALL, Consumer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncnotify import Channel, Listener, Notification, Stream
    from tests.chaos.changes import Row
    from tests.chaos.consumers import Context

    Items = Stream[Notification[Any] | Gap]

__all__ = ["streams"]


class Reading(Consumer):
    """A stream, or one after the other where that ends."""

    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, context: Context, *channels: str) -> None:
        super().__init__(context, *channels)
        self._begun = asyncio.Event()
        self._stream: Items | None = None

    @property
    def sources(self) -> Iterator[str | Channel[Any]]:
        """What it listens on."""
        return iter(self.channels)

    async def start(self, listener: Listener) -> None:
        """Listen."""
        self.task = asyncio.create_task(self._read_on(listener))
        await self._begun.wait()

    async def _read_on(self, listener: Listener) -> None:
        while True:
            self.begin_record()
            with suppress(BufferOverflowError):
                await self._read_one(listener)
            self._stream = None
            self._begun.clear()

    async def _read_one(self, listener: Listener) -> None:
        async with self._open(listener) as stream:
            try:
                await self.read(stream)
            finally:
                self._begun.clear()  # leaving may take a while, and nothing more is received

    def _open(self, listener: Listener) -> Items:
        self._stream = listener.stream(
            *self.sources, gaps=True, timeout=None, on_error=self.on_error, **self.options
        )
        return self._stream

    async def read(self, stream: Items) -> None:
        """Take what the stream brings."""
        async for item in stream:
            await self.take(item)

    async def take(self, item: Notification[Any] | Gap) -> None:
        """Work one item into the rows."""
        self.busy += 1
        try:
            if isinstance(item, Gap):
                await self._resync_until_it_succeeds(item)
            else:
                await self._note(item)
        finally:
            self.busy -= 1

    async def _note(self, item: Notification[Any]) -> None:
        change = Change.of(item)
        self.record.saw(change.number)
        await self.handle(item.channel, change)

    async def handle(self, channel: str, change: Change) -> None:
        """Work a notification into the rows."""
        self.apply(channel, change)

    async def _resync_until_it_succeeds(self, gap: Gap) -> None:
        if not self._begun.is_set():
            self.listens()
        while not await self._resynced(gap):  # noqa: ASYNC110 - the next try
            await asyncio.sleep(0.02)
        self._begun.set()

    async def _resynced(self, gap: Gap) -> bool:
        try:
            await self.resync(gap)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return False
        except Exception:  # noqa: BLE001 - whatever it is, it is tried again
            return False
        return True

    def on_error(self, error: BaseException, item: Notification[Any] | Gap) -> None:
        """Apply what could not be decoded, as if it had been read by other means."""
        if isinstance(error, PayloadDecodeError) and not isinstance(item, Gap):
            change = Change.of(item)
            self.record.saw(change.number)
            self.apply(item.channel, change)

    @property
    def backlog(self) -> int:
        stats = self._stream.stats() if self._stream is not None else None
        return stats.backlog if stats is not None else 0

    @property
    def settled(self) -> bool:
        return self._begun.is_set() and super().settled


class TypedReading(Reading):
    """One for which some of the channels are typed."""

    @property
    def sources(self) -> Iterator[str | Channel[Any]]:
        """Take integers from two of them."""
        return (TYPED.get(channel, channel) for channel in self.channels)


class SlowReading(Reading):
    """A slow one, whose buffer overflows at its tail."""

    options: ClassVar = {"buffer": SMALL, "overflow": "drop_newest"}

    async def handle(self, channel: str, change: Change) -> None:
        """Take a while."""
        self.apply(channel, change)
        await asyncio.sleep(0.01)


class SlowOldest(SlowReading):
    """A slow one, whose buffer overflows at its head."""

    options: ClassVar = {"buffer": SMALL, "overflow": "drop_oldest"}


class SlowTyped(TypedReading, SlowOldest):
    """One of them for which some of the channels are typed."""


class FailingReading(SlowReading):
    """A slow one that ends when it overflows, and begins again."""

    options: ClassVar = {"buffer": SMALL, "overflow": "fail"}


class LatestReading(SlowReading):
    """One that wants the last number of each channel only, and is slow."""

    numbered = False
    options: ClassVar = {"latest": True}

    def keeps(self, row: Row) -> bool:
        """Keep the rows of the last numbers."""
        return row[1] == NEWEST and row[0] in self.channels

    async def handle(self, channel: str, change: Change) -> None:
        """Keep the last number."""
        self.rows[channel, NEWEST] = change.number
        await asyncio.sleep(0.01)


class BatchReading(Reading):
    """One that takes many at once."""

    async def read(self, stream: Items) -> None:
        """Take what the stream brings, in lists."""
        async for items in stream.batches(50):
            self.busy += 1
            for item in items:
                await self.take(item)
            self.busy -= 1


class TypedBatches(TypedReading, BatchReading):
    """One of them for which some of the channels are typed."""

    def on_error(self, error: BaseException, item: Notification[Any] | Gap) -> None:
        """Leave what could not be decoded to its Gap: on_error is called behind the list."""


class TypedLatest(TypedReading, LatestReading):
    """One that wants the last number only, for which some of the channels are typed."""


class LeavingReading(Reading):
    """One that leaves its stream after some items, in one way or another, and begins again."""

    async def _read_one(self, listener: Listener) -> None:
        if self.context.chance.random() < 0.5:
            await super()._read_one(listener)
        else:
            await self.read(self._open(listener))  # left to the collector

    async def read(self, stream: Items) -> None:
        """Take some items; waiting for one is cancelled now and then, which loses nothing."""
        left = self.context.chance.randrange(1, 300)
        while left:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.context.chance.choice((0.002, 1.0))):
                    item = await anext(stream)
                left -= 1
                await self.take(item)


def streams(context: Context) -> Iterator[Consumer]:
    """Yield one consumer of each kind, on all channels or on two of them."""
    for kind in (Reading, BatchReading, LeavingReading, LatestReading):
        yield kind(context, *CHANNELS)
    for typed in (TypedReading, TypedBatches, TypedLatest, SlowTyped):
        yield typed(context, *CHANNELS)
    for slow in (SlowReading, SlowOldest, FailingReading):
        yield slow(context, *context.chance.sample(CHANNELS, 2))
