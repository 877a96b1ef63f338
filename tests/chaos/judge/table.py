"""The judge of state: whether what a consumer keeps equals the table."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg

from tests.chaos.sender import LOST, WAIT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.chaos.changes import Row, Rows

__all__ = ["Table", "differences"]

_ROWS = "SELECT channel, key, number FROM things WHERE channel = ANY($1)"
_ROW = "SELECT number FROM things WHERE channel = $1 AND key = $2"


class Table:
    """Reads the table over a connection of its own, past the faulty network."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: asyncpg.Connection[Any] | None = None
        self._turn = asyncio.Lock()

    async def rows(self, channels: Collection[str]) -> Rows:
        """Return all the rows of these channels; raise if the server cannot be asked."""
        rows = await self._fetch(_ROWS, list(channels))
        return {(row["channel"], row["key"]): row["number"] for row in rows}

    async def row(self, row: Row) -> int | None:
        """Return one row's number, None if it is gone. Ask until the server answers."""
        while True:
            try:
                found = await self._fetch(_ROW, *row)
            except LOST:
                await asyncio.sleep(0.02)
            else:
                return found[0]["number"] if found else None

    async def _fetch(self, query: str, *arguments: object) -> list[Any]:
        async with self._turn:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(self._dsn, timeout=WAIT_LIMIT)
            try:
                return await self._connection.fetch(query, *arguments, timeout=WAIT_LIMIT)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Leave the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def differences(kept: Rows, table: Rows) -> list[str]:
    """Return a line for each row that is not kept as it is in the table."""
    return [
        f"{row[0]} {row[1]}: kept {kept.get(row)}, in the table {table.get(row)}"
        for row in sorted({*kept, *table})
        if kept.get(row) != table.get(row)
    ]
