"""
What changes in a table, told by triggers that asyncnotify makes.

    DATABASE_URL=postgresql://localhost/postgres python trigger.py

Then, in psql: ``INSERT INTO products VALUES ('tea', 3.20)``. Nobody has to think of NOTIFY.

What cannot be told change by change is a Gap: what was sent while there was no connection, a
statement that changes too much, a key that is too long for a notification. Any role may notify, so
a program that acts on a price reads the row, with rights of its own: live_query.py does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

import asyncpg

from asyncnotify import Gap, Listener, Notification
from asyncnotify.triggers import Change, Table

DSN = os.environ.get("DATABASE_URL")
SCHEMA = "CREATE TABLE IF NOT EXISTS products (sku text PRIMARY KEY, price numeric NOT NULL)"

products = Table("products", key="sku", payload="price")


def show(item: Notification[Change] | Gap) -> None:
    """Print what has changed."""
    match item:
        case Notification(payload=Change(operation="truncate")):
            print("all products are gone")
        case Notification(payload=Change(operation="delete", keys=keys)):
            print(f"gone: {', '.join(keys)}")
        case Notification(payload=Change(rows=rows)):
            for row in rows:
                print(f"{row['sku']} costs {row.get('price', 'what does not fit in here')}")
        case Gap(reason=reason):
            print(f"{reason}: read the table")


async def install() -> None:
    """Make the table and its triggers, unless they are there."""
    connection = await asyncpg.connect(DSN)
    try:
        await connection.execute(SCHEMA)
        await products.install(connection)
    finally:
        await connection.close()


async def main() -> None:
    """Print every change until Ctrl-C."""
    await install()
    async with Listener(DSN) as listener:
        async for item in listener.stream(products.changes, gaps=True):
            show(item)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
