"""Streams: what they yield, how they end, and that waiting for them may be cancelled."""

from __future__ import annotations

import asyncio
import gc
import random
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import (
    AlreadyEnteredError,
    ClosedError,
    Gap,
    GapReason,
    ListenTimeoutError,
    Notification,
    Stream,
)
from tests.contract.fake_network import network_before
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from asyncnotify import Listener
    from tests.contract.conftest import Database, ListenerFactory


async def take(stream: Stream[Notification[str]], count: int) -> list[str]:
    """Return the payloads of the next so many notifications."""
    return [(await anext(stream)).payload for _ in range(count)]


async def test_async_for_listens_from_its_first_step(
    listener: Listener, database: Database
) -> None:
    """An iterator begins at the first step and yields what comes, in order."""
    stream = listener.stream("orders")
    assert listener.channels == frozenset()
    assert stream.stats() is None
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    assert await database.server_channels(listener) == {"orders"}
    await database.notify("orders", "1", "2", "3")
    assert (await first).payload == "1"
    received = []
    async for notification in stream:
        received.append(notification.payload)
        if len(received) == 2:
            break
    assert received == ["2", "3"]


async def test_async_with_listens_from_the_beginning_of_its_block(
    listener: Listener, database: Database
) -> None:
    """What is sent inside the block is not missed; its end is the end of LISTEN."""
    async with listener.stream("orders") as stream:
        assert await database.server_channels(listener) == {"orders"}
        await database.notify("orders", "1", "2")
        assert await take(stream, 2) == ["1", "2"]
    assert await database.server_channels(listener) == set()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_several_channels_in_one_stream(listener: Listener, database: Database) -> None:
    """Several channels keep the server's order; a name that is given twice counts once."""
    async with listener.stream("a", "b", "c", "a") as stream:
        assert listener.channels == {"a", "b", "c"}
        for n in range(30):
            await database.notify("abc"[n % 3], str(n))
        received = [await anext(stream) for _ in range(30)]
    assert [(n.channel, n.payload) for n in received] == [("abc"[n % 3], str(n)) for n in range(30)]


async def test_gaps_are_yielded_where_asked_for(listener: Listener, database: Database) -> None:
    """With gaps=True the first item is a Gap, and so is the first after a loss; else none is."""
    async with (
        listener.stream("orders", gaps=True) as told,
        listener.stream("orders", "events", gaps=True) as several,
        listener.stream("orders") as untold,
    ):
        await database.notify("orders", "1")
        await database.fence(listener)
        await database.interrupt(listener)
        await database.notify("orders", "2")
        items = [await anext(told) for _ in range(4)]
        assert items[0] == Gap("orders", GapReason.START)
        assert isinstance(items[1], Notification)
        assert isinstance(items[2], Gap)
        assert (items[2].reason, items[2].dropped) == (GapReason.RECONNECT, None)
        assert items[2].since is not None
        assert items[2].since.tzinfo is not None
        assert isinstance(items[3], Notification)
        assert await anext(several) == Gap(None, GapReason.START)
        assert await take(untold, 2) == ["1", "2"]


async def until_break(listener: Listener) -> None:
    """Leave an iteration by break, and go on."""
    async for _ in listener.stream("orders"):
        break


async def until_return(listener: Listener) -> None:
    """Leave an iteration by return."""
    async for _ in listener.stream("orders"):
        return


async def until_error(listener: Listener) -> None:
    """Leave an iteration by an exception."""
    async for _ in listener.stream("orders"):
        raise LookupError


async def for_ever(listener: Listener) -> None:
    """Iterate until cancelled."""
    async for _ in listener.stream("orders"):
        pass


@pytest.mark.parametrize("iterate", [until_break, until_return, until_error, for_ever])
async def test_leaving_an_iteration_ends_its_subscription(
    listener: Listener,
    database: Database,
    iterate: Callable[[Listener], Coroutine[None, None, None]],
) -> None:
    """However an iteration is left, UNLISTEN follows, without anybody calling aclose()."""
    iterating = asyncio.create_task(iterate(listener))
    await asyncio.sleep(0)
    assert await database.server_channels(listener) == {"orders"}
    await database.notify("orders", "1")
    await database.fence(listener)
    iterating.cancel()
    await asyncio.wait({iterating})
    assert iterating.cancelled() == (iterate is for_ever)
    if iterate is until_error:
        assert isinstance(iterating.exception(), LookupError)
    del iterating
    gc.collect()
    await asyncio.sleep(0)
    assert listener.channels == frozenset()
    assert await database.server_channels(listener) == set()
    assert listener.stats().subscriptions == ()


async def test_a_stream_that_is_thrown_away_ends_its_subscription(
    listener: Listener, database: Database
) -> None:
    """A stream that nobody holds any more costs no LISTEN, begun or not."""
    stream = await listener.stream("orders").__aenter__()
    await database.notify("orders", "1")
    assert await take(stream, 1) == ["1"]
    listener.stream("events")
    del stream
    gc.collect()
    await asyncio.sleep(0)
    assert await database.server_channels(listener) == set()
    assert listener.stats().subscriptions == ()


async def test_streams_and_handlers_of_one_channel_share_a_listen(
    listener: Listener, database: Database
) -> None:
    """Each gets everything; closing one takes nothing from the others."""
    payloads: list[str] = []
    await listener.listen("orders", lambda n: payloads.append(n.payload))
    async with listener.stream("orders") as one:
        async with listener.stream("orders", "events") as two:
            await database.notify("orders", "1")
            assert await take(one, 1) == await take(two, 1) == ["1"]
        assert await database.server_channels(listener) == {"orders"}
        await database.notify("orders", "2")
        assert await take(one, 1) == ["2"]
    assert payloads == ["1", "2"]
    assert await database.server_channels(listener) == {"orders"}


async def test_unlisten_takes_one_channel_from_a_stream_of_several(
    listener: Listener, database: Database
) -> None:
    """The stream goes on with the other channels; what waited of the one is gone."""
    async with listener.stream("a", "b") as stream:
        await database.notify("a", "1")
        await database.notify("b", "2")
        await database.fence(listener)
        await listener.unlisten("a")
        assert listener.channels == {"b"}
        assert await database.server_channels(listener) == {"b"}
        await database.notify("a", "3")
        await database.notify("b", "4")
        assert await take(stream, 2) == ["2", "4"]
        await listener.unlisten("b")
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_aclose_ends_a_waiting_reader_and_drops_what_is_buffered(
    listener: Listener, database: Database
) -> None:
    """A task that waits gets the end; what was buffered is discarded."""
    stream = await listener.stream("orders").__aenter__()
    waiting = asyncio.ensure_future(anext(stream, None))
    await asyncio.sleep(0)
    await stream.aclose()
    assert await waiting is None
    other = await listener.stream("orders").__aenter__()
    await database.notify("orders", "1")
    await database.fence(listener)
    await other.aclose()
    await other.aclose()
    assert await anext(other, None) is None
    unbegun = listener.stream("orders")
    await unbegun.aclose()
    assert await anext(unbegun, None) is None
    assert listener.channels == frozenset()


async def test_several_readers_share_the_items(listener: Listener, database: Database) -> None:
    """Each item goes to exactly one of the tasks that wait."""
    received: list[int] = []
    complete = asyncio.Event()

    async def read() -> None:
        async for notification in stream:
            received.append(int(notification.payload))
            await asyncio.sleep(0)
            if len(received) == 1_000:
                complete.set()

    async with listener.stream("orders") as stream:
        readers = [asyncio.create_task(read()) for _ in range(5)]
        await asyncio.sleep(0)
        for _ in range(10):
            await database.flood("orders", 100)
        await complete.wait()
        await stream.aclose()
        await asyncio.gather(*readers)
    assert sorted(received) == sorted(list(range(1, 101)) * 10)


async def test_two_tasks_may_take_the_first_step_of_a_stream_together(
    listener: Listener, database: Database
) -> None:
    """Both begin it, and each gets one of what comes."""
    stream = listener.stream("orders")
    steps = [asyncio.ensure_future(anext(stream)) for _ in range(2)]
    while "orders" not in await database.server_channels(listener):
        pass
    await database.notify("orders", "1", "2")
    items = await asyncio.gather(*steps)
    assert [item.payload for item in items] == ["1", "2"]
    await stream.aclose()


async def test_a_reader_that_gives_up_when_its_turn_comes_passes_it_on(
    listener: Listener, database: Database
) -> None:
    """If the reader that was woken is cancelled before it runs, the next one gets the item."""
    readers: list[asyncio.Future[Notification[str]]] = []
    await listener.listen("orders", lambda _: readers[0].cancel())
    async with listener.stream("orders") as stream:
        for n in range(20):
            readers[:] = [asyncio.ensure_future(anext(stream)) for _ in range(2)]
            await asyncio.sleep(0)
            await database.notify("orders", str(n))
            assert (await readers[1]).payload == str(n)
            assert readers[0].cancelled()


async def test_a_reader_that_gives_up_at_the_first_step_ends_no_other(
    factory: ListenerFactory, dsn: str, database: Database
) -> None:
    """If the task that began the stream is cancelled, one that waits beside it still gets all."""
    async with (
        network_before(dsn) as proxy,
        factory.listener(proxy.proxied_dsn(dsn)) as listener,
    ):
        stream = listener.stream("orders")
        proxy.pause("to_client")
        first, second = (asyncio.ensure_future(anext(stream)) for _ in range(2))
        await proxy.detect(b'LISTEN "orders"').wait()
        first.cancel()
        await asyncio.wait({first})
        proxy.resume()
        await database.fence(listener)
        await database.notify("orders", "1")
        assert (await second).payload == "1"


async def test_a_stream_joins_channels_of_which_one_is_listened_on_already(
    listener: Listener, database: Database
) -> None:
    """From its first Gap on it misses nothing of either, though one was heard before the other."""
    await listener.listen("old", print_nothing)
    done = asyncio.Event()
    sending = asyncio.create_task(send_alternately(database, done))
    seen: list[int] = []
    for n in range(10):
        async with listener.stream("old", f"new {n}", "new", gaps=True) as stream:
            assert await anext(stream) == Gap(None, GapReason.START)
            for _ in range(20):
                item = await anext(stream)
                assert isinstance(item, Notification)
                seen.append(int(item.payload))
        assert seen[-20:] == list(range(seen[-20], seen[-20] + 20))
    done.set()
    await sending


def print_nothing(_: Notification[str]) -> None:
    """Handle a notification by doing nothing."""


async def send_alternately(database: Database, done: asyncio.Event) -> None:
    """Commit numbers on the channels ``old`` and ``new`` in turn, until told to stop."""
    numbers = count()
    while not done.is_set():
        await database.notify("old", str(next(numbers)))
        await database.notify("new", str(next(numbers)))


async def test_r30_cancelled_waiting_loses_nothing(listener: Listener, database: Database) -> None:
    """However often the wait for the next item is cancelled, each of 1,000 comes once, in order."""
    source = random.Random(30)
    received: list[str] = []
    cancelled = 0
    async with listener.stream("orders") as stream:
        sending = asyncio.create_task(database.notify("orders", *map(str, range(1_000))))
        while len(received) < 1_000:
            waiting = asyncio.ensure_future(anext(stream))
            for _ in range(source.randrange(6)):
                await asyncio.sleep(0)
            waiting.cancel()
            try:
                received.append((await waiting).payload)
            except asyncio.CancelledError:
                cancelled += 1
        await sending
    assert received == [str(n) for n in range(1_000)]
    assert cancelled > 100


async def test_r30_timeout_around_anext_loses_nothing(
    listener: Listener, database: Database
) -> None:
    """However often asyncio.timeout() ends the wait, each of 1,000 comes once, in order."""
    source = random.Random(30)
    received: list[str] = []
    expired = 0
    async with listener.stream("orders") as stream:
        sending = asyncio.create_task(database.notify("orders", *map(str, range(1_000))))
        while len(received) < 1_000:
            try:
                async with asyncio.timeout(source.choice((0.0, 0.0001, 0.0003))):
                    received.append((await anext(stream)).payload)
            except TimeoutError:
                expired += 1
        await sending
    assert received == [str(n) for n in range(1_000)]
    assert expired > 100


@pytest.mark.parametrize("begin", [Stream.__aenter__, Stream.__anext__])
async def test_a_stream_that_cannot_begin_may_be_tried_again(
    factory: ListenerFactory,
    dsn: str,
    database: Database,
    begin: Callable[[Stream[Any]], Awaitable[Any]],
) -> None:
    """While the server is away it raises at its timeout; later the same stream begins."""
    async with (
        network_before(dsn) as proxy,
        factory.listener(proxy.proxied_dsn(dsn)) as listener,
    ):
        stream = listener.stream("orders", timeout=scaled(0.3))
        proxy.refuse()
        proxy.reset()
        with pytest.raises(ListenTimeoutError):
            await begin(stream)
        assert listener.channels == frozenset()
        proxy.heal()
        await listener.wait_connected()
        async with stream:
            await database.notify("orders", "1")
            assert await take(stream, 1) == ["1"]


async def test_streams_end_with_the_listener(factory: ListenerFactory, database: Database) -> None:
    """When the listener is closed, a waiting reader meets the end, not an error."""
    async with factory.listener() as listener:
        stream = await listener.stream("orders").__aenter__()
        reading = asyncio.ensure_future(anext(stream, None))
        await asyncio.sleep(0)
    assert await reading is None
    assert await anext(stream, None) is None
    with pytest.raises(ClosedError, match=r"^the stream of 'orders' has ended; make another with"):
        aiter(stream)


async def test_a_stream_that_ends_unread_is_read_to_its_end(
    factory: ListenerFactory, database: Database
) -> None:
    """Who iterates it only when the listener has been closed gets what it had buffered."""
    async with factory.listener() as listener:
        stream, empty = listener.stream("orders"), listener.stream("events")
        for each in (stream, empty):
            await each.__aenter__()
        await database.notify("orders", "1", "2")
        await database.fence(listener)
    assert [item.payload async for item in stream] == ["1", "2"]
    assert [item async for item in empty] == []
    for each in (stream, empty):
        for iterate in (aiter, type(stream).batches):
            with pytest.raises(ClosedError, match="has ended; make another"):
                iterate(each)


async def test_a_stream_that_has_been_closed_can_be_neither_entered_nor_iterated(
    listener: Listener,
) -> None:
    """A program that does so in a loop would otherwise do nothing, for ever."""
    begun, unbegun = listener.stream("orders"), listener.stream("events", "orders")
    async with begun:
        pass
    await unbegun.aclose()
    for stream, name in ((begun, "'orders'"), (unbegun, "'events', 'orders'")):
        text = rf"^the stream of {name} has been closed; make another with listener.stream\(\)$"
        with pytest.raises(ClosedError, match=text):
            await stream.__aenter__()
        for iterate in (aiter, type(stream).batches):
            with pytest.raises(ClosedError, match=text):
                iterate(stream)
        assert await anext(stream, None) is None
    assert listener.channels == frozenset()


async def test_a_stream_that_was_unlistened_says_so(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """Its reader may not know of the call: so does a line in the log."""
    caplog.set_level("INFO", "asyncnotify.handler")
    stream = listener.stream("orders")
    step = asyncio.ensure_future(anext(stream, None))
    await asyncio.sleep(0)
    assert listener.channels == {"orders"}
    await listener.unlisten("orders")
    assert await step is None
    assert "unlisten() has ended a stream of 'orders'" in caplog.text
    text = r"^the stream of 'orders' has ended: unlisten\(\) was called for its channel; make"
    with pytest.raises(ClosedError, match=text):
        await stream.__aenter__()
    with pytest.raises(ClosedError, match=text):
        aiter(stream)


async def test_a_stream_that_is_closed_while_it_is_entered_is_not_entered(
    listener: Listener,
) -> None:
    """Another task closes it: whoever enters it learns that nothing will come."""
    stream = listener.stream("orders")
    entering = asyncio.ensure_future(stream.__aenter__())
    await asyncio.sleep(0)
    await stream.aclose()
    with pytest.raises(ClosedError, match=r"^the stream of 'orders' has been closed; make another"):
        await entering
    assert repr(stream) == "<Stream of 'orders' closed>"
    assert listener.channels == frozenset()


async def test_a_stream_cannot_be_entered_twice(listener: Listener, database: Database) -> None:
    """While it is open, or begins, entering it again is refused, and changes nothing."""
    stream = listener.stream("orders")
    entering = asyncio.ensure_future(stream.__aenter__())
    await asyncio.sleep(0)
    for _ in range(2):
        with pytest.raises(
            AlreadyEnteredError, match=r"^the stream of 'orders' has been entered already: leave"
        ):
            await stream.__aenter__()
        await entering
    await database.notify("orders", "1")
    assert await take(stream, 1) == ["1"]
    await stream.aclose()


async def test_a_stream_that_is_iterated_may_be_entered(
    listener: Listener, database: Database
) -> None:
    """It goes on with what comes next, and ends with the block."""
    stream = listener.stream("orders", gaps=True)
    assert isinstance(await anext(stream), Gap)
    async with stream:
        await database.notify("orders", "1")
        assert isinstance(await anext(stream), Notification)
    assert listener.channels == frozenset()


async def test_a_stream_says_how_far_it_has_come(listener: Listener) -> None:
    """Its repr names its channels, and whether it has begun, ended, or been closed."""
    stream, other = listener.stream("orders"), listener.stream("events")
    assert repr(stream) == "<Stream of 'orders' not begun>"
    entering = asyncio.ensure_future(stream.__aenter__())
    await asyncio.sleep(0)
    assert repr(stream) == "<Stream of 'orders' beginning>"
    await entering
    async with other:
        assert repr(stream) == "<Stream of 'orders' open>"
        await listener.unlisten("orders")
        assert repr(stream) == "<Stream of 'orders' ended>"
    assert repr(other) == "<Stream of 'events' closed>"
