"""A mailbox that keeps the newest notification of each channel."""

from __future__ import annotations

from typing import Any

from asyncnotify._mailbox import Item, Mailbox, merge_gaps
from asyncnotify._model import Gap, Notification


class LatestMailbox(Mailbox):
    """
    Keeps the newest notification of each channel; an older one that waits is replaced.

    Its size is bounded by the number of channels, so it cannot overflow.
    """

    __slots__ = ("_held", "_ready", "_tail")

    def __init__(self) -> None:
        super().__init__()
        self._ready: dict[str | None, Item] = {}  # by channel; None is the place of the gap
        self._held: dict[str | None, Item] | None = {}
        self._tail = self._held

    def put(self, notification: Notification[Any]) -> None:
        """Add a notification. Never waits, never fails."""
        self._conflate(self._tail, notification)
        if self._waiters and self._ready:
            self._wake_one()

    def _conflate(self, items: dict[str | None, Item], notification: Notification[Any]) -> None:
        if items.pop(notification.channel, None) is not None:
            self.conflated += 1
        items[notification.channel] = notification

    def take(self) -> Item | None:
        """Remove and return what comes next; None if nothing can be taken now."""
        for key in self._ready:
            self.taken += 1
            return self._ready.pop(key)
        return None

    def take_gap(self) -> Gap | None:
        """Remove and return the gap that waits."""
        gap = self._ready.pop(None, None)
        if not isinstance(gap, Gap):
            return None
        self.taken += 1
        return gap

    def hold(self) -> None:
        """Let the consumer see nothing that arrives from here on, until release()."""
        if self._open:
            self._held = self._tail = {}

    def release(self, gap: Gap) -> None:
        """Emit the gap, and after it what has been held."""
        if not self._open:
            return
        held, self._held = self._held or {}, None
        self._tail = self._ready
        self.gaps += 1
        self._ready[None] = merge_gaps(self.take_gap(), gap)
        for notification in held.values():
            if isinstance(notification, Notification):
                self._conflate(self._ready, notification)
        self._wake_all()

    def end(self, *, discard: bool) -> None:
        """Accept no more; the consumer may take what is there, unless it is discarded."""
        self._held = None
        self._tail = {}  # swallows what still comes
        super().end(discard=discard)

    def purge(self, channel: str) -> None:
        """Throw away what waits of this channel."""
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
