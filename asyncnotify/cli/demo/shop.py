"""The database of the demo of the log: orders, each with its event, and the mails that follow."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asyncnotify.cli.demo.mailer import ORDERS
from asyncnotify.cli.demo.writer import FAILURES, connected

if TYPE_CHECKING:
    import asyncpg

    from asyncnotify.cli.demo.screen import Row
    from asyncnotify.log import Log

__all__ = ["Count", "Shop"]

_SCHEMA: Final = """
CREATE TABLE orders (number integer PRIMARY KEY);
CREATE TABLE mails (n integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number integer,
    process integer);
"""
# A connection that dies in flight leaves unknown whether the order was committed. Then this is
# repeated: if the order is there, its event is there as well.
_INSERT: Final = "INSERT INTO orders (number) VALUES ($1) ON CONFLICT DO NOTHING RETURNING true"
_COUNT: Final = """
    SELECT (SELECT count(*) FROM orders) AS orders,
        (SELECT count(*) FROM mails) AS mails,
        (SELECT count(*) FROM orders WHERE number NOT IN (SELECT number FROM mails)) AS lost,
        (SELECT count(*) - count(DISTINCT number) FROM mails) AS doubled,
        (SELECT count(*) FROM (SELECT number < lag(number) OVER (ORDER BY n) AS is_late
            FROM mails) AS mail WHERE is_late) AS late,
        (SELECT count(*) FROM mails WHERE number NOT IN (SELECT number FROM orders)) AS made_up
"""
_RETRY: Final = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """
    What the rows of the database come to.

    Attributes:
        orders: How many were committed.
        mails: How many were written by the consumer.
        lost: Orders without a mail.
        doubled: Mails beyond the first of an order.
        late: Mails that came before one of a smaller number.
        made_up: Mails without an order.
    """

    orders: int = 0
    mails: int = 0
    lost: int = 0
    doubled: int = 0
    late: int = 0
    made_up: int = 0

    def figures(self) -> tuple[Row, list[Row]]:
        """Return the header and the rows of the table that shows it, with what was promised."""
        return ("rows in the database", "counted", "promised"), [
            ("orders, each with its event", f"{self.orders:,}", ""),
            ("mails, by the consumer", f"{self.mails:,}", f"{self.orders:,}"),
            ("orders lost", f"{self.lost:,}", "0"),
            ("mails doubled", f"{self.doubled:,}", "0"),
            ("mails out of order", f"{self.late:,}", "0"),
            ("mails without an order", f"{self.made_up:,}", "0"),
        ]

    def problems(self) -> list[str]:
        """Describe every promise that was not kept."""
        found = {
            "orders lost": self.lost,
            "mails doubled": self.doubled,
            "mails out of order": self.late,
            "mails without an order": self.made_up,
        }
        problems = [f"{count:,} {what}" for what, count in found.items() if count]
        return problems if self.orders else [*problems, "no order was committed"]


class Shop:
    """
    Commits orders 1, 2, 3, …, each with its event in one transaction, through every outage.

    Attributes:
        dsn: The database.
        committed: The highest number that was committed.
    """

    def __init__(self, dsn: str, log: Log) -> None:
        self.committed: int = 0
        self.dsn = dsn
        self._log = log
        self._stopping = False

    async def open(self) -> None:
        """Make the tables, and the log."""
        async with connected(self.dsn) as connection:
            await connection.execute(_SCHEMA)
        await self._log.install()

    async def take_orders(self, per_second: float) -> None:
        """Commit orders until stopped, reconnecting whenever the connection is lost."""
        while not self._stopping:
            with contextlib.suppress(*FAILURES):
                async with connected(self.dsn) as connection:
                    while not self._stopping:
                        await self._take_order(connection, self.committed + 1)
                        self.committed += 1
                        await asyncio.sleep(1 / per_second)
            await asyncio.sleep(_RETRY)

    async def _take_order(
        self, connection: asyncpg.Connection[asyncpg.Record], number: int
    ) -> None:
        async with connection.transaction():
            if await connection.fetchval(_INSERT, number):
                await self._log.append(ORDERS, str(number), connection=connection)

    def stop(self) -> None:
        """Stop after the commit that is under way."""
        self._stopping = True

    async def last_mail(self) -> tuple[int, int]:
        """Return the number of the newest mail and the process that wrote it; zeros if none can."""
        with contextlib.suppress(*FAILURES):
            async with connected(self.dsn) as connection:
                rows = await connection.fetch(
                    "SELECT number, process FROM mails ORDER BY n DESC LIMIT 1"
                )
                if rows:
                    return rows[0]["number"], rows[0]["process"]
        return 0, 0

    async def count(self) -> Count:
        """Count the rows."""
        async with connected(self.dsn) as connection:
            [row] = await connection.fetch(_COUNT)
            return Count(**dict(row))
