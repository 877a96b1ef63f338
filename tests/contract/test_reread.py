"""Payloads that say "read again": a Gap in their place, whoever takes them and however."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from asyncnotify import BlockingListener, Channel, Gap, GapReason, Notification, Reread
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asyncnotify import Listener, Stream
    from asyncnotify.typing import Overflow
    from tests.contract.conftest import Database, Inbox, ListenerFactory

    Items = Stream[Notification[Any] | Gap]

AGAIN: Final = "again"


def read(text: str) -> int | Reread:
    """Return a number; "again 3" says "read again", for three changes."""
    if text.startswith(AGAIN):
        return Reread(int(text.removeprefix(AGAIN) or 0) or None)
    return int(text)


NUMBERS: Final = Channel("orders", encode=str, decode=read)


async def singly(stream: Items) -> AsyncIterator[Notification[Any] | Gap]:
    """Yield what a stream brings, one by one."""
    async for item in stream:
        yield item


async def in_batches(stream: Items) -> AsyncIterator[Notification[Any] | Gap]:
    """Yield what a stream brings, taken as lists."""
    async for items in stream.batches():
        for item in items:
            yield item


def shown(item: Notification[Any] | Gap) -> object:
    """Return what is compared of an item."""
    return (str(item.reason), item.dropped) if isinstance(item, Gap) else item.payload


async def shown_of(items: AsyncIterator[Notification[Any] | Gap], last: object) -> list[object]:
    """Return what is compared of the items, up to this one."""
    found = [shown(await anext(items))]
    while found[-1] != last:
        found.append(shown(await anext(items)))
    return found


# -- who wants gaps -------------------------------------------------------------------------------


@pytest.mark.parametrize("taking", [singly, in_batches])
async def test_a_stream_yields_a_gap_in_its_place(
    listener: Listener,
    database: Database,
    taking: Callable[[Items], AsyncIterator[Notification[Any] | Gap]],
) -> None:
    """With the count; those that stand side by side are one, also between losses and errors."""
    async with listener.stream(NUMBERS, gaps=True) as stream:
        await database.notify("orders", "1", "again 3", "again 4", "2", "again", "bad", "again 5")
        await database.fence(listener)
        await database.interrupt(listener)
        await database.notify("orders", "again 6", "3")
        await database.fence(listener)
        found = await shown_of(taking(stream), 3)
        stats = stream.stats()
    unknown = [("reread", None), ("undecodable", None), ("reread", 5)]
    first = [("start", None), 1, ("reread", 7), 2, *unknown]
    assert found == [*first, ("reconnect", None), ("reread", 6), 3]
    assert stats is not None
    assert (stats.rereads, stats.delivered, stats.decode_errors, stats.backlog) == (5, 3, 1, 0)
    assert stats.gaps == 7
    assert listener.stats().rereads == 5


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_resync_is_called_in_its_place(
    listener: Listener, database: Database, inbox: Inbox[Notification[int]], concurrency: int
) -> None:
    """Before what follows, and after the calls of the handler with what came before have ended."""
    order: list[object] = []

    async def handle(n: Notification[int]) -> None:
        await asyncio.sleep(0)
        order.append(n.payload)
        inbox(n)

    def resync(gap: Gap) -> None:
        order.append(shown(gap))

    subscription = await listener.listen(NUMBERS, handle, resync=resync, concurrency=concurrency)
    async with database.transaction():
        await database.notify("orders", "1", "again 3", "again 4", "2")
    assert {(await inbox.next()).payload for _ in range(2)} == {1, 2}
    assert order in (
        [("start", None), 1, ("reread", 7), 2],
        [("start", None), 1, ("reread", 3), ("reread", 4), 2],
    )
    stats = subscription.stats()
    assert (stats.rereads, stats.delivered, stats.resync_errors) == (2, 2, 0)


async def test_a_resync_that_fails_is_tried_again_with_all_that_came_since(
    listener: Listener, database: Database, inbox: Inbox[Gap]
) -> None:
    """As for any other Gap; a payload that says "read again" meanwhile is a Gap of its own."""
    failures = [OSError(), OSError()]

    def resync(gap: Gap) -> None:
        if gap.reason is GapReason.REREAD and failures:
            raise failures.pop()
        inbox(gap)

    await listener.listen(NUMBERS, lambda _: None, resync=resync)
    await database.notify("orders", "again 3")
    assert (await inbox.next()).reason is GapReason.START
    assert shown(await inbox.next()) == ("reread", 3)
    assert failures == []


async def test_r51_nothing_committed_before_since_is_missing(
    listener: Listener, database: Database
) -> None:
    """Who reads the rows changed since then finds what the sender left out."""
    async with listener.stream(NUMBERS, gaps=True) as stream:
        await anext(stream)
        changed = await database.now()
        await database.notify("orders", "again 3")
        gap = await anext(stream)
        assert isinstance(gap, Gap)
        assert gap.since is not None
        assert gap.since <= changed


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
async def test_an_overflow_covers_what_said_read_again(
    listener: Listener, database: Database, overflow: Overflow
) -> None:
    """It is dropped like any other, and the Gap of the overflow counts it as one."""
    async with listener.stream(NUMBERS, gaps=True, buffer=2, overflow=overflow) as stream:
        await anext(stream)
        async with database.transaction():
            await database.notify("orders", "1", "again 3", "2", "again 4")
        await database.fence(listener)
        found = [shown(await anext(stream)) for _ in range(3)]
    gap = ("overflow", 2)
    expected = {"drop_oldest": [gap, 2, ("reread", 4)], "drop_newest": [1, ("reread", 3), gap]}
    assert found == expected[overflow]


async def test_with_latest_it_is_the_newest_of_its_channel_or_replaced(
    listener: Listener, database: Database
) -> None:
    """As with any payload."""
    async with listener.stream(NUMBERS, gaps=True, latest=True) as stream:
        await anext(stream)
        async with database.transaction():
            await database.notify("orders", "1", "again 3", "2", "again 4")
        await database.fence(listener)
        assert shown(await anext(stream)) == ("reread", 4)
        await database.notify("orders", "5")
        assert shown(await anext(stream)) == 5


async def test_of_several_channels_each_reads_by_its_own(
    listener: Listener, database: Database
) -> None:
    """A text that says "read again" on one channel is a text on another, and nothing is moved."""
    texts = Channel("texts")
    async with listener.stream(NUMBERS, texts, gaps=True) as stream:
        await anext(stream)
        await database.notify("orders", "again 3")
        await database.notify("texts", "again 3")
        await database.notify("orders", "1")
        assert [shown(await anext(stream)) for _ in range(3)] == [("reread", 3), "again 3", 1]


async def test_a_sealed_channel_reads_it_from_within(
    listener: Listener, database: Database
) -> None:
    """The codec sees the text that has been opened; whoever holds no key cannot say it."""
    key = b"0123456789abcdef"
    sender: Channel[str] = Channel("orders", compress=True, unique=True, keys=[key])
    sealed = Channel("orders", decode=read, compress=True, unique=True, keys=[key])
    async with listener.stream(sealed, gaps=True) as stream:
        await anext(stream)
        await listener.notify(sender, "again 3")
        assert shown(await anext(stream)) == ("reread", 3)
        await database.notify("orders", "again 3")
        assert shown(await anext(stream)) == ("undecodable", None)


async def test_no_payload_of_a_library_says_it(listener: Listener, database: Database) -> None:
    """Only a codec can: what has the form of a Reread is a payload like any other."""

    @dataclass
    class Order:
        count: int

    for kind in (dict, object, Order):
        channel: Channel[Any] = Channel("orders", kind)
        async with listener.stream(channel, gaps=True) as stream:
            await anext(stream)
            await database.notify("orders", '{"count":3}')
            assert isinstance(await anext(stream), Notification)


# -- who does not ---------------------------------------------------------------------------------


@pytest.mark.parametrize("taking", [singly, in_batches])
async def test_a_stream_without_gaps_goes_on_and_a_warning_says_so(
    listener: Listener,
    database: Database,
    caplog: pytest.LogCaptureFixture,
    taking: Callable[[Stream[Any]], AsyncIterator[Notification[Any] | Gap]],
) -> None:
    """It is counted; neither its text nor a second line is in the log."""
    async with listener.stream(NUMBERS) as stream:
        await database.notify("orders", "1", "again 3", "again 4321", "2")
        assert await shown_of(taking(stream), 2) == [1, 2]
        stats = stream.stats()
    assert stats is not None
    assert (stats.rereads, stats.delivered, stats.gaps) == (2, 2, 1)
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert 'says "read again", for 3 changes' in warning.getMessage()
    assert vars(warning)["channel"] == "orders"
    assert vars(warning)["pid"] == database.pid


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_handler_without_resync_goes_on_and_a_warning_says_so(
    listener: Listener,
    database: Database,
    caplog: pytest.LogCaptureFixture,
    inbox: Inbox[Notification[int]],
    concurrency: int,
) -> None:
    """As for a stream; on_error is not told: nothing has failed."""
    told: list[object] = []

    def on_error(error: BaseException, item: object) -> None:
        told.append((error, item))

    subscription = await listener.listen(NUMBERS, inbox, on_error=on_error, concurrency=concurrency)
    await database.notify("orders", "1", "again 3", "again 4", "2")
    assert {(await inbox.next()).payload for _ in range(2)} == {1, 2}
    stats = subscription.stats()
    assert (stats.rereads, stats.delivered, stats.decode_errors, stats.gaps) == (2, 2, 0, 1)
    assert told == []
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1


# -- threads --------------------------------------------------------------------------------------


def test_threads_are_told_too(factory: ListenerFactory) -> None:
    """A blocking stream yields the Gap, a plain handler's resync is called with it."""
    gaps: list[Gap] = []
    with BlockingListener(factory.dsn) as listener:
        handler = listener.listen(NUMBERS, lambda _: None, resync=gaps.append)
        with listener.stream(NUMBERS, gaps=True) as stream:
            for text in ("1", "again 3", "2"):
                listener.notify("orders", text)
            items = [stream.get(timeout=scaled(10)) for _ in range(4)]
            assert [shown(item) for item in items] == [("start", None), 1, ("reread", 3), 2]
            while handler.stats().delivered < 2:
                listener.notify("orders", "2")
                stream.get(timeout=scaled(10))
    assert [shown(gap) for gap in gaps] == [("start", None), ("reread", 3)]
