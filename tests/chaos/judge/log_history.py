"""The judge of the log: what each consumer has seen, by what was committed and by one order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "Entry",
    "History",
    "Kind",
    "Mark",
    "Order",
    "Place",
    "Rule",
    "Seen",
    "Verdict",
    "judge_history",
    "judge_keys",
    "order_of",
]

Place: TypeAlias = tuple[int, int, int]
"""Epoch, tick and number: as a Position, without the name of the log."""

PORTION: Final = 1_000
"""Events that a consumer reads at once: before the next ones it commits what is done."""


class Kind(StrEnum):
    """What else happens to a consumer."""

    STARTED = "S"
    """A process has begun to consume; the one before was killed."""
    CONNECTED = "C"
    """The process has made a connection."""
    BATCH = "B"
    """A batch has come; its events follow."""
    GAP = "G"
    """A Gap has come in the place of events that had been removed."""
    SEEKING = "seeking"
    """The cursor is being moved to a place."""
    SOUGHT = "sought"
    """It has been moved."""
    PAUSED = "paused"
    """Nobody is to serve the consumer."""
    RESUMED = "resumed"
    """It may be served again."""


@dataclass(frozen=True, slots=True)
class Mark:
    """
    What happened between two events.

    Attributes:
        kind: What it was.
        dropped: Of a Gap: how many events it stands for; None if nobody knows.
        place: Of a seek: behind which place to go on; None: the oldest event that is kept.
    """

    kind: Kind
    dropped: int | None = None
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """
    An event that a consumer has had.

    Attributes:
        place: Where it said that it stands.
        name: What was appended: channel, ``/``, key, a space, and a number that rises by key.
        at: When, by the monotonic clock of the machine.
    """

    place: Place
    name: str
    at: float = 0.0


Entry: TypeAlias = Seen | Mark


class Rule(StrEnum):
    """Which events may come to a consumer again."""

    ONCE = "once"
    """None."""
    BATCHES = "batches"
    """Those of the last batch, after a loss of the session."""
    COMMITTED = "committed"
    """Those behind the last commit, after a loss of the session."""


@dataclass(slots=True)
class History:
    """
    What one consumer has seen.

    Attributes:
        name: Of the consumer.
        rule: What may come again.
        channel: The only one that it consumes; None: all.
        entries: In the order in which they came.
        cursors: What its cursor was, and when that was known: places of the database.
    """

    name: str
    rule: Rule
    channel: str | None = None
    entries: list[Entry] = field(default_factory=list["Entry"])
    cursors: list[tuple[float, Place]] = field(default_factory=list["tuple[float, Place]"])

    @property
    def seen(self) -> Iterable[Seen]:
        """The events."""
        return (entry for entry in self.entries if isinstance(entry, Seen))


@dataclass(frozen=True, slots=True)
class Order:
    """
    The one order, as all consumers together have seen it.

    Attributes:
        names: Of the events, in their order.
        places: Where each stands.
        faults: A line for each contradiction.
    """

    names: Sequence[str]
    places: Mapping[str, Place]
    faults: Sequence[str]

    def of(self, channel: str | None) -> list[str]:
        """Return the names of one channel, or of all, in their order."""
        return [n for n in self.names if channel is None or n.startswith(f"{channel}/")]


def order_of(histories: Iterable[History]) -> Order:
    """Put what was seen in one order; find contradictions, and keys that are out of order."""
    places: dict[str, Place] = {}
    faults = [
        f"{history.name}: {seen.name!r} at {seen.place}, elsewhere {places[seen.name]}"
        for history in histories
        for seen in history.seen
        if places.setdefault(seen.name, seen.place) != seen.place
    ]
    names = sorted(places, key=places.__getitem__)
    if len(set(places.values())) != len(places):
        faults.append("two events stand at one place")
    return Order(names, places, faults + _inverted(names))


def _inverted(names: Iterable[str]) -> list[str]:
    newest: dict[str, int] = {}
    faults: list[str] = []
    for name in names:
        key, _, number = name.rpartition(" ")
        if int(number) <= newest.get(key, -1):
            faults.append(f"inversion: {name!r} stands behind {newest[key]} of its key")
        newest[key] = int(number)
    return faults


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What became of the events of one consumer.

    Attributes:
        name: Of the consumer.
        received: How many came.
        again: How many of them came again, and were allowed to.
        longest: The most that came again at once.
        gaps: Gaps that stood for events that had been removed.
        removed: Events that these stood for.
        faults: A line for each that is missing, doubled or out of order.
    """

    name: str
    received: int
    again: int
    longest: int
    gaps: int
    removed: int
    faults: Sequence[str]


def judge_history(history: History, order: Order, lost: Iterable[str] = ()) -> Verdict:
    """
    Judge what one consumer has seen.

    Args:
        history: What it has seen, to the end.
        order: What all have seen.
        lost: Names of committed events that nobody has seen.
    """
    walk = _Walk(history, order)
    for entry in history.entries:
        if isinstance(entry, Seen):
            walk.event(entry)
        else:
            walk.mark(entry)
    walk.end()
    walk.faults += [
        f"missing: {name!r}, which nobody has seen"
        for name in lost
        if history.channel is None or name.startswith(f"{history.channel}/")
    ]
    faults = [f"{history.name}: {fault}" for fault in walk.faults]
    return Verdict(
        *(history.name, sum(1 for _ in history.seen), walk.again, walk.longest),
        *(walk.gaps, walk.removed, faults),
    )


def judge_keys(history: History, order: Order, lost: Iterable[str] = ()) -> Verdict:
    """Judge one to whom each event comes once, in the order of its key and no other."""
    names = [seen.name for seen in history.seen]
    faults = [f"missing: {name!r}" for name in sorted({*order.names, *lost} - {*names})]
    faults += [f"doubled: {name!r}, {n} times" for name, n in Counter(names).items() if n > 1]
    faults += _inverted(dict.fromkeys(names))
    told = [f"{history.name}: {fault}" for fault in faults]
    return Verdict(history.name, len(names), 0, 0, 0, 0, told)


class _Walk:
    """Goes along the order with one consumer."""

    def __init__(self, history: History, order: Order) -> None:
        self._rule = history.rule
        self._is_filtered = history.channel is not None
        self._names = order.of(history.channel)
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._cursors = sorted(history.cursors)
        self._known = 0
        self._committed: Place = (0, 0, 0)
        self._next = 0
        self._batch = 0
        self._begins_batch = False
        self._is_interrupted = False
        self._gap: Mark | None = None
        self.again = self.longest = self.gaps = self.removed = 0
        self.faults: list[str] = []

    def mark(self, mark: Mark) -> None:
        """Note what may explain the next event."""
        match mark.kind:
            case Kind.STARTED | Kind.CONNECTED:
                self._is_interrupted = True
            case Kind.BATCH:
                self._begins_batch = True
            case Kind.GAP:
                self._gap = mark
                self.gaps += 1
            case _:
                pass

    def event(self, seen: Seen) -> None:
        """Judge the next event."""
        number = self._numbers.get(seen.name)
        if number is None:
            self.faults.append(f"{seen.name!r} is of another channel")
            return
        if number > self._next:
            self._skip(number)
        elif number < self._next:
            self._come_again(number, seen)
        if self._begins_batch:
            self._batch = number
        self._next = number + 1
        self._gap, self._is_interrupted, self._begins_batch = None, False, False

    def end(self) -> None:
        """Judge the end: everything must have come."""
        self._miss(len(self._names))

    def _skip(self, number: int) -> None:
        count = number - self._next
        if self._gap is None:
            self._miss(number)
            return
        self.removed += count
        dropped = self._gap.dropped
        if dropped is not None and dropped != count and not self._is_filtered:
            self.faults.append(f"a Gap told of {dropped} events, and {count} are missing there")

    def _miss(self, number: int) -> None:
        """Complain of what is missing up to a number, with the first of them."""
        if count := number - self._next:
            self.faults.append(f"missing: {count} from {self._names[self._next]!r} on, untold")

    def _come_again(self, number: int, seen: Seen) -> None:
        count = self._next - number
        if fault := self._why_not(number, seen):
            self.faults.append(f"doubled: {seen.name!r}, and {count} behind it: {fault}")
        else:
            self.again += count
            self.longest = max(self.longest, count)

    def _why_not(self, number: int, seen: Seen) -> str | None:
        """Return why an event must not come again."""
        self._learn_cursor(seen.at)
        if self._rule is Rule.ONCE:
            return "each comes once"
        if not self._is_interrupted:
            return "no session was lost"
        if seen.place <= self._committed:
            return f"the cursor was at {self._committed}"
        if self._rule is Rule.BATCHES and number != self._batch:
            return "it does not begin the last batch"
        return None if self._next - number <= PORTION else "more than one portion"

    def _learn_cursor(self, at: float) -> None:
        while self._known < len(self._cursors) and self._cursors[self._known][0] < at:
            self._committed = max(self._committed, self._cursors[self._known][1])
            self._known += 1
