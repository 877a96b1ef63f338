"""
A dict in front of a table, and notifications that say what to forget.

    DATABASE_URL=postgresql://localhost/postgres python cache_invalidation.py tea

Then, in psql, change a price and say so in the same transaction:

    BEGIN; UPDATE prices SET cents = 320 WHERE product = 'tea'; NOTIFY prices, 'tea'; COMMIT;

A cache that misses one notification would be wrong for ever. This one is cleared at every gap,
and not believed while there is no connection. One that dies without a sign is found dead within
``heartbeat + heartbeat_timeout`` seconds; a value is stale for no longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING

import asyncpg

from asyncnotify import Gap, Listener, Notification

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

DSN = os.environ.get("DATABASE_URL")
SCHEMA = "CREATE TABLE IF NOT EXISTS prices (product text PRIMARY KEY, cents int NOT NULL)"
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Prices:
    """The prices of products, each asked for once until it changes."""

    def __init__(self, pool: Pool, listener: Listener) -> None:
        self.queries = 0
        self._pool = pool
        self._listener = listener
        self._cents: dict[str, int] = {}
        self._changes = 0

    async def start(self) -> None:
        """Begin to listen."""
        await self._listener.listen("prices", self._forget, resync=self._forget_all)

    async def get(self, product: str) -> int | None:
        """Return the price of a product in cents, None if it has none."""
        if self._listener.is_connected and product in self._cents:
            return self._cents[product]
        changes = self._changes
        self.queries += 1
        cents: int | None = await self._pool.fetchval(
            "SELECT cents FROM prices WHERE product = $1", product
        )
        if cents is not None and changes == self._changes:  # else it may have changed meanwhile
            self._cents[product] = cents
        return cents

    def _forget(self, notification: Notification[str]) -> None:
        self._changes += 1
        self._cents.pop(notification.payload, None)

    def _forget_all(self, _: Gap) -> None:
        self._changes += 1
        self._cents.clear()


async def main(product: str = "tea", pause: str = "1") -> None:
    """Ask for one price again and again until Ctrl-C."""
    async with asyncpg.create_pool(DSN, min_size=0) as pool, Listener(DSN) as listener:
        await pool.execute(SCHEMA)
        prices = Prices(pool, listener)
        await prices.start()
        while True:
            try:
                cents = await prices.get(product)
                print(f"{product}: {cents} cents after {prices.queries} queries")
            except FAILURES as error:
                print(f"no database: {error}")
            await asyncio.sleep(float(pause))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
