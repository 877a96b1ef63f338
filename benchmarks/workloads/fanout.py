"""Fan-out: one notification to many waiting streams of one channel."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from benchmarks import programs
from benchmarks.environment import START_TIME
from benchmarks.results import Column, Section
from benchmarks.rounds import Measurement, take_turns

if TYPE_CHECKING:
    from benchmarks.environment import Environment
    from benchmarks.results import Figures

_REPETITIONS = 20
_WAKE_LIMIT = 1.3
_MEMORY_LIMIT = 2048
_WITHIN = 30.0
_MICRO = 1e6


async def fan_out(environment: Environment, streams: int) -> Figures:
    """Return what it takes to wake so many streams, and so many futures."""
    await environment.quiet()
    program = programs.python("asyncnotify_fanout")
    arguments = {"workload": "fanout", "streams": streams, "repetitions": _REPETITIONS}
    async with program.start(environment.dsn, **arguments) as peer:
        await peer.receive("ready", START_TIME)
        while True:
            event, said = await peer.hear_any(("send", "done"), _WITHIN)
            if event == "done":
                break
            await environment.send(1)
    return {
        "n": float(streams),
        "cpu": said["streams"] / streams * _MICRO,
        "futures": said["futures"] / streams * _MICRO,
        "times": said["streams"] / said["futures"],
        "memory": float(said["memory"]),
    }


async def measure(environment: Environment) -> list[Section]:
    """Measure some sizes."""
    sizes = environment.sized((1_000, 10_000), (1_000, 5_000))
    measurements = [
        Measurement(f"{size:,} streams", functools.partial(fan_out, environment, size))
        for size in sizes
    ]
    section = Section(
        key="fan-out",
        title="One notification to many waiting streams of one channel",
        reference=measurements[0].name,
        columns=(
            Column("cpu", "µs CPU for each stream"),
            Column("futures", "µs CPU for each bare future"),
            Column("times", "streams : futures"),
            Column("memory", "bytes for each idle stream", 0),
        ),
        series=await take_turns(measurements, environment.rounds, environment.progress),
    )
    for name in (one.name for one in measurements):
        series = section.named(name)
        text = f"{name}: CPU to wake them, as a multiple of bare futures"
        section.claim(text, _WAKE_LIMIT, series.median("times"), at_least=False)
        text = f"{name}: bytes of memory for each, idle"
        section.claim(text, _MEMORY_LIMIT, series.median("memory"), at_least=False)
    return [section]
