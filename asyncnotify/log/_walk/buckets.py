"""Buckets: parts of a log's events, by a hash of their keys."""

from __future__ import annotations

from typing import Final, NamedTuple

from asyncnotify._arguments import check_count

WHOLE: Final = 1
"""The number of buckets of a consumer that is not split."""


MOST: Final = 256
"""Each bucket walks the log by itself."""


class Bucket(NamedTuple):
    """
    One of the parts into which a consumer's events are split.

    Attributes:
        number: From 0 on.
        of: How many there are.
    """

    number: int = 0
    of: int = WHOLE


def check_buckets(count: object) -> None:
    """Raise ValueError unless a consumer can have so many buckets."""
    check_count("buckets", count)
    if isinstance(count, int) and count > MOST:
        msg = f"buckets must be 1 to {MOST}, not {count}"
        raise ValueError(msg)


def bucket_number(count: str) -> str:
    """
    Return the SQL expression for the bucket of an event, by its columns ``key`` and ``uid``.

    An event without a key is one of a kind: its own id stands for the key, so that such events are
    spread evenly.

    Args:
        count: The expression for the number of buckets.
    """
    # A cryptographic hash, because it must never change: the server's own hash functions may, with
    # its version and its processor, and cursors would then stand in front of other events.
    # md5() is refused where the system allows approved algorithms only
    text = "pg_catalog.convert_to(coalesce(key, uid::pg_catalog.text), 'UTF8')"
    digits = f"pg_catalog.substr(pg_catalog.encode(pg_catalog.sha256({text}), 'hex'), 1, 8)"
    return f"(('x' || {digits})::pg_catalog.bit(32)::pg_catalog.int8 % {count})"
