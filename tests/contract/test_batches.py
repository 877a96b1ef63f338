"""Stream.batches(): all that waits as one list, in order, and nothing lost on the way."""

from __future__ import annotations

import asyncio
import gc
import random
from typing import TYPE_CHECKING, Any, Final

import pytest

from asyncnotify import (
    BufferOverflowError,
    Channel,
    ClosedError,
    Gap,
    GapReason,
    ListenTimeoutError,
    Notification,
    NotStartedError,
)
from tests.contract.fake_network import network_before
from tests.support.machine import scaled

if TYPE_CHECKING:
    from asyncnotify import Batches, Listener, Stream
    from tests.contract.conftest import Database, ListenerFactory

    Form = Channel[Any]  # or a name: one overload of stream() will do for the type checkers

NUMBERS: Final = Channel("orders", int)
forms = pytest.mark.parametrize("channel", ["orders", NUMBERS], ids=["plain", "typed"])


def numbers(batch: list[Any]) -> list[int]:
    """Return the payloads of a list without gaps, as numbers."""
    return [int(notification.payload) for notification in batch]


def shown(batch: list[Notification[Any] | Gap]) -> list[object]:
    """Return the payloads, and the reasons of the gaps."""
    return [item.reason if isinstance(item, Gap) else int(item.payload) for item in batch]


async def gather(batches: Batches[Notification[Any]], count: int) -> list[list[int]]:
    """Return lists until there are so many notifications."""
    found: list[list[int]] = []
    while sum(map(len, found)) < count:
        found.append(numbers(await anext(batches)))
    return found


# -- what is in a list ----------------------------------------------------------------------------


@forms
async def test_r16_lists_keep_the_order(
    listener: Listener, database: Database, channel: Form
) -> None:
    """Of 50,000 notifications each comes once, in order, while others arrive; no list is empty."""
    async with listener.stream(channel, buffer=100_000) as stream:
        sending = asyncio.create_task(database.flood("orders", 50_000))
        found = await gather(stream.batches(), 50_000)
        await sending
        assert [n for batch in found for n in batch] == list(range(1, 50_001))
        assert all(1 <= len(batch) <= 1_000 for batch in found)
        stats = stream.stats()
        assert stats is not None
        assert (stats.delivered, stats.backlog) == (50_000, 0)


@forms
async def test_a_list_is_all_that_waits_up_to_its_limit(
    listener: Listener, database: Database, channel: Form
) -> None:
    """What waits is taken at once; the limit may be another for each iterator of a stream."""
    async with listener.stream(channel) as stream:
        await database.flood("orders", 40)
        await database.fence(listener)
        assert numbers(await anext(stream.batches(1))) == [1]
        assert numbers(await anext(stream.batches(limit=9))) == list(range(2, 11))
        # 30, for of those that are decoded 10 ms may end a list; not before the 32nd
        assert numbers(await anext(stream.batches())) == list(range(11, 41))
        waiting = asyncio.ensure_future(anext(stream.batches(10)))
        await database.notify("orders", "41")
        assert numbers(await waiting) == [41]


@pytest.mark.parametrize("limit", [0, -1, 1.5, "10", None], ids=repr)
def test_a_limit_that_is_no_count_is_refused(factory: ListenerFactory, limit: Any) -> None:
    """At once, though nothing runs."""
    stream = factory.listener().stream("orders")
    with pytest.raises(ValueError, match="limit"):
        stream.batches(limit)


@forms
async def test_gaps_stand_in_their_places(
    listener: Listener, database: Database, channel: Form
) -> None:
    """With gaps=True they stand between the notifications; without they are left out, and count."""
    async with (
        listener.stream(channel, gaps=True) as told,
        listener.stream(channel) as untold,
        listener.stream(channel, gaps=True) as slow,
    ):
        await database.notify("orders", "1", "2")
        await database.fence(listener)
        await database.interrupt(listener)
        await database.notify("orders", "3")
        await database.fence(listener)
        expected = [GapReason.START, 1, 2, GapReason.RECONNECT, 3]
        assert shown(await anext(told.batches())) == expected
        assert numbers(await anext(untold.batches())) == [1, 2, 3]
        lists = [shown(await anext(slow.batches(2))) for _ in range(3)]
        assert lists == [expected[:2], expected[2:4], expected[4:]]
        for stream in (told, untold, slow):
            stats = stream.stats()
            assert stats is not None
            assert (stats.delivered, stats.gaps, stats.backlog) == (3, 2, 0)


async def test_only_gaps_are_no_list_where_gaps_are_not_asked_for(
    listener: Listener, database: Database
) -> None:
    """However many gaps come, the wait for a list ends with a notification."""
    async with listener.stream("orders") as stream:
        waiting = asyncio.ensure_future(anext(stream.batches()))
        await database.interrupt(listener)
        await database.interrupt(listener)
        await database.fence(listener)
        assert not waiting.done()
        await database.notify("orders", "1")
        assert numbers(await waiting) == [1]


async def test_latest_makes_lists_of_the_newest(listener: Listener, database: Database) -> None:
    """With latest=True a list has one of each channel at most, the newest."""
    async with listener.stream("a", NUMBERS, latest=True) as stream:
        await database.flood("a", 10)
        await database.flood("orders", 20)
        await database.fence(listener)
        batch = await anext(stream.batches())
        assert [(n.channel, n.payload) for n in batch] == [("a", "10"), ("orders", 20)]


async def test_a_dropped_part_is_a_gap_in_the_list(listener: Listener, database: Database) -> None:
    """An overflow stands where the notifications are missing, with their exact number."""
    async with listener.stream(NUMBERS, buffer=10, gaps=True) as stream:
        await database.flood("orders", 100)
        await database.fence(listener)
        first, lost, *rest = await anext(stream.batches())
        assert isinstance(first, Gap)
        assert isinstance(lost, Gap)
        assert (lost.reason, lost.dropped) == (GapReason.OVERFLOW, 90)
        assert numbers(rest) == list(range(91, 101))


# -- beginning and ending -------------------------------------------------------------------------


async def test_async_for_begins_and_break_ends(listener: Listener, database: Database) -> None:
    """Batches of a stream listen from their first step, and no longer than the loop."""
    first = asyncio.ensure_future(anext(listener.stream("orders").batches()))
    await asyncio.sleep(0)
    assert await database.server_channels(listener) == {"orders"}
    await database.notify("orders", "1")
    assert numbers(await first) == [1]
    del first
    gc.collect()
    assert await database.server_channels(listener) == set()


async def test_lists_end_as_the_stream_does(factory: ListenerFactory, database: Database) -> None:
    """Closing lets what is buffered be taken; unlisten() and aclose() do not."""
    async with factory.listener() as listener:
        buffered = await listener.stream(NUMBERS).__aenter__()
        unlistened = await listener.stream(Channel("events", int)).__aenter__()
        closed = await listener.stream("orders").__aenter__()
        waiting = asyncio.ensure_future(anext(listener.stream("other").batches(), None))
        await database.flood("orders", 3)
        await database.flood("events", 3)
        await database.fence(listener)
        await listener.unlisten("events")
        await closed.aclose()
    lists = [numbers(batch) async for batch in buffered.batches(2)]
    assert lists == [[1, 2], [3]]
    assert [batch async for batch in unlistened.batches()] == []
    for finished in (buffered, unlistened, closed):
        with pytest.raises(ClosedError, match="make another with"):
            finished.batches()
    assert await waiting is None


async def test_a_stream_that_was_never_begun_has_no_lists(factory: ListenerFactory) -> None:
    """Before the start it says so, and when it was closed before its first step."""
    listener = factory.listener()
    with pytest.raises(NotStartedError):
        await anext(listener.stream("orders").batches())
    async with listener:
        stream = listener.stream("orders")
        await stream.aclose()
        with pytest.raises(ClosedError, match="has been closed"):
            stream.batches()


async def test_lists_that_cannot_begin_may_be_tried_again(
    factory: ListenerFactory, dsn: str, database: Database
) -> None:
    """While the server is away the first step raises at the timeout; later it begins."""
    async with (
        network_before(dsn) as proxy,
        factory.listener(proxy.proxied_dsn(dsn)) as listener,
    ):
        batches = listener.stream("orders", timeout=scaled(0.3)).batches()
        proxy.refuse()
        proxy.reset()
        with pytest.raises(ListenTimeoutError):
            await anext(batches)
        assert listener.channels == frozenset()
        proxy.heal()
        await listener.wait_connected()
        waiting = asyncio.ensure_future(anext(batches))
        await database.fence(listener)
        await database.notify("orders", "1")
        assert numbers(await waiting) == [1]


@forms
async def test_an_overflow_that_fails_the_stream_is_raised_after_what_was_kept(
    listener: Listener, database: Database, channel: Form
) -> None:
    """overflow="fail": the lists of what was buffered, then the error, again and again."""
    async with listener.stream(channel, buffer=10, overflow="fail") as stream:
        await database.flood("orders", 100)
        await database.fence(listener)
        batches = stream.batches(7)
        assert [numbers(await anext(batches)) for _ in range(2)] == [
            list(range(1, 8)),
            list(range(8, 11)),
        ]
        for _ in range(2):
            with pytest.raises(BufferOverflowError) as caught:
                await anext(batches)
            assert (caught.value.limit, caught.value.dropped) == (10, 90)
        with pytest.raises(BufferOverflowError):
            await anext(stream)
    assert listener.channels == frozenset()


# -- several takers -------------------------------------------------------------------------------


@forms
async def test_single_steps_and_lists_take_turns(
    listener: Listener, database: Database, channel: Form
) -> None:
    """anext() of the stream and of its batches take from one queue, in the order of the calls."""
    source = random.Random(7)
    received: list[int] = []
    async with listener.stream(channel) as stream:
        sending = asyncio.create_task(database.notify("orders", *map(str, range(500))))
        while len(received) < 500:
            if source.random() < 0.5:
                received.append(int((await anext(stream)).payload))
            else:
                received += numbers(await anext(stream.batches(source.randrange(1, 9))))
        await sending
    assert received == list(range(500))


@forms
async def test_each_item_goes_to_one_of_several_takers(
    listener: Listener, database: Database, channel: Form
) -> None:
    """Of three tasks each gets its share in order; none waits while something is there."""
    shares: list[list[int]] = [[], [], []]
    all_taken = asyncio.Event()

    def share_out(share: list[int], found: list[int]) -> None:
        share += found
        if sum(map(len, shares)) == 400:
            all_taken.set()

    async def take_lists(stream: Stream[Notification[Any]], share: list[int]) -> None:
        async for batch in stream.batches(3):
            share_out(share, numbers(batch))
            await asyncio.sleep(0)

    async def take_each(stream: Stream[Notification[Any]], share: list[int]) -> None:
        async for notification in stream:
            share_out(share, numbers([notification]))
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group, listener.stream(channel) as stream:
        group.create_task(take_lists(stream, shares[0]))
        group.create_task(take_lists(stream, shares[1]))
        group.create_task(take_each(stream, shares[2]))
        await database.notify("orders", *map(str, range(100)))
        async with database.transaction():
            await database.notify("orders", *map(str, range(100, 400)))
        async with asyncio.timeout(scaled(10)):
            await all_taken.wait()
    assert sorted(n for share in shares for n in share) == list(range(400))
    assert all(share == sorted(share) and share for share in shares)


@forms
async def test_r30_cancelled_lists_lose_nothing(
    listener: Listener, database: Database, channel: Form
) -> None:
    """However often the wait for a list is cancelled, each of 1,000 comes once, in order."""
    source, cancelled = random.Random(30), 0
    received: list[int] = []
    async with listener.stream(channel) as stream:
        batches = stream.batches(5)
        sending = asyncio.create_task(database.notify("orders", *map(str, range(1_000))))
        while len(received) < 1_000:
            waiting = asyncio.ensure_future(anext(batches))
            for _ in range(source.randrange(6)):
                await asyncio.sleep(0)
            waiting.cancel()
            try:
                received += numbers(await waiting)
            except asyncio.CancelledError:
                cancelled += 1
        await sending
    assert received == list(range(1_000))
    assert cancelled > 100


async def test_r30_lists_cancelled_between_bad_ones_lose_nothing(
    listener: Listener, database: Database
) -> None:
    """Cancelled while on_error is awaited, too, each good one comes once; each bad one counts."""
    source, begun = random.Random(30), list[str]()
    received: list[int] = []

    async def tell(error: BaseException, item: Notification[Any] | Gap) -> None:
        assert isinstance(item, Notification)
        begun.append(item.payload)
        await asyncio.sleep(0)

    async with listener.stream(NUMBERS, on_error=tell) as stream:
        texts = [f"bad {n}" if n % 3 else str(n) for n in range(900)]
        sending = asyncio.create_task(database.notify("orders", *texts, "900"))
        while len(received) < 301:
            waiting = asyncio.ensure_future(anext(stream.batches(4)))
            for _ in range(source.randrange(9)):
                await asyncio.sleep(0)
            waiting.cancel()
            try:
                received += numbers(await waiting)
            except asyncio.CancelledError:
                continue
        await sending
        stats = stream.stats()
    assert received == list(range(0, 901, 3))
    assert stats is not None
    assert (stats.decode_errors, stats.delivered) == (600, 301)
    assert begun == [text for text in texts if text.startswith("bad")][: len(begun)]
    assert len(begun) > 590  # the last list's may not have been told yet
