"""The log: from just before an event is appended until the handler runs."""

from __future__ import annotations

import asyncio
import functools
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks import programs
from benchmarks.environment import START_TIME
from benchmarks.queues import OURS, PGMQ, PGQUEUER, PROCRASTINATE, Queue, queues, set_up
from benchmarks.results import Column, Section
from benchmarks.rounds import Measurement, take_turns

if TYPE_CHECKING:
    from benchmarks.queues import Bench
    from benchmarks.results import Figures

_NOTIFY: Final = "NOTIFY alone"
_WRITING: Final = "NOTIFY with a row"
_INSERT: Final = """
    WITH added AS (INSERT INTO written VALUES ($1) RETURNING text)
    SELECT pg_notify('bench', text) FROM added
"""
_HANDLER, _STREAM = f"{OURS}, handler", f"{OURS}, read()"
_INTERVAL = 0.01
_SKIP = 20
_LIMIT = 2.0
_WITHIN = 120.0
_MILLI = 1e6


async def _send_steadily(bench: Bench, sql: str, count: int) -> None:
    """Append the time, at fixed times: one that is late does not delay the next."""
    statement = await bench.admin.prepare(sql)
    began = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number * _INTERVAL - time.monotonic()))
        await statement.fetch(str(time.monotonic_ns()))


@dataclass(frozen=True, slots=True)
class _Way:
    """A way from the append to the handler."""

    name: str
    queue: Queue
    workload: str
    sql: str = ""
    wake: str = "true"

    async def run(self, bench: Bench, count: int) -> Figures:
        """Append to a queue that has just been emptied, and measure how old each event is."""
        sent = count + _SKIP
        settings, sql = {"count": sent}, self.sql
        if not sql:
            await bench.fill(self.queue, 0, wake=self.wake)
            sql = await bench.statement(self.queue, "$1::text")
            settings = {"count": count, "skip": _SKIP}
        program = self.queue.program
        async with program.start(bench.dsn, workload=self.workload, **settings) as peer:
            await peer.receive("ready", START_TIME)
            await _send_steadily(bench, sql, sent)
            done = await peer.receive("done", _WITHIN)
        percentiles = statistics.quantiles(done["ages"], n=100)
        return {"p50": percentiles[49] / _MILLI, "p99": percentiles[98] / _MILLI}


async def measure(bench: Bench) -> list[Section]:
    """Measure at a hundred a second, on a server that waits for the disk and on another one."""
    sections = [await _measure(bench, "waiting for the disk")]
    if not bench.environment.quick:
        async with set_up(bench.environment, fsync="off") as other:
            sections.append(await _measure(other, "not waiting for the disk"))
    return sections


def _ways() -> list[_Way]:
    known = queues()
    notify = Queue(_NOTIFY, programs.python("asyncpg_listener"), "")
    return [
        _Way(_NOTIFY, notify, "latency", "SELECT pg_notify('bench', $1)"),
        _Way(_WRITING, notify, "latency", _INSERT),
        _Way(_HANDLER, known[OURS], "latency"),
        _Way(_STREAM, known[OURS], "stream_latency"),
        _Way(f"{PGMQ} read_with_poll()", known[PGMQ], "latency", wake="false"),
        _Way(f"{PGMQ}, NOTIFY", known[PGMQ], "notified_latency"),
        _Way(PGQUEUER, known[PGQUEUER], "latency"),
        _Way(PROCRASTINATE, known[PROCRASTINATE], "latency"),
    ]


async def _measure(bench: Bench, disk: str) -> Section:
    await bench.admin.execute("CREATE TABLE written (text text)")
    count = bench.environment.sized(500, 100)
    measurements = [
        Measurement(way.name, functools.partial(way.run, bench, count), way.queue.program.missing)
        for way in _ways()
    ]
    section = Section(
        key=f"log latency, {disk}",
        title=f"The log: from the append to the handler, a hundred a second, {disk}",
        reference=_WRITING,
        columns=(Column("p50", "ms, median"), Column("p99", "ms, 99 of 100")),
        series=await take_turns(measurements, bench.environment.rounds, bench.environment.progress),
    )
    text = f"{_HANDLER}, {disk}: median, milliseconds above that of {_WRITING}"
    section.claim(text, _LIMIT, _above(section), at_least=False)
    return section


def _above(section: Section) -> float | None:
    ours, alone = section.named(_HANDLER).median("p50"), section.named(_WRITING).median("p50")
    return None if ours is None or alone is None else ours - alone
