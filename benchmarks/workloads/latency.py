"""Latency: from just before NOTIFY until the handler runs."""

from __future__ import annotations

import asyncio
import functools
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks import programs
from benchmarks.results import Column, Section
from benchmarks.rounds import Contestant, take_turns
from benchmarks.stage import START_TIME

if TYPE_CHECKING:
    from benchmarks.programs import Program
    from benchmarks.results import Figures
    from benchmarks.stage import Stage

_OURS = "asyncnotify def handler"
_STREAM = "asyncnotify stream()"
_ASYNCPG = "asyncpg add_listener"
_LIMIT = 1.05
_NANO_IN_MICRO = 1e3
_WITHIN = 30.0


async def _send_steadily(stage: Stage, count: int, interval: float) -> None:
    """Send the time, at fixed times: one that is late does not delay the next."""
    statement = await stage.sender.prepare("SELECT pg_notify('bench', $1)")
    began = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number * interval - time.monotonic()))
        await statement.fetchval(str(time.monotonic_ns()))


async def _latency(
    stage: Stage, program: Program, work: str, count: int, interval: float
) -> Figures:
    await stage.quiet()
    async with program.start(stage.dsn, work=work, count=count) as peer:
        await peer.hear("ready", START_TIME)
        await _send_steadily(stage, count, interval)
        done = await peer.hear("done", _WITHIN)
    percentiles = statistics.quantiles(done["ages"], n=100)
    return {
        "p50": percentiles[49] / _NANO_IN_MICRO,
        "p99": percentiles[98] / _NANO_IN_MICRO,
    }


async def measure(stage: Stage) -> list[Section]:
    """Measure while little is going on, and at a thousand a second."""
    return [
        await _at(stage, "idle", stage.sized(400, 100), 0.005),
        await _at(stage, "1,000 a second", stage.sized(2_000, 500), 0.001),
    ]


async def _at(stage: Stage, pace: str, count: int, interval: float) -> Section:
    ours, asyncpg = programs.python("asyncnotify_listener"), programs.python("asyncpg_listener")
    works = (
        (_OURS, ours, "latency"),
        (_STREAM, ours, "stream_latency"),
        (_ASYNCPG, asyncpg, "latency"),
    )
    contestants = [
        Contestant(name, functools.partial(_latency, stage, program, work, count, interval))
        for name, program, work in works
    ]
    section = Section(
        key=f"latency, {pace}",
        title=f"From NOTIFY to the handler, {pace}",
        reference=_OURS,
        columns=(Column("p50", "µs, median", 0), Column("p99", "µs, 99 of 100", 0)),
        series=await take_turns(contestants, stage.rounds, stage.progress),
    )
    for name in (_OURS, _STREAM):
        for figure in ("p50", "p99"):
            text = f"{name}, {pace}: {figure}, as a multiple of {_ASYNCPG}"
            measured = section.ratio(name, _ASYNCPG, figure)
            section.claim(text, _LIMIT, measured, at_least=False)
    return section
