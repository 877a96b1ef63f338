from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from asyncnotify._delivery.bounded import BoundedMailbox
from asyncnotify._delivery.registry import Listen, Registry, Subscriber
from asyncnotify._delivery.router import Router
from asyncnotify._model import Gap, GapReason
from asyncnotify.testing.clock import VirtualTimeLoop
from tests.unit.fake_sources import at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncnotify._delivery.bounded import Overflow

QUANTUM = 4_096
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class FakeFlowControl:
    """The reading side of a connection: notes what it was told, in turns of the loop."""

    def __init__(self, *, able: bool = True) -> None:
        self.able = able
        self.paused = False
        self.pauses = 0

    def pause(self) -> bool:
        """Stop reading, if that can be done."""
        assert not self.paused
        self.paused = self.able
        self.pauses += 1
        return self.able

    def resume(self) -> None:
        """Read again."""
        assert self.paused
        self.paused = False


class RouterHarness:
    """A delivery, the connection before it and the consumers behind it."""

    def __init__(self) -> None:
        self.router = Router(asyncio.get_running_loop())
        self.registry = Registry(self.router)
        self.reading = FakeFlowControl()
        self.router.connect(self.reading)
        self.consumers: list[asyncio.Task[None]] = []

    def box(self, limit: int = 100_000, overflow: Overflow = "drop_oldest") -> BoundedMailbox:
        """Return the mailbox of a subscription that listens, its first gap taken."""
        box = BoundedMailbox(
            limit,
            overflow,
            channel="a",
            source=self.router,
        )
        self.registry.add(Subscriber(["a"], box))
        self.registry.performed(Listen(["a"]))
        assert box.take() == Gap("a", GapReason.START)
        return box

    def receive(self, count: int, channel: str = "a") -> None:
        """One read of the socket brings so many."""
        for _ in range(count):
            self.router.on_notification(7, channel, "")

    def consume(self, box: BoundedMailbox, each_turn: int) -> None:
        """Let a task take so many in each turn of the loop."""

        async def take() -> None:
            while await box.wait():
                for _ in range(each_turn):
                    box.take()
                await asyncio.sleep(0)

        self.consumers.append(asyncio.create_task(take()))

    async def turns_until_resumed(self) -> int:
        """Return how many turns of the loop go by until the socket is read again."""
        turns = 0
        while self.reading.paused:
            turns += 1
            await asyncio.sleep(0)
        return turns


@pytest_asyncio.fixture
async def harness() -> AsyncIterator[RouterHarness]:
    """A connection that brings what the test says."""
    made = RouterHarness()
    yield made
    for consumer in made.consumers:
        consumer.cancel()


# -- routing --------------------------------------------------------------------------------------


async def test_a_notification_goes_to_every_mailbox_of_its_channel_and_to_no_other(
    harness: RouterHarness,
) -> None:
    """With what the server sent; one of a channel that nobody wants is counted and dropped."""
    one, two = harness.box(), harness.box()
    harness.router.on_notification(7, "a", "hello")
    harness.router.on_notification(8, "other", "x")
    assert one.take() == two.take() == ("a", "hello", 7)
    assert one.take() is two.take() is None
    assert harness.router.received == 2


async def test_received_counts_over_turns(harness: RouterHarness) -> None:
    """Nothing is counted twice, in the middle of a turn or after it."""
    harness.receive(3)
    assert harness.router.received == 3
    await asyncio.sleep(1)
    harness.receive(2)
    assert harness.router.received == 5


async def test_the_server_was_heard_when_it_sent_something(harness: RouterHarness) -> None:
    """One look at the clock a turn, however many notifications it brought."""
    await asyncio.sleep(50)
    harness.receive(10)
    await asyncio.sleep(5)
    assert harness.router.last_contact == pytest.approx(asyncio.get_running_loop().time() - 5)


async def test_when_delivery_was_last_good_is_known_from_the_supervisor(
    harness: RouterHarness,
) -> None:
    """None before the first proof."""
    assert harness.router.verified_at is None
    harness.router.verify(at(NOON))
    assert harness.router.verified_at == at(NOON)


# -- fairness -------------------------------------------------------------------------------------


async def test_reading_goes_on_below_the_quantum(harness: RouterHarness) -> None:
    """4,095 in one turn are no reason to pause; nor are as many in each of several."""
    harness.box()
    for _ in range(3):
        harness.receive(QUANTUM - 1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert harness.reading.pauses == 0


async def test_reading_pauses_once_for_a_turn_after_the_quantum(harness: RouterHarness) -> None:
    """However many more the read has brought; and it is read again though nobody consumes."""
    harness.box()
    harness.receive(QUANTUM - 1)
    assert harness.reading.pauses == 0
    harness.receive(1)
    assert harness.reading.paused
    harness.receive(3 * QUANTUM)
    assert await harness.turns_until_resumed() <= 3
    assert harness.reading.pauses == 1


async def test_a_pause_gives_consumers_their_turn(harness: RouterHarness) -> None:
    """Before reading goes on, every task that waits for notifications has run."""
    box = harness.box()
    ran: list[bool] = []

    async def consume() -> None:
        await box.wait()
        ran.append(harness.reading.paused)

    harness.consumers.append(asyncio.create_task(consume()))
    await asyncio.sleep(0)
    harness.receive(QUANTUM)
    await harness.turns_until_resumed()
    assert ran == [True]


async def test_r27_reading_goes_on_whatever_the_consumers_do(harness: RouterHarness) -> None:
    """Every consumer is stuck: each pause ends by itself, after few turns."""
    harness.box(limit=10)
    for _ in range(10):
        harness.receive(QUANTUM + 1)
        assert await harness.turns_until_resumed() <= 4
    assert harness.router.received == 10 * (QUANTUM + 1)


async def test_nothing_is_paused_where_there_is_nothing_to_pause(harness: RouterHarness) -> None:
    """A connection whose transport cannot be seen: everything else goes on."""
    box = harness.box(limit=10)
    harness.router.connect(None)
    harness.receive(QUANTUM)
    await asyncio.sleep(1)
    assert (harness.reading.pauses, box.dropped) == (0, QUANTUM - 10)


async def test_a_transport_that_cannot_pause_is_not_resumed(harness: RouterHarness) -> None:
    """It is closing, and says so."""
    harness.reading.able = False
    harness.receive(QUANTUM)
    await asyncio.sleep(1)
    assert (harness.reading.pauses, harness.reading.paused) == (1, False)


async def test_a_new_connection_is_not_held_up_by_the_pause_of_the_old(
    harness: RouterHarness,
) -> None:
    """The old one is read on, up to its end; the new one is neither paused nor resumed for it."""
    harness.receive(QUANTUM)
    new = FakeFlowControl()
    harness.router.connect(new)
    await asyncio.sleep(1)
    assert (new.pauses, harness.reading.paused) == (0, False)
    harness.receive(QUANTUM)
    assert new.paused
    await asyncio.sleep(1)
    assert not new.paused


# -- overflow -------------------------------------------------------------------------------------


async def test_r28_a_stuck_consumer_loses_exactly_what_is_over_its_limit(
    harness: RouterHarness,
) -> None:
    """A gap stands in the place of the loss; no other consumer loses anything."""
    stuck, other = harness.box(limit=10), harness.box(limit=100)
    harness.receive(25)
    await asyncio.sleep(1)
    assert (stuck.dropped, len(stuck)) == (15, 10 + 1)
    assert stuck.take() == Gap("a", GapReason.OVERFLOW, None, 15)
    assert (other.dropped, len(other)) == (0, 25)


async def test_r28_a_consumer_that_keeps_up_loses_nothing(harness: RouterHarness) -> None:
    """One read brings far more than the buffer holds, to one who takes all in its turn."""
    box = harness.box(limit=10)
    harness.consume(box, each_turn=1_000)
    await asyncio.sleep(0)
    harness.receive(1_000)
    assert harness.reading.paused
    await harness.turns_until_resumed()
    assert (box.dropped, len(box)) == (0, 0)


async def test_r28_a_consumer_that_makes_room_is_given_more_turns(harness: RouterHarness) -> None:
    """As long as its backlog shrinks, reading stays paused and nothing is dropped."""
    box = harness.box(limit=10)
    harness.consume(box, each_turn=10)
    await asyncio.sleep(0)
    harness.receive(100)
    assert await harness.turns_until_resumed() >= 9
    assert box.dropped == 0


async def test_r27_turns_for_a_slow_consumer_come_to_an_end(harness: RouterHarness) -> None:
    """One that takes a single notification each turn does not hold up the socket."""
    box = harness.box(limit=10)
    harness.consume(box, each_turn=1)
    await asyncio.sleep(0)
    harness.receive(1_000)
    assert await harness.turns_until_resumed() <= 25
    assert box.dropped > 900
    assert len(box) <= 10 + 1


async def test_r28_a_consumer_that_waits_for_its_turn_is_not_too_slow_yet(
    harness: RouterHarness,
) -> None:
    """While others have theirs it cannot make room, however many turns that takes."""
    box, turns = harness.box(limit=10), harness.router.turns
    others = [turns.next() for _ in range(200)]  # more than have their share in one turn
    await asyncio.sleep(0)  # the round of those begins without the consumer, also an eager one

    async def take_all_in_turn() -> None:
        await turns.next()
        while box.take() is not None:
            pass

    consumer = asyncio.create_task(take_all_in_turn())
    await asyncio.sleep(0)
    harness.receive(25)
    await asyncio.wait(others)
    assert (box.dropped, len(box)) == (0, 25)
    await consumer
    assert await harness.turns_until_resumed() <= 4
    assert box.dropped == 0


async def test_what_was_held_is_trimmed_at_once(harness: RouterHarness) -> None:
    """Nobody can make room there before the gap has come."""
    box = harness.box(limit=10)
    box.hold()
    harness.receive(25)
    assert await harness.turns_until_resumed() <= 4
    assert box.dropped == 15


async def test_r28_overflow_is_a_warning_once_a_minute(
    harness: RouterHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """It names the channel, the buffer and the loss; each subscription has its own minute."""
    caplog.set_level(logging.INFO)
    box = harness.box(limit=10)
    for seconds in (1, 58, 3, 1):
        harness.receive(25)
        await asyncio.sleep(seconds)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "the consumer of 'a' is too slow: its buffer of 10 overflowed and 15" in messages[0]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert box.dropped == 4 * 25 - 10
    harness.box(limit=10)
    harness.receive(25)
    await asyncio.sleep(1)
    assert len(caplog.records) == 3


async def test_overflow_that_was_not_to_be_borne_ends_the_mailbox(harness: RouterHarness) -> None:
    """With overflow="fail" the trim at the end of the turn ends it; reading goes on."""
    box = harness.box(limit=10, overflow="fail")
    harness.receive(25)
    assert len(box) == 25
    await asyncio.sleep(1)
    assert not box.is_open
    harness.receive(QUANTUM)
    await asyncio.sleep(1)
    assert not harness.reading.paused
    assert len(box) == 10


async def test_a_mailbox_that_is_forgotten_while_it_is_full_is_not_trimmed(
    harness: RouterHarness,
) -> None:
    """Its subscription has ended in the meantime; the pause ends all the same."""
    box = harness.box(limit=10)
    harness.receive(25)
    harness.registry.remove(harness.registry.subscribers[0])
    await asyncio.sleep(1)
    assert (box.dropped, harness.reading.paused) == (0, False)


async def test_time_is_not_spent_on_an_idle_connection(harness: RouterHarness) -> None:
    """Nothing is scheduled when nothing has come: the clock jumps to the next timer."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    harness.box()
    before = loop.time()
    await asyncio.sleep(80_000)
    assert loop.time() - before == pytest.approx(80_000)
    assert harness.router.received == 0
