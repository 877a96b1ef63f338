"""
The SQL by which ticks are walked.

Every bound is a parameter, and every statement walks an index between two bounds, whatever plan is
taken: with a bound that the planner cannot see, or with an OR, an empty poll has read the whole
table. What a portion holds in bytes is bounded by the sum of the payloads' lengths, for which the
server does not fetch them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.log._ports import Statement
from asyncnotify.log._walk.buckets import WHOLE, Bucket, bucket_number
from asyncnotify.log._walk.columns import PACKED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncnotify.log._names import Names

_COLUMNS: Final = "id, uid, channel, key, payload, headers, appended_at, x"

_OUTPUT: Final = """
    id, uid, channel, key, payload, headers::pg_catalog.text AS headers, appended_at,
    x::pg_catalog.text::pg_catalog.int8 AS x, found
"""

_SHORT: Final = """id, uid, channel, key, headers, appended_at,
    CASE WHEN pg_catalog.octet_length(payload) <= $4 THEN payload END AS payload"""
"""As ``_COLUMNS``, without payloads that are long: so no sum has to be carried along the rows."""

_ALL: Final = Bucket()
_OF_LATE: Final = "(x, id) > (late_x, $1) AND (x, id) <= (late_x, $2)"
"""Pairs: only the index on xid and id can be walked for them. Of single conditions a planner may
take the ids alone, and read on until the xid comes."""


class Statements:
    """
    The statements for one log and one choice of events.

    Those that give events take, in this order: the id after which to begin; the id up to which to
    go; the number of rows; the number of bytes; ``chosen``; and what the statement itself needs.
    A portion has at least one event if there is any: ``found`` says how many there were before the
    bytes were counted. The answer has at least one row: without an event, one whose id is null. Its
    first row has the oldest tick that is kept, as it was after the events had been read.

    Args:
        names: Of the log.
        channels: Only events of these; None: of all.
        bucket: Only events of this one.

    Attributes:
        chosen: Arguments that say which events.
        tick: Takes a tick if there is something new; gives the number of the newest.
        ticks: Ticks from ``$1`` on, at most ``$2``.
        news: The same, after a tick has been taken if there is something new.
        visible: Events between two ids, visible in a snapshot, which is the last argument. Each
            row has the event's xid as ``x``.
        short: The same in one row, packed. Instead of the number of bytes it takes the most that a
            payload may have: longer ones are null. ``short`` says how many are not. And before the
            snapshot it takes a channel, or null: its name is null in the answer.
        whole: Events between two ids.
        late: Events between two ids, of transactions, whose xids are the last argument; as
            ``visible``.
        place: The newest tick, its epoch, and the first tick of the epoch behind the epoch ``$1``.
        last_before: The number of the newest tick that had been taken before the time ``$1``.
        first_late: The smallest id between ``$1`` and ``$2`` of the transactions ``$3``, or null.
        late_in_range: The xids from ``$1`` to below ``$2`` that have events.
    """

    def __init__(
        self, names: Names, channels: Sequence[str] | None = None, bucket: Bucket = _ALL
    ) -> None:
        self.chosen: tuple[object, ...] = () if channels is None else (list(channels),)
        choice = "" if channels is None else "AND channel = ANY ($5::pg_catalog.text[])"
        if bucket.of != WHOLE:
            number, count = (f"${5 + len(self.chosen) + n}::pg_catalog.int8" for n in range(2))
            choice += f" AND {bucket_number(count)} = {number}"
            self.chosen += tuple(bucket)
        own, second = (f"${5 + len(self.chosen) + n}::pg_catalog.text" for n in range(2))
        given = (channels, bucket)
        self.tick: Statement = tick(names)
        self.ticks: Statement = Statement("ticks", _ticks(names.ticks))
        self.place: Statement = Statement("place", _place(names))
        self.last_before: Statement = Statement("last_before", _last_before(names))
        self.news: Statement = Statement("news", _ticks(f"{names.prefix}_news($1, $2)"))
        visible = _portion(names, _between_ids(names, f"{_seen_by(own)} {choice}"))
        self.visible: Statement = Statement("visible", visible, given)
        rows = _between_ids(names, f"{_seen_by(second)} {choice}", _SHORT)
        short = _packed(names, rows, usual=own)
        self.short: Statement = Statement("short", short, given)
        whole = _portion(names, _between_ids(names, choice))
        self.whole: Statement = Statement("whole", whole, given)
        late = f"pg_catalog.unnest({own}[]::pg_catalog.xid8[]) AS late (late_x)"
        late_events = _portion(
            names,
            f"""
            SELECT of_one.* FROM {late} CROSS JOIN LATERAL (
                SELECT {_COLUMNS} FROM {names.events} WHERE {_OF_LATE} {choice}
                ORDER BY x, id LIMIT $3
            ) AS of_one ORDER BY id LIMIT $3
            """,
        )
        self.late: Statement = Statement("late", late_events, given)
        self.first_late: Statement = Statement("first_late", _first_late(names))
        self.late_in_range: Statement = Statement("late_in_range", _late_in_range(names))


def tick(names: Names) -> Statement:
    """Return what takes a tick if there is something new, and gives the number of the newest."""
    return Statement("tick", f"SELECT {names.prefix}_tick()")


def _between_ids(names: Names, condition: str, columns: str = _COLUMNS) -> str:
    return f"""
        SELECT {columns} FROM {names.events} WHERE id > $1 AND id <= $2 {condition}
        ORDER BY id LIMIT $3
    """


def _portion(names: Names, rows: str) -> str:
    # The sums are of lengths alone: long payloads are fetched for the rows that remain. The first
    # row is there once count() has seen all of them, so the first tick is read after the events
    return f"""
        SELECT {_OUTPUT},
            CASE WHEN bytes_before IS NULL THEN {names.prefix}_first_tick() END AS first_tick
        FROM (SELECT) AS always LEFT JOIN (
            SELECT {_COLUMNS}, pg_catalog.count(*) OVER () AS found,
                pg_catalog.sum(pg_catalog.octet_length(payload)) OVER (
                    ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                ) AS bytes_before
            FROM ({rows}) AS walked
        ) AS counted ON bytes_before IS NULL OR bytes_before < $4
        ORDER BY id
    """


def _seen_by(snapshot: str) -> str:
    # In a query of its own, which is executed once: a generic plan would read the text for each row
    return f"""AND pg_catalog.pg_visible_in_snapshot(
            x, (SELECT {snapshot}::pg_catalog.pg_snapshot)
        )"""


def _packed(names: Names, rows: str, usual: str) -> str:
    # What stands beside aggregates is computed once all rows have been read: the first tick too
    return f"""
        SELECT {PACKED.format(usual=usual)}, pg_catalog.count(payload) AS short,
            {names.prefix}_first_tick() AS first_tick
        FROM ({rows}) AS walked
    """


def _ticks(source: str) -> str:
    """Ticks from ``$1`` on, at most ``$2``."""
    return f"""
        SELECT tick AS number, epoch, base, snapshot::pg_catalog.text AS snapshot,
            own::pg_catalog.text AS own, top, final, total, whole, taken_at
        FROM {source} WHERE tick >= $1 ORDER BY tick LIMIT $2
    """


def _first_late(names: Names) -> str:
    return f"""
        SELECT pg_catalog.min(of_one.id)
        FROM pg_catalog.unnest($3::pg_catalog.text[]::pg_catalog.xid8[]) AS late (late_x)
        CROSS JOIN LATERAL (
            SELECT id FROM {names.events} WHERE {_OF_LATE} ORDER BY x, id LIMIT 1
        ) AS of_one
    """


def _place(names: Names) -> str:
    return f"""
        SELECT tick AS newest, epoch,
            (SELECT first_tick FROM {names.epochs} WHERE epoch = $1::int4 + 1) AS next_first
        FROM {names.ticks} ORDER BY tick DESC LIMIT 1
    """


def _late_in_range(names: Names) -> str:
    """Xids that have events, from ``$1`` to below ``$2``: one step in the index for each."""
    bound = "pg_catalog.text::pg_catalog.xid8"
    return f"""
        WITH RECURSIVE found (late_x) AS (
            (SELECT x FROM {names.events} WHERE x >= $1::{bound} AND x < $2::{bound}
                ORDER BY x LIMIT 1)
            UNION ALL
            SELECT (
                SELECT x FROM {names.events} WHERE x > late_x AND x < $2::{bound}
                ORDER BY x LIMIT 1
            ) FROM found WHERE late_x IS NOT NULL
        )
        SELECT late_x::pg_catalog.text FROM found WHERE late_x IS NOT NULL
    """


def _last_before(names: Names) -> str:
    """The newest tick taken before ``$1``, found by halves: numbers and times ascend together."""
    return f"""
        WITH RECURSIVE search (low, high) AS (
            SELECT (SELECT {names.prefix}_first_tick() - 1),
                (SELECT tick FROM {names.ticks} ORDER BY tick DESC LIMIT 1)
            UNION ALL
            SELECT CASE WHEN is_before THEN middle ELSE low END,
                CASE WHEN is_before THEN high ELSE middle - 1 END
            FROM search CROSS JOIN LATERAL (
                SELECT tick AS middle, taken_at < $1 AS is_before FROM {names.ticks}
                WHERE tick = (low + high + 1) / 2 LIMIT 1
            ) AS half WHERE low < high
        )
        SELECT low AS tick FROM search
        WHERE low = high AND low >= (SELECT {names.prefix}_first_tick())
    """
