"""What a consumer knows, kept by ``resync`` and its handler, is true again after every loss."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncnotify._channels.channel import Channel
from asyncnotify._delivery.bounded import BoundedMailbox
from asyncnotify._delivery.latest import LatestMailbox
from asyncnotify._delivery.registry import Subscriber
from asyncnotify._model import GapReason, Notification, Reread
from asyncnotify._subscriptions.worker import HandlerWorker
from asyncnotify.testing.clock import VirtualTimeLoop
from tests.unit.fake_sources import TrimmingSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify._delivery.mailbox import Mailbox

KEYS: tuple[str, ...] = ("a", "b")
"""Each is a channel, and a row of the table: so the newest of each channel is all one needs."""

MAILBOXES: dict[str, Callable[[], Mailbox]] = {
    "drop_oldest": lambda: BoundedMailbox(2, "drop_oldest", channel=None, source=TrimmingSource()),
    "drop_newest": lambda: BoundedMailbox(2, "drop_newest", channel=None, source=TrimmingSource()),
    "roomy": lambda: BoundedMailbox(1_000, "drop_oldest", channel=None, source=TrimmingSource()),
    "latest": LatestMailbox,
}

AGAIN = "again"
"""A payload that does not say which value a row has: read it again."""

STEPS = st.lists(
    st.sampled_from(
        [*KEYS, "hint a", "hint b", "lose", "recover", "miss", "fail", "fail", "wait", "wait long"]
    ),
    max_size=40,
)


def number_of(text: str) -> int | Reread:
    """Return the number that a payload is, unless it is a hint."""
    return Reread(1) if text == AGAIN else int(text)


TEXTS: list[Channel[Any]] = []
NUMBERS: list[Channel[Any]] = [Channel(key, int) for key in KEYS]
HINTS: list[Channel[Any]] = [Channel(key, decode=number_of) for key in KEYS]


class ReplicatedTable:
    """Rows that are committed; a consumer that follows them; a connection that is lost."""

    def __init__(self, mailbox: Mailbox, *, concurrency: int, channels: list[Channel[Any]]) -> None:
        self.rows = dict.fromkeys(KEYS, 0)
        self.known: dict[str, int] = {}
        self.connected = True
        self.failures = 0
        self.takes_hints = channels is HINTS
        self.subscriber = Subscriber(KEYS, mailbox)
        self.worker = HandlerWorker(
            self.subscriber,
            self.handle,
            channels=channels,
            resync=self.resync,
            on_error=None,
            concurrency=concurrency,
        )

    def handle(self, n: Notification[Any]) -> None:
        """Take a row's value as it was when the notification was sent."""
        self.known[n.channel] = int(n.payload)

    async def resync(self, gap: object) -> None:
        """Read the whole table, which takes a moment; or fail."""
        await asyncio.sleep(0.05)
        if self.failures:
            self.failures -= 1
            raise OSError
        self.known = dict(self.rows)

    def commit(self, key: str, *, hint: bool = False) -> None:
        """Change a row, and tell of it, or give a hint: heard while the connection is there."""
        self.rows[key] += 1
        if self.connected:
            payload = AGAIN if hint and self.takes_hints else str(self.rows[key])
            self.subscriber.mailbox.put(Notification(key, payload, 7))

    async def take_step(self, step: str) -> None:
        """Do one of STEPS."""
        match step:
            case "lose" if self.connected:
                self.connected = False
                self.subscriber.interrupt(GapReason.RECONNECT, None)
            case "recover":
                self.recover()
            case "miss":
                await self.take_step("lose")
                self.commit("a")
                self.recover()
            case "fail":
                self.failures += 1
            case "wait":
                await asyncio.sleep(0.05)
            case "wait long":
                await asyncio.sleep(20)
            case "a" | "b" | "hint a" | "hint b":
                self.commit(step[-1], hint=step.startswith("hint"))
            case _:
                pass

    def recover(self) -> None:
        """LISTEN is in force again."""
        if not self.connected:
            self.connected = True
            self.subscriber.begin()


async def follow(table: ReplicatedTable, steps: list[str]) -> None:
    """Let a consumer follow the table while all this happens; in the end it has caught up."""
    worker = asyncio.create_task(table.worker.run())
    table.subscriber.begin()
    for step in steps:
        await table.take_step(step)
    table.recover()
    table.failures = 0
    await asyncio.sleep(1_000)
    known = dict(table.known)
    table.subscriber.mailbox.end(discard=True)
    await worker
    assert known == table.rows


@pytest.mark.parametrize("channels", [TEXTS, NUMBERS, HINTS], ids=["text", "int", "hints"])
@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("mailbox", MAILBOXES)
@given(steps=STEPS)
@example(steps=["wait long", "hint a", "fail", "hint b", "lose", "recover", "b", "hint b"])
@example(steps=["wait long", "a", "hint a", "hint b"])
def test_r46_what_a_consumer_knows_is_the_table(
    steps: list[str], mailbox: str, concurrency: int, channels: list[Channel[Any]]
) -> None:
    """However often resync fails and the connection is lost, nothing old comes after the Gap."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        table = ReplicatedTable(MAILBOXES[mailbox](), concurrency=concurrency, channels=channels)
        runner.run(follow(table, steps))


@pytest.mark.parametrize("mailbox", MAILBOXES)
def test_r46_an_old_notification_is_followed_by_the_gap_of_the_loss_after_it(mailbox: str) -> None:
    """resync fails, a notification waits, a change is missed, resync succeeds: no wrong state."""
    steps = ["fail", "fail", "a", "lose", "a", "recover", "wait long"]
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        table = ReplicatedTable(MAILBOXES[mailbox](), concurrency=1, channels=[])
        runner.run(follow(table, steps))
