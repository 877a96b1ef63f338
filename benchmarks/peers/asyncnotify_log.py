"""asyncnotify's log: a consumer by batches, a handler, a stream, many consumers, a long run."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING

import asyncpg

from asyncnotify.log import Log
from benchmarks.peers.protocol import Meter, Options, run, say
from benchmarks.peers.queues import PORTION, Ages, Progress, portions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncnotify.log import Event

_APPEND = "SELECT asyncnotify.bench_append('things', <payload>, wake => %s)"
_FILL = """
    SELECT asyncnotify.bench_append_many(
        array_agg('things'::text), array_agg(<payload>), wake => false
    ) FROM generate_series($1::int, $2::int) AS number
"""


async def fill(options: Options) -> None:
    """Make the log anew, with so many events."""
    connection = await asyncpg.connect(options.dsn)
    await connection.execute("DROP SCHEMA IF EXISTS asyncnotify CASCADE")
    async with Log("bench", options.dsn) as log:
        await log.install()
    for statement, first, last in portions(_FILL, options.number("count")):
        await connection.execute(statement, first, last)
    await connection.close()
    say("done")


async def statement(options: Options) -> None:
    """Tell how an event is appended."""
    say("statement", sql=_APPEND % options.text("wake", "true"))


async def consume(options: Options) -> None:
    """Take batches; the cursor is committed behind each. One event more is there than counts."""
    progress = Progress(options)
    async with Log("bench", options.dsn) as log, log.consumer("bench") as consumer:
        say("ready")
        batches = consumer.batches(options.number("batch"))
        while not progress.is_done:
            progress.add(len(await anext(batches)))
        await anext(batches)  # which commits the last one
        progress.tell()
        await batches.aclose()


async def endure(options: Options) -> None:
    """Append and consume in turns: for a while, for longer beside an old snapshot, and after it."""
    writer, other = await asyncpg.connect(options.dsn), await asyncpg.connect(options.dsn)
    batch, appended, received = options.number("batch"), 1, 0
    costs: list[float] = []

    async def turns(batches: AsyncIterator[Sequence[Event[str]]], seconds: int) -> None:
        nonlocal appended, received
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for statement, first, last in portions(_FILL, PORTION):
                await writer.execute(statement, first, last)
            appended += PORTION
            before, began = received, time.perf_counter()
            while received < appended - 1:
                received += len(await anext(batches))
            costs.append((time.perf_counter() - began) / (received - before))

    async with Log("bench", options.dsn) as log, log.consumer("bench") as consumer:
        say("ready")
        batches = consumer.batches(batch)
        await turns(batches, options.number("free"))
        free, begun = statistics.median(costs), received
        costs.clear()
        async with other.transaction(isolation="repeatable_read"):
            await other.execute("SELECT pg_current_xact_id()")
            await turns(batches, options.number("seconds"))
        pinned = statistics.median(costs[-max(1, len(costs) // 10) :])
        commits = (received - begun) / batch
        costs.clear()
        await turns(batches, options.number("free"))
        after = statistics.median(costs)
        await batches.aclose()
    figures = {"free": free, "pinned": pinned, "after": after}
    in_microseconds = {name: seconds * 1e6 for name, seconds in figures.items()}
    say("done", **in_microseconds, slower=pinned * 2 / (free + after), commits=commits)


async def latency(options: Options) -> None:
    """Note how old each event is when its handler runs."""
    ages = Ages(options)
    log = Log("bench", options.dsn)

    @log.on("bench", start="now")
    async def note(event: Event[str]) -> None:
        ages.note(event.payload)

    async with log:
        say("ready")
        await ages.all_here.wait()
        ages.tell()


async def stream_latency(options: Options) -> None:
    """Note how old each event is when a loop over ``read()`` gets it."""
    ages = Ages(options)
    async with Log("bench", options.dsn) as log, log.read(after="now") as events:
        await log.append("things", str(time.monotonic_ns()))
        say("ready")
        async for event in events:
            ages.note(event.payload)
            if ages.all_here.is_set():
                break
        ages.tell()


async def consumers(options: Options) -> None:
    """Let several consumers take the same events, each all of them; then let them wait."""
    size, count = options.number("consumers"), options.number("count")

    async def follow(log: Log, name: str, done: asyncio.Barrier) -> None:
        received = 0
        async with log.consumer(name) as consumer:
            await done.wait()
            async for batch in consumer.batches():
                received += len(batch)
                if received == count:
                    await done.wait()

    async with Log("bench", options.dsn) as log, asyncio.TaskGroup() as group:
        step = asyncio.Barrier(size + 1)
        for number in range(size):
            group.create_task(follow(log, f"consumer {number}", step))
        await step.wait()
        say("ready")
        meter = Meter()
        await step.wait()
        figures = meter.read()
        await asyncio.sleep(1.0)  # until they wait
        idle, seconds = Meter(), options.number("seconds")
        await asyncio.sleep(seconds)
        say("done", **figures, idle=idle.read()["cpu"] / max(1, seconds) * 100)
        await asyncio.Event().wait()


WORKLOADS = {
    "fill": fill,
    "statement": statement,
    "consume": consume,
    "endure": endure,
    "latency": latency,
    "stream_latency": stream_latency,
    "consumers": consumers,
}

if __name__ == "__main__":
    run(WORKLOADS)
