from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from asyncnotify._channels.channel import Channel
from asyncnotify._delivery.bounded import BoundedMailbox
from asyncnotify._delivery.registry import Subscriber
from asyncnotify._errors import (
    BufferOverflowError,
    ChannelNameError,
    ClosedError,
    ListenTimeoutError,
)
from asyncnotify._model import Gap, GapReason, Notification
from asyncnotify._subscriptions.stream import Stream
from tests.unit.subscription_harness import RosterHarness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncnotify._delivery.bounded import Overflow
    from asyncnotify._subscriptions.callbacks import OnError

START = Gap("numbers", GapReason.START)
TEXT, NUMBERS = Channel("numbers"), Channel("numbers", int)


class StreamHarness(RosterHarness):
    """A roster that is open, and streams of it."""

    def stream(
        self,
        channel: Channel[Any] = TEXT,
        *,
        gaps: bool = False,
        on_error: OnError | None = None,
        timeout: float | None = None,
        buffer: int = 100,
        overflow: Overflow = "drop_oldest",
    ) -> Stream[Any]:
        """Return a stream that has not begun."""

        def enlist() -> tuple[Any, Subscriber]:
            box = BoundedMailbox(buffer, overflow, channel=channel.name, source=self.router)
            subscriber = Subscriber([channel.name], box, gaps_wanted=gaps)
            self.roster.enlist(subscriber)
            return self.roster, subscriber

        return Stream(enlist, (channel,), gaps=gaps, on_error=on_error, timeout=timeout)

    def send_all(self, *payloads: object) -> None:
        """Let several notifications arrive."""
        for payload in payloads:
            self.send("numbers", str(payload))


@pytest_asyncio.fixture
async def harness() -> AsyncIterator[StreamHarness]:
    """A roster that is open, and a server that confirms at once."""
    made = StreamHarness()
    async with made.running():
        yield made


def payloads(items: list[Any]) -> list[object]:
    """Return gaps as they are, and the payloads of notifications."""
    return [item.payload if isinstance(item, Notification) else item for item in items]


# -- begin ----------------------------------------------------------------------------------------


async def test_p3_nothing_sent_inside_the_block_is_missed(harness: StreamHarness) -> None:
    """Entering returns once the server has confirmed, and not before."""
    async with harness.stream() as stream:
        assert harness.listening == {"numbers"}
        harness.send_all(1)
        assert (await anext(stream)).payload == "1"
    assert harness.listening == set()


async def test_without_a_block_it_listens_from_its_first_step(harness: StreamHarness) -> None:
    """Making a stream asks the server for nothing."""
    stream = harness.stream()
    assert (harness.roster.channels, stream.stats()) == (frozenset(), None)
    step = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(1)
    harness.send_all(1)
    assert (await step).payload == "1"
    await stream.aclose()


async def test_a_stream_that_could_not_begin_may_be_tried_again(harness: StreamHarness) -> None:
    """The timeout withdraws the subscription; the next call makes another one."""
    harness.confirms = False
    stream = harness.stream(timeout=2.0)
    with pytest.raises(ListenTimeoutError):
        await anext(stream)
    assert harness.roster.channels == frozenset()
    harness.confirms = True
    async with stream:
        harness.send_all(1)
        assert (await anext(stream)).payload == "1"


async def test_a_stream_that_is_closed_while_it_is_entered_stays_closed(
    harness: StreamHarness,
) -> None:
    """It is not as one that could not begin, which may be entered again."""
    harness.confirms = False
    stream = harness.stream()
    entering = asyncio.create_task(stream.__aenter__())
    await asyncio.sleep(1)
    closing = asyncio.create_task(stream.aclose())
    await asyncio.sleep(0)
    entering.cancel()  # before it has met the end
    await asyncio.wait({closing, entering})
    assert entering.cancelled()
    assert repr(stream) == "<Stream of 'numbers' closed>"
    with pytest.raises(ClosedError, match="has been closed"):
        await stream.__aenter__()


async def test_the_end_of_a_stream_whose_channel_is_refused_says_so(
    harness: StreamHarness,
) -> None:
    """The server may take a name no more, after it was moved to another encoding, say."""
    stream = harness.stream()
    await stream.__aenter__()
    harness.registry.refuse("numbers", ChannelNameError("numbers", "is refused"))
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    with pytest.raises(ClosedError, match="has ended: the server refused its channel"):
        aiter(stream)


async def test_one_of_two_beginners_may_give_up(harness: StreamHarness) -> None:
    """The subscription is withdrawn only when all who wait for its beginning have given up."""
    harness.confirms = False
    stream = harness.stream()
    steps = [asyncio.ensure_future(anext(stream)) for _ in range(2)]
    await asyncio.sleep(1)
    steps[0].cancel()
    await asyncio.wait({steps[0]})
    assert harness.roster.channels == frozenset({"numbers"})
    steps[1].cancel()
    await asyncio.wait({steps[1]})
    assert harness.roster.channels == frozenset()


# -- items ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gaps", "first"), [(True, [START]), (False, [])])
async def test_gaps_come_only_where_they_are_wanted(
    harness: StreamHarness, *, gaps: bool, first: list[Gap]
) -> None:
    """In their place, and one at the start; delivered counts notifications alone."""
    async with harness.stream(gaps=gaps) as stream:
        harness.send_all(1, 2)
        items = [await anext(stream) for _ in range(len(first) + 2)]
        assert payloads(items) == [*first, "1", "2"]
        stats = stream.stats()
        assert stats is not None
        assert stats.delivered == 2


async def test_a_step_that_is_cancelled_loses_nothing(harness: StreamHarness) -> None:
    """The next call gets what the cancelled one would have had."""
    async with harness.stream() as stream:
        step = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(1)
        harness.send_all(1)
        step.cancel()
        await asyncio.wait({step})
        assert (await anext(stream)).payload == "1"


async def test_each_item_goes_to_one_of_the_tasks_that_take(harness: StreamHarness) -> None:
    """Several tasks may share one stream."""
    async with harness.stream() as stream:
        steps = [asyncio.ensure_future(anext(stream)) for _ in range(3)]
        await asyncio.sleep(1)
        harness.send_all(1, 2, 3)
        items = await asyncio.gather(*steps)
        assert sorted(item.payload for item in items) == ["1", "2", "3"]


async def test_a_payload_that_cannot_be_decoded_goes_to_on_error(harness: StreamHarness) -> None:
    """The stream goes on with the next one; the counter counts it."""
    reported: list[tuple[type[BaseException], object]] = []
    stream = harness.stream(
        NUMBERS, on_error=lambda error, item: reported.append((type(error), item))
    )
    async with stream:
        harness.send_all("one", 2)
        assert (await anext(stream)).payload == 2
        stats = stream.stats()
        assert stats is not None
        assert (stats.decode_errors, stats.delivered) == (1, 1)
    ((_, item),) = reported
    assert isinstance(item, Notification)
    assert item.payload == "one"


# -- batches --------------------------------------------------------------------------------------


async def test_a_batch_holds_what_waits_up_to_its_limit(harness: StreamHarness) -> None:
    """In order; none is empty."""
    async with harness.stream() as stream:
        harness.send_all(*range(5))
        batches = stream.batches(3)
        assert payloads(await anext(batches)) == ["0", "1", "2"]
        assert payloads(await anext(batches)) == ["3", "4"]


async def test_on_error_is_called_before_the_items_that_follow(harness: StreamHarness) -> None:
    """What a batch could not decode is reported before the next item is handed out."""
    order: list[object] = []
    stream = harness.stream(NUMBERS, on_error=lambda _, item: order.extend(payloads([item])))
    async with stream:
        harness.send_all(1, "two", 3)
        order += payloads(await anext(stream.batches()))
        harness.send_all(4)
        order.append((await anext(stream)).payload)
    assert order == [1, 3, "two", 4]


@pytest.mark.parametrize("limit", [0, -1, 1.5])
async def test_a_wrong_limit_is_refused_at_once(harness: StreamHarness, limit: Any) -> None:
    """Not at the first step."""
    with pytest.raises(ValueError, match="limit"):
        harness.stream().batches(limit)


# -- the end --------------------------------------------------------------------------------------


async def test_it_ends_after_what_was_buffered_when_the_listener_is_closed(
    harness: StreamHarness,
) -> None:
    """With StopAsyncIteration, and again at each later call."""
    async with harness.stream() as stream:
        harness.send_all(1, 2)
        harness.roster.close(discard=False)
        assert payloads([item async for item in stream]) == ["1", "2"]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_aclose_discards_and_unlistens(harness: StreamHarness) -> None:
    """Idempotent, and also before the stream has begun."""
    unused = harness.stream()
    await unused.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(unused)
    stream = harness.stream()
    await stream.__aenter__()
    harness.send_all(1)
    await stream.aclose()
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert harness.listening == set()


async def test_aclose_lets_a_waiting_step_end(harness: StreamHarness) -> None:
    """It does not wait for a notification that cannot come any more."""
    stream = harness.stream()
    await stream.__aenter__()
    step = asyncio.ensure_future(anext(stream, None))
    await asyncio.sleep(1)
    await stream.aclose()
    assert await step is None


async def test_an_overflow_ends_a_stream_of_that_policy(harness: StreamHarness) -> None:
    """BufferOverflowError after what was buffered; then the channel is unlistened."""
    stream = harness.stream(buffer=2, overflow="fail")
    await stream.__aenter__()
    harness.send_all(*range(10))
    await asyncio.sleep(1)
    assert payloads([await anext(stream), await anext(stream)]) == ["0", "1"]
    with pytest.raises(BufferOverflowError):
        await anext(stream)
    await harness.roster.settled()
    assert harness.listening == set()


async def test_p12_a_stream_that_nobody_holds_ends(harness: StreamHarness) -> None:
    """The subscription ends in the loop's next turn, without waiting for the collector's cycles."""
    gc.disable()
    try:
        stream = harness.stream()
        await stream.__aenter__()
        del stream
        await asyncio.sleep(1)
    finally:
        gc.enable()
    assert harness.roster.channels == frozenset()
    assert harness.listening == set()
