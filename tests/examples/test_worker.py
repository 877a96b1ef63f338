"""The workers of examples/worker.py: no job is lost, whatever is killed."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from tests.support.machine import scaled

if TYPE_CHECKING:
    from tests.examples.conftest import ExampleRunner, Program

JOBS: Final = 300
BATCH: Final = 10  # what one worker has in hand, and does again if it is killed before its commit
NEVER: Final = "3600"  # seconds between two looks at the table: the test does not wait for one
NONE_WAITS: Final = "NOT EXISTS (SELECT FROM jobs WHERE state = 'waiting')"
BLOCKED: Final = """
    EXISTS (SELECT FROM pg_locks WHERE relation = 'results'::regclass AND NOT granted)
"""
STATES: Final = "SELECT state, count(*) FROM jobs GROUP BY state"


async def start_workers(runner: ExampleRunner, count: int, every: str) -> list[Program]:
    """Start workers, the first one alone: it makes the tables."""
    first = await runner.run("worker", every)
    await first.expect("ready")
    others = [await runner.run("worker", every) for _ in range(count - 1)]
    for other in others:
        await other.expect("ready")
    return [first, *others]


async def insert(runner: ExampleRunner, *works: str) -> None:
    """Insert these jobs in one statement."""
    async with runner.connect() as connection:
        await connection.execute("INSERT INTO jobs (work) SELECT unnest($1::text[])", works)


async def states(runner: ExampleRunner) -> dict[str, int]:
    """Return how many jobs are in each state."""
    async with runner.connect() as connection:
        return {row[0]: row[1] for row in await connection.fetch(STATES)}


async def column(runner: ExampleRunner, query: str) -> list[int]:
    """Return the first column of what a query returns."""
    async with runner.connect() as connection:
        return [row[0] for row in await connection.fetch(query)]


def printed(programs: list[Program]) -> Counter[int]:
    """Return how often each job says that it was done."""
    return Counter(int(n) for each in programs for n in re.findall(r"did (\d+)", each.said))


async def test_no_job_is_lost(killable_runner: ExampleRunner) -> None:
    """One worker of three is killed, and the server; what is done again was in hand then."""
    runner = killable_runner
    workers = await start_workers(runner, 3, "0.2")
    await insert(runner, *["0.01"] * JOBS)
    for worker in workers:
        await worker.expect("did")
    await workers[0].kill()
    async with runner.outage():
        await workers[1].expect("trying again")
        await insert(runner, "0.01")
    await runner.until(NONE_WAITS)
    for worker in workers[1:]:
        await worker.interrupt(signal.SIGTERM)
    assert await states(runner) == {"done": JOBS + 1}
    ids = await column(runner, "SELECT id FROM jobs ORDER BY id")
    assert await column(runner, "SELECT job FROM results ORDER BY job") == ids, "not exactly once"
    effects = printed(workers)
    assert sorted(effects) == ids
    assert effects.total() <= len(ids) + BATCH * len(workers)


async def test_the_idle_are_woken_within_a_second(runner: ExampleRunner) -> None:
    """By the notification: no worker looks by itself; there is enough for all, and all help."""
    workers = await start_workers(runner, 2, NEVER)
    began = time.monotonic()
    await insert(runner, *["0.1"] * 5 * BATCH)
    for worker in workers:
        await worker.expect("did")
    assert time.monotonic() - began < scaled(1.0)


async def test_a_job_inserted_while_nobody_listened_is_found(runner: ExampleRunner) -> None:
    """At the Gap after the connection is back: no notification says so."""
    [worker] = await start_workers(runner, 1, NEVER)
    async with runner.outage():
        await insert(runner, "0")
    await worker.expect("did 1")
    await worker.interrupt()


async def test_the_job_of_a_killed_worker_is_found(runner: ExampleRunner) -> None:
    """Its notification has been consumed by then: the timer of another worker finds the job."""
    [first] = await start_workers(runner, 1, NEVER)
    async with runner.connect() as holder, holder.transaction():
        await holder.execute("LOCK results IN SHARE MODE")
        await insert(runner, "0")
        await runner.until(BLOCKED)
        [second] = await start_workers(runner, 1, "0.1")
        await first.kill()
    await second.expect("did 1")
    assert not printed([first])
    await second.interrupt()


async def test_a_job_that_raises_is_tried_again_and_set_aside(runner: ExampleRunner) -> None:
    """It takes no other job with it, and its error stands in the table."""
    [worker] = await start_workers(runner, 1, "0.1")
    await insert(runner, "0", "nonsense", "0")
    await worker.expect("did 3")
    await worker.expect("2 is waiting")
    assert "could not convert" in await worker.expect("2 is failed")
    await worker.interrupt()
    assert await states(runner) == {"done": 2, "failed": 1}
    async with runner.connect() as connection:
        row = await connection.fetchrow("SELECT attempts, error FROM jobs WHERE id = 2")
    assert row is not None
    assert row["attempts"] == 3
    assert "could not convert" in row["error"]


async def test_sigterm_finishes_the_job_in_hand(runner: ExampleRunner) -> None:
    """It is done and committed; those taken with it wait for another worker."""
    [worker] = await start_workers(runner, 1, NEVER)
    async with runner.connect() as holder, holder.transaction():
        await holder.execute("LOCK results IN SHARE MODE")
        await insert(runner, "0", "0")
        await runner.until(BLOCKED)
        worker.send(signal.SIGTERM)
        await worker.expect("stopping")
    await worker.end()
    assert printed([worker]) == {1: 1}
    assert await states(runner) == {"done": 1, "waiting": 1}
