"""A checksum of a set of channels, computed in the same way here and by the server."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final, Self

_DIGITS: Final = 8
"""Hexadecimal digits taken of each digest: their sum over a million channels fits in a bigint."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """The number of channels, and the sum of the first digits of their MD5 digests."""

    # MD5, because the server returns it as hexadecimal text, which can be cast. Not for secrecy
    SQL_FUNCTIONS: ClassVar = (
        "ROW(pg_catalog.count(*), coalesce(pg_catalog.sum(('x' OPERATOR(pg_catalog.||)"
        f" pg_catalog.left(pg_catalog.md5(pg_catalog.convert_to(channel, 'UTF8')), {_DIGITS}))"
        f"::pg_catalog.bit({_DIGITS * 4})::pg_catalog.int8), 0)::pg_catalog.int8)"
    )

    count: int
    total: int

    @classmethod
    def of(cls, channels: Iterable[str]) -> Self:
        """Return the checksum of these channels, each of which occurs once. Raises nothing."""
        count = total = 0
        for channel in channels:
            digest = hashlib.md5(channel.encode(), usedforsecurity=False).hexdigest()
            count, total = count + 1, total + int(digest[:_DIGITS], 16)
        return cls(count, total)

    def __add__(self, other: Self) -> Self:
        """Return the checksum of the channels of both."""
        return type(self)(self.count + other.count, self.total + other.total)

    @property
    def sql(self) -> str:
        """The SQL expression of the value that SQL_FUNCTIONS has for these channels."""
        return f"ROW({self.count}::pg_catalog.int8, {self.total}::pg_catalog.int8)"
