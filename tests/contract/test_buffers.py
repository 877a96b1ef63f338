"""Buffers: bounded whatever consumers do, and what did not fit is counted at its place."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import BufferOverflowError, Gap, GapReason, Notification

if TYPE_CHECKING:
    from asyncnotify import Listener, Stream, SubscriptionStats
    from tests.contract.conftest import Database, Inbox, ListenerFactory

    Text = Inbox[Notification[str]]

MILLION = 1_000_000
DEFAULT = 32_768
STATUS = Path("/proc/self/status")
RESET_PEAK = Path("/proc/self/clear_refs")


class Stuck:
    """A handler that keeps the first call until it is released."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.released = asyncio.Event()
        self.seen: list[str | Gap] = []
        self._news = asyncio.Event()

    async def __call__(self, notification: Notification[str]) -> None:
        """Note the payload, and wait."""
        self.seen.append(notification.payload)
        self._news.set()
        self.begun.set()
        await self.released.wait()

    def note_gap(self, gap: Gap) -> None:
        """Note a gap: a resync."""
        self.seen.append(gap)

    async def has_seen(self, count: int) -> None:
        """Return once there is so much."""
        while len(self.seen) < count:
            self._news.clear()
            await self._news.wait()


def stats_of(stream: Stream[Any]) -> SubscriptionStats:
    """Return the numbers of a stream that has begun."""
    stats = stream.stats()
    assert stats is not None
    return stats


def memory(name: str) -> int:
    """Return a figure of this process's memory, in bytes."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    pytest.fail(f"no {name} in {STATUS}")


def reset_peak() -> int:
    """Let the kernel note the peak of our memory from here on; return what we use now."""
    RESET_PEAK.write_text("5")
    return memory("VmRSS")


def shown(item: Notification[str] | Gap | str) -> str:
    """Return a payload, or a gap's reason, with the number dropped if there is one."""
    if isinstance(item, str):
        return item
    if isinstance(item, Gap):
        return f"{item.reason} {item.dropped}" if item.dropped else f"{item.reason}"
    return item.payload


async def items(stream: Stream[Notification[str] | Gap], count: int) -> list[str]:
    """Return the next so many items as text."""
    return [shown(await anext(stream)) for _ in range(count)]


@pytest.mark.needs_server("process")
@pytest.mark.load
@pytest.mark.skipif(not RESET_PEAK.exists(), reason="measures memory in /proc")
async def test_r27_r28_stuck_handlers_neither_fill_the_queue_nor_the_memory(
    slow_listener: Listener, database: Database
) -> None:
    """With every handler stuck a million are read all the same, and held within bounds."""
    listener = slow_listener
    handlers = [Stuck() for _ in range(2)]
    for handler in handlers:
        await listener.listen("orders", handler, resync=handler.note_gap)
    await database.notify("orders", "first")
    for handler in handlers:
        await handler.begun.wait()
    before = reset_peak()
    await database.flood("orders", MILLION, size=100)
    await database.fence(listener)
    (usage, xmin), *_ = await database.connection.fetch(
        "SELECT pg_notification_queue_usage(), backend_xmin FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'asyncnotify'"
    )
    assert usage <= 0.01
    assert xmin is None
    assert memory("VmHWM") - before <= 50_000_000
    for subscription in listener.stats().subscriptions:
        assert subscription.backlog == DEFAULT + 1
        assert subscription.dropped == MILLION - DEFAULT
        assert subscription.gaps == 2
    for handler in handlers:
        handler.released.set()
    await database.fence(listener)
    for handler in handlers:
        await handler.has_seen(DEFAULT + 3)
        assert [shown(item) for item in handler.seen[:3]] == [
            "start",
            "first",
            f"overflow {MILLION - DEFAULT}",
        ]
        numbers = [int(shown(item)) for item in handler.seen[3:]]
        assert numbers == list(range(MILLION - DEFAULT + 1, MILLION + 1))


async def test_r28_drop_oldest(listener: Listener, database: Database) -> None:
    """The newest are kept; one Gap in front of them counts the rest, however often it overflows."""
    async with listener.stream("orders", gaps=True, buffer=5) as stream:
        assert await items(stream, 1) == ["start"]
        await database.flood("orders", 3)
        await database.fence(listener)
        assert stats_of(stream).dropped == 0
        for _ in range(3):
            await database.flood("orders", 7)
            await database.fence(listener)
        stats = stats_of(stream)
        assert (stats.backlog, stats.dropped, stats.gaps) == (6, 19, 2)
        assert await items(stream, 6) == ["overflow 19", "3", "4", "5", "6", "7"]
        await database.notify("orders", "next")
        assert await items(stream, 1) == ["next"]


async def test_r28_drop_newest(listener: Listener, database: Database) -> None:
    """The oldest are kept; one Gap behind them counts the rest, however often it overflows."""
    async with listener.stream("orders", gaps=True, buffer=5, overflow="drop_newest") as stream:
        assert await items(stream, 1) == ["start"]
        for _ in range(3):
            await database.flood("orders", 7)
            await database.fence(listener)
        stats = stats_of(stream)
        assert (stats.backlog, stats.dropped, stats.gaps) == (6, 16, 2)
        assert await items(stream, 6) == ["1", "2", "3", "4", "5", "overflow 16"]
        await database.notify("orders", "next")
        assert await items(stream, 1) == ["next"]


async def test_r28_fail_ends_a_stream(listener: Listener, database: Database) -> None:
    """What fitted is yielded, then the error is raised that counts the rest; LISTEN ends."""
    async with listener.stream("orders", buffer=5, overflow="fail") as stream:
        await database.flood("orders", 12)
        await database.fence(listener)
        assert [(await anext(stream)).payload for _ in range(5)] == ["1", "2", "3", "4", "5"]
        with pytest.raises(BufferOverflowError) as caught:
            await anext(stream)
        assert (caught.value.limit, caught.value.dropped) == (5, 7)
        assert await database.server_channels(listener) == set()
        assert listener.channels == frozenset()


async def test_r28_fail_ends_a_handler(
    factory: ListenerFactory, listener: Listener, database: Database, new_inbox: type[Text]
) -> None:
    """What fitted is handled, on_error gets the error; other subscriptions go on."""
    told: asyncio.Queue[tuple[BaseException, object]] = asyncio.Queue()
    handler, other = Stuck(), new_inbox()
    subscription = await listener.listen(
        "orders",
        handler,
        buffer=5,
        overflow="fail",
        on_error=lambda error, item: told.put_nowait((error, item)),
    )
    await listener.listen("orders", other)
    await database.notify("orders", "first")
    await handler.begun.wait()
    await database.flood("orders", 12)
    await database.fence(listener)
    assert not subscription.active
    handler.released.set()
    error, item = await told.get()
    assert isinstance(error, BufferOverflowError)
    assert (error.limit, error.dropped) == (5, 7)
    assert item == Gap("orders", GapReason.OVERFLOW, dropped=7)
    assert handler.seen == ["first", "1", "2", "3", "4", "5"]
    assert await other.payloads(13) == ["first", *map(str, range(1, 13))]
    await database.fence(listener)
    assert listener.stats().dropped == 7
    assert listener.stats().delivered == 6 + 13 + 2
    await subscription.cancel()
    assert await database.server_channels(listener) == {"orders"}


async def test_r28_each_episode_has_its_gap(
    listener: Listener, database: Database, new_inbox: type[Inbox[Notification[str] | Gap]]
) -> None:
    """Once drained, the next overflow has a Gap and a count of its own; the sums are exact."""
    seen, gate = new_inbox(), asyncio.Event()

    async def handle(notification: Notification[str]) -> None:
        seen(notification)
        await gate.wait()

    subscription = await listener.listen("orders", handle, resync=seen, buffer=10)
    assert shown(await seen.next()) == "start"
    for episode in range(1, 21):
        gate.clear()
        await database.notify("orders", "first")
        assert shown(await seen.next()) == "first"
        await database.flood("orders", 10 + episode)
        await database.fence(listener)
        gate.set()
        rest = [shown(await seen.next()) for _ in range(11)]
        assert rest == [f"overflow {episode}", *(str(n + episode) for n in range(1, 11))]
        assert subscription.stats().backlog == 0
    stats = subscription.stats()
    assert (stats.delivered, stats.dropped, stats.gaps) == (20 * 11, 20 * 21 // 2, 21)


async def test_the_buffer_is_how_many_may_wait(listener: Listener, database: Database) -> None:
    """Gaps take no room in the buffer, and leave none behind when they have been taken."""
    async with listener.stream("orders", gaps=True, buffer=10) as stream:
        await database.flood("orders", 10)
        await database.fence(listener)
        assert await items(stream, 11) == ["start", *(str(n) for n in range(1, 11))]
        await database.flood("orders", 11)
        await database.fence(listener)
        assert stats_of(stream).dropped == 1
        assert await items(stream, 2) == ["overflow 1", "2"]


async def test_an_overflow_gap_says_since_when(listener: Listener, database: Database) -> None:
    """Nothing committed before the overflow's ``since`` is missing: the clock stood before it."""
    async with listener.stream("orders", gaps=True, buffer=2) as stream:
        await anext(stream)
        sent_at = await database.now()
        await database.flood("orders", 5)
        await database.fence(listener)
        gap = await anext(stream)
        assert isinstance(gap, Gap)
        assert gap.since is not None
        assert gap.since <= sent_at


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
async def test_an_overflow_replaces_no_other_gap(
    listener: Listener, database: Database, overflow: str
) -> None:
    """A Gap of a lost connection that waits in a full buffer stays, and counts stay exact."""
    stream: Stream[Notification[str] | Gap]
    if overflow == "drop_oldest":
        stream = listener.stream("orders", gaps=True, buffer=5)
    else:
        stream = listener.stream("orders", gaps=True, buffer=5, overflow="drop_newest")
    async with stream:
        await database.flood("orders", 3)
        await database.fence(listener)
        await database.interrupt(listener)
        await database.flood("orders", 12)
        await database.fence(listener)
        received = await items(stream, stats_of(stream).backlog)
        expected = (
            ["start", "overflow 10", "8", "9", "10", "11", "12"]
            if overflow == "drop_oldest"
            else ["start", "1", "2", "3", "reconnect", "1", "2", "overflow 10"]
        )
        assert received == expected


async def test_latest_keeps_the_newest_of_each_channel(
    listener: Listener, database: Database
) -> None:
    """With latest=True what waits is replaced, not dropped; each channel keeps its newest."""
    async with listener.stream("a", "b", gaps=True, latest=True) as stream:
        for n in range(10):
            await database.notify("a", f"a{n}")
        await database.notify("b", "b0", "b1")
        await database.fence(listener)
        stats = stats_of(stream)
        assert (stats.backlog, stats.conflated, stats.dropped) == (3, 10, 0)
        assert await items(stream, 3) == ["start", "a9", "b1"]
        await database.interrupt(listener)
        await database.interrupt(listener)
        await database.notify("b", "b2", "b3")
        await database.fence(listener)
        assert await items(stream, 2) == ["reconnect", "b3"]
        stats = stats_of(stream)
        assert (stats.delivered, stats.gaps, stats.conflated, stats.backlog) == (3, 2, 11, 0)


async def test_latest_gives_a_slow_handler_the_newest(
    listener: Listener, database: Database
) -> None:
    """A handler that was busy is called with the newest, not with what came meanwhile."""
    handler = Stuck()
    subscription = await listener.listen("orders", handler, latest=True)
    await database.notify("orders", "first")
    await handler.begun.wait()
    await database.flood("orders", 10_000)
    await database.fence(listener)
    handler.released.set()
    await database.fence(listener)
    assert handler.seen == ["first", "10000"]
    assert subscription.stats().conflated == 9_999


async def test_the_buffer_holds_while_resync_fails(
    listener: Listener, database: Database, inbox: Text
) -> None:
    """The buffer's limit holds while a resync runs; resync is called for the overflow."""
    gaps: list[Gap] = []
    gate = asyncio.Event()

    async def resync(gap: Gap) -> None:
        gaps.append(gap)
        await gate.wait()
        if len(gaps) == 1:
            raise LookupError

    subscription = await listener.listen("orders", inbox, resync=resync, buffer=5)
    await database.flood("orders", 12)
    await database.fence(listener)
    stats = subscription.stats()
    assert (stats.backlog, stats.dropped) == (6, 7)
    gate.set()
    assert await inbox.payloads(5) == ["8", "9", "10", "11", "12"]
    assert [gap.reason for gap in gaps] == [GapReason.START] * 2
    assert (subscription.stats().delivered, subscription.stats().backlog) == (5, 0)
