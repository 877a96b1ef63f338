"""Doing nothing: what a listener costs on which nothing arrives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from benchmarks import programs
from benchmarks.environment import START_TIME
from benchmarks.launcher import PeerError
from benchmarks.results import Column, Section, Series

if TYPE_CHECKING:
    from benchmarks.environment import Environment
    from benchmarks.programs import Program

_SUBSCRIPTIONS = (0, 100, 10_000)
_LIMIT = 0.1
_PERCENT = 100.0
_MARGIN = 30.0


async def _idle(environment: Environment, name: str, program: Program, channels: int) -> Series:
    series, seconds = Series(name), environment.sized(60, 10)
    try:
        async with program.start(
            environment.dsn, workload="idle", channels=channels, seconds=seconds
        ) as peer:
            await peer.receive("ready", START_TIME)
            done = await peer.receive("done", seconds + _MARGIN)
    except PeerError as error:
        series.trouble = str(error)
        return series
    figures = {"cpu": done["cpu"] / seconds * _PERCENT}
    if channels and "subscriptions" in done:
        figures["memory"] = done["subscriptions"] / channels
    series.rounds.append(figures)
    return series


async def measure(environment: Environment) -> list[Section]:
    """Measure all at the same time: what is counted is each process's own CPU."""
    environment.progress(f"idle for {environment.sized(60, 10)} s, all at once")
    ours, asyncpg = programs.python("asyncnotify_listener"), programs.python("asyncpg_listener")
    names = {f"asyncnotify, {count:,} subscriptions": count for count in _SUBSCRIPTIONS}
    series = await asyncio.gather(
        *(_idle(environment, name, ours, count) for name, count in names.items()),
        _idle(environment, "asyncpg, without a heartbeat", asyncpg, 1),
    )
    section = Section(
        key="idle",
        title=f"Idle for {environment.sized(60, 10)} s, each subscription on a channel of its own",
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
