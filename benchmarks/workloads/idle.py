"""Doing nothing: what a listener costs on which nothing arrives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from benchmarks import programs
from benchmarks.launcher import PeerError
from benchmarks.results import Column, Section, Series
from benchmarks.stage import START_TIME

if TYPE_CHECKING:
    from benchmarks.programs import Program
    from benchmarks.stage import Stage

_SUBSCRIPTIONS = (0, 100, 10_000)
_LIMIT = 0.1
_PERCENT = 100.0
_MARGIN = 30.0


async def _idle(stage: Stage, name: str, program: Program, channels: int) -> Series:
    series, seconds = Series(name), stage.sized(60, 10)
    try:
        async with program.start(
            stage.dsn, work="idle", channels=channels, seconds=seconds
        ) as peer:
            await peer.hear("ready", START_TIME)
            done = await peer.hear("done", seconds + _MARGIN)
    except PeerError as error:
        series.trouble = str(error)
        return series
    figures = {"cpu": done["cpu"] / seconds * _PERCENT}
    if channels and "subscriptions" in done:
        figures["memory"] = done["subscriptions"] / channels
    series.rounds.append(figures)
    return series


async def measure(stage: Stage) -> list[Section]:
    """Measure all at the same time: what is counted is each process's own CPU."""
    stage.progress(f"idle for {stage.sized(60, 10)} s, all at once")
    ours, asyncpg = programs.python("asyncnotify_listener"), programs.python("asyncpg_listener")
    names = {f"asyncnotify, {count:,} subscriptions": count for count in _SUBSCRIPTIONS}
    series = await asyncio.gather(
        *(_idle(stage, name, ours, count) for name, count in names.items()),
        _idle(stage, "asyncpg, without a heartbeat", asyncpg, 1),
    )
    section = Section(
        key="idle",
        title=f"Idle for {stage.sized(60, 10)} s, each subscription on a channel of its own",
        reference=next(iter(names)),
        columns=(
            Column("cpu", "% of a core", 4),
            Column("memory", "bytes of memory for each subscription", 0),
        ),
        series=list(series),
    )
    for name in names:
        measured = section.named(name).median("cpu")
        section.claim(f"{name}: % of a core", _LIMIT, measured, at_least=False)
    return [section]
