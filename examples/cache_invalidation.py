"""
A dict in front of a table, and notifications that say what to forget.

    DATABASE_URL=postgresql://localhost/postgres python cache_invalidation.py tea

Then, in psql, change a price and say so in the same transaction:

    BEGIN; UPDATE prices SET cents = 320 WHERE product = 'tea'; NOTIFY prices, 'tea'; COMMIT;

A cache that misses one notification would be wrong for ever. This one is emptied when the
connection is lost and at every gap. It keeps nothing while there is no connection, and nothing that
was read before a change and arrives after its notification. A connection that dies without a sign
is found dead within ``heartbeat + heartbeat_timeout`` seconds; a value is stale for no longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING

import asyncpg

from asyncnotify import ConnectionLost, Gap, Listener, Notification

if TYPE_CHECKING:
    from asyncnotify import ConnectionEvent

    Pool = asyncpg.Pool[asyncpg.Record]

DSN = os.environ.get("DATABASE_URL")
SCHEMA = "CREATE TABLE IF NOT EXISTS prices (product text PRIMARY KEY, cents int NOT NULL)"
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Prices:
    """The prices of products, each asked for once until it changes."""

    def __init__(self, pool: Pool) -> None:
        self.queries = 0
        self._pool = pool
        self._listener: Listener | None = None
        self._cents: dict[str, int] = {}
        self._changes = 0

    async def follow(self, listener: Listener) -> None:
        """Forget what this listener is told of; its events must go to ``on_event()``."""
        await listener.listen("prices", self.forget, resync=self.forget_all)
        self._listener = listener

    def on_event(self, event: ConnectionEvent) -> None:
        """Forget all at a loss: the gap comes a moment later than the new connection."""
        if isinstance(event, ConnectionLost):
            self.forget_all()

    def forget(self, notification: Notification[str]) -> None:
        """Forget the product that has changed."""
        self._changes += 1
        self._cents.pop(notification.payload, None)

    def forget_all(self, _: Gap | None = None) -> None:
        """Forget every product: any may have changed."""
        self._changes += 1
        self._cents.clear()

    def cached(self, product: str) -> int | None:
        """Return the price of a product if it is known, and cannot have changed unnoticed."""
        return self._cents.get(product) if self._is_told else None

    async def get(self, product: str) -> int | None:
        """Return the price of a product in cents, None if it has none."""
        if (known := self.cached(product)) is not None:
            return known
        changes, is_told = self._changes, self._is_told
        self.queries += 1
        cents: int | None = await self._pool.fetchval(
            "SELECT cents FROM prices WHERE product = $1", product
        )
        if is_told and cents is not None and changes == self._changes:  # else it may be an old one
            self._cents[product] = cents
        return cents

    @property
    def _is_told(self) -> bool:
        return self._listener is not None and self._listener.is_connected


async def main(product: str = "tea", pause: str = "1") -> None:
    """Ask for one price again and again until Ctrl-C."""
    async with asyncpg.create_pool(DSN, min_size=0) as pool:
        await pool.execute(SCHEMA)
        prices = Prices(pool)
        async with Listener(DSN, on_event=prices.on_event) as listener:
            await prices.follow(listener)
            await ask(prices, product, float(pause))


async def ask(prices: Prices, product: str, pause: float) -> None:
    """Print a price again and again."""
    while True:
        try:
            cents = await prices.get(product)
            print(f"{product}: {cents} cents after {prices.queries} queries")
        except FAILURES as error:
            print(f"no database: {error}")
        await asyncio.sleep(pause)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
