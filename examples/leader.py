"""
A scheduler of which any number of processes run, and one at a time works.

    DATABASE_URL=postgresql://localhost/postgres python leader.py

Run it in several terminals. One of them ticks, once a second; end it, by Ctrl-C or `kill -9`, and
another one goes on. `python leader.py resign` asks the one that leads to let another one do so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING

import asyncpg

from asyncnotify.lock import Leader, Locks

if TYPE_CHECKING:
    from asyncnotify.lock import Held

DSN = os.environ.get("DATABASE_URL", "postgresql://localhost/postgres")
SCHEMA = """
    CREATE TABLE IF NOT EXISTS ticks (
        number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, token bigint NOT NULL
    )
"""


async def tick(held: Held, connection: asyncpg.Connection[asyncpg.Record]) -> int:
    """Do one round of the work, in a transaction that only the present leader can commit."""
    async with connection.transaction():
        await held.check(connection)
        query = "INSERT INTO ticks (token) VALUES ($1) RETURNING number"
        number: int = await connection.fetchval(query, held.token)
    return number


async def lead(held: Held) -> None:
    """Work for as long as this process leads: it is cancelled when that is over."""
    print(f"leading with token {held.token}")
    connection = await asyncpg.connect(DSN)
    try:
        await connection.execute(SCHEMA)
        while not held.resigning:
            print(f"tick {await tick(held, connection)}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(held.resigning.wait(), 1)
        print("resigned")
    finally:
        connection.terminate()


async def main(what: str = "lead") -> None:
    """Stand for leader, or ask the leader to resign."""
    async with Locks(DSN) as locks:
        await locks.install()
        leader = Leader("scheduler", lead, locks)
        if what == "resign":
            await leader.resign()
            return
        async with leader:
            await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
