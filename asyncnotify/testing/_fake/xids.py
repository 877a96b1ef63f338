"""The transactions that append: their numbers, and which of them are open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from asyncnotify.testing._fake.log_rows import Row, row

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

_FIRST: Final = 1_000


class Writer(NamedTuple):
    """
    An open transaction that has appended.

    Attributes:
        pid: The backend pid.
        since: When it has appended first.
    """

    pid: int
    since: datetime


class Xids:
    """
    Numbers transactions. Called under the server's lock.

    Attributes:
        next: The number that the next transaction gets.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.next: int = _FIRST
        self._now = now
        self._open: dict[int, Writer] = {}
        self._slots: dict[int, set[int]] = {}

    @property
    def open(self) -> frozenset[int]:
        """The transactions that are open."""
        return frozenset(self._open)

    def begin(self, pid: int) -> int:
        """Return the number of a new transaction, which is open."""
        self._open[self.next] = Writer(pid, self._now())
        self.next += 1
        return self.next - 1

    def end(self, xid: int | None) -> None:
        """End a transaction; None: one that has no number."""
        if xid is not None:
            self._open.pop(xid, None)
            self._slots.pop(xid, None)

    def note_slots(self, xid: int, slots: set[int]) -> None:
        """Note to which parts of logs a transaction has appended."""
        self._slots.setdefault(xid, set()).update(slots)

    def has_written(self, slot: int) -> bool:
        """Return whether an open transaction has appended to a part: it cannot be emptied then."""
        return any(slot in slots for slots in self._slots.values())

    def oldest(self, pid: int) -> list[Row]:
        """Answer with the oldest open transaction, but for that of this backend."""
        writers = [writer for writer in self._open.values() if writer.pid != pid]
        if not writers:
            return []
        oldest = min(writers, key=lambda writer: writer.since)
        age = self._now() - oldest.since
        return [row({"pid": oldest.pid, "prepared": None, "database": "fake", "age": age})]
