"""
A lock for several processes, and writes that only its present holder can make.

    DATABASE_URL=postgresql://localhost/postgres python lock.py 10

Run it in several terminals at once: each adds to the same counter, and none is lost. Stop one of
them by Ctrl-Z for a minute, and go on with it by `fg`: the others have counted meanwhile, and what
the stopped one was about to write is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING

import asyncpg

from asyncnotify.lock import Lock, LockLostError, Locks

if TYPE_CHECKING:
    from asyncnotify.lock import Held

    Connection = asyncpg.Connection[asyncpg.Record]

DSN = os.environ.get("DATABASE_URL", "postgresql://localhost/postgres")
SCHEMA = """
    CREATE TABLE IF NOT EXISTS counter (id int PRIMARY KEY, value int NOT NULL);
    INSERT INTO counter VALUES (1, 0) ON CONFLICT DO NOTHING;
"""
FAILURES = (
    *(LockLostError, OSError, asyncpg.PostgresError),
    *(asyncpg.InterfaceError, asyncpg.InternalClientError),
)


async def count(held: Held, connection: Connection) -> int:
    """Add one to the counter, in two steps that no other holder comes between."""
    value: int = await connection.fetchval("SELECT value FROM counter")
    await asyncio.sleep(0.1)  # some work: cancelled if the lock is lost
    async with connection.transaction():
        await held.check(connection)  # refused if another holder has come
        await connection.execute("UPDATE counter SET value = $1", value + 1)
    return value + 1


async def count_under_lock(locks: Locks) -> int:
    """Wait for the lock, and count once."""
    connection = await asyncpg.connect(DSN)
    try:
        async with Lock(locks, "counter") as held:
            await connection.execute(SCHEMA)
            return await count(held, connection)
    finally:
        connection.terminate()


async def main(rounds: str = "10") -> None:
    """Count so many times; when the database goes away, try again."""
    left = int(rounds)
    async with Locks(DSN) as locks:
        await locks.install()
        while left:
            try:
                value = await count_under_lock(locks)
            except FAILURES as error:
                print(f"not counted: {error}")
                await asyncio.sleep(1)
            else:
                print(f"counted {value}")
                left -= 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
