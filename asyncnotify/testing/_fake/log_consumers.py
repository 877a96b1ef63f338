"""The durable consumers of a log in memory: cursors with tokens, and dead letters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncnotify.testing._fake.log_order import bucket_of
from asyncnotify.testing._fake.log_rows import Row, StoredEvent, answer, row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from asyncnotify.testing._fake.log_order import Order
    from asyncnotify.testing._fake.log_rows import StoredTick
    from asyncnotify.testing._fake.state import State


@dataclass(slots=True)
class Cursor:
    """A row of a consumer, or of one of its buckets."""

    consumer: str
    bucket: int
    buckets: int
    epoch: int
    tick: int
    id: int
    committed_at: datetime
    token: int = 0
    paused: bool = False
    pid: int | None = None
    taken_at: datetime | None = None
    behind: StoredTick | None = None

    def move(self, epoch: int, tick: int, number: int, now: datetime) -> None:
        """Stand behind this event."""
        self.epoch, self.tick, self.id, self.committed_at = epoch, tick, number, now
        self.behind = None


class Letter(NamedTuple):
    """A dead letter: the event, where it stood, and what was raised."""

    consumer: str
    epoch: int
    tick: int
    event: StoredEvent
    attempts: int
    error: str
    died_at: datetime

    @property
    def row(self) -> Row:
        """The letter as a log reads it."""
        event = self.event._asdict()
        values = {name: event[name] for name in event if name not in {"xid", "slot"}}
        own = {**self._asdict(), **values}
        del own["event"]
        return row(own)


class Consumers:
    """What PostgreSQL has in two tables and a dozen functions. Called under the server's lock."""

    def __init__(self, state: State, order: Order) -> None:
        self._state = state
        self._order = order
        self._cursors: dict[tuple[str, int], Cursor] = {}
        self._letters: dict[tuple[str, UUID], Letter] = {}
        self._dropped = 0  # the newest token that nobody may have again

    def _of(self, consumer: str) -> list[Cursor]:
        return [cursor for cursor in self._cursors.values() if cursor.consumer == consumer]

    def owned(self, consumer: str, bucket: int, token: int) -> Cursor | None:
        """Return the cursor if this is its token."""
        cursor = self._cursors.get((consumer, bucket))
        return cursor if cursor is not None and cursor.token == token else None

    # -- making and finding -------------------------------------------------------------------

    def buckets_of(self, consumer: str) -> list[Row]:
        """Answer with the number of its buckets."""
        first = self._cursors.get((consumer, 0))
        return [] if first is None else answer(first.buckets)

    def add(self, consumer: str, buckets: int, epoch: int, tick: int, number: int) -> list[Row]:
        """Make a consumer, unless it is there."""
        if (consumer, 0) not in self._cursors:
            now = self._state.now()
            for bucket in range(buckets):
                cursor = Cursor(consumer, bucket, buckets, epoch, tick, number, now, self._dropped)
                self._cursors[consumer, bucket] = cursor
        return answer("")

    def first_of(self, consumer: str) -> Cursor | None:
        """Return the cursor of a consumer's first bucket; None: it is not there."""
        return self._cursors.get((consumer, 0))

    def take(self, consumer: str, bucket: int, pid: int) -> list[Row]:
        """Give a cursor to a backend, with a new token, unless it is paused."""
        cursor = self._cursors.get((consumer, bucket))
        if cursor is None or cursor.paused:
            return []
        cursor.token += 1
        cursor.pid, cursor.taken_at = pid, self._state.now()
        names = ("buckets", "token", "epoch", "tick", "id")
        values = {name: getattr(cursor, name) for name in names}
        behind = cursor.behind
        values["behind_total"] = behind and behind.total
        values["behind_since"] = behind and behind.taken_at
        values["behind_is_exact"] = behind and behind.number == cursor.tick
        return [row(values)]

    def has_taken(self, consumer: str, pid: int) -> bool:
        """Return whether this backend has taken a cursor of the consumer last."""
        return any(cursor.pid == pid for cursor in self._of(consumer))

    # -- with the token -----------------------------------------------------------------------

    def has(self, consumer: str, bucket: int, token: int) -> list[Row]:
        """Answer whether the token counts."""
        return answer(self.owned(consumer, bucket, token) is not None)

    def commit(self, consumer: str, bucket: int, token: int, *place: int) -> list[Row]:
        """Move a cursor; answer whether the token counts."""
        cursor = self.owned(consumer, bucket, token)
        if cursor is None:
            return answer(value=False)
        epoch, tick, number = place
        cursor.move(epoch, tick, number, self._state.now())
        return answer(value=True)

    def bury(self, consumer: str, bucket: int, token: int, *arguments: Any) -> list[Row]:  # noqa: ANN401 - as sources tells
        """Keep a dead letter; answer whether the token counts."""
        if self.owned(consumer, bucket, token) is None:
            return answer(value=False)
        epoch, tick, number, attempts, error, uid, channel, payload, key, headers, time = arguments
        event = StoredEvent(number, uid, channel, key, payload, headers, time, xid=0, slot=0)
        letter = Letter(consumer, epoch, tick, event, attempts, error, self._state.now())
        self._letters[consumer, uid] = letter
        return answer(value=True)

    # -- for those who operate it -------------------------------------------------------------

    def seek(self, consumer: str, epoch: int, tick: int, number: int) -> bool:
        """Move all cursors of a consumer; return whether it is there."""
        for cursor in self._of(consumer):
            cursor.move(epoch, tick, number, self._state.now())
            cursor.token += 1
        return (consumer, 0) in self._cursors

    def pause(self, consumer: str, paused: bool) -> bool:  # noqa: FBT001 - as sources tells
        """Let nobody serve it, or again; return whether it is there."""
        for cursor in self._of(consumer):
            cursor.paused = paused
            cursor.token += 1
        return (consumer, 0) in self._cursors

    def drop(self, consumer: str) -> bool:
        """Remove it and its dead letters; return whether it was there."""
        self._letters = {key: one for key, one in self._letters.items() if key[0] != consumer}
        cursors = self._of(consumer)
        for cursor in cursors:
            self._dropped = max(self._dropped, cursor.token)
            del self._cursors[cursor.consumer, cursor.bucket]
        return bool(cursors)

    def discard(self, consumer: str, uid: UUID) -> list[Row]:
        """Remove a dead letter; answer whether it was there."""
        return answer(self._letters.pop((consumer, uid), None) is not None)

    def has_letter(self, consumer: str, uid: UUID) -> bool:
        """Return whether a dead letter is there."""
        return (consumer, uid) in self._letters

    def dead_letters(self, consumer: str | None, count: int) -> list[Row]:
        """Answer with the oldest dead letters, of a consumer or of all."""
        letters = [one for one in self._letters.values() if consumer in (None, one.consumer)]
        letters.sort(key=lambda letter: (letter.died_at, letter.event.id))
        return [letter.row for letter in letters[:count]]

    # -- how far they are ---------------------------------------------------------------------

    def _behind(self, cursor: Cursor) -> StoredTick:
        """Return the tick behind which all is still to be consumed: at worst the oldest."""
        own = self._order.tick_of(cursor.tick)
        is_done = own is not None and cursor.id >= own.final
        behind = own if is_done else self._order.tick_of(cursor.tick - 1)
        return behind or self._order.ticks[0]

    def _consumed(self) -> Iterator[int]:
        first = self._order.ticks[0].number
        for cursor in self._cursors.values():
            own = self._order.tick_of(cursor.tick)
            if own is None:
                yield min(cursor.tick, first)
            else:
                yield cursor.tick if cursor.id >= own.final else cursor.tick - 1

    def note_removed(self, ticks: Sequence[StoredTick]) -> None:
        """Note what they had behind them whose place has been removed with these ticks."""
        removed = {tick.number: tick for tick in ticks}
        for cursor in self._cursors.values():
            own = removed.get(cursor.tick) or self._order.tick_of(cursor.tick)
            if own is not None:
                behind = removed.get(own.number if cursor.id >= own.final else own.number - 1)
                cursor.behind = behind or cursor.behind

    @property
    def consumed_up_to(self) -> int | None:
        """The newest tick that every consumer has behind it; None without consumers."""
        return min(self._consumed(), default=None)

    def rows(self) -> list[Row]:
        """Answer with where each consumer stands."""
        return [self._row(self._cursors[key]) for key in sorted(self._cursors)]

    def _row(self, cursor: Cursor) -> Row:
        behind, newest = self._behind(cursor), self._order.ticks[-1]
        next_one = self._order.tick_of(behind.number + 1)
        waited = self._state.now() - next_one.taken_at if next_one else None
        consumed_up_to = self.consumed_up_to
        letters = [
            one
            for one in self._letters.values()
            if one.consumer == cursor.consumer
            and bucket_of(one.event.key, one.event.uid, cursor.buckets) == cursor.bucket
        ]
        return row(
            {
                "name": cursor.consumer,
                "bucket": cursor.bucket,
                "buckets": cursor.buckets,
                "epoch": cursor.epoch,
                "tick": cursor.tick,
                "id": cursor.id,
                "lag_events": max(0, newest.total - behind.total),
                "lag_seconds": waited.total_seconds() if waited else 0.0,
                "pid": cursor.pid,
                "is_served": cursor.pid in self._state.clients,
                "is_paused": cursor.paused,
                "dead_letters": len(letters),
                "committed_at": cursor.committed_at,
                "holds_retention": consumed_up_to is not None and behind.number <= consumed_up_to,
            }
        )
