"""Growth: the same work as its size goes up by tens."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from benchmarks import programs
from benchmarks.results import Column, Section
from benchmarks.rounds import Contestant, take_turns
from benchmarks.workloads.burst import ASYNCPG, STREAM
from benchmarks.workloads.fanout import fan_out
from benchmarks.workloads.recovery import recover

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.programs import Program
    from benchmarks.results import Figures
    from benchmarks.stage import Stage


def _row(name: str, size: int) -> str:
    """Return a name of which the charts take the part before the point."""
    return f"{name} · {size:,}"


async def measure(stage: Stage) -> list[Section]:
    """Measure bursts, channels, streams and recoveries of growing size."""
    return [
        await _bursts(stage),
        await _channels(stage),
        await _streams(stage),
        await _recoveries(stage),
    ]


async def _bursts(stage: Stage) -> Section:
    sizes = stage.sized((1_000, 10_000, 100_000, 1_000_000), (1_000, 100_000))

    async def run(program: Program, work: str, size: int) -> Figures:
        return {"n": float(size), **await stage.burst(program, size, work=work, within=60.0)}

    peers = (
        (STREAM, programs.python("asyncnotify_burst"), "stream"),
        (ASYNCPG, programs.python("asyncpg_listener"), "callback"),
    )
    contestants = [
        Contestant(_row(name, size), functools.partial(run, program, work, size))
        for name, program, work in peers
        for size in sizes
    ]
    columns = (Column("cpu", "µs CPU each"), Column("wall", "µs each"))
    return await _section(stage, "growth of the burst", "notifications", contestants, columns)


async def _channels(stage: Stage) -> Section:
    sizes, count = stage.sized((1, 10, 100, 1_000, 10_000), (1, 1_000)), 100_000
    ours = programs.python("asyncnotify_burst")

    async def run(size: int) -> Figures:
        figures = await stage.burst(ours, count, work="stream", channels=size)
        return {"n": float(size), **figures}

    contestants = [Contestant(_row(STREAM, size), functools.partial(run, size)) for size in sizes]
    title = f"channels listened on, burst of {count:,} on one"
    columns = (Column("cpu", "µs CPU each"),)
    return await _section(stage, "growth of the channels", title, contestants, columns)


async def _streams(stage: Stage) -> Section:
    sizes = stage.sized((1, 10, 100, 1_000, 10_000), (10, 1_000))
    contestants = [
        Contestant(_row("a waiting stream", size), functools.partial(fan_out, stage, size))
        for size in sizes
    ]
    columns = (Column("cpu", "µs CPU for each stream"), Column("futures", "for each bare future"))
    title = "streams of one channel, one notification"
    return await _section(stage, "growth of the fan-out", title, contestants, columns)


async def _recoveries(stage: Stage) -> Section:
    sizes = stage.sized((1, 10, 100, 1_000, 10_000), (1, 1_000))
    peers = (
        ("asyncnotify", programs.python("asyncnotify_listener")),
        ("Go lib/pq", programs.go("pq")),
    )
    contestants = [
        Contestant(
            _row(name, size), functools.partial(recover, stage, program, size), program.missing
        )
        for name, program in peers
        for size in sizes
    ]
    columns = (Column("back", "ms", 1),)
    title = "channels, backend killed"
    return await _section(stage, "growth of the recovery", title, contestants, columns)


async def _section(
    stage: Stage,
    key: str,
    counted: str,
    contestants: Sequence[Contestant],
    columns: Sequence[Column],
) -> Section:
    return Section(
        key=key,
        title=f"By the number of {counted}",
        reference=contestants[0].name,
        columns=columns,
        series=await take_turns(contestants, stage.rounds, stage.progress),
    )
