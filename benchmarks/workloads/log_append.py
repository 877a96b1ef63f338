"""The log: appending, one event a transaction, by the number of writers."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from benchmarks import pgbench
from benchmarks.queues import OURS, PGMQ, PGQUEUER, PROCRASTINATE, queues
from benchmarks.results import Column, Section
from benchmarks.rounds import Measurement, take_turns

if TYPE_CHECKING:
    from benchmarks.queues import Bench, Queue
    from benchmarks.results import Figures

UNNOTIFIED = f"{OURS}, no NOTIFY"
_NOTIFIED = f"{PGMQ}, NOTIFY"
_PAYLOAD = """'{"number": 1, "text": "' || repeat('x', 60) || '"}'"""
_CLAIMED = 8
_LIMIT = 1.5
_REMARK = (
    "Run by pgbench, so that no client's language counts. The server waits for the disk."
    f" {PGQUEUER} and {PROCRASTINATE} always notify."
)


async def measure(bench: Bench) -> list[Section]:
    """Measure each number of writers."""
    writers = bench.environment.sized((1, 8, 32), (8,))
    return [await _by(bench, count) for count in writers]


async def _append(bench: Bench, queue: Queue, writers: int, *, wake: str = "true") -> Figures:
    """Return what it costs to append to an empty queue."""
    await bench.fill(queue, 0, wake=wake)
    statement = await bench.statement(queue, _PAYLOAD, wake=wake)
    seconds = bench.environment.sized(2, 1)
    rate = await pgbench.transactions(bench.server, f"{statement};", writers, seconds=seconds)
    return {"rate": rate, "cost": 1e6 / rate}


async def _by(bench: Bench, writers: int) -> Section:
    known, run = queues(), functools.partial(_append, bench)
    ways = (
        (UNNOTIFIED, OURS, "false"),
        (OURS, OURS, "true"),
        (PGMQ, PGMQ, "false"),
        (_NOTIFIED, PGMQ, "true"),
        (PGQUEUER, PGQUEUER, "true"),
        (PROCRASTINATE, PROCRASTINATE, "true"),
    )
    measurements = [
        Measurement(
            name,
            functools.partial(run, known[queue], writers, wake=wake),
            known[queue].program.missing,
        )
        for name, queue, wake in ways
    ]
    plural = "s" * (writers > 1)
    section = Section(
        key=f"log append, {writers}",
        title=f"The log: appending one event a transaction, {writers} writer{plural}",
        reference=UNNOTIFIED,
        columns=(Column("cost", "µs for each", 0), Column("rate", "a second", 0)),
        series=await take_turns(measurements, bench.environment.rounds, bench.environment.progress),
        remark=_REMARK,
    )
    if writers == _CLAIMED:
        text = f"{writers} writers: {UNNOTIFIED}, times faster than {PGMQ}"
        section.claim(text, _LIMIT, section.ratio(PGMQ, UNNOTIFIED))
    return section
