"""Codecs and records of a caller's own, which nothing of asyncnotify's may use."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import asyncpg

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]

TYPES: Final = [
    *("bool", "bytea", "char", "name", "int2", "int4", "int8", "oid", "float4", "float8"),
    *("numeric", "text", "varchar", "bpchar", "json", "jsonb", "uuid", "date", "time"),
    *("timestamp", "timestamptz", "interval", "xid", "xid8", "pg_snapshot", "unknown"),
]
"""All that a statement of ours takes or gives, and more."""


class CustomRecord(asyncpg.Record):
    """A class of the caller's for rows, whose values have one more wrapping."""

    def __getitem__(self, key: Any) -> Any:
        """Return something else."""
        return [super().__getitem__(key)]


def refuse(value: object) -> Any:
    """Code nothing."""
    msg = f"a codec of the caller's was used for {value!r}"
    raise AssertionError(msg)


async def set_codecs(connection: Connection) -> None:
    """Have every type coded by a function that raises."""
    done = 0
    for name in TYPES:
        # The server has no such type, or the driver allows none for it
        with contextlib.suppress(ValueError, asyncpg.InterfaceError):
            await connection.set_type_codec(
                name, schema="pg_catalog", encoder=refuse, decoder=refuse, format="text"
            )
            done += 1
    assert done > len(TYPES) - 4
