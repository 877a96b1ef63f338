"""Middleware and tracing: what a call of a handler costs with them, and without."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from benchmarks import programs
from benchmarks.results import Column, Section
from benchmarks.rounds import Measurement, take_turns
from benchmarks.workloads.burst import COROUTINE

if TYPE_CHECKING:
    from benchmarks.environment import Environment

MIDDLEWARE: Final = "the same, with a middleware"
TRACED: Final = "the same, with a span of OpenTelemetry for each"


async def measure(environment: Environment) -> list[Section]:
    """Measure the same handler bare, with a middleware, and traced."""
    count = environment.sized(100_000, 30_000)
    ours = programs.python("asyncnotify_burst")
    missing = programs.packaged("asyncnotify_burst", "opentelemetry.sdk").missing
    burst = functools.partial(environment.burst, ours, count)
    section = Section(
        key="telemetry",
        title=f"Burst of {count:,} notifications, traced and not",
        reference=COROUTINE,
        columns=(Column("cpu", "µs CPU each"), Column("wall", "µs each")),
        series=await take_turns(
            [
                Measurement(COROUTINE, functools.partial(burst, workload="coroutine")),
                Measurement(MIDDLEWARE, functools.partial(burst, workload="middleware")),
                Measurement(TRACED, functools.partial(burst, workload="traced"), missing),
            ],
            environment.rounds,
            environment.progress,
        ),
    )
    return [section]
