"""
Runs: small ticks that follow each other, read as if they were one.

Who reads live takes a tick for each event or two. Who comes later would need several queries for
each of these. Ticks nest: what became visible between the first and the last of a run is the sum of
what each of them holds. Each event belongs to the first tick that sees its transaction and whose
``top`` is not below its id.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asyncnotify.log._walk.columns import NO_COLUMNS, columns_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncnotify.log._walk.columns import Columns
    from asyncnotify.log._walk.ticks import Tick

_SMALL: Final = 128
"""Events of a tick, on average, up to which several ticks are read together: the query for one tick
gives its events in a quicker form. Consumed by 1,000, with 100 events in each tick, these were
96,460 events a second together and 63,028 one by one; with 300 in each, 78,897 and 103,722."""


class Run(NamedTuple):
    """
    The events of a run, in the order of the log.

    Attributes:
        size: How many ticks it has.
        ticks: The number of the tick to which each event belongs.
        columns: Of the events.
    """

    size: int
    ticks: list[int]
    columns: Columns


def run_of(last: Tick, ticks: Iterable[Tick], most: int) -> list[Tick]:
    """
    Return the ticks, from the first one on, that are to be read as one; none: each by itself.

    They are of one epoch, and hold at most ``most`` events. Nor were more than ``most`` ids given
    meanwhile, so that the walk of the ids is short, whatever is in rows that are not visible.

    Args:
        last: The tick before the first.
        ticks: Those that follow.
        most: How many events.
    """
    found: list[Tick] = []
    small = 0
    for tick in ticks:
        events = tick.total - last.total
        if tick.epoch != last.epoch or max(events, tick.top - last.top) > most:
            break
        found.append(tick)
        if events <= _SMALL * len(found):
            small = len(found)
    return found[:small]


def up_to(ticks: Sequence[Tick], event: int) -> Sequence[Tick]:
    """Return the ticks, from the first one on, that go no further than an event's id."""
    return ticks[: bisect_right([tick.top for tick in ticks], event)]


def in_order(ticks: Sequence[Tick], rows: Iterable[Any]) -> Run:
    """
    Return the events of a run in their order: by the tick, and within a tick by id.

    Args:
        ticks: The run, at least one tick.
        rows: Of its events, and of later ones perhaps. Each has its xid as ``x``.
    """
    ends = [tick.snapshot.xmax for tick in ticks]
    tops = [tick.top for tick in ticks]

    def place_of(xid: int, event: int) -> int:
        # Those before do not see it, and most often this one does
        place = max(bisect_right(ends, xid), bisect_left(tops, event))
        if place < len(ticks) and not ticks[place].snapshot.sees(xid):
            # False stands before True: what one tick sees, those behind it see too
            place = bisect_left(ticks, True, place, key=lambda tick: tick.snapshot.sees(xid))  # noqa: FBT003 - a value that is sought
        return place

    found = ((place_of(row["x"], row["id"]), row["id"], row) for row in rows)
    placed = sorted(
        (one for one in found if one[0] < len(ticks)),
        key=itemgetter(0, 1),
    )
    columns = columns_of([row for _, _, row in placed]) if placed else NO_COLUMNS
    return Run(len(ticks), [ticks[place].number for place, _, _ in placed], columns)
