"""
A copy of a table in memory, kept by the triggers in trigger.sql.

    DATABASE_URL=postgresql://localhost/postgres python trigger.py

Then, in psql: ``INSERT INTO products VALUES ('tea', 3.20)``. Nobody has to think of NOTIFY.

A notification says which row has changed; the row is read again. So it does not matter who sent
it, or that a newer change has come in between. At a gap the whole table is read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from asyncnotify import Gap, Listener, Notification

if TYPE_CHECKING:
    from decimal import Decimal

    Pool = asyncpg.Pool[asyncpg.Record]

DSN = os.environ.get("DATABASE_URL")
SCHEMA = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Products:
    """The prices of all products, by their sku."""

    def __init__(self, pool: Pool) -> None:
        self.prices: dict[str, Decimal] = {}
        self._pool = pool

    async def follow(self, listener: Listener) -> None:
        """Bring the copy up to date, again and again."""
        async for item in listener.stream("products", gaps=True):
            while True:
                try:
                    await self._read(item)
                except FAILURES as error:
                    print(f"trying again: {error}")
                    await asyncio.sleep(1)
                else:
                    break

    async def _read(self, item: Notification[str] | Gap) -> None:
        match item:
            case Notification(payload=sku) if sku:
                await self._read_row(sku)
            case _:
                await self._read_table()

    async def _read_row(self, sku: str) -> None:
        price = await self._pool.fetchval("SELECT price FROM products WHERE sku = $1", sku)
        if price is None:
            self.prices.pop(sku, None)
            print(f"{sku} is gone")
        else:
            self.prices[sku] = price
            print(f"{sku} costs {price}")

    async def _read_table(self) -> None:
        rows = await self._pool.fetch("SELECT sku, price FROM products")
        self.prices = {row["sku"]: row["price"] for row in rows}
        print(f"read all {len(rows)} products")


async def main() -> None:
    """Follow the table until Ctrl-C."""
    async with asyncpg.create_pool(DSN, min_size=0) as pool, Listener(DSN) as listener:
        await pool.execute(SCHEMA)
        await Products(pool).follow(listener)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
