"""Whatever happens to a mailbox, its consumer sees what was put, or is told at its place."""

from __future__ import annotations

import contextlib
import functools
import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asyncnotify._delivery.bounded import BoundedMailbox
from asyncnotify._delivery.mailbox import merge_gaps
from asyncnotify._model import Gap, GapReason, Notification
from tests.unit.fake_sources import RecordingSource, at

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncnotify._delivery.bounded import Overflow

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def begins(gap: Gap) -> datetime:
    """Return from when on a gap covers what was sent."""
    return gap.since or EPOCH


def begin_to_wait(box: BoundedMailbox) -> None:
    """Do what wait() does before it waits: here is no loop to do that on."""
    waiting = box.wait()
    with contextlib.suppress(RuntimeError, StopIteration):
        waiting.send(None)
    waiting.close()


@dataclass
class Sent:
    """A notification on its way: when delivery was last good as it came, and what became of it."""

    number: int
    channel: str
    known_good: datetime
    lost: bool = False
    reread: bool = False

    @property
    def waits(self) -> bool:
        """Whether the consumer is going to get it."""
        return not (self.lost or self.reread)


class MailboxMachine(RuleBasedStateMachine):
    """
    Puts and takes in any order, beside plain lists of what should be seen.

    ``ready`` is what the consumer will see, in order: gaps, notifications, and those that were
    lost, or said "read again", each at its place. Between two notifications that it does see, it
    has to be told of every gap and of exactly so many lost ones.
    """

    @initialize(limit=st.integers(1, 4), overflow=st.sampled_from(["drop_oldest", "drop_newest"]))
    def open(self, limit: int, overflow: Overflow) -> None:
        """Begin with an empty mailbox that is held, as a subscription does."""
        self.limit, self.overflow = limit, overflow
        self.now = self.good_until = EPOCH
        self.source = RecordingSource(at(self.now))
        self.full = self.source.full
        self.box = BoundedMailbox(limit, overflow, channel="a", source=self.source)
        self.ready: list[Sent | Gap] = []
        self.held: list[Sent] | None = []
        self.told: list[Gap] = []  # since the last notification that was taken
        self.sent = self.lost = self.taken = 0
        self.gaps = 0  # since the consumer last waited: they do not count against the limit

    @rule(channel=st.sampled_from("ab"), count=st.integers(1, 6))
    def put(self, channel: str, count: int) -> None:
        """The socket brings some."""
        for _ in range(count):
            self.sent += 1
            self.box.put(Notification(channel, str(self.sent), 7))
            tail = self.ready if self.held is None else self.held
            tail.append(Sent(self.sent, channel, self.now))
            waiting = sum(isinstance(item, Sent) and item.waits for item in tail)
            assert self.full or waiting <= self.limit + self.gaps, "nobody was told"

    @precondition(lambda self: self.held is None)
    @rule()
    def verify(self) -> None:
        """A heartbeat is answered."""
        self.now += timedelta(seconds=10)
        self.source.verified_at = at(self.now)

    @rule()
    def hold(self) -> None:
        """The connection is lost; what was held for it will be covered by the gap to come."""
        self.box.hold()
        if self.held is None:
            self.good_until = self.now
        self.held = []

    @rule(reason=st.sampled_from([GapReason.RECONNECT, GapReason.UNLISTENED]))
    def release(self, reason: GapReason) -> None:
        """LISTEN is in force again."""
        if self.held is not None:
            gap = Gap("a", reason, self.good_until)
            self.box.release(gap)
            self.gaps += 1
            self.ready += [gap, *self.held]
            self.held = None

    @rule()
    def trim(self) -> None:
        """The consumer has had its turn: drop what is too much, and not one more."""
        self.full.clear()
        dropped = self.box.trim()
        self.lost += dropped
        self.gaps += bool(dropped)
        tail = self.ready if self.held is None else self.held
        waiting = [item for item in tail if isinstance(item, Sent) and item.waits]
        if dropped:
            assert len(waiting) - dropped == self.limit
        else:
            assert len(waiting) <= self.limit + self.gaps
        newest = self.overflow == "drop_newest"
        for item in waiting[len(waiting) - dropped :] if newest else waiting[:dropped]:
            item.lost = True

    @rule(count=st.integers(1, 5))
    def take(self, count: int) -> None:
        """The consumer takes some."""
        for _ in range(count):
            item = self.box.take()
            self.taken += item is not None
            if isinstance(item, Gap):
                self.told.append(item)
            elif item is None:
                self.check_told(self.ready)
                assert not any(isinstance(x, Sent) and x.waits for x in self.ready)
                self.ready, self.told = [], []
                begin_to_wait(self.box)
                self.gaps = 0 if self.held is None else self.gaps
                break
            else:
                self.meet(int(item.payload))

    @rule(count=st.integers(1, 5))
    def read_again(self, count: int) -> None:
        """Some that come next say "read again", of one change each: a gap replaces them."""
        for _ in range(count):
            head, second = [*itertools.islice(self.box, 2), None, None][:2]
            gap = head if isinstance(head, Gap) and head.reason is GapReason.REREAD else None
            if not isinstance(head if gap is None else second, Notification):
                break
            self.box.replace(merge_gaps(gap, Gap("a", GapReason.REREAD, self.box.since, 1)))
            self.taken += 1
            self.gaps += gap is None
            next(x for x in self.ready if isinstance(x, Sent) and x.waits).reread = True

    @rule()
    def take_gap(self) -> None:
        """The consumer asks for a newer gap: those at the head become one, no other moves."""
        gap = self.box.take_gap()
        if gap is None:
            return
        self.told.append(gap)
        self.taken += 1
        waiting = (i for i, x in enumerate(self.ready) if isinstance(x, Sent) and x.waits)
        head = next(waiting, len(self.ready))
        self.check_told(self.ready[:head], counted=gap.reason is GapReason.OVERFLOW)
        self.ready, self.told = self.ready[head:], []

    def meet(self, number: int) -> None:
        """A notification is taken: it is the next one, and all before it has been told."""
        place = next(i for i, x in enumerate(self.ready) if isinstance(x, Sent) and x.waits)
        item = self.ready[place]
        assert isinstance(item, Sent)
        assert item.number == number
        self.check_told(self.ready[:place])
        self.ready, self.told = self.ready[place + 1 :], []

    def check_told(self, untaken: Iterable[Sent | Gap], *, counted: bool = True) -> None:
        """Every gap has been told, and exactly so many lost, none later than they were sent."""
        gaps = [item for item in untaken if isinstance(item, Gap)]
        lost = [item for item in untaken if isinstance(item, Sent) and item.lost]
        rereads = [item for item in untaken if isinstance(item, Sent) and item.reread]
        overflows = [gap for gap in self.told if gap.reason is GapReason.OVERFLOW]
        mere = [gap for gap in self.told if gap.reason is GapReason.REREAD]
        assert bool(gaps) == (len(overflows) + len(mere) < len(self.told))
        assert self.told or not rereads
        assert sum(gap.dropped or 0 for gap in mere) <= len(rereads)
        assert gaps or overflows or sum(gap.dropped or 0 for gap in mere) == len(rereads)
        if gaps:
            told, due = functools.reduce(merge_gaps, self.told), functools.reduce(merge_gaps, gaps)
            assert begins(told) <= begins(due)
        if counted:
            assert sum(gap.dropped or 0 for gap in overflows) == len(lost)
        first = min(map(begins, self.told), default=self.now)
        assert all(first <= item.known_good for item in [*lost, *rereads])

    @rule()
    def purge(self) -> None:
        """A stream of several channels unlistens one."""
        self.box.purge("b")
        self.ready = [x for x in self.ready if isinstance(x, Gap) or self.stays(x)]
        if self.held is not None:
            self.held = [x for x in self.held if self.stays(x)]

    def stays(self, item: Sent) -> bool:
        """Return whether a purge of "b" leaves it, or the gap in its place."""
        return not item.waits or item.channel != "b"

    @invariant()
    def counts_agree(self) -> None:
        """The counters are what a bystander would count."""
        assert (self.box.dropped, self.box.taken) == (self.lost, self.taken)

    def teardown(self) -> None:
        """In the end the consumer takes all there is."""
        self.release(GapReason.RECONNECT)
        self.take(len(self.ready) + 1)
        assert self.box.take() is None


TestConversation = MailboxMachine.TestCase
