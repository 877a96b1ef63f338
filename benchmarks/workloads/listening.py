"""listen() of many channels, from as many tasks at once."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from benchmarks import programs
from benchmarks.environment import START_TIME, per_item
from benchmarks.relay import CountingRelay
from benchmarks.results import Column, Section
from benchmarks.rounds import Measurement, take_turns

if TYPE_CHECKING:
    from benchmarks.environment import Environment
    from benchmarks.programs import Program
    from benchmarks.results import Figures

_AT_ONCE = "asyncnotify, a task for each channel"
_IN_TURN = "asyncnotify, one by one"
_CHANNELS = 1_000
_WITHIN = 30.0
_FASTER, _TRIPS = 20.0, 10.0


async def _listen(environment: Environment, program: Program, workload: str) -> Figures:
    await environment.quiet()
    async with program.start(environment.dsn, workload=workload, channels=_CHANNELS) as peer:
        await peer.receive("ready", START_TIME)
        return per_item(await peer.receive("done", _WITHIN), _CHANNELS)


async def _round_trips(environment: Environment) -> Figures:
    await environment.quiet()
    program = programs.python("asyncnotify_listener")
    arguments = {"workload": "listen", "channels": _CHANNELS}
    relay = CountingRelay(environment.server)
    async with relay, program.start(relay.dsn, **arguments) as peer:
        await peer.receive("ready", START_TIME)
        before = sum(relay.trips)
        await peer.receive("done", _WITHIN)
        return {"trips": float(sum(relay.trips) - before)}


async def measure(environment: Environment) -> list[Section]:
    """Measure them together and one by one."""
    ours, asyncpg = programs.python("asyncnotify_listener"), programs.python("asyncpg_listener")
    workloads = (
        (_AT_ONCE, ours, "listen"),
        (_IN_TURN, ours, "listen_in_turn"),
        ("asyncpg add_listener, one by one", asyncpg, "listen"),
    )
    measurements = [
        Measurement(name, functools.partial(_listen, environment, program, workload))
        for name, program, workload in workloads
    ]
    counted = Measurement(f"{_AT_ONCE}, round trips", functools.partial(_round_trips, environment))
    section = Section(
        key="listen",
        title=f"Listening on {_CHANNELS:,} channels",
        reference=_AT_ONCE,
        columns=(
            Column("wall", "µs for each"),
            Column("cpu", "µs CPU for each"),
            Column("trips", "round trips", 0),
        ),
        series=[
            *await take_turns(measurements, environment.rounds, environment.progress),
            *await take_turns([counted], 1, environment.progress),
        ],
    )
    faster = section.ratio(_IN_TURN, _AT_ONCE)
    section.claim(f"{_AT_ONCE}: times faster than one by one", _FASTER, faster)
    trips = section.named(counted.name).median("trips")
    section.claim(f"{_AT_ONCE}: round trips", _TRIPS, trips, at_least=False)
    return [section]
