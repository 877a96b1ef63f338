"""Whatever a signal handler or a cancellation raises, and wherever: no item is lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import pytest

from asyncnotify._channels.channel import Channel
from asyncnotify._delivery.latest import LatestMailbox
from asyncnotify._delivery.registry import Subscriber
from asyncnotify._model import Gap, GapReason, Notification, Reread
from asyncnotify._subscriptions.stream import Stream
from tests.support.interrupter import Alarm, each_point
from tests.unit.subscription_harness import RosterHarness

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Take = Callable[["InterruptedStream", Stream[Any]], Awaitable[None]]

MODULES: Final = ("asyncnotify._subscriptions", "asyncnotify._delivery")


def number_of(text: str) -> int | Reread:
    """Return the number that a text is; "x" says "read again"."""
    return Reread(1) if text == "x" else int(text)


TEXT, NUMBERS = Channel("numbers"), Channel("numbers", int)
REREADS = Channel("numbers", decode=number_of)


class InterruptedStream:
    """
    A stream that holds gaps, texts and payloads that cannot be decoded, and who takes from it.

    Args:
        channel: What the stream decodes by.
        gaps: Whether it yields gaps.
        latest: Whether it keeps the newest of each channel only.
    """

    def __init__(self, channel: Channel[Any], *, gaps: bool, latest: bool) -> None:
        self.harness = RosterHarness()
        self.reported: list[str] = []
        self.got: list[Any] = []
        self.channel = channel
        self.gaps = gaps
        self.latest = latest
        self.subscriber: Subscriber

    def enlist(self) -> tuple[Any, Subscriber]:
        """Begin to listen, as a listener does."""
        made = self.harness.subscriber("numbers", "others")
        if self.latest:
            made = Subscriber(["numbers", "others"], LatestMailbox(), gaps_wanted=self.gaps)
        self.subscriber = made
        self.harness.roster.enlist(made)
        return self.harness.roster, made

    def on_error(self, _: BaseException, item: Notification[Any] | Gap) -> None:
        """Keep what could not be decoded."""
        assert isinstance(item, Notification)
        self.reported.append(item.payload)

    async def begin(self) -> Stream[Any]:
        """Return the stream, which listens and holds items."""
        channels = (self.channel, Channel("others"))
        stream = Stream[Any](
            self.enlist, channels, gaps=self.gaps, on_error=self.on_error, timeout=None
        )
        await stream.__aenter__()
        return stream

    def send(self) -> None:
        """Let items arrive: x and y are no numbers, and a loss lies between two of them."""
        for payload in ("1", "2", "x", "y", "3"):
            self.harness.send("numbers", payload)
        self.harness.send("others", "4")
        self.subscriber.interrupt(GapReason.RECONNECT, None)
        self.subscriber.begin()
        for payload in ("5", "x"):
            self.harness.send("numbers", payload)
        self.harness.send("others", "end")

    @property
    def expected(self) -> list[object]:
        """What the consumer must get, each once and in this order."""
        number: Callable[[str], object] = str if self.channel is TEXT else int
        xy: list[object] = ["x", "y"]
        if self.channel is not TEXT:
            xy = ["undecodable"] if self.channel is NUMBERS else ["reread", "undecodable"]
        begin: list[object] = ["start", number("1"), number("2"), *xy, number("3"), "4"]
        items = [*begin, "reconnect", number("5"), *xy[:1], "end"]
        if self.latest:  # the first numbers are replaced by later ones
            items = ["start", "reconnect", *xy[:1], "end"]
        return items if self.gaps else [item for item in items if not _is_gap(item)]

    @property
    def passed_over(self) -> tuple[int, int]:
        """How many it cannot decode, and how many say "read again"."""
        if self.channel is TEXT:
            return (0, 0)
        if self.channel is NUMBERS:
            return (1, 0) if self.latest else (3, 0)
        return (0, 1) if self.latest else (1, 2)

    @property
    def all_got(self) -> list[object]:
        """What the consumer has got; a list may end between two that cannot be decoded."""
        pairs = zip(self.got, [None, *self.got], strict=False)
        return [item for item, before in pairs if item != "undecodable" or before != item]

    async def singly(self, stream: Stream[Any]) -> None:
        """Take one item after the other."""
        while self.got[-1:] != ["end"]:
            item = await stream.__anext__()
            self.got += [_described(item)]

    async def together(self, stream: Stream[Any]) -> None:
        """Take lists of up to three."""
        batches = stream.batches(3)
        while self.got[-1:] != ["end"]:
            items = await batches.__anext__()
            self.got += [_described(item) for item in items]

    async def mixed(self, stream: Stream[Any]) -> None:
        """Take an item and a list in turn."""
        while self.got[-1:] != ["end"]:
            item = await stream.__anext__()
            self.got += [_described(item)]
            if item.__class__ is not Notification or item.payload != "end":
                items = await stream.batches(2).__anext__()
                self.got += [_described(item) for item in items]


def _described(item: Any) -> object:
    return str(item.reason) if isinstance(item, Gap) else item.payload


def _is_gap(item: object) -> bool:
    return item in {*GapReason}


each_kind = pytest.mark.parametrize(
    ("channel", "gaps", "latest"),
    [
        (TEXT, False, False),
        (TEXT, True, False),
        (NUMBERS, False, False),
        (NUMBERS, True, False),
        (TEXT, True, True),
        (NUMBERS, True, True),
        (REREADS, False, False),
        (REREADS, True, False),
        (REREADS, True, True),
    ],
    ids=[
        *("text", "text+gaps", "numbers", "numbers+gaps", "text+latest", "numbers+latest"),
        *("rereads", "rereads+gaps", "rereads+latest"),
    ],
)
each_way = pytest.mark.parametrize(
    "take", [InterruptedStream.singly, InterruptedStream.together, InterruptedStream.mixed]
)


@each_kind
@each_way
async def test_r56_an_item_that_was_taken_is_returned_or_stays(
    channel: Channel[Any], take: Take, *, gaps: bool, latest: bool
) -> None:
    """At each point at which a signal handler may raise, one does; each item comes once."""
    points = 0
    for interrupter in each_point(*MODULES):
        made = InterruptedStream(channel, gaps=gaps, latest=latest)
        async with made.harness.running():
            stream = await made.begin()
            made.send()
            with contextlib.suppress(Alarm), interrupter:
                await take(made, stream)
            await take(made, stream)
            assert made.all_got == made.expected, points
            stats = stream.stats()
        assert stats is not None
        assert stats.delivered == len([item for item in made.expected if not _is_gap(item)])
        assert stats.backlog == 0
        assert (stats.decode_errors, stats.rereads) == made.passed_over
        points += 1
    assert points > 10


@each_kind
@each_way
async def test_r56_an_item_that_arrives_is_not_missed_by_who_was_interrupted(
    channel: Channel[Any], take: Take, *, gaps: bool, latest: bool
) -> None:
    """Who was interrupted before it waited, waits anew, and is woken."""
    for interrupter in each_point(*MODULES):
        made = InterruptedStream(channel, gaps=gaps, latest=latest)
        async with made.harness.running():
            stream = await made.begin()
            loop = asyncio.get_running_loop()
            loop.call_later(1, interrupter.stop)
            loop.call_later(1, made.send)
            with contextlib.suppress(Alarm), interrupter:
                await take(made, stream)
            await asyncio.wait_for(take(made, stream), 10)
            assert made.all_got == made.expected


@each_kind
@each_way
async def test_r56_an_item_is_not_lost_by_a_cancellation(
    channel: Channel[Any], take: Take, *, gaps: bool, latest: bool
) -> None:
    """Cancelled after any number of turns of the loop, a consumer leaves the rest in the stream."""
    turns, was_cancelled = 0, True
    while was_cancelled:
        made = InterruptedStream(channel, gaps=gaps, latest=latest)
        async with made.harness.running():
            stream = await made.begin()
            taking = asyncio.ensure_future(take(made, stream))
            for turn in range(turns):
                if turn == 1:
                    made.send()
                await asyncio.sleep(0)
            was_cancelled = taking.cancel()
            await asyncio.wait({taking})
            if turns < 2:
                made.send()
            await take(made, stream)
            assert made.all_got == made.expected
        turns += 1
    assert turns > 2
