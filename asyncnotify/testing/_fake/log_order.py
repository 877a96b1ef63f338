"""The events of a log in memory, and the order in which all readers see them."""

from __future__ import annotations

from bisect import bisect_right, insort
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from asyncnotify.log.sources import columns_of, packed
from asyncnotify.testing._fake.log_rows import Row, StoredEvent, StoredTick, answer, row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from asyncnotify.log.sources import Bucket, Entry, Settings
    from asyncnotify.testing._fake.state import State
    from asyncnotify.testing._fake.xids import Xids

_EMPTY_TICK_IDS: Final = 1_000
"""After so many ids a tick is taken also where nothing new is visible, as PostgreSQL does."""

_EVENT: Final = ("id", "uid", "channel", "key", "payload", "headers", "appended_at", "x")
_PORTION: Final = (*_EVENT, "found", "first_tick")
_PACKED: Final = ("fixed", "channels", "keys", "payloads", "with_headers", "headers")
_SHORT: Final = (*_PACKED, "short", "first_tick")
_NOTHING: Final = (None,) * (len(_EVENT) + 1)


def bucket_of(key: str | None, uid: object, count: int) -> int:
    """Return the number of the bucket of an event, as PostgreSQL computes it for a log."""
    text = str(uid) if key is None else key
    return int(sha256(text.encode()).hexdigest()[:8], 16) % count


class Order:
    """
    The events, and the ticks that order them: those of a tick were committed before it was taken.

    Within a tick the events are ordered by their ids, which they have since they were appended. So
    a transaction that stays open delays its own events only. Called under the server's lock.
    """

    def __init__(self, state: State, settings: Settings) -> None:
        self._state = state
        self._xids: Xids = state.xids
        self.settings: Settings = settings
        self._events: dict[int, StoredEvent] = {}
        self._ids: list[int] = []
        self._news: list[StoredEvent] = []  # not in a tick yet
        self._last_id = 0
        self.ticks: list[StoredTick] = [
            StoredTick(0, self._xids.next, frozenset(), 0, 0, 0, state.now())
        ]

    # -- appending ----------------------------------------------------------------------------

    def made(self, xid: int, entries: Sequence[Entry]) -> list[StoredEvent]:
        """Return events for what a transaction appends; nobody sees them yet."""
        return [self._made(xid, entry) for entry in entries]

    def _made(self, xid: int, entry: Entry) -> StoredEvent:
        self._last_id += 1
        channel, payload, key, headers, uid = entry
        now = self._state.now()
        slot = self._slot(now)
        return StoredEvent(self._last_id, uid, channel, key, payload, headers, now, xid, slot)

    def _slot(self, now: datetime) -> int:
        return int(now.timestamp()) // self.settings.slot_seconds % self.settings.ring

    def publish(self, event: StoredEvent) -> None:
        """Keep an event: its transaction commits."""
        self._events[event.id] = event
        insort(self._ids, event.id)
        self._news.append(event)

    @property
    def size(self) -> int:
        """Bytes of the payloads that are kept."""
        return sum(len(event.payload.encode()) for event in self._events.values())

    # -- ticks --------------------------------------------------------------------------------

    def tick(self) -> list[Row]:
        """Take a tick if something is new; answer with the number of the newest."""
        last = self.ticks[-1]
        if self._news or self._last_id - last.top >= _EMPTY_TICK_IDS:
            final = max((event.id for event in self._news), default=0)
            self.ticks.append(
                StoredTick(
                    last.number + 1,
                    self._xids.next,
                    self._xids.open,
                    self._last_id,
                    final,
                    last.total + len(self._news),
                    self._state.now(),
                )
            )
            self._news = []
        return answer(self.ticks[-1].number)

    def tick_of(self, number: int) -> StoredTick | None:
        """Return the tick of a number, if it is kept."""
        place = number - self.ticks[0].number
        return self.ticks[place] if 0 <= place < len(self.ticks) else None

    def rows_of_ticks(self, first: int, count: int) -> list[Row]:
        """Answer with the ticks from a number on."""
        place = max(0, first - self.ticks[0].number)
        return [tick.row for tick in self.ticks[place : place + count]]

    def news(self, first: int, count: int) -> list[Row]:
        """Do as ``rows_of_ticks()``, after a tick has been taken."""
        self.tick()
        return self.rows_of_ticks(first, count)

    def place(self, epoch: int) -> list[Row]:  # noqa: ARG002 - there is one epoch
        """Answer with the newest tick; there is one epoch, as the server never changes."""
        return [row({"newest": self.ticks[-1].number, "epoch": 1, "next_first": None})]

    def last_before(self, time: datetime) -> list[Row]:
        """Answer with the newest tick that had been taken before a time."""
        before = [tick.number for tick in self.ticks if tick.taken_at < time]
        return answer(before[-1]) if before else []

    # -- reading ------------------------------------------------------------------------------

    def _between(self, after: int, end: int) -> Iterator[StoredEvent]:
        ids = self._ids
        for place in range(bisect_right(ids, after), bisect_right(ids, end)):
            yield self._events[ids[place]]

    def visible(self, channels: Any, bucket: Bucket, *arguments: Any) -> list[Row]:  # noqa: ANN401 - as sources tells
        """Answer with events that are visible in a snapshot."""
        return self._portion(channels, bucket, arguments, _seen_by(arguments[-1]))

    def short(self, channels: Any, bucket: Bucket, *arguments: Any) -> list[Row]:  # noqa: ANN401 - as sources tells
        """Answer with the same in one row, packed; payloads that are long are null."""
        found = self._found(channels, bucket, arguments, _seen_by(arguments[-1]))
        first_tick = self.ticks[0].number
        if not found:
            return [Row(_SHORT, (*(None,) * len(_PACKED), 0, first_tick))]
        longest, usual = arguments[3], arguments[-2]
        columns = columns_of(found)
        payloads: list[Any] = [
            text if len(text.encode()) <= longest else None for text in columns.payloads
        ]
        short = len(payloads) - payloads.count(None)
        columns_packed = packed(columns._replace(payloads=payloads), usual)
        return [Row(_SHORT, (*columns_packed, short, first_tick))]

    def late(self, channels: Any, bucket: Bucket, *arguments: Any) -> list[Row]:  # noqa: ANN401 - as sources tells
        """Answer with events of some transactions."""
        xids = set(map(int, arguments[-1]))
        return self._portion(channels, bucket, arguments, xids.__contains__)

    def _portion(
        self,
        channels: Sequence[str] | None,
        bucket: Bucket,
        arguments: Sequence[Any],
        is_wanted: Callable[[int], bool],
    ) -> list[Row]:
        found = self._found(channels, bucket, arguments, is_wanted)
        size, first_tick = arguments[3], self.ticks[0].number
        rows = [
            Row(_PORTION, (*event[: len(_EVENT)], len(found), None if number else first_tick))
            for number, event in enumerate(_up_to(found, size))
        ]
        return rows or [Row(_PORTION, (*_NOTHING, first_tick))]

    def _found(
        self,
        channels: Sequence[str] | None,
        bucket: Bucket,
        arguments: Sequence[Any],
        is_wanted: Callable[[int], bool],
    ) -> list[StoredEvent]:
        after, end, most, *_ = arguments
        found = (
            event
            for event in self._between(after, end)
            if is_wanted(event.xid) and _is_chosen(event, channels, bucket)
        )
        return list(islice(found, most))

    def first_late(self, after: int, end: int, xids: Sequence[str]) -> list[Row]:
        """Answer with the smallest id of some transactions."""
        wanted = set(map(int, xids))
        found = (event.id for event in self._between(after, end) if event.xid in wanted)
        return answer(next(found, None))

    # -- retention ----------------------------------------------------------------------------

    def expire(self, consumed_up_to: int | None) -> list[Row]:
        """
        Empty one part that is old enough, as PostgreSQL does; answer with its number, or None.

        Args:
            consumed_up_to: The newest tick that every consumer has behind it; None: no consumers.
        """
        now = self._state.now()
        for number in range(self.settings.ring):
            events = [event for event in self._events.values() if event.slot == number]
            if events and number != self._slot(now) and not self._xids.has_written(number):
                age = now - max(events).appended_at
                floor = self._floor_of(events)
                if floor is not None and now - floor.taken_at < self.settings.retention:
                    floor = None  # it may see young events, which nobody could reach any more
                is_free = consumed_up_to is None or floor is None or consumed_up_to >= floor.number
                limit = self.settings.limit
                is_over = limit is not None and floor is not None and now - floor.taken_at >= limit
                if floor is not None and age >= self.settings.retention and (is_free or is_over):
                    self._empty(number, floor)
                    return answer(number)
        return answer(None)

    def _floor_of(self, events: Sequence[StoredEvent]) -> StoredTick | None:
        """Return the first tick that has all of these events behind it."""
        newest = max(events).id
        for tick in self.ticks:
            if tick.top >= newest and all(tick.sees(event.xid) for event in events):
                return tick
        return None

    def _empty(self, slot: int, floor: StoredTick) -> None:
        del self.ticks[: floor.number - self.ticks[0].number]
        for number, event in list(self._events.items()):
            if event.slot == slot:
                del self._events[number]
        self._ids = sorted(self._events)


def _seen_by(snapshot: str) -> Callable[[int], bool]:
    """Return the function that says whether a snapshot sees a transaction."""
    _, xmax, text = snapshot.split(":")
    running = set(map(int, text.split(","))) if text else set()
    return lambda xid: xid < int(xmax) and xid not in running


def _is_chosen(event: StoredEvent, channels: Sequence[str] | None, bucket: Bucket) -> bool:
    if channels is not None and event.channel not in channels:
        return False
    return bucket.of == 1 or bucket_of(event.key, event.uid, bucket.of) == bucket.number


def _up_to(events: Sequence[StoredEvent], size: int) -> Iterator[StoredEvent]:
    """Yield the first event, and those before which there are less than so many bytes."""
    before = 0
    for number, event in enumerate(events):
        if number and before >= size:
            return
        yield event
        before += len(event.payload.encode())
