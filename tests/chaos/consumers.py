"""
Those who listen: each notes the numbers it sees, and keeps a copy of its rows of the table.

The copy is made by what users would do: read the table on a Gap, and apply each notification.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from asyncnotify import BufferOverflowError, Gap, PayloadDecodeError
from tests.chaos.changes import CHANNELS, NEWEST, PEOPLE, PRICES, Change
from tests.chaos.judge.numbers import Record
from tests.chaos.judge.table import differences

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from asyncnotify import Channel, Listener, Notification, Subscription
    from tests.chaos.changes import Row, Rows
    from tests.chaos.judge.table import Table
    from tests.chaos.sender import Sender

__all__ = ["SMALL", "Consumer", "Context", "FailingNowAndThen", "handlers"]

SMALL = 20
"""The buffer of those who overflow: notifications."""

CONCURRENCY = 4


@dataclass(frozen=True, slots=True)
class Context:
    """What consumers have in common."""

    table: Table
    sender: Sender
    chance: random.Random


class FailingNowAndThen:
    """Fails up to three times in a row, now and then, also by CancelledError."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._outcomes: list[type[BaseException] | None] = []
        self.failures: int = 0

    def outcome(self) -> type[BaseException] | None:
        """Return what is to be raised this time, if anything; success ends a series."""
        if not self._outcomes:
            count = self._chance.choice((0, 0, 0, 0, 1, 2, 3))
            kinds = (RuntimeError, ValueError, asyncio.CancelledError)
            self._outcomes = [*self._chance.choices(kinds, k=count), None]
        outcome = self._outcomes.pop(0)
        self.failures += outcome is not None
        return outcome


class Consumer(ABC):
    """A consumer that lasts, with the subscription that it has now."""

    numbered: ClassVar[bool] = True
    """Whether it has to see every number; not if newer ones replace older ones."""
    prompt: ClassVar[bool] = False
    """Whether it is told of each Gap as soon as that is made."""

    def __init__(self, context: Context, *channels: str) -> None:
        self.context = context
        self.channels = channels
        self.records: list[Record] = []
        self.rows: dict[Row, int] = {}
        self.busy: int = 0
        """How much it has taken and not yet worked into its rows."""
        self.task: asyncio.Task[None] | None = None
        self._resyncs = FailingNowAndThen(context.chance)
        self._attempts = 0

    @abstractmethod
    async def start(self, listener: Listener) -> None:
        """Listen; returns once it does."""

    @property
    def name(self) -> str:
        """Name it for a line of the verdict."""
        return f"{type(self).__name__}({', '.join(self.channels)})"

    @property
    def failures(self) -> int:
        """How often its resync has failed."""
        return self._resyncs.failures

    @property
    @abstractmethod
    def backlog(self) -> int:
        """How much it has not taken yet."""

    @property
    def settled(self) -> bool:
        """Whether it has worked all into its rows that it was given."""
        return not self.busy and not self.backlog

    @property
    def record(self) -> Record:
        """What the present subscription saw."""
        return self.records[-1]

    def begin_record(self) -> None:
        """Note what comes as seen by a new subscription."""
        self.records.append(Record(*self.channels))
        self.busy = self._attempts = 0

    def listens(self) -> None:
        """Every number that is begun from here on has to arrive, or to lie in a Gap."""
        self.record.floor = self.context.sender.begun

    def apply(self, channel: str, change: Change) -> None:
        """Do with the rows what a notification tells."""
        if change.removed:
            self.rows.pop((channel, change.key), None)
        else:
            self.rows[channel, change.key] = change.number

    def keeps(self, row: Row) -> bool:
        """Return whether this row is one that it keeps."""
        return row[1] != NEWEST and row[0] in self.channels

    def replace(self, rows: Rows) -> None:
        """Take the table as it has been read."""
        self.rows = {row: number for row, number in rows.items() if self.keeps(row)}

    async def resync(self, gap: Gap) -> None:
        """Read the table, if it does not fail this time."""
        self._attempts += 1
        error = self._resyncs.outcome()
        rows = await self.context.table.rows(self.channels)
        if error is not None:
            raise error
        self.replace(rows)
        self.record.tell(gap, merged=self._attempts > 1)
        self._attempts = 0

    def wrong(self, table: Rows) -> list[str]:
        """Return a line for each row that differs from the table."""
        ours = {row: number for row, number in table.items() if self.keeps(row)}
        return [f"{self.name}: {line}" for line in differences(self.rows, ours)]


class Applying(Consumer):
    """A handler that applies what the payload says."""

    options: ClassVar[dict[str, Any]] = {}
    subscription: Subscription

    async def start(self, listener: Listener) -> None:
        """Listen."""
        self.begin_record()
        self.subscription = await listener.listen(
            self.source,
            self._take,
            resync=self._resync,
            on_error=self.on_error,
            timeout=None,
            **self.options,
        )

    @property
    def source(self) -> str | Channel[Any]:
        """What it listens on."""
        return self.channels[0]

    @property
    def backlog(self) -> int:
        return self.subscription.stats().backlog

    async def _take(self, n: Notification[Any]) -> None:
        change = Change.of(n)
        self.record.saw(change.number)
        self.busy += 1
        try:
            await self.handle(n.channel, change)
        finally:
            self.busy -= 1

    async def handle(self, channel: str, change: Change) -> None:
        """Work a notification into the rows."""
        self.apply(channel, change)

    async def _resync(self, gap: Gap) -> None:
        self.busy = 1  # until it succeeds: no call of the handler runs at this time
        await self.resync(gap)
        self.busy = 0

    def on_error(self, error: BaseException, item: Notification[Any] | Gap) -> None:
        """Do nothing: what is raised here is raised on purpose."""


class Noting(Applying):
    """A handler that is never late: it notes the numbers and keeps no rows."""

    prompt = True

    def keeps(self, row: Row) -> bool:
        """Keep none."""
        return False

    def apply(self, channel: str, change: Change) -> None:
        """Keep none."""

    async def resync(self, gap: Gap) -> None:
        """Note the Gap."""
        self.record.tell(gap)


class Slow(Applying):
    """A slow one, whose buffer overflows at its head."""

    options: ClassVar = {"buffer": SMALL, "overflow": "drop_oldest"}

    async def handle(self, channel: str, change: Change) -> None:
        """Take a while."""
        self.apply(channel, change)
        await asyncio.sleep(0.02)


class SlowNewest(Slow):
    """A slow one, whose buffer overflows at its tail."""

    options: ClassVar = {"buffer": SMALL, "overflow": "drop_newest"}


class SmallNewest(Applying):
    """One that keeps up, and overflows only while its resync fails."""

    options: ClassVar = {"buffer": SMALL, "overflow": "drop_newest"}


class Raising(Applying):
    """One that raises after each change."""

    async def handle(self, channel: str, change: Change) -> None:
        """Raise."""
        self.apply(channel, change)
        raise self.context.chance.choice((RuntimeError, asyncio.CancelledError))


class Rereading(Applying):
    """One that reads the row anew, as one should where payloads are hints only."""

    async def handle(self, channel: str, change: Change) -> None:
        """Read the row."""
        row = (channel, change.key)
        number = await self.context.table.row(row)
        self.rows.pop(row, None)
        if number is not None:
            self.rows[row] = number


class Latest(Applying):
    """One that wants the last number only, and is slow."""

    numbered = False
    options: ClassVar = {"latest": True}

    def keeps(self, row: Row) -> bool:
        """Keep the row of the last number."""
        return row == (self.channels[0], NEWEST)

    async def handle(self, channel: str, change: Change) -> None:
        """Keep the last number."""
        self.rows[channel, NEWEST] = change.number
        await asyncio.sleep(0.01)


class Concurrent(Applying):
    """Several calls at once, which finish in any order: each looks whether it is too late."""

    options: ClassVar = {"concurrency": CONCURRENCY}

    def __init__(self, context: Context, *channels: str) -> None:
        super().__init__(context, *channels)
        self._versions: dict[int, int] = {}

    async def handle(self, channel: str, change: Change) -> None:
        """Apply it, unless a later change of the row has been applied."""
        await asyncio.sleep(self.context.chance.choice((0, 0, 0.001)))
        if change.number > self._versions.get(change.key, 0):
            self._versions[change.key] = change.number
            self.apply(channel, change)

    def replace(self, rows: Rows) -> None:
        """Forget the removed rows: what comes next may tell of them again."""
        super().replace(rows)
        self._versions = {key: number for (_, key), number in self.rows.items()}


class Typed(Applying):
    """One that wants integers, and now and then meets a payload that is none."""

    @property
    def source(self) -> Channel[int]:
        """Its channel is always the same."""
        return PRICES

    def on_error(self, error: BaseException, item: Notification[Any] | Gap) -> None:
        """Apply what could not be decoded, as if it had been read by other means."""
        if isinstance(error, PayloadDecodeError) and not isinstance(item, Gap):
            change = Change.of(item)
            self.record.saw(change.number)
            self.apply(PRICES.name, change)


class Hinted(Applying):
    """One that wants integers, and now and then is told to read again instead."""

    @property
    def source(self) -> Channel[int]:
        """Its channel is always the same."""
        return PEOPLE


class HintedNoting(Hinted, Noting):
    """One of them that is never late."""


class HintedSlow(Hinted, Slow):
    """One of them that is slow, and overflows."""


class HintedConcurrent(Hinted, Concurrent):
    """One of them with several calls at once."""


class Failing(Slow):
    """One that ends when it overflows, and is subscribed again."""

    options: ClassVar = {"buffer": SMALL, "overflow": "fail"}

    def __init__(self, context: Context, *channels: str) -> None:
        super().__init__(context, *channels)
        self._ended = asyncio.Event()

    async def start(self, listener: Listener) -> None:
        """Listen, and do so again after each end."""
        await super().start(listener)
        self.task = asyncio.create_task(self._start_again_and_again(listener))

    async def _start_again_and_again(self, listener: Listener) -> None:
        while True:
            await self._ended.wait()
            await super().start(listener)
            self.listens()
            self._ended.clear()

    def on_error(self, error: BaseException, item: Notification[Any] | Gap) -> None:
        """Notice the end."""
        if isinstance(error, BufferOverflowError):
            self._ended.set()

    @property
    def settled(self) -> bool:
        return super().settled and self.subscription.active and not self._ended.is_set()


def handlers(context: Context) -> Iterator[Consumer]:
    """Yield one consumer of each kind, on channels at random; plain ones on each channel."""
    for channel in CHANNELS:
        yield Applying(context, channel)
        yield Noting(context, channel)
    for kind in (Slow, SlowNewest, SmallNewest, Raising, Rereading, Latest, Concurrent, Failing):
        yield kind(context, context.chance.choice(CHANNELS))
    yield Typed(context, PRICES.name)
    for hinted in (Hinted, HintedNoting, HintedSlow, HintedConcurrent):
        yield hinted(context, PEOPLE.name)
