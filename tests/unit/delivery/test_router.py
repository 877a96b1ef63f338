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
from tests.unit.clock import JumpingLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncnotify._delivery.bounded import Overflow

QUANTUM = 4_096
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Reading:
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


class Scene:
    """A delivery, the connection before it and the consumers behind it."""

    def __init__(self) -> None:
        self.router = Router(asyncio.get_running_loop())
        self.registry = Registry(self.router)
        self.reading = Reading()
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

    def bring(self, count: int, channel: str = "a") -> None:
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
async def scene() -> AsyncIterator[Scene]:
    """A connection that brings what the test says."""
    made = Scene()
    yield made
    for consumer in made.consumers:
        consumer.cancel()


# -- routing --------------------------------------------------------------------------------------


async def test_a_notification_goes_to_every_mailbox_of_its_channel_and_to_no_other(
    scene: Scene,
) -> None:
    """With what the server sent; one of a channel that nobody wants is counted and dropped."""
    one, two = scene.box(), scene.box()
    scene.router.on_notification(7, "a", "hello")
    scene.router.on_notification(8, "other", "x")
    assert one.take() == two.take() == ("a", "hello", 7)
    assert one.take() is two.take() is None
    assert scene.router.received == 2


async def test_received_counts_over_turns(scene: Scene) -> None:
    """Nothing is counted twice, in the middle of a turn or after it."""
    scene.bring(3)
    assert scene.router.received == 3
    await asyncio.sleep(1)
    scene.bring(2)
    assert scene.router.received == 5


async def test_the_server_was_heard_when_it_sent_something(scene: Scene) -> None:
    """One look at the clock a turn, however many notifications it brought."""
    await asyncio.sleep(50)
    scene.bring(10)
    await asyncio.sleep(5)
    assert scene.router.last_contact == pytest.approx(asyncio.get_running_loop().time() - 5)


async def test_when_delivery_was_last_good_is_known_from_the_supervisor(scene: Scene) -> None:
    """None before the first proof."""
    assert scene.router.verified_at is None
    scene.router.verify(NOON)
    assert scene.router.verified_at == NOON


# -- fairness -------------------------------------------------------------------------------------


async def test_reading_goes_on_below_the_quantum(scene: Scene) -> None:
    """4,095 in one turn are no reason to pause; nor are as many in each of several."""
    scene.box()
    for _ in range(3):
        scene.bring(QUANTUM - 1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert scene.reading.pauses == 0


async def test_reading_pauses_once_for_a_turn_after_the_quantum(scene: Scene) -> None:
    """However many more the read has brought; and it is read again though nobody consumes."""
    scene.box()
    scene.bring(QUANTUM - 1)
    assert scene.reading.pauses == 0
    scene.bring(1)
    assert scene.reading.paused
    scene.bring(3 * QUANTUM)
    assert await scene.turns_until_resumed() <= 3
    assert scene.reading.pauses == 1


async def test_a_pause_gives_consumers_their_turn(scene: Scene) -> None:
    """Before reading goes on, whoever waits for notifications has run."""
    box = scene.box()
    ran: list[bool] = []

    async def consume() -> None:
        await box.wait()
        ran.append(scene.reading.paused)

    scene.consumers.append(asyncio.create_task(consume()))
    await asyncio.sleep(0)
    scene.bring(QUANTUM)
    await scene.turns_until_resumed()
    assert ran == [True]


async def test_r27_reading_goes_on_whatever_the_consumers_do(scene: Scene) -> None:
    """Every consumer is stuck: each pause ends by itself, after few turns."""
    scene.box(limit=10)
    for _ in range(10):
        scene.bring(QUANTUM + 1)
        assert await scene.turns_until_resumed() <= 4
    assert scene.router.received == 10 * (QUANTUM + 1)


async def test_nothing_is_paused_where_there_is_nothing_to_pause(scene: Scene) -> None:
    """A connection whose transport cannot be seen: everything else goes on."""
    box = scene.box(limit=10)
    scene.router.connect(None)
    scene.bring(QUANTUM)
    await asyncio.sleep(1)
    assert (scene.reading.pauses, box.dropped) == (0, QUANTUM - 10)


async def test_a_transport_that_cannot_pause_is_not_resumed(scene: Scene) -> None:
    """It is closing, and says so."""
    scene.reading.able = False
    scene.bring(QUANTUM)
    await asyncio.sleep(1)
    assert (scene.reading.pauses, scene.reading.paused) == (1, False)


async def test_a_new_connection_is_not_held_up_by_the_pause_of_the_old(scene: Scene) -> None:
    """The old one's pause ends with it; the new one is neither paused nor resumed for it."""
    scene.bring(QUANTUM)
    new = Reading()
    scene.router.connect(new)
    await asyncio.sleep(1)
    assert (new.pauses, scene.reading.paused) == (0, True)
    scene.bring(QUANTUM)
    assert new.paused
    await asyncio.sleep(1)
    assert not new.paused


# -- overflow -------------------------------------------------------------------------------------


async def test_r28_a_stuck_consumer_loses_exactly_what_is_over_its_limit(scene: Scene) -> None:
    """And is told so at the place; nobody else loses anything."""
    stuck, other = scene.box(limit=10), scene.box(limit=100)
    scene.bring(25)
    await asyncio.sleep(1)
    assert (stuck.dropped, len(stuck)) == (15, 10 + 1)
    assert stuck.take() == Gap("a", GapReason.OVERFLOW, None, 15)
    assert (other.dropped, len(other)) == (0, 25)


async def test_r28_a_consumer_that_keeps_up_loses_nothing(scene: Scene) -> None:
    """One read brings far more than the buffer holds, to one who takes all in its turn."""
    box = scene.box(limit=10)
    scene.consume(box, each_turn=1_000)
    await asyncio.sleep(0)
    scene.bring(1_000)
    assert scene.reading.paused
    await scene.turns_until_resumed()
    assert (box.dropped, len(box)) == (0, 0)


async def test_r28_a_consumer_that_makes_room_is_given_more_turns(scene: Scene) -> None:
    """As long as its backlog shrinks, reading stays paused and nothing is dropped."""
    box = scene.box(limit=10)
    scene.consume(box, each_turn=10)
    await asyncio.sleep(0)
    scene.bring(100)
    assert await scene.turns_until_resumed() >= 9
    assert box.dropped == 0


async def test_r27_turns_for_a_slow_consumer_come_to_an_end(scene: Scene) -> None:
    """One that takes a single notification each turn does not hold up the socket."""
    box = scene.box(limit=10)
    scene.consume(box, each_turn=1)
    await asyncio.sleep(0)
    scene.bring(1_000)
    assert await scene.turns_until_resumed() <= 25
    assert box.dropped > 900
    assert len(box) <= 10 + 1


async def test_what_was_held_is_trimmed_at_once(scene: Scene) -> None:
    """Nobody can make room there before the gap has come."""
    box = scene.box(limit=10)
    box.hold()
    scene.bring(25)
    assert await scene.turns_until_resumed() <= 4
    assert box.dropped == 15


async def test_r28_overflow_is_a_warning_once_a_minute(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """It names the channel, the buffer and the loss; each subscription has its own minute."""
    caplog.set_level(logging.DEBUG)
    box = scene.box(limit=10)
    for seconds in (1, 58, 3, 1):
        scene.bring(25)
        await asyncio.sleep(seconds)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "the consumer of 'a' is too slow: its buffer of 10 overflowed and 15" in messages[0]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert box.dropped == 4 * 25 - 10
    scene.box(limit=10)
    scene.bring(25)
    await asyncio.sleep(1)
    assert len(caplog.records) == 3


async def test_overflow_that_was_not_to_be_borne_ends_the_mailbox(scene: Scene) -> None:
    """With overflow="fail" the trim at the end of the turn ends it; reading goes on."""
    box = scene.box(limit=10, overflow="fail")
    scene.bring(25)
    assert len(box) == 25
    await asyncio.sleep(1)
    assert not box.is_open
    scene.bring(QUANTUM)
    await asyncio.sleep(1)
    assert not scene.reading.paused
    assert len(box) == 10


async def test_a_mailbox_that_is_forgotten_while_it_is_full_is_not_trimmed(scene: Scene) -> None:
    """Its subscription has ended in the meantime; the pause ends all the same."""
    box = scene.box(limit=10)
    scene.bring(25)
    scene.registry.remove(scene.registry.subscribers[0])
    await asyncio.sleep(1)
    assert (box.dropped, scene.reading.paused) == (0, False)


async def test_time_is_not_spent_on_an_idle_connection(scene: Scene) -> None:
    """Nothing is scheduled when nothing has come: the clock jumps to the next timer."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, JumpingLoop)
    scene.box()
    before = loop.time()
    await asyncio.sleep(80_000)
    assert loop.time() - before == pytest.approx(80_000)
    assert scene.router.received == 0
