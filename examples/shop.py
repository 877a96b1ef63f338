"""
A shop in one process: stock, orders, registrations and configuration, followed by one listener.

    DATABASE_URL=postgresql://localhost/postgres python shop.py

Then, in psql:

    INSERT INTO stock VALUES ('tea', 12, 'A1'), ('salt', 3, 'A2');
    INSERT INTO registrations VALUES ('ann@example.com');
    WITH taken AS (UPDATE stock SET quantity = quantity - 9 WHERE sku = 'tea' RETURNING sku)
    INSERT INTO orders (sku, quantity, customer) SELECT sku, 9, 'ann@example.com' FROM taken;
    INSERT INTO configuration VALUES ('scarce_below', '4');
    UPDATE configuration SET value = 'a few';
    SELECT * FROM mails;

Who writes to a table notifies nobody: triggers do, whoever writes. What people forget is the time
when nobody listens. Each order is therefore mailed by a consumer of a durable log, in the
transaction that moves its cursor; each registration says by itself whether it has been welcomed;
and stock and configuration are read at every Gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

import asyncpg
from pydantic import BaseModel, Field, ValidationError

from asyncnotify import Listener
from asyncnotify.log import Event, Log
from asyncnotify.triggers import Change, Table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Connection = asyncpg.Connection[Any]
    Pool = asyncpg.Pool[asyncpg.Record]

DSN = os.environ.get("DATABASE_URL")
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
SCHEMA = """
    CREATE TABLE IF NOT EXISTS stock (
        sku text PRIMARY KEY, quantity int NOT NULL CHECK (quantity >= 0), shelf text NOT NULL);
    CREATE TABLE IF NOT EXISTS orders (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        sku text NOT NULL, quantity int NOT NULL, customer text NOT NULL);
    CREATE TABLE IF NOT EXISTS registrations (email text PRIMARY KEY, welcomed_at timestamptz);
    CREATE TABLE IF NOT EXISTS configuration (name text PRIMARY KEY, value text NOT NULL);
    CREATE TABLE IF NOT EXISTS mails (recipient text NOT NULL, subject text NOT NULL);
"""
WELCOME = """
    WITH job AS (
        SELECT email FROM registrations WHERE welcomed_at IS NULL LIMIT 1 FOR UPDATE SKIP LOCKED
    ), done AS (
        UPDATE registrations SET welcomed_at = now() FROM job
        WHERE registrations.email = job.email RETURNING job.email
    )
    INSERT INTO mails SELECT email, $1 FROM done RETURNING recipient
"""

# A product that moves to another shelf is not told, nor are sales while there is plenty. ``old``
# stands in the condition too: else nobody would hear that there is plenty again.
stock = Table("stock", key="sku", watch="quantity", when="old.quantity < 10 OR new.quantity < 10")
orders = Table(
    "orders", key="id", payload="customer", operations=["insert"], to="log", log="example_shop"
)
registrations = Table("registrations", key="email", operations=["insert"])
configuration = Table("configuration", key="name")

listener = Listener(DSN)
log = Log("example_shop", DSN, listener=listener)


class Settings(BaseModel, extra="forbid", frozen=True):
    """What stands in the table ``configuration``; what is not there has its default."""

    greeting: str = "welcome"
    scarce_below: int = Field(default=5, ge=0, le=10)  # more than 10 the trigger does not tell


@log.on("mailer", orders.changes, transactional=True)
async def mail(event: Event[Change], connection: Connection) -> None:
    """Mail an order: the mail is written and the cursor moved in one transaction."""
    for order in event.payload.rows:
        subject = f"your order {order['id']}"
        await connection.execute("INSERT INTO mails VALUES ($1, $2)", order["customer"], subject)
        print(f"mailed to {order['customer']}: {subject}")


class Shop:
    """What is kept of the tables, and what is done when they change."""

    def __init__(self, pool: Pool) -> None:
        self.settings = Settings()
        self._pool = pool
        self._reading_stock = asyncio.Lock()

    async def follow(self) -> None:
        """Begin to follow the tables: at once, at every change, and at every Gap."""
        await follow(configuration, self._read_configuration)
        await follow(stock, self._read_stock)
        await follow(registrations, self._welcome)

    async def _read_configuration(self) -> None:
        found = await self._pool.fetch("SELECT name, value FROM configuration")
        try:
            self.settings = Settings.model_validate({row["name"]: row["value"] for row in found})
        except ValidationError as error:
            names = ", ".join(str(one["loc"][0]) for one in error.errors())
            print(f"configuration refused, because of {names}")
        else:
            print(f"configuration: {self.settings}")
            await self._read_stock()

    async def _read_stock(self) -> None:
        query = "SELECT sku, quantity FROM stock WHERE quantity < $1 ORDER BY sku"
        async with self._reading_stock:  # what is read last is printed last
            found = await self._pool.fetch(query, self.settings.scarce_below)
            print("scarce:", ", ".join(f"{sku} {left}" for sku, left in found) or "nothing")

    async def _welcome(self) -> None:
        while email := await self._pool.fetchval(WELCOME, self.settings.greeting):
            print(f"welcomed {email}")


async def follow(table: Table, work: Callable[[], Awaitable[None]]) -> None:
    """Do some work at once, and when the table has, or may have, changed; until it succeeds."""

    async def insist(_: object) -> None:
        while True:
            try:
                return await work()
            except FAILURES as error:  # nobody notifies a second time
                print(f"trying again: {error}")
                await asyncio.sleep(0.5)

    # latest: changes that come while the work is done lead to doing it once more
    await listener.listen(table.changes, insist, resync=insist, latest=True)


async def install(pool: Pool) -> None:
    """Make the tables, the log and the triggers, as far as they are not there."""
    await pool.execute(SCHEMA)
    await log.install()
    async with pool.acquire() as connection:
        for table in (stock, orders, registrations, configuration):
            await table.install(connection)


async def main() -> None:
    """Serve until Ctrl-C."""
    async with asyncpg.create_pool(DSN, min_size=0, timeout=5, command_timeout=5) as pool:
        await install(pool)
        async with listener, log:
            await Shop(pool).follow()
            await asyncio.Event().wait()  # here the application does its work


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
