"""
The application that writes: plain asyncpg and SQL, as in many projects.

It inserts numbered orders, and a trigger notifies of each in the same transaction: either both
happen or neither. So at the end the table holds exactly the numbers that were sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, Final

import asyncpg

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

CHANNEL: Final = "orders"

SCHEMA = f"""
CREATE TABLE orders (number integer PRIMARY KEY);

CREATE FUNCTION notify_of_order() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('{CHANNEL}', NEW.number::text);
    RETURN NULL;
END $$;

CREATE TRIGGER notify AFTER INSERT ON orders
FOR EACH ROW EXECUTE FUNCTION notify_of_order();
"""

# A connection that dies in flight leaves unknown whether the row was committed. Then this is
# repeated: afterwards the row is there, and its notification was sent exactly once.
_INSERT = "INSERT INTO orders (number) VALUES ($1) ON CONFLICT DO NOTHING"

_TIMEOUT = 5.0
_RETRY = 0.005
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


@contextlib.asynccontextmanager
async def connected(dsn: str) -> AsyncGenerator[asyncpg.Connection[asyncpg.Record], None]:
    """Connect for the length of a block."""
    connection = await asyncpg.connect(
        dsn,
        timeout=_TIMEOUT,
        command_timeout=_TIMEOUT,
        ssl=False,  # whatever PGSSLMODE says: the server is ours, and has none
        server_settings={"application_name": "the other application"},
    )
    try:
        yield connection
    finally:
        connection.terminate()  # never waits for a server that may be gone


async def read_orders(dsn: str) -> set[int]:
    """Return the numbers that are in the table."""
    async with connected(dsn) as connection:
        return {row["number"] for row in await connection.fetch("SELECT number FROM orders")}


async def end_session(dsn: str, backend_pid: int) -> None:
    """Terminate a session, as an administrator or a restarting proxy may."""
    async with connected(dsn) as connection:
        await connection.execute(f"SELECT pg_terminate_backend({backend_pid:d})")


class Writer:
    """
    Commits orders 1, 2, 3, … one after another, through every outage of the server.

    Args:
        dsn: The database.
        sending: Called with each number before it is sent.
        committed: Called with it once the server has confirmed its commit.
    """

    def __init__(
        self, dsn: str, *, sending: Callable[[int], object], committed: Callable[[int], object]
    ) -> None:
        self._dsn = dsn
        self._sending = sending
        self._committed = committed
        self._stopping = False
        self._numbers = itertools.count(1)

    async def create_table(self, rows: int) -> None:
        """Make the table and its trigger, and commit the first orders."""
        async with connected(self._dsn) as connection:
            await connection.execute(SCHEMA)
            for _ in range(rows):
                await self._insert(connection, next(self._numbers))

    async def insert_two(self, before_commit: Callable[[int, int], Awaitable[object]]) -> None:
        """Insert two orders in one transaction; await the callback before it is committed."""
        first, second = next(self._numbers), next(self._numbers)
        self._sending(second)
        async with connected(self._dsn) as connection:
            async with connection.transaction():
                await connection.execute(_INSERT, first)
                await connection.execute(_INSERT, second)
                await before_commit(first, second)
            self._committed(first)
            self._committed(second)

    async def write(self, per_second: float) -> None:
        """Commit orders until stopped, reconnecting whenever the connection is lost."""
        number = next(self._numbers)
        while not self._stopping:
            with contextlib.suppress(*FAILURES):
                async with connected(self._dsn) as connection:
                    while not self._stopping:
                        await self._insert(connection, number)
                        number = next(self._numbers)
                        await asyncio.sleep(1 / per_second)
            await asyncio.sleep(_RETRY)

    def stop(self) -> None:
        """Stop after the commit that is under way."""
        self._stopping = True

    async def _insert(self, connection: asyncpg.Connection[asyncpg.Record], number: int) -> None:
        self._sending(number)
        await connection.execute(_INSERT, number)
        self._committed(number)
