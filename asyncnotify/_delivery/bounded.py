"""A mailbox that keeps every notification in order, up to a limit."""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from asyncnotify._delivery.mailbox import Item, Mailbox, merge_gaps
from asyncnotify._errors import BufferOverflowError
from asyncnotify._model import Gap, GapReason, Notification

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from asyncnotify._delivery.moment import Moment
    from asyncnotify._delivery.turns import Turns

_LOOK_EVERY: Final = 0x3F
"""A mask: one in 64 items that are taken one by one is followed by a look at the clock."""

_GAPS_KEPT: Final = 64
"""Gaps that may wait for a stuck consumer before adjacent ones are merged."""

Overflow: TypeAlias = Literal["drop_oldest", "drop_newest", "fail"]
"""What ``overflow=`` takes: what happens when more notifications wait than ``buffer=`` allows."""


class Source(Protocol):
    """What puts notifications into a mailbox."""

    @property
    def verified_at(self) -> Moment | None:
        """When delivery was last known to be good."""

    @property
    def turns(self) -> Turns:
        """The turns that the consumers of the listener share."""
        ...

    def on_full(self, mailbox: BoundedMailbox) -> None:
        """Call trim() after the consumer has had a turn of the event loop."""


class BoundedMailbox(Mailbox):
    """
    Keeps every notification in order, up to a limit.

    What exceeds the limit is not dropped at once: one read of the socket can bring tens of
    thousands of notifications, more than the limit, before a consumer that keeps up has had a
    turn of the event loop. So put() calls ``on_full()`` of the source, which calls trim() after
    that turn.
    """

    __slots__ = (
        "_channel",
        "_counted_at",
        "_held",
        "_overflow",
        "_since",
        "_source",
        "_tail",
        "_threshold",
        "limit",
        "ready",
        "taking",
    )

    taken: int  # as in Mailbox: checkers do not take an assignment for an inherited type
    gaps: int
    dropped: int

    def __init__(
        self,
        limit: int,
        overflow: Overflow,
        *,
        channel: str | None,
        source: Source,
    ) -> None:
        super().__init__()
        self.limit: int = limit
        self._threshold = limit  # the limit, and one for each gap that waits: gaps do not count
        self._counted_at = 0  # how many items had been taken when trim() last counted the gaps
        self._overflow = overflow
        self._channel = channel
        self._source = source
        self.ready: deque[Item] = deque()  # what can be taken
        # Takes, by a step of a loop, which is no call: what a signal handler raises after a call
        # of popleft() would lose the item. To be stepped only while something is ready, and
        # whoever does adds to ``taken``
        self.taking: Iterator[Item] = itertools.starmap(self.ready.popleft, itertools.repeat(()))
        self._held: deque[Item] | None = deque()
        self._tail = self._held
        self._since: Moment | None = None

    @property
    def since(self) -> datetime | None:
        """A time before what waits was sent, at which delivery was good; None: unknown."""
        return None if self._since is None else self._since.earliest()

    def put(self, notification: Notification[Any]) -> None:
        """Add a notification. Never waits, never fails."""
        tail = self._tail
        tail.append(notification)
        if self._waiters:
            self._wake_one()
        size = len(tail)
        if size == 1:
            self._threshold = self.limit  # no gap waits here any more
            if tail is self.ready or not self.ready:
                self._since = self._source.verified_at  # what is lost later was sent after that
        if size > self._threshold:
            self._source.on_full(self)

    def take(self) -> Item | None:
        """Remove and return what comes next; None if nothing can be taken now."""
        if self.ready:
            self.taken += 1
            for item in self.taking:
                return item
        return None

    def take_in_turn(self) -> Item | None:
        """As take(), but None also if the budget of this turn is used up: see next_arrival()."""
        if self.ready:
            taken = self.taken + 1
            if not taken & _LOOK_EVERY and self._source.turns.is_over:
                return None
            self.taken = taken
            for item in self.taking:
                return item
        return None

    def next_arrival(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None] | None:
        """Return a future that is done once the consumer may take something in its turn."""
        return self._source.turns.next() if self.ready else super().next_arrival(loop)

    async def wait_for_turn(self) -> None:
        """Return when the consumer may run again, if the budget of this turn is used up."""
        turns = self._source.turns
        if self.ready and turns.is_taken:
            await turns.next()

    async def give_way(self) -> None:
        """Let other tasks run, if the budget of this turn is used up."""
        turns = self._source.turns
        if turns.is_over:
            await turns.next()

    def __iter__(self) -> Iterator[Item]:
        """Iterate over what can be taken, in order, without taking it."""
        return iter(self.ready)

    def peek_in_turn(self) -> Item | None:
        """Return what take_in_turn() would, and let it stay."""
        if not self.ready or (not self.taken + 1 & _LOOK_EVERY and self._source.turns.is_over):
            return None
        return self.ready[0]

    def remove(self, count: int) -> None:
        """Take so many items that have been looked at. Nothing is called after they are gone."""
        ready = self.ready
        if count == len(ready):
            ready *= 0  # clear() would be a call
        else:
            [*_] = itertools.islice(self.taking, count)
        self.taken += count

    def replace(self, gap: Gap) -> None:
        """Let a gap come next in place of the next notification, and of a gap before that."""
        ready = self.ready
        if ready[0].__class__ is Gap:
            ready[0] = gap
            del ready[1]
        else:
            ready[0] = gap
            self.gaps += 1
            if self._tail is ready:
                self._threshold += 1
        self.taken += 1

    def take_gap(self) -> Gap | None:
        """Remove and return the gaps at the head, merged into one; None if there is none."""
        ready, merged = self.ready, None
        while ready and isinstance(head := ready[0], Gap):
            merged = merge_gaps(merged, head)
            ready.popleft()
        if merged is not None:
            self.taken += 1  # the caller gets one item
            self._threshold = self.limit + _gaps_among(self._tail)
        return merged

    def hold(self) -> None:
        """Keep what arrives from here on from the consumer, until release()."""
        if self._open:
            self._held = self._tail = deque()
            self._threshold = self.limit

    def release(self, gap: Gap) -> None:
        """Append the gap, and after it what has been held; the consumer may take both."""
        if not self._open:
            return
        if not self.ready:
            self._since = self._source.verified_at
        self.ready.append(gap)
        if _gaps_among(self.ready) > _GAPS_KEPT:
            self._merge_adjacent_gaps()
        self._emit_held()

    def _emit_held(self) -> None:
        self.gaps += 1
        held, self._held = self._held, None
        self._tail = self.ready
        if held:
            self.ready.extend(held)
        self._threshold = self.limit + _gaps_among(self.ready)
        if self.ready:
            self._wake_all()
        if len(self.ready) > self._threshold:
            self._source.on_full(self)

    def _merge_adjacent_gaps(self) -> None:
        """Merge adjacent gaps: a buffer must not grow with the number of losses."""
        items: list[Item] = []
        for item in self.ready:
            if items and isinstance(item, Gap) and isinstance(items[-1], Gap):
                items[-1] = merge_gaps(items[-1], item)
                self.gaps -= 1
            else:
                items.append(item)
        self.ready.clear()
        self.ready.extend(items)

    def purge(self, channel: str) -> None:
        """Discard the notifications of this channel that wait."""
        for items in (self.ready, self._held):
            if items:
                kept = [i for i in items if isinstance(i, Gap) or i.channel != channel]
                items.clear()
                items.extend(kept)

    @property
    def channel(self) -> str | None:
        """The channel of the subscription; None if it has several."""
        return self._channel

    @property
    def label(self) -> str:
        """How a log line names the consumer."""
        return "a stream of several channels" if self._channel is None else repr(self._channel)

    @property
    def full(self) -> bool:
        """Whether more notifications wait than the limit."""
        return self._open and len(self._tail) > self._threshold

    def trim(self) -> int:
        """Drop what exceeds the limit, as the policy says; return how many were dropped."""
        if not self.full:
            return 0
        if self._counted_at != self.taken and self._threshold > self.limit:
            # Only if something was taken: counting looks at every item, and while the consumer is
            # stuck each overflow would pay for that
            self._threshold = self.limit + _gaps_among(self._tail)
            self._counted_at = self.taken
        excess = len(self._tail) - self._threshold
        self.dropped += excess
        gaps_before = self.gaps
        self._drop(excess)
        self._threshold += self.gaps - gaps_before
        return excess

    def _drop(self, excess: int) -> None:
        if self._overflow == "drop_newest":
            self._drop_newest(excess)
        elif self._overflow == "fail":
            self._drop_newest(excess)
            self._tail.pop()  # no Gap: the error reports the overflow
            self.gaps -= 1
            self._fail(BufferOverflowError(self.limit, excess))
        else:
            self._drop_oldest(excess)

    def _drop_oldest(self, excess: int) -> None:
        """Drop at the head; gaps among what is dropped stay, in front of the rest."""
        tail, gaps, lost = self._tail, list[Gap](), 0
        while lost < excess or (tail and isinstance(tail[0], Gap)):
            item = tail.popleft()
            if isinstance(item, Gap):
                gaps.append(item)
            else:
                lost += 1
        tail.extendleft(reversed(self._merged_by_kind([*gaps, self._overflow_gap(lost)])))
        self.gaps -= len(gaps)

    def _drop_newest(self, excess: int) -> None:
        """Drop at the tail; gaps among what is dropped stay, behind the rest."""
        tail, gaps, lost = self._tail, list[Gap](), 0
        while lost < excess or (tail and isinstance(tail[-1], Gap)):
            item = tail.pop()
            if isinstance(item, Gap):
                gaps.insert(0, item)
            else:
                lost += 1
        tail.extend(self._merged_by_kind([*gaps, self._overflow_gap(lost)]))
        self.gaps -= len(gaps)

    def _merged_by_kind(self, gaps: list[Gap]) -> list[Gap]:
        """Return one gap for all overflows, with their exact sum, and one for all other gaps."""
        overflow: Gap | None = None
        other: Gap | None = None
        for gap in gaps:
            if gap.reason is GapReason.OVERFLOW:
                overflow = merge_gaps(overflow, gap)
            else:
                other = merge_gaps(other, gap)
        kept = [gap for gap in (other, overflow) if gap is not None]
        self.gaps += len(kept)
        return kept

    def _overflow_gap(self, lost: int) -> Gap:
        return Gap(self._channel, GapReason.OVERFLOW, self.since, lost)

    def end(self, *, discard: bool) -> None:
        """Accept no more; the consumer may take what waits, unless that is discarded."""
        self._held = None
        self._tail = deque(maxlen=0)  # discards what still arrives
        super().end(discard=discard)

    def _discard(self) -> None:
        self.ready.clear()

    @property
    def readable(self) -> bool:
        """Whether take() would return something."""
        return bool(self.ready)

    def __len__(self) -> int:
        """Return how many items wait, held ones included."""
        return len(self.ready) + len(self._held or ())


def _gaps_among(items: Iterable[Item]) -> int:
    return sum(1 for item in items if item.__class__ is Gap)
