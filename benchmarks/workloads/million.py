"""A million at once: a consumer that keeps up loses nothing, one that is stuck costs little."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from benchmarks import programs
from benchmarks.results import Column, Section
from benchmarks.rounds import Measurement, take_turns

if TYPE_CHECKING:
    from benchmarks.environment import Environment
    from benchmarks.results import Figures

_KEEPS_UP = "asyncnotify stream() that keeps up"
_KEEPS_UP_UVLOOP = f"{_KEEPS_UP}, uvloop"
_STUCK = "asyncnotify handler that is stuck"
_STUCK_UVLOOP = f"{_STUCK}, uvloop"
_MEGABYTE = 1e6
_MEMORY_LIMIT = 50.0


async def measure(environment: Environment) -> list[Section]:
    """Measure consumers that keep up, and such that do not."""
    count = environment.sized(1_000_000, 200_000)
    ours = programs.python("asyncnotify_burst")
    asyncpg = programs.python("asyncpg_listener")

    async def run(program: programs.Program, workload: str, loop: str = "asyncio") -> Figures:
        figures = await environment.burst(program, count, workload=workload, loop=loop, within=60.0)
        figures["memory"] /= _MEGABYTE
        return figures

    measurements = [
        Measurement(_KEEPS_UP, functools.partial(run, ours, "gaps")),
        Measurement(_KEEPS_UP_UVLOOP, functools.partial(run, ours, "gaps", "uvloop")),
        Measurement(_STUCK, functools.partial(run, ours, "stuck")),
        Measurement(_STUCK_UVLOOP, functools.partial(run, ours, "stuck", "uvloop")),
        Measurement("asyncpg + Queue that keeps up", functools.partial(run, asyncpg, "queue")),
        Measurement("asyncpg + Queue that is stuck", functools.partial(run, asyncpg, "stuck")),
    ]
    section = Section(
        key="million",
        title=f"Burst of {count:,}, by what the consumer does",
        reference=_KEEPS_UP,
        columns=(
            Column("cpu", "µs CPU each"),
            Column("memory", "MB of growth", 1),
            Column("dropped", "told as dropped", 0),
        ),
        series=await take_turns(measurements, environment.rounds, environment.progress),
    )
    for name in (_KEEPS_UP, _KEEPS_UP_UVLOOP):
        dropped = section.named(name).spread("dropped")
        most = None if dropped is None else dropped[1]
        section.claim(f"{name}: dropped, at most in any round", 0, most, at_least=False)
    for name in (_STUCK, _STUCK_UVLOOP):
        grown = section.named(name).median("memory")
        section.claim(f"{name}: MB of growth", _MEMORY_LIMIT, grown, at_least=False)
    return [section]
