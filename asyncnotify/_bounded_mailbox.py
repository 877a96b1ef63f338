"""A mailbox that keeps every notification in order, up to a limit."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from asyncnotify._errors import BufferOverflowError
from asyncnotify._mailbox import Item, Mailbox, merge_gaps
from asyncnotify._model import Gap, GapReason, Notification

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

Overflow: TypeAlias = Literal["drop_oldest", "drop_newest", "fail"]


class BoundedMailbox(Mailbox):
    """
    Keeps every notification in order, up to a limit.

    What exceeds the limit is not dropped at once: one read of the socket can bring tens of
    thousands of notifications, and a consumer that keeps up deserves its turn before an
    overflow is counted. ``on_full`` is told instead, and calls trim() when that turn is over.
    """

    __slots__ = (
        "_channel",
        "_displaced",
        "_held",
        "_known_good",
        "_lost_at_head",
        "_on_full",
        "_overflow",
        "_ready",
        "_since",
        "_tail",
        "limit",
    )

    def __init__(
        self,
        limit: int,
        overflow: Overflow,
        *,
        channel: str | None,
        known_good: Callable[[], datetime | None],
        on_full: Callable[[BoundedMailbox], None],
    ) -> None:
        super().__init__()
        self.limit = limit
        self._overflow = overflow
        self._channel = channel
        self._known_good = known_good
        self._on_full = on_full
        self._ready: deque[Item] = deque()
        self._held: deque[Item] | None = deque()
        self._tail = self._held
        self._since: datetime | None = None
        self._lost_at_head = 0
        self._displaced: Gap | None = None  # what the overflow pushed out but may not swallow

    def put(self, notification: Notification[Any]) -> None:
        """Add a notification. Never waits, never fails."""
        tail = self._tail
        if not tail and not self._ready:
            self._since = self._known_good()
        tail.append(notification)
        if self._waiters:
            self._wake_one()
        if len(tail) > self.limit:
            self._on_full(self)

    def take(self) -> Item | None:
        """Remove and return what comes next; None if nothing can be taken now."""
        if self._lost_at_head or self._displaced:
            return self._take_from_head()
        if self._ready:
            self.taken += 1
            return self._ready.popleft()
        return None

    def _take_from_head(self) -> Gap:
        self.taken += 1
        if self._displaced:
            gap, self._displaced = self._displaced, None
            return gap
        lost, self._lost_at_head = self._lost_at_head, 0
        return self._overflow_gap(lost)

    def take_gap(self) -> Gap | None:
        """Remove and return the gaps that wait, as one that stands for them all."""
        merged: Gap | None = None
        while self._lost_at_head or self._displaced:
            merged = merge_gaps(merged, self._take_from_head())
        gaps = [item for item in self._ready if isinstance(item, Gap)]
        if gaps:
            kept = [item for item in self._ready if not isinstance(item, Gap)]
            self._ready.clear()
            self._ready.extend(kept)
            self.taken += len(gaps)
        for gap in gaps:
            merged = merge_gaps(merged, gap)
        return merged

    def hold(self) -> None:
        """Let the consumer see nothing that arrives from here on, until release()."""
        if self._open:
            self._held = self._tail = deque()

    def release(self, gap: Gap) -> None:
        """Emit the gap, and after it what has been held."""
        if not self._open:
            return
        held, self._held = self._held, None
        self._tail = self._ready
        self.gaps += 1
        self._ready.append(gap)
        if held:
            self._ready.extend(held)
        self._wake_all()
        if len(self._ready) > self.limit:
            self._on_full(self)

    def purge(self, channel: str) -> None:
        """Throw away what waits of this channel."""
        for items in (self._ready, self._held):
            if items:
                kept = [i for i in items if isinstance(i, Gap) or i.channel != channel]
                items.clear()
                items.extend(kept)

    @property
    def label(self) -> str:
        """How a log line names the consumer."""
        return "a stream of several channels" if self._channel is None else repr(self._channel)

    @property
    def full(self) -> bool:
        """Whether there is more than the limit."""
        return self._open and len(self._tail) > self.limit

    def trim(self) -> int:
        """Drop what exceeds the limit, as the policy says; return how many were dropped."""
        if not self.full:
            return 0
        before = self.dropped
        if self._held is not None:
            self._trim_held(self._held)
        elif self._overflow == "drop_oldest":
            self._drop_oldest()
        else:
            self._drop_newest()
        return self.dropped - before

    def _drop_oldest(self) -> None:
        ready, before = self._ready, self._lost_at_head
        while len(ready) > self.limit:
            item = ready.popleft()
            if isinstance(item, Gap):
                self._displace(item)
            else:
                self._lost_at_head += 1
                self.dropped += 1
        if self._lost_at_head and not before:
            self.gaps += 1

    def _displace(self, gap: Gap) -> None:
        if gap.reason is GapReason.OVERFLOW:
            self._lost_at_head += gap.dropped or 0
            self.gaps -= 1
        else:
            self._displaced = merge_gaps(self._displaced, gap)

    def _drop_newest(self) -> None:
        ready, lost, kept = self._ready, 0, None
        before = self.dropped
        while len(ready) > self.limit:
            item = ready.pop()
            if not isinstance(item, Gap):
                lost += 1
                self.dropped += 1
            elif item.reason is GapReason.OVERFLOW:
                lost += item.dropped or 0
                self.gaps -= 1
            else:
                kept = merge_gaps(item, kept) if kept else item
        if kept:
            ready.append(kept)
        if self._overflow == "fail":
            self._fail(BufferOverflowError(self.limit, self.dropped - before))
        elif lost:
            self.gaps += 1
            ready.append(self._overflow_gap(lost))

    def _trim_held(self, held: deque[Item]) -> None:
        """Make room among the held: a gap of its own tells of it, behind the one to come."""
        lost = 0
        while len(held) > self.limit:
            item = held.popleft()
            lost += (item.dropped or 0) if isinstance(item, Gap) else 1
            self.dropped += 0 if isinstance(item, Gap) else 1
        held.appendleft(self._overflow_gap(lost))
        self.gaps += 1
        if self._overflow == "fail":
            self._fail(BufferOverflowError(self.limit, lost))

    def _overflow_gap(self, lost: int) -> Gap:
        return Gap(self._channel, GapReason.OVERFLOW, self._since, lost)

    def end(self, *, discard: bool) -> None:
        """Accept no more; the consumer may take what is there, unless it is discarded."""
        self._held = None
        self._tail = deque(maxlen=0)  # swallows what still comes
        super().end(discard=discard)

    def _discard(self) -> None:
        self._ready.clear()
        self._lost_at_head = 0
        self._displaced = None

    @property
    def readable(self) -> bool:
        """Whether take() would return something."""
        return bool(self._ready or self._lost_at_head or self._displaced)

    def __len__(self) -> int:
        """Return how many items wait, held ones included."""
        return len(self._ready) + len(self._held or ())
