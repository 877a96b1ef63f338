"""The events of a portion, column by column, and the form in which the server packs short ones."""

from __future__ import annotations

from array import array
from datetime import UTC, datetime, timedelta
from functools import partial
from struct import pack
from sys import byteorder
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asyncpg.pgproto.pgproto import UUID as DriversUUID  # noqa: N811 - makes one in a tenth of the time of its base

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import tzinfo
    from uuid import UUID

_FIXED: Final = ">q16sq"
"""What ``PACKED`` has of each event: its id, its uid, and when it was appended, since 2000."""

_WORDS: Final = 4
"""Words of 8 bytes that this takes: the uid is two of them."""

PACKED: Final = """
    pg_catalog.string_agg(
        pg_catalog.int8send(id) || pg_catalog.uuid_send(uid)
            || pg_catalog.timestamptz_send(appended_at), ''
    ) AS fixed,
    pg_catalog.array_agg(channel) AS channels, pg_catalog.array_agg(key) AS keys,
    pg_catalog.array_agg(payload) AS payloads,
    pg_catalog.array_agg(headers::pg_catalog.text) AS headers
"""
"""The events of a query in one row. The driver makes an object for each row and decodes each value
by itself, which takes twice as long; of arrays it knows those of texts without asking the server.
"""

_YEAR_2000: Final = datetime(2000, 1, 1, tzinfo=UTC)
_SECOND: Final = 1_000_000
_MICROSECOND: Final = timedelta(microseconds=1)


class Columns(NamedTuple):
    """
    Events, at least one, ascending by their ids.

    Attributes:
        ids: Their numbers.
        uids: Their identities.
        channels: Where they were appended.
        keys: What they are about.
        payloads: As they were coded.
        headers: JSON of the headers, or None.
        times: When they were appended.
    """

    ids: Sequence[int]
    uids: Sequence[UUID]
    channels: Sequence[str]
    keys: Sequence[str | None]
    payloads: Sequence[str]
    headers: Sequence[str | None]
    times: Sequence[datetime]

    @property
    def size(self) -> int:
        """How many events there are."""
        return len(self.ids)

    def up_to(self, count: int) -> Columns:
        """Return the first events. Raises nothing."""
        return Columns._make(column[:count] for column in self)


def columns_of(rows: Sequence[Any]) -> Columns:
    """
    Return the events of rows that begin with these columns in their order.

    Raises:
        TypeError: There is no row.
    """
    count = len(Columns._fields)
    return Columns._make(zip(*(row[:count] for row in rows), strict=True))


def unpacked(fixed: bytes, *columns: Sequence[Any]) -> Columns:
    """Return the events, at least one, of what ``PACKED`` gives."""
    words = array("q", fixed)
    if byteorder == "little":
        words.byteswap()
    size = words.itemsize
    uids = (fixed[at : at + 2 * size] for at in range(size, len(fixed), _WORDS * size))
    ids, times = words[::_WORDS].tolist(), words[_WORDS - 1 :: _WORDS].tolist()
    return Columns._make((ids, list(map(DriversUUID, uids)), *columns, _times(times)))


def packed(columns: Columns) -> tuple[Any, ...]:
    """Return what PostgreSQL would pack these events into. Raises nothing."""
    ids, uids, *texts, times = columns
    since = ((time - _YEAR_2000) // _MICROSECOND for time in times)
    fixed = b"".join(
        pack(_FIXED, number, uid.bytes, time)
        for number, uid, time in zip(ids, uids, since, strict=True)
    )
    return fixed, *map(list, texts)


def _times(since_2000: Sequence[int]) -> list[datetime]:
    """Return times of microseconds since 2000: most are of the same second as those before."""
    times: list[datetime] = []
    start, end, in_second = 0, 0, _second(_YEAR_2000)
    for time in since_2000:
        if not start <= time < end:
            start = time // _SECOND * _SECOND
            end = start + _SECOND
            in_second = _second(_YEAR_2000 + timedelta(0, 0, start))
        times.append(in_second(time - start, UTC))
    return times


def _second(time: datetime) -> Callable[[int, tzinfo], datetime]:
    """Return what makes times of this second: of microseconds, and UTC."""
    return partial(datetime, *time.timetuple()[:6])
