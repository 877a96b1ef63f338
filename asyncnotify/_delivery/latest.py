"""A mailbox that keeps the newest notification of each channel."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice, repeat, starmap
from typing import TYPE_CHECKING, Any

from asyncnotify._delivery.mailbox import Item, Mailbox, merge_gaps
from asyncnotify._model import Gap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncnotify._model import Notification

    Items = OrderedDict[object, Item]
    Held = OrderedDict[object, Notification[Any]]


class LatestMailbox(Mailbox):
    """
    Keeps the newest notification of each channel; an older one that waits is replaced.

    This mailbox cannot overflow: at most one notification of each channel waits, and adjacent
    gaps are merged.
    """

    __slots__ = ("_held", "_ready", "_tail")

    def __init__(self) -> None:
        super().__init__()
        self._ready: Items = OrderedDict()  # notifications by their channel, gaps by themselves
        self._held: Held | None = OrderedDict()
        self._tail: Items | Held = self._held

    def put(self, notification: Notification[Any]) -> None:
        """Add a notification. Never waits, never fails."""
        self._conflate(self._tail, notification)
        if self._waiters and self._ready:
            self._wake_one()

    def _conflate(self, items: Items | Held, notification: Notification[Any]) -> None:
        if items.pop(notification.channel, None) is not None:
            self.conflated += 1
        items[notification.channel] = notification

    def take(self) -> Item | None:
        """Remove and return what comes next; None if nothing can be taken now."""
        ready = self._ready
        for key in ready:
            self.taken += 1
            item = ready[key]
            del ready[key]  # no call follows: what a signal handler raises there would lose it
            return item
        return None

    def __iter__(self) -> Iterator[Item]:
        """Iterate over what can be taken, in order, without taking it."""
        return iter(self._ready.values())

    def remove(self, count: int) -> None:
        """Take so many items that have been looked at. Nothing is called after they are gone."""
        [*_] = starmap(self._ready.popitem, repeat((False,), count))
        self.taken += count

    def replace(self, gap: Gap) -> None:
        """Let a gap come next in place of the next notification, and of a gap before that."""
        ready, key = self._ready, id(gap)
        first, second = [*islice(ready, 2), None][:2]
        is_gap = ready[first].__class__ is Gap
        ready[key] = gap
        ready.move_to_end(key, last=False)  # what is raised after it leaves the notification too
        if is_gap:
            del ready[first], ready[second]
        else:
            del ready[first]
            self.gaps += 1
        self.taken += 1

    def take_gap(self) -> Gap | None:
        """Remove and return the gaps at the head, merged into one; None if there is none."""
        ready, merged = self._ready, None
        while ready and isinstance(head := next(iter(ready.values())), Gap):
            merged = merge_gaps(merged, head)
            ready.popitem(last=False)
        if merged is not None:
            self.taken += 1
        return merged

    def hold(self) -> None:
        """Keep what arrives from here on from the consumer, until release()."""
        if self._open:
            self._held = OrderedDict()
            self._tail = self._held

    def release(self, gap: Gap) -> None:
        """Append the gap, and after it what has been held; the consumer may take both."""
        if not self._open:
            return
        self._append_gap(gap)
        self._emit_held()

    def _emit_held(self) -> None:
        self.gaps += 1
        held, self._held = self._held, None
        self._tail = self._ready
        if held:
            for notification in held.values():
                self._conflate(self._ready, notification)
        if self._ready:
            self._wake_all()

    def _append_gap(self, gap: Gap) -> None:
        """Append a gap, and merge adjacent gaps: replacing notifications may leave some."""
        items = [*self._ready.values(), gap]
        self._ready.clear()
        newest: Gap | None = None
        for item in items:
            if not isinstance(item, Gap):
                newest = None
                self._ready[item.channel] = item
                continue
            if newest is not None:
                del self._ready[id(newest)]
                self.gaps -= 1
            newest = merge_gaps(newest, item)
            self._ready[id(newest)] = newest

    def end(self, *, discard: bool) -> None:
        """Accept no more; the consumer may take what waits, unless that is discarded."""
        self._held = None
        self._tail = OrderedDict()  # what still arrives is put into a dict that is never read
        super().end(discard=discard)

    def purge(self, channel: str) -> None:
        """Discard the notification of this channel that waits."""
        self._ready.pop(channel, None)
        self._tail.pop(channel, None)

    def _discard(self) -> None:
        self._ready.clear()

    @property
    def readable(self) -> bool:
        """Whether take() would return something."""
        return bool(self._ready)

    def __len__(self) -> int:
        """Return how many items wait, held ones included."""
        return len(self._ready) + len(self._held or ())
