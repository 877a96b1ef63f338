"""Growth: the same workload as its size goes up by tens."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from benchmarks import programs
from benchmarks.results import Column, Section
from benchmarks.rounds import Measurement, take_turns
from benchmarks.workloads.burst import ASYNCPG, STREAM
from benchmarks.workloads.fanout import fan_out
from benchmarks.workloads.recovery import recover

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.environment import Environment
    from benchmarks.programs import Program
    from benchmarks.results import Figures


def _row(name: str, size: int) -> str:
    """Return a name of which the charts take the part before the point."""
    return f"{name} · {size:,}"


async def measure(environment: Environment) -> list[Section]:
    """Measure bursts, channels, streams and recoveries of growing size."""
    return [
        await _bursts(environment),
        await _channels(environment),
        await _streams(environment),
        await _recoveries(environment),
    ]


async def _bursts(environment: Environment) -> Section:
    sizes = environment.sized((1_000, 10_000, 100_000, 1_000_000), (1_000, 100_000))

    async def run(program: Program, workload: str, size: int) -> Figures:
        return {
            "n": float(size),
            **await environment.burst(program, size, workload=workload, within=60.0),
        }

    peers = (
        (STREAM, programs.python("asyncnotify_burst"), "stream"),
        (ASYNCPG, programs.python("asyncpg_listener"), "callback"),
    )
    measurements = [
        Measurement(_row(name, size), functools.partial(run, program, workload, size))
        for name, program, workload in peers
        for size in sizes
    ]
    columns = (Column("cpu", "µs CPU each"), Column("wall", "µs each"))
    return await _section(
        environment, "growth of the burst", "notifications", measurements, columns
    )


async def _channels(environment: Environment) -> Section:
    sizes, count = environment.sized((1, 10, 100, 1_000, 10_000), (1, 1_000)), 100_000
    ours = programs.python("asyncnotify_burst")

    async def run(size: int) -> Figures:
        figures = await environment.burst(ours, count, workload="stream", channels=size)
        return {"n": float(size), **figures}

    measurements = [Measurement(_row(STREAM, size), functools.partial(run, size)) for size in sizes]
    title = f"channels listened on, burst of {count:,} on one"
    columns = (Column("cpu", "µs CPU each"),)
    return await _section(environment, "growth of the channels", title, measurements, columns)


async def _streams(environment: Environment) -> Section:
    sizes = environment.sized((1, 10, 100, 1_000, 10_000), (10, 1_000))
    measurements = [
        Measurement(_row("a waiting stream", size), functools.partial(fan_out, environment, size))
        for size in sizes
    ]
    columns = (Column("cpu", "µs CPU for each stream"), Column("futures", "for each bare future"))
    title = "streams of one channel, one notification"
    return await _section(environment, "growth of the fan-out", title, measurements, columns)


async def _recoveries(environment: Environment) -> Section:
    sizes = environment.sized((1, 10, 100, 1_000, 10_000), (1, 1_000))
    peers = (
        ("asyncnotify", programs.python("asyncnotify_listener")),
        ("Go lib/pq", programs.go("pq")),
    )
    measurements = [
        Measurement(
            _row(name, size),
            functools.partial(recover, environment, program, size),
            program.missing,
        )
        for name, program in peers
        for size in sizes
    ]
    columns = (Column("back", "ms", 1),)
    title = "channels, backend killed"
    return await _section(environment, "growth of the recovery", title, measurements, columns)


async def _section(
    environment: Environment,
    key: str,
    counted: str,
    measurements: Sequence[Measurement],
    columns: Sequence[Column],
) -> Section:
    return Section(
        key=key,
        title=f"By the number of {counted}",
        reference=measurements[0].name,
        columns=columns,
        series=await take_turns(measurements, environment.rounds, environment.progress),
    )
