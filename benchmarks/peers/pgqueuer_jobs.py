"""pgqueuer: its queue manager, which calls an entrypoint for each job, and its queries by batch."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import uuid
from datetime import timedelta
from typing import Any, Final

import asyncpg

from benchmarks.peers.protocol import Options, run, say
from benchmarks.peers.queues import Ages, Progress

_PORTION: Final = 1_000
_HEARTBEAT = timedelta(seconds=60)
_CLEAR = "TRUNCATE pgqueuer, pgqueuer_log RESTART IDENTITY"
_ARGUMENTS = {
    "$1": "ARRAY[0]",
    "$2": "ARRAY['bench']",
    "$3": "ARRAY[convert_to(<payload>::text, 'UTF8')]",
    "$4": "ARRAY[interval '0']",
    "$5": "ARRAY[NULL]",
    "$6": "ARRAY['{}']",
}


def _queries(connection: Any) -> Any:  # noqa: ANN401 - it need not be installed
    module: Any = importlib.import_module("pgqueuer.queries")
    return module.Queries.from_asyncpg_connection(connection)


async def fill(options: Options) -> None:
    """Empty the queue; fill it with so many jobs."""
    connection = await asyncpg.connect(options.dsn)
    queries = _queries(connection)
    if not await queries.schema_is_installed():
        await queries.install()
    await connection.execute(_CLEAR)
    numbers = iter(range(options.number("count")))
    while portion := list(itertools.islice(numbers, _PORTION)):
        payloads = [b'{"number": %d, "text": "%s"}' % (number, b"x" * 60) for number in portion]
        names, priorities = ["bench"] * len(portion), [0] * len(portion)
        await queries.enqueue(names, payloads, priorities)
    await connection.close()
    say("done")


async def statement(options: Options) -> None:
    """Tell how a job is enqueued."""
    connection = await asyncpg.connect(options.dsn)
    sql = _queries(connection).qbq.build_enqueue_query()
    for name, value in _ARGUMENTS.items():
        sql = sql.replace(name, value)
    say("statement", sql=sql)
    await connection.close()


async def consume(options: Options) -> None:
    """Take batches by the queries that the queue manager uses, and complete each."""
    progress, size = Progress(options), options.number("batch")
    module: Any = importlib.import_module("pgqueuer.queries")
    queries = _queries(await asyncpg.connect(options.dsn))
    entrypoints = {"bench": module.EntrypointExecutionParameter(concurrency_limit=0)}
    manager = uuid.uuid4()
    say("ready")
    while not progress.is_done:
        jobs = await queries.dequeue(size, entrypoints, manager, None, _HEARTBEAT)
        await queries.log_jobs([(job, "successful", None) for job in jobs])
        progress.add(len(jobs))
    progress.tell()


async def latency(options: Options) -> None:
    """Note how old each job is when its entrypoint runs."""
    ages = Ages(options)

    async def note(job: Any) -> None:  # noqa: ANN401 - a job
        ages.note(job.payload.decode())
        if ages.all_here.is_set():
            ages.tell()

    managing = asyncio.create_task(_manage(options, note))
    await asyncio.sleep(1.0)  # it does not tell when it listens
    say("ready")
    await managing


async def _manage(options: Options, handle: Any) -> None:  # noqa: ANN401 - a function
    module: Any = importlib.import_module("pgqueuer.qm")
    manager = module.QueueManager(_queries(await asyncpg.connect(options.dsn)))
    manager.entrypoint("bench", accepts_context=False)(handle)
    await manager.run(batch_size=options.number("batch", 10))


WORKLOADS = {
    "fill": fill,
    "statement": statement,
    "consume": consume,
    "latency": latency,
}

if __name__ == "__main__":
    run(WORKLOADS)
