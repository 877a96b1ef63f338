"""The judge of a consumer whose cursor is moved, and that is paused, by others."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.chaos.judge.log_history import Kind, Mark, Seen

if TYPE_CHECKING:
    from tests.chaos.judge.log_history import History, Order

__all__ = ["SeekVerdict", "judge_seeks"]


@dataclass(frozen=True, slots=True)
class SeekVerdict:
    """
    What became of a consumer that takes batches, while its cursor was moved.

    Attributes:
        batches: How many came.
        seeks: How often the cursor was moved, for certain.
        heeded: How many batches began where a seek said.
        pauses: How often it was paused.
        faults: A line for each batch that began where it must not, or came in a pause.
    """

    batches: int
    seeks: int
    heeded: int
    pauses: int
    faults: list[str]


@dataclass(slots=True)
class _Seek:
    """A move of the cursor that may still come into effect; ``number`` None: to the start."""

    number: int | None
    is_done: bool = False
    is_met: bool = False
    batches: int = 0


def judge_seeks(history: History, order: Order) -> SeekVerdict:
    """
    Judge where each batch begins: behind the last, at its begin after a loss, or where sought.

    At most one batch may still come from the old place once ``seek()`` has returned, and at most
    one once ``pause()`` has.
    """
    walk = _Walk(order)
    for entry in history.entries:
        if isinstance(entry, Seen):
            walk.event(entry)
        else:
            walk.mark(entry)
    walk.end()
    return SeekVerdict(walk.batches, walk.seeks, walk.heeded, walk.pauses, walk.faults)


class _Walk:
    def __init__(self, order: Order) -> None:
        self._places = [order.places[name] for name in order.names]
        self._numbers = {name: number for number, name in enumerate(order.names)}
        self._pending: list[_Seek] = []
        self._latest = _Seek(None)
        self._next = 0
        self._batch = 0
        self._begins_batch = False
        self._is_interrupted = False
        self._has_gap = False
        self._in_pause: int | None = None
        self.batches = self.seeks = self.heeded = self.pauses = 0
        self.faults: list[str] = []

    def mark(self, mark: Mark) -> None:
        """Note what may explain the next batch."""
        match mark.kind:
            case Kind.STARTED | Kind.CONNECTED:
                self._is_interrupted = True
            case Kind.GAP:
                self._has_gap = True
            case Kind.BATCH:
                self._begin_batch()
            case Kind.SEEKING:
                number = None if mark.place is None else bisect_right(self._places, mark.place)
                self._latest = _Seek(number)
                self._pending.append(self._latest)
            case Kind.SOUGHT:
                self._latest.is_done = True  # a batch may have come from there before
                self.seeks += 1
            case Kind.PAUSED:
                self._in_pause = 0
                self.pauses += 1
            case Kind.RESUMED:
                self._in_pause = None

    def _begin_batch(self) -> None:
        self.batches += 1
        self._begins_batch = True
        if self._in_pause is not None:
            self._in_pause += 1
            if self._in_pause > 1:
                self.faults.append(f"batch {self.batches} came though the consumer is paused")

    def event(self, seen: Seen) -> None:
        """Judge the next event."""
        number = self._numbers[seen.name]
        if self._begins_batch:
            self._judge_begin(number, seen)
            self._batch = number
        elif number != self._next and not self._has_gap:
            self.faults.append(f"{seen.name!r} does not follow the event before, in its batch")
        self._next = number + 1
        self._begins_batch, self._is_interrupted, self._has_gap = False, False, False

    def _judge_begin(self, number: int, seen: Seen) -> None:
        again = self._is_interrupted and number == self._batch
        is_expected = again or number == self._next
        if self._is_sought(number, is_expected=is_expected):
            self.heeded += 1
        elif not is_expected and not self._has_gap:
            self.faults.append(f"a batch begins with {seen.name!r}, where nothing says so")
        for seek in self._pending:
            seek.batches += seek.is_done
        if any(seek.batches > 1 and not seek.is_met for seek in self._pending):
            self.faults.append(f"a batch begins with {seen.name!r} in spite of a seek")
        self._pending = [seek for seek in self._pending if seek.batches <= 1]

    def _is_sought(self, number: int, *, is_expected: bool) -> bool:
        """
        Return whether a seek leads here: those before it that are done have no effect any more.

        If the batch is expected here anyway, nobody knows: the seek may still come into effect.
        """
        for place in reversed(range(len(self._pending))):
            wanted = self._pending[place].number
            if wanted is None or wanted == number or (self._has_gap and wanted <= number):
                before = self._pending[: place + is_expected]
                for seek in before:
                    seek.is_met = True
                kept = [seek for seek in before if is_expected or not seek.is_done]
                self._pending = kept + self._pending[place + 1 :]
                return True
        return False

    def end(self) -> None:
        """Judge the end: it must have got there."""
        if self._next != len(self._places):
            self.faults.append(f"{len(self._places) - self._next} events at the end have not come")
