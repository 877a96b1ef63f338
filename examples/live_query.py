"""
A dict that stays equal to what a query returns.

    DATABASE_URL=postgresql://localhost/postgres python live_query.py

Then, in psql: ``INSERT INTO products VALUES ('tea', 3.20); UPDATE products SET price = 30``. The
first brings a row into the query, the second takes it out again.

A change says which rows to read, by their keys; a Gap says to read all of them. What is read is at
least as new as the change, so it does not matter how many have come in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

import asyncpg

from asyncnotify import Gap, Listener, Notification
from asyncnotify.triggers import Change, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Pool = asyncpg.Pool[asyncpg.Record]

DSN = os.environ.get("DATABASE_URL")
SCHEMA = "CREATE TABLE IF NOT EXISTS products (sku text PRIMARY KEY, price numeric NOT NULL)"
QUERY = "SELECT sku, price FROM products WHERE price < 10"
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

products = Table("products", key="sku")


class LiveQuery:
    """
    The rows that a query returns, by their key.

    Args:
        pool: Reads the rows.
        table: The table of the query, with one column as its key.
        query: The query; one of its columns is that key.
        on_read: Called whenever rows have been read, with all of them.
    """

    def __init__(
        self,
        pool: Pool,
        table: Table,
        query: str,
        on_read: Callable[[dict[Any, asyncpg.Record]], object],
    ) -> None:
        self.rows: dict[Any, asyncpg.Record] = {}
        self._pool = pool
        self._table = table
        self._key = table.columns[0]
        self._all = query
        self._some = f'SELECT * FROM ({query}) AS query WHERE "{self._key}" = ANY($1)'
        self._on_read = on_read

    async def follow(self, listener: Listener) -> None:
        """Keep the rows as they are in the table, until cancelled or the listener is closed."""
        async with listener.stream(self._table.changes, gaps=True) as stream:
            async for items in stream.batches():
                await self._read_until_it_succeeds(keys_of(items))
                self._on_read(self.rows)

    async def _read_until_it_succeeds(self, keys: set[Any] | None) -> None:
        while True:
            try:
                await (self._read_all() if keys is None else self._read_some(keys))
            except FAILURES as error:
                print(f"trying again: {error}")
                await asyncio.sleep(0.5)
            else:
                return

    async def _read_all(self) -> None:
        self.rows = {row[self._key]: row for row in await self._pool.fetch(self._all)}

    async def _read_some(self, keys: set[Any]) -> None:
        found = {row[self._key]: row for row in await self._pool.fetch(self._some, list(keys))}
        for key in keys - found.keys():
            self.rows.pop(key, None)
        self.rows.update(found)


def keys_of(items: Iterable[Notification[Change] | Gap]) -> set[Any] | None:
    """Return the keys of the rows that have changed; None if any may have."""
    keys: set[Any] = set()
    for item in items:
        match item:
            case Notification(payload=Change(keys=changed)) if changed:
                keys.update(changed)
            case _:  # a Gap, or a TRUNCATE
                return None
    return keys


def show(rows: dict[Any, asyncpg.Record]) -> None:
    """Print the rows."""
    print(", ".join(f"{sku} {rows[sku]['price']}" for sku in sorted(rows)) or "no products")


async def main() -> None:
    """Follow the query until Ctrl-C."""
    async with asyncpg.create_pool(DSN, min_size=0) as pool, Listener(DSN) as listener:
        await pool.execute(SCHEMA)
        async with pool.acquire() as connection:
            await products.install(connection)
        await LiveQuery(pool, products, QUERY, show).follow(listener)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
