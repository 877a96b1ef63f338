"""The events of a portion, column by column, and the form in which the server packs short ones."""

from array import array
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from struct import calcsize, pack, unpack, unpack_from
from sys import byteorder
from typing import Any, Final, NamedTuple, Self, cast
from uuid import UUID

from asyncnotify.log._values import microseconds_of, time_of

_NUMBERS: Final = ">qq"
"""What ``PACKED`` has of each event as numbers: its id, and when it was appended, since 2000."""

_UID: Final = "16s16x"
"""The uid, which stands before these numbers."""

_WIDTH: Final = calcsize(_UID)
_ID: Final = ">q"

PACKED: Final = """
    pg_catalog.string_agg(
        pg_catalog.uuid_send(uid) || pg_catalog.int8send(id)
            || pg_catalog.timestamptz_send(appended_at), ''
    ) AS fixed,
    pg_catalog.array_agg(NULLIF(channel, {usual})) AS channels, pg_catalog.array_agg(key) AS keys,
    pg_catalog.array_agg(payload) AS payloads,
    pg_catalog.string_agg(pg_catalog.int8send(id), '') FILTER (WHERE headers IS NOT NULL)
        AS with_headers,
    pg_catalog.array_agg(headers::pg_catalog.text) FILTER (WHERE headers IS NOT NULL) AS headers
"""
"""The events of a query in one row. The driver makes an object for each row and decodes each value
by itself, which takes twice as long; of arrays it knows those of texts without asking the server.
Most events are of one channel, and have no headers: the name of a usual channel is null, and the
headers are those of some events, whose ids stand beside.
"""


class Columns(NamedTuple):
    """
    Events in the order of the log; of one tick, ascending by their ids.

    Attributes:
        ids: Their numbers.
        uids: Their identities, as bytes.
        channels: Where they were appended.
        keys: What they are about.
        payloads: As they were coded.
        headers: JSON of the headers, or None.
        times: When they were appended, as ``microseconds_of()`` returns it.
    """

    ids: Sequence[int]
    uids: Sequence[bytes]
    channels: Sequence[str]
    keys: Sequence[str | None]
    payloads: Sequence[str]
    headers: Sequence[str | None]
    times: Sequence[int]

    @property
    def size(self) -> int:
        """How many events there are."""
        return len(self.ids)

    def of(self, number: int) -> tuple[UUID, str, str, str | None, str | None, datetime]:
        """
        Return what an event has: its identity, channel, payload, key, headers and time.

        Raises:
            ValueError: No event has this number.
        """
        place = self.ids.index(number)
        _, uids, channels, keys, payloads, headers, times = self
        return (
            UUID(bytes=uids[place]),
            channels[place],
            payloads[place],
            keys[place],
            headers[place],
            time_of(times[place]),
        )

    def up_to(self, count: int) -> Self:
        """Return the first events. Raises nothing."""
        return type(self)._make(column[:count] for column in self)


NO_COLUMNS: Final = Columns(*((),) * len(Columns._fields))


def columns_of(rows: Sequence[Any]) -> Columns:
    """
    Return the events of rows that begin with these columns in their order.

    Raises:
        ValueError: There is no row.
    """
    count = len(Columns._fields)
    of_rows = zip(*(row[:count] for row in rows), strict=True)
    ids, uids, channels, keys, payloads, headers, times = of_rows
    identities, moments = [uid.bytes for uid in uids], list(map(microseconds_of, times))
    return Columns(ids, identities, channels, keys, payloads, headers, moments)


def number_packed(fixed: bytes) -> int:
    """Return how many events ``PACKED`` has given, from the first that it gives. Raises nothing."""
    return len(fixed) // _WIDTH


def last_packed(fixed: bytes) -> int:
    """Return the id of the last one, of at least one."""
    number: int = unpack_from(_NUMBERS, fixed, len(fixed) - calcsize(_NUMBERS))[0]
    return number


def unpacked(  # noqa: PLR0917 - the columns of one row
    usual: str | None,
    fixed: bytes,
    channels: Sequence[str | None],
    keys: Sequence[str | None],
    payloads: Sequence[str],
    with_headers: bytes | None,
    headers: Sequence[str] | None,
) -> Columns:
    """Return the events, at least one, of what ``PACKED`` gives for a usual channel, if any."""
    words = _words(fixed)
    ids, times = words[2::4].tolist(), words[3::4].tolist()
    uids = unpack(_UID * len(ids), fixed)
    texts = _of_some(ids, with_headers, headers)
    return Columns(ids, uids, _named(usual, channels), keys, payloads, texts, times)


def _words(numbers: bytes) -> "array[int]":
    words = array("q", numbers)
    if byteorder == "little":
        words.byteswap()
    return words


def _named(usual: str | None, channels: Sequence[str | None]) -> Sequence[str]:
    if usual is None:
        return cast("Sequence[str]", channels)
    if channels.count(None) == len(channels):
        return [usual] * len(channels)
    return [usual if channel is None else channel for channel in channels]


def _of_some(
    ids: Sequence[int], with_headers: bytes | None, headers: Sequence[str] | None
) -> Sequence[str | None]:
    if with_headers is None or headers is None:
        return [None] * len(ids)
    return list(map(dict(zip(_words(with_headers), headers, strict=True)).get, ids))


def packed(columns: Columns, usual: str | None = None) -> tuple[Any, ...]:
    """Return what PostgreSQL would pack these events into. Raises nothing."""
    ids, uids, channels, keys, payloads, headers, times = columns
    numbers = map(partial(pack, _NUMBERS), ids, times)
    fixed = b"".join(uid + part for uid, part in zip(uids, numbers, strict=True))
    unusual = [None if channel == usual else channel for channel in channels]
    some = [(number, text) for number, text in zip(ids, headers, strict=True) if text is not None]
    with_headers = b"".join(pack(_ID, number) for number, _ in some) or None
    texts = [text for _, text in some] or None
    return fixed, unusual, list(keys), list(payloads), with_headers, texts
