"""
A read model: a table that is made of the events alone, and made anew from the first one.

    DATABASE_URL=postgresql://localhost/postgres python log_read_model.py

The table and the cursor are committed together, so each event counts once. When the way in which
the table is made has changed, empty it, and let the consumer begin again by ``seek()``.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import asyncpg

from asyncnotify import Channel
from asyncnotify.log import Event, Log

DSN = os.environ.get("DATABASE_URL", "postgresql://localhost/postgres")
TABLE = "CREATE TABLE IF NOT EXISTS balances (account text PRIMARY KEY, cents bigint)"
ADD = """
    INSERT INTO balances VALUES ($1, $2)
    ON CONFLICT (account) DO UPDATE SET cents = balances.cents + excluded.cents
"""

booked: Channel[int] = Channel("booked", int)
log = Log("ledger", DSN)


@log.on("balances", booked, transactional=True)
async def add(event: Event[int], connection: asyncpg.Connection[Any]) -> None:
    """Add an amount to the balance of its account."""
    await connection.execute(ADD, event.key, event.payload)


async def show(connection: asyncpg.Connection[Any], expected: int) -> None:
    """Print the balances, once they hold all that was booked."""
    total = "SELECT coalesce(sum(cents), 0) FROM balances"
    while await connection.fetchval(total) != expected:
        await asyncio.sleep(0.05)
    for row in await connection.fetch("SELECT * FROM balances ORDER BY account"):
        print(f"{row['account']}: {row['cents']}")


async def main() -> None:
    """Book, show the balances, and make them anew."""
    await log.install()
    connection = await asyncpg.connect(DSN)
    await connection.execute(TABLE)
    async with log:
        for account, cents in (("ann", 500), ("bob", 300), ("ann", -200)):
            await log.append(booked, cents, key=account)
        await show(connection, 600)
        print("made anew from the first event:")
        await log.pause("balances")
        await connection.execute("TRUNCATE balances")
        await log.seek("balances", "start")
        await log.resume("balances")
        await show(connection, 600)
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main())
