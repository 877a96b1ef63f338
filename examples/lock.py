"""
A lock for several processes: an advisory lock, and notifications to wake those who wait for it.

    DATABASE_URL=postgresql://localhost/postgres python lock.py 10

Run it in several terminals at once: each adds to the same counter, and none is lost.

The lock alone says whose turn it is. A notification is only a reason to try again, and so is a
gap, and so is time: a holder that was killed frees the lock without telling anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING

import asyncpg

from asyncnotify import Listener

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    Connection = asyncpg.Connection[asyncpg.Record]

DSN = os.environ.get("DATABASE_URL")
SCHEMA = """
    CREATE TABLE IF NOT EXISTS counter (id int PRIMARY KEY, value int NOT NULL);
    INSERT INTO counter VALUES (1, 0) ON CONFLICT DO NOTHING;
"""
TRY = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))"
# The lock is free at once, and who waits is woken at the commit: after that.
RELEASE = "SELECT pg_advisory_unlock(hashtextextended($1, 0)), pg_notify('lock_released', $1)"
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


@contextlib.asynccontextmanager
async def lock(listener: Listener, name: str, *, retry: float = 5.0) -> AsyncGenerator[Connection]:
    """
    Hold the lock of this name while the block runs.

    It belongs to the connection that the block is given. Do there what the lock protects: when
    the connection dies, the lock and the work are over at the same moment.
    """
    connection = await asyncpg.connect(DSN)
    wakes = listener.stream("lock_released", gaps=True, latest=True)  # listens when first waited on
    try:
        while not await connection.fetchval(TRY, name):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(retry):
                    await anext(wakes)
        try:
            yield connection
        finally:
            await connection.execute(RELEASE, name)
    finally:
        connection.terminate()  # with it ends the lock, if releasing it has failed
        await wakes.aclose()


async def count(connection: Connection) -> int:
    """Add one to the counter, in two steps that nobody may come between."""
    await connection.execute(SCHEMA)
    value: int = await connection.fetchval("SELECT value FROM counter")
    await asyncio.sleep(0.1)
    await connection.execute("UPDATE counter SET value = $1", value + 1)
    return value + 1


async def main(rounds: str = "10") -> None:
    """Count so many times; when the database goes away, try again."""
    left = int(rounds)
    async with Listener(DSN) as listener:
        while left:
            try:
                async with lock(listener, "counter") as connection:
                    value = await count(connection)
                print(f"counted {value}")
                left -= 1
            except FAILURES as error:
                print(f"lost the lock, if we had it: {error}")
                await asyncio.sleep(1)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
