from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from asyncnotify._channels.channel import Channel
from asyncnotify._errors import ListenTimeoutError
from asyncnotify._model import Gap, GapReason, Notification
from asyncnotify._subscriptions.reading import Beginning, Phase, Reading, names
from tests.unit.subscription_harness import RosterHarness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncnotify._delivery.registry import Subscriber
    from asyncnotify._subscriptions.callbacks import OnError
    from asyncnotify._subscriptions.roster import Roster

START = Gap("numbers", GapReason.START)
NUMBERS = Channel("numbers", int)


class ReadingHarness(RosterHarness):
    """A roster, and beginnings of streams on ``numbers``."""

    def beginning(
        self,
        channel: Channel[Any] = NUMBERS,
        *,
        gaps: bool = False,
        on_error: OnError | None = None,
        timeout: float | None = None,
    ) -> Beginning:
        """Return a stream that does not listen yet."""

        def enlist() -> tuple[Roster, Subscriber]:
            subscriber = self.subscriber(channel.name)
            self.roster.enlist(subscriber)
            return self.roster, subscriber

        return Beginning(enlist, (channel,), gaps=gaps, on_error=on_error, timeout=timeout)

    async def reading(self, **options: Any) -> Reading:
        """Return a stream that listens."""
        return await self.beginning(**options).ready()

    def send_all(self, *payloads: object) -> None:
        """Let notifications arrive."""
        for payload in payloads:
            self.send("numbers", str(payload))


@pytest_asyncio.fixture
async def harness() -> AsyncIterator[ReadingHarness]:
    """A roster that is open, and a server that confirms at once."""
    made = ReadingHarness()
    async with made.running():
        yield made


def payloads(items: list[Any]) -> list[object]:
    """Return gaps as they are, and the payloads of notifications."""
    return [item.payload if isinstance(item, Notification) else item for item in items]


# -- the beginning --------------------------------------------------------------------------------


async def test_nothing_is_asked_of_the_server_before_it_is_ready(harness: ReadingHarness) -> None:
    """Then all who wait get the same thing to read from."""
    beginning = harness.beginning()
    assert (harness.roster.channels, beginning.stats()) == (frozenset(), None)
    first, second = await asyncio.gather(beginning.ready(), beginning.ready())
    assert first is second
    assert harness.listening == {"numbers"}


async def test_the_last_who_gives_up_withdraws_the_subscription(harness: ReadingHarness) -> None:
    """And not an earlier one; a later call tries again."""
    harness.confirms = False
    beginning = harness.beginning(timeout=5.0)
    waiting = [asyncio.create_task(beginning.ready()) for _ in range(2)]
    await asyncio.sleep(1)
    waiting[0].cancel()
    await asyncio.wait({waiting[0]})
    assert harness.roster.channels == frozenset({"numbers"})
    with pytest.raises(ListenTimeoutError):
        await waiting[1]
    assert harness.roster.channels == frozenset()
    harness.confirms = True
    assert isinstance(await beginning.ready(), Reading)


async def test_what_is_closed_while_it_begins_is_withdrawn(harness: ReadingHarness) -> None:
    """Who waits for the beginning does not wait on, and the server is told."""
    harness.confirms = False
    beginning = harness.beginning()
    waiting = asyncio.create_task(beginning.ready())
    await asyncio.sleep(1)
    await beginning.close()
    await asyncio.wait({waiting})
    harness.confirm()
    assert not harness.registry.subscribers
    assert harness.listening == set()


async def test_p12_what_nobody_holds_any_more_is_withdrawn_while_it_begins(
    harness: ReadingHarness,
) -> None:
    """Whoever waits for it has gone without a word, as with its event loop."""
    harness.confirms = False
    beginning = harness.beginning()
    waiting = asyncio.create_task(beginning.ready())
    await asyncio.sleep(1)
    beginning.forget()
    await asyncio.sleep(1)
    assert not harness.registry.subscribers
    harness.confirm()
    await asyncio.wait({waiting})
    assert harness.listening == set()


async def test_a_beginning_that_was_closed_begins_no_more(harness: ReadingHarness) -> None:
    """Whether or not it was on its way to the server."""
    for is_on_its_way in (False, True):
        beginning = harness.beginning()
        if is_on_its_way:
            harness.confirms = False
            waiting = asyncio.create_task(beginning.ready())
            await asyncio.sleep(1)
            waiting.cancel()
            await asyncio.wait({waiting})
            harness.confirms = True
        await beginning.close()
        with pytest.raises(StopAsyncIteration):
            await beginning.ready()
    assert harness.roster.channels == frozenset()


# -- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("gaps", "expected"), [(True, [START, 1, 2]), (False, [1, 2])])
async def test_items_come_singly_and_in_batches(
    harness: ReadingHarness, *, gaps: bool, expected: list[object]
) -> None:
    """The same ones in the same order; every gap is counted, also one that is not wanted."""
    singly, together = await harness.reading(gaps=gaps), await harness.reading(gaps=gaps)
    harness.send_all(1, 2)
    items = [await singly.next() for _ in expected]
    assert payloads(items) == payloads(await together.next_batch(10)) == expected
    assert singly.stats().delivered == together.stats().delivered == 2


async def test_what_cannot_be_decoded_is_reported_in_its_place(harness: ReadingHarness) -> None:
    """Before the next item is taken; the report is not repeated."""
    reported: list[Any] = []

    def on_error(_: BaseException, item: Any) -> None:
        reported.append(item.payload)

    reading = await harness.reading(on_error=on_error)
    harness.send_all(1, "two", 3)
    assert payloads(await reading.next_batch(10)) == [1, 3]
    assert reported == []
    await reading.ready()
    assert reported == ["two"]
    harness.send_all("four", 5)
    assert payloads([await reading.next()]) == [5]
    assert reported == ["two", "four"]


async def test_a_report_that_is_cancelled_goes_on_at_the_next_call(harness: ReadingHarness) -> None:
    """Each undecodable payload is reported once, and none is lost."""
    reported: list[Any] = []

    async def on_error(_: BaseException, item: Any) -> None:
        reported.append(item.payload)
        await asyncio.sleep(1)

    reading = await harness.reading(on_error=on_error)
    harness.send_all("one", "two", 3)
    assert payloads(await reading.next_batch(10)) == [3]
    reporting = asyncio.create_task(reading.report())
    await asyncio.sleep(0.5)
    reporting.cancel()
    await asyncio.wait({reporting})
    await reading.report()
    assert reported == ["one", "two"]


# -- the end --------------------------------------------------------------------------------------


async def test_it_ends_after_what_is_buffered(harness: ReadingHarness) -> None:
    """Then both ways of reading stop."""
    reading = await harness.reading()
    harness.send_all(1)
    harness.roster.close(discard=False)
    assert reading.phase is Phase.ENDED
    assert payloads(await reading.next_batch(10)) == [1]
    with pytest.raises(StopAsyncIteration):
        await reading.next_batch(10)
    with pytest.raises(StopAsyncIteration):
        await reading.next()


async def test_close_discards_and_unlistens(harness: ReadingHarness) -> None:
    """forget() does the same without waiting, from whatever thread."""
    closed, forgotten = await harness.reading(), await harness.reading()
    harness.send_all(1)
    await closed.close()
    assert closed.stats().backlog == 0
    assert harness.listening == {"numbers"}
    forgotten.forget()
    await asyncio.sleep(1)
    assert harness.listening == set()


def test_messages_name_the_channels() -> None:
    """Each in quotes."""
    assert names((Channel("a"), Channel("b"))) == "'a', 'b'"
