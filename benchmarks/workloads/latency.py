"""Latency: from just before NOTIFY until the handler runs."""

from __future__ import annotations

import asyncio
import functools
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks import programs
from benchmarks.environment import START_TIME
from benchmarks.results import Column, Section
from benchmarks.rounds import Measurement, take_turns

if TYPE_CHECKING:
    from benchmarks.environment import Environment
    from benchmarks.programs import Program
    from benchmarks.results import Figures

_OURS = "asyncnotify def handler"
_STREAM = "asyncnotify stream()"
_ASYNCPG = "asyncpg add_listener"
_LIMIT = 1.05
_NANO_IN_MICRO = 1e3
_WITHIN = 30.0


async def _send_steadily(environment: Environment, count: int, interval: float) -> None:
    """Send the time, at fixed times: one that is late does not delay the next."""
    statement = await environment.sender.prepare("SELECT pg_notify('bench', $1)")
    began = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number * interval - time.monotonic()))
        await statement.fetchval(str(time.monotonic_ns()))


async def _latency(
    environment: Environment, program: Program, workload: str, count: int, interval: float
) -> Figures:
    await environment.quiet()
    async with program.start(environment.dsn, workload=workload, count=count) as peer:
        await peer.receive("ready", START_TIME)
        await _send_steadily(environment, count, interval)
        done = await peer.receive("done", _WITHIN)
    percentiles = statistics.quantiles(done["ages"], n=100)
    return {
        "p50": percentiles[49] / _NANO_IN_MICRO,
        "p99": percentiles[98] / _NANO_IN_MICRO,
    }


async def measure(environment: Environment) -> list[Section]:
    """Measure while little is going on, and at a thousand a second."""
    return [
        await _at(environment, "idle", environment.sized(400, 100), 0.005),
        await _at(environment, "1,000 a second", environment.sized(2_000, 500), 0.001),
    ]


async def _at(environment: Environment, pace: str, count: int, interval: float) -> Section:
    ours, asyncpg = programs.python("asyncnotify_listener"), programs.python("asyncpg_listener")
    workloads = (
        (_OURS, ours, "latency"),
        (_STREAM, ours, "stream_latency"),
        (_ASYNCPG, asyncpg, "latency"),
    )
    measurements = [
        Measurement(
            name, functools.partial(_latency, environment, program, workload, count, interval)
        )
        for name, program, workload in workloads
    ]
    section = Section(
        key=f"latency, {pace}",
        title=f"From NOTIFY to the handler, {pace}",
        reference=_OURS,
        columns=(Column("p50", "µs, median", 0), Column("p99", "µs, 99 of 100", 0)),
        series=await take_turns(measurements, environment.rounds, environment.progress),
    )
    for name in (_OURS, _STREAM):
        for figure in ("p50", "p99"):
            text = f"{name}, {pace}: {figure}, as a multiple of {_ASYNCPG}"
            measured = section.ratio(name, _ASYNCPG, figure)
            section.claim(text, _LIMIT, measured, at_least=False)
    return section
