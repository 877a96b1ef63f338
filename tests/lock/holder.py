"""
A program that takes a lock, for tests to be frozen, killed, or to contend with others.

    python holder.py turns DSN WITNESS TASKS TURNS
    python holder.py hold DSN LIFE
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

import asyncpg

from asyncnotify.lock import Held, Lock, LockLostError, Locks


def say(line: str) -> None:
    """Tell the test."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def turn(lock: Lock, witness: str) -> None:
    """Hold the lock for a moment; the file would be there if somebody else held it."""
    async with lock:
        os.close(os.open(witness, os.O_CREAT | os.O_EXCL))
        await asyncio.sleep(0)
        os.unlink(witness)  # noqa: PTH108 - one call of the system, as the one above


async def turns(dsn: str, witness: str, tasks: str, rounds: str) -> None:
    """Contend for one lock, by so many tasks and turns of each."""

    async def contend(locks: Locks) -> None:
        for _ in range(int(rounds)):
            await turn(Lock(locks, "contended"), witness)

    async with Locks(dsn) as locks, asyncio.TaskGroup() as group:
        for _ in range(int(tasks)):
            group.create_task(contend(locks))
    say("done")


async def check(held: Held, connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Write in a transaction that the server has checked, whatever this process knows."""
    try:
        async with connection.transaction():
            query = "SELECT asyncnotify.lock_check($1, $2)"
            await connection.execute(query, held.name, held.token)
            await connection.execute("INSERT INTO written VALUES ($1)", held.token)
    except asyncpg.PostgresError as error:
        say(f"refused {error.sqlstate}")
    else:
        say("written")


async def hold(dsn: str, life: str) -> None:
    """Take the lock, wait for a line, and write."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "tests"})
    try:
        async with Locks(dsn, life=float(life)) as locks, Lock(locks, "held") as held:
            say(f"held {held.token}")
            try:
                await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
            finally:
                checking = asyncio.create_task(check(held, connection))
                while not checking.done():  # the loss of the lock cancels this task, at any time
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.wait({checking})
    except LockLostError:
        say("lost")
    finally:
        await connection.close()


async def main(what: str, *arguments: str) -> None:
    """Do what is asked for."""
    await (turns(*arguments) if what == "turns" else hold(*arguments))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
