"""procrastinate: its worker, which fetches jobs one by one and runs several at once."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

import asyncpg

from benchmarks.peers.protocol import Options, run, say
from benchmarks.peers.queues import Ages, Progress, portions

_INSTALLED = "SELECT to_regclass('procrastinate_jobs') IS NOT NULL"
_CLEAR = "TRUNCATE procrastinate_jobs, procrastinate_events RESTART IDENTITY CASCADE"
_JOB = (
    "ROW('bench', 'bench', 0, NULL, NULL, jsonb_build_object('text', <payload>::text), NULL)"
    "::procrastinate_job_to_defer_v1"
)
_DEFER = f"SELECT unnest(procrastinate_defer_jobs_v1(ARRAY[{_JOB}])) AS id"
_FILL = f"""
    SELECT procrastinate_defer_jobs_v1(array_agg({_JOB}))
    FROM generate_series($1::int, $2::int) AS number
"""  # noqa: S608 - SQL of ours
_CONNECTIONS = 8


async def fill(options: Options) -> None:
    """Empty the queue; fill it with so many jobs."""
    connection = await asyncpg.connect(options.dsn)
    if not await connection.fetchval(_INSTALLED):
        schema: Any = importlib.import_module("procrastinate.schema")
        await connection.execute(schema.SchemaManager.get_schema())
    await connection.execute(_CLEAR)
    for statement, first, last in portions(_FILL, options.number("count")):
        await connection.execute(statement, first, last)
    await connection.close()
    say("done")


async def statement(_: Options) -> None:
    """Tell how a job is deferred."""
    say("statement", sql=_DEFER)


async def consume(options: Options) -> None:
    """Let the worker run jobs, so many at once; it deletes each when it is done."""
    progress = Progress(options)

    async def handle(text: str) -> None:  # noqa: ARG001 - that it came is all
        progress.add(1)
        if progress.is_done:
            progress.tell()

    say("ready")
    await _work(options, handle, concurrency=options.number("batch"), listen_notify=False)


async def latency(options: Options) -> None:
    """Note how old each job is when its task runs."""
    ages = Ages(options)

    async def note(text: str) -> None:
        ages.note(text)
        if ages.all_here.is_set():
            ages.tell()

    working = asyncio.create_task(_work(options, note, concurrency=1, listen_notify=True))
    await asyncio.sleep(1.0)  # it does not tell when it listens
    say("ready")
    await working


async def _work(options: Options, handle: Any, **settings: Any) -> None:  # noqa: ANN401 - its own
    module: Any = importlib.import_module("procrastinate")
    connector = module.PsycopgConnector(
        conninfo=options.dsn, min_size=_CONNECTIONS, max_size=_CONNECTIONS
    )
    app = module.App(connector=connector)
    app.task(name="bench", queue="bench")(handle)
    async with app.open_async():
        await app.run_worker_async(queues=["bench"], delete_jobs="always", **settings)


WORKLOADS = {"fill": fill, "statement": statement, "consume": consume, "latency": latency}

if __name__ == "__main__":
    run(WORKLOADS)
