"""
An outbox: orders are placed in SQLAlchemy sessions, and each that commits is mailed exactly once.

    DATABASE_URL=postgresql://localhost/postgres python log_outbox.py 5

The event is appended in the transaction that places the order: both are there, or neither. The
handler writes the mail and moves its cursor in one transaction: both are done, or neither, whatever
is killed in between. Run it twice at once: one process mails, and the other would take over.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from asyncnotify import Channel
from asyncnotify.log import Event, Log

DSN = os.environ.get("DATABASE_URL", "postgresql://localhost/postgres")
TABLES = """
    CREATE TABLE IF NOT EXISTS orders (id int GENERATED ALWAYS AS IDENTITY, customer text);
    CREATE TABLE IF NOT EXISTS mails (customer text, subject text);
"""
ALL_MAILED = "SELECT (SELECT count(*) FROM orders) = (SELECT count(*) FROM mails)"


@dataclass
class Order:
    """An order that was placed."""

    id: int
    customer: str


placed = Channel("order_placed", Order)
log = Log("shop", DSN)


@log.on("mailer", placed, transactional=True)
async def mail(event: Event[Order], connection: asyncpg.Connection[Any]) -> None:
    """Queue the mail: what reads the table hands it to a mail server."""
    order = event.payload
    await connection.execute(
        "INSERT INTO mails VALUES ($1, $2)", order.customer, f"your order {order.id}"
    )


async def place(session: AsyncSession, customer: str) -> None:
    """Place an order in the session's transaction."""
    row = await session.execute(
        text("INSERT INTO orders (customer) VALUES (:customer) RETURNING id"),
        {"customer": customer},
    )
    order = Order(row.scalar_one(), customer)
    await log.append(placed, order, key=customer, connection=session)


async def place_orders(engine: AsyncEngine, count: int) -> None:
    """Place orders, each in a transaction of its own; one more is rolled back."""
    for number in range(count):
        async with AsyncSession(engine) as session, session.begin():
            await place(session, f"customer {number}")
    async with AsyncSession(engine) as session:
        await place(session, "a customer who has changed their mind")
        await session.rollback()


async def main(count: int) -> None:
    """Place so many orders; end once all have been mailed."""
    await log.install()
    connection = await asyncpg.connect(DSN)
    await connection.execute(TABLES)
    engine = create_async_engine(DSN.replace("postgresql://", "postgresql+asyncpg://"))
    async with log:
        await place_orders(engine, count)
        while not await connection.fetchval(ALL_MAILED):
            await asyncio.sleep(0.05)
    for row in await connection.fetch("SELECT * FROM mails"):
        print(f"to {row['customer']}: {row['subject']}")
    await engine.dispose()
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
