"""
A worker for jobs in a table, woken by NOTIFY. Run as many processes as you like.

    DATABASE_URL=postgresql://localhost/postgres python worker.py

A job is a number of seconds to work. Then, in psql:

    INSERT INTO jobs (work) SELECT '0.1' FROM generate_series(1, 300);
    INSERT INTO jobs (work) VALUES ('nonsense');

The last one fails three times and is set aside. Press Ctrl-C, or send SIGTERM: the job in hand is
finished, those that were taken with it are given back.

The table says what there is to do; a notification only wakes. Nobody is notified of a job that was
inserted while nobody listened, that is due later, or whose worker was killed: each worker looks
also at every Gap, and every few seconds. What a job writes by ``connection`` is committed together
with the fact that it is done: exactly once. All else is done again if its worker dies before that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

import asyncpg

from asyncnotify import Gap, Listener, Notification
from asyncnotify.triggers import Change, Table

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]

DSN = os.environ.get("DATABASE_URL")
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
JOB_LIMIT = 60  # seconds that one job may take
# So the server gives back the jobs of a worker whose machine has vanished
SETTINGS = {"idle_in_transaction_session_timeout": f"{2 * JOB_LIMIT}s"}
SCHEMA = """
    CREATE TABLE IF NOT EXISTS jobs (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        work text NOT NULL,
        state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'failed')),
        due timestamptz NOT NULL DEFAULT now(),
        attempts int NOT NULL DEFAULT 0,
        error text,
        UNIQUE (state, due, id)  -- the index by which those that wait are found
    );
    CREATE TABLE IF NOT EXISTS results (job bigint, seconds float8)
"""
TAKE = """
    SELECT id, work FROM jobs WHERE state = 'waiting' AND due <= now()
    ORDER BY due, id LIMIT 10 FOR UPDATE SKIP LOCKED
"""
DONE = "UPDATE jobs SET state = 'done', attempts = attempts + 1 WHERE id = $1"
FAILED = """
    UPDATE jobs SET attempts = attempts + 1, error = $2,
        state = CASE WHEN attempts < 2 THEN 'waiting' ELSE 'failed' END,
        due = clock_timestamp() + interval '0.25 seconds' * 2 ^ attempts
    WHERE id = $1 RETURNING state
"""

jobs = Table("jobs", key="id", operations=("insert",))


async def work(job: asyncpg.Record, connection: Connection) -> None:
    """Do what the job says; whatever it raises, it is tried again."""
    seconds = float(job["work"])
    await asyncio.sleep(seconds)
    await connection.execute("INSERT INTO results VALUES ($1, $2)", job["id"], seconds)
    print(f"did {job['id']}")


async def attempt(job: asyncpg.Record, connection: Connection) -> None:
    """Do a job in a savepoint, and note whether it is done, due again or set aside."""
    try:
        async with asyncio.timeout(JOB_LIMIT), connection.transaction():
            await work(job, connection)
    except Exception as error:  # noqa: BLE001 - a job may raise anything
        state = await connection.fetchval(FAILED, job["id"], repr(error))
        print(f"{job['id']} is {state}: {error!r}")
    else:
        await connection.execute(DONE, job["id"])


class Worker:
    """Does jobs until it is stopped, and looks for them at least every so many seconds."""

    def __init__(self, pool: Pool, every: float) -> None:
        self._pool = pool
        self._every = every
        self._wake = asyncio.Event()
        self._stopping = False

    def wake(self, _: Notification[Change] | Gap) -> None:
        """Look for jobs now, or once more after those in hand."""
        self._wake.set()

    def stop(self) -> None:
        """Let ``run()`` return after the job in hand."""
        print("stopping")
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Do jobs until ``stop()``."""
        while not self._stopping:
            self._wake.clear()  # before looking: what comes while we look is looked for again
            try:
                while await self._do_some():
                    pass
                delay = self._every
            except FAILURES as error:
                print(f"trying again: {error!r}")
                delay = 0.5
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), delay)

    async def _do_some(self) -> bool:
        async with self._pool.acquire(timeout=5) as connection, connection.transaction():
            taken = await connection.fetch(TAKE)
            for job in taken:
                if not self._stopping:  # else the end of the transaction gives it back
                    await attempt(job, connection)
        return bool(taken) and not self._stopping


async def main(every: str = "5") -> None:
    """Work until Ctrl-C or SIGTERM."""
    async with (
        asyncpg.create_pool(
            DSN, min_size=0, timeout=5, command_timeout=JOB_LIMIT, server_settings=SETTINGS
        ) as pool,
        Listener(DSN) as listener,
    ):
        await pool.execute(SCHEMA)
        async with pool.acquire() as connection:
            await jobs.install(connection)
        worker = Worker(pool, float(every))
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, worker.stop)
        await listener.listen(jobs.changes, worker.wake, resync=worker.wake)
        print("ready")
        await worker.run()
        pool.terminate()  # close() of asyncpg 0.29 waits for lost connections, for ever


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
