"""A tick: a snapshot that is stored, and what became visible since the one before."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

_ENUMERATED: Final = 1_000
"""Xids in a range that are looked up one by one. Subtransactions have xids too, so that a range may
be much longer than the number of transactions in it."""


class Snapshot(NamedTuple):
    """
    Which transactions count as committed, as ``pg_snapshot`` says.

    Attributes:
        text: As the server writes it.
        xmax: Of this xid, and of those above it, none is visible.
        running: The xids below ``xmax`` that are not visible, ascending.
    """

    text: str
    xmax: int
    running: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Return the snapshot that the server writes as ``xmin:xmax:xid,xid``."""
        _, xmax, running = text.split(":")
        return cls(text, int(xmax), tuple(map(int, running.split(","))) if running else ())

    def sees(self, xid: int) -> bool:
        """Return whether a transaction counts as committed, if it did commit."""
        if xid >= self.xmax:
            return False
        place = bisect_left(self.running, xid)
        return place == len(self.running) or self.running[place] != xid


@dataclass(frozen=True, slots=True)
class Tick:
    """
    One row of the ticks.

    Attributes:
        number: Ascending, without holes.
        epoch: In which the xids of one cluster, on one timeline, are compared.
        base: Ids up to this were given before the epoch; their xids are not compared.
        snapshot: What is visible in it and was not in the one before belongs to this tick.
        own: Every xid that had been given before ``top`` was read is below this.
        top: The greatest id that had been given just after the snapshot.
        final: The id of its last event in the order; 0 if it has none.
        total: How many events this tick and all before it hold.
        whole: The tick holds all that is left, visible in a snapshot or not.
        taken_at: When, by the server's clock.
    """

    number: int
    epoch: int
    base: int
    snapshot: Snapshot
    own: int
    top: int
    final: int
    total: int
    whole: bool
    taken_at: datetime

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Tick:
        """Return the tick that a row of ``TICKS`` describes."""
        values: dict[str, Any] = dict(row)
        values["snapshot"] = Snapshot.parse(str(values["snapshot"]))
        values["own"] = int(str(values["own"]))
        return cls(**values)


class LateXids(NamedTuple):
    """
    The transactions whose events, with ids up to the last tick's top, belong to this tick.

    Attributes:
        xids: Some of them, each to be looked up.
        first: The others are in a range: its first xid, or None without a range.
        end: The end of that range, which is not in it.
    """

    xids: tuple[int, ...]
    first: int | None
    end: int


def late_xids(last: Tick, tick: Tick) -> LateXids:
    """
    Return the transactions that the last tick's snapshot does not see, and this one's does.

    They are among those that the snapshot lists, and among those from its xmax to the tick's own
    xid: xmax is one more than the latest *completed* xid, and greater ones may have been running.
    """
    first, end = last.snapshot.xmax, last.own
    enumerated = end - first <= _ENUMERATED

    def candidates() -> Iterator[int]:
        yield from last.snapshot.running
        if enumerated:
            yield from range(first, end)

    xids = tuple(xid for xid in candidates() if tick.whole or tick.snapshot.sees(xid))
    return LateXids(xids, None if enumerated else first, end)
