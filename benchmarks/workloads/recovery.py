"""Recovery: how soon after its backend was killed a peer receives again."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from typing import TYPE_CHECKING

from benchmarks import programs
from benchmarks.environment import START_TIME
from benchmarks.relay import CountingRelay
from benchmarks.results import Column, Section
from benchmarks.rounds import Measurement, take_turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from benchmarks.environment import Environment
    from benchmarks.programs import Program
    from benchmarks.results import Figures

_OURS = "asyncnotify"
_PQ = "Go lib/pq"
_TIMEOUT, _QUICK_TIMEOUT = 12.0, 2.0
"""Seconds after which a peer is held not to come back: the slowest of those that do takes 8."""

_SETTLED = 0.3
"""Seconds between listening and the loss: some wait before they try again what has just begun."""

_REMARK = "lib/pq replays in no order: the channel that is waited for is back after half of them."
_INTERVAL = 0.001
_MILLI = 1e3
_PQ_LIMIT = 1.5
_TRIPS_LIMIT = 3
_MANY, _MANY_LIMIT = 10_000, 300.0


@contextlib.asynccontextmanager
async def _sending(environment: Environment) -> AsyncGenerator[None]:
    """Send a notification each millisecond, from the sender's connection."""

    async def send() -> None:
        while True:
            await environment.sender.execute("NOTIFY bench")
            await asyncio.sleep(_INTERVAL)

    sending = asyncio.create_task(send())
    try:
        yield
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending


async def recover(
    environment: Environment, program: Program, channels: int, workload: str = "recovery"
) -> Figures:
    """Return the milliseconds from the kill to the first notification on the last channel."""
    await environment.quiet()
    arguments = {"workload": workload, "others": channels - 1}
    async with program.start(environment.dsn, **arguments) as peer:
        await peer.receive("ready", START_TIME)
        await asyncio.sleep(_SETTLED)
        killed = time.monotonic()
        await environment.kill_others()
        async with _sending(environment):
            await peer.receive("back", environment.sized(_TIMEOUT, _QUICK_TIMEOUT))
            return {"n": float(channels), "back": (time.monotonic() - killed) * _MILLI}


async def _round_trips(environment: Environment, channels: int) -> Figures:
    """Return how often the server is asked and answers, from the connection on."""
    await environment.quiet()
    program = programs.python("asyncnotify_listener")
    arguments = {"workload": "recovery", "others": channels - 1}
    relay = CountingRelay(environment.server)
    async with relay, program.start(relay.dsn, **arguments) as peer:
        await peer.receive("ready", START_TIME)
        before = len(relay.trips)
        await environment.kill_others()
        async with _sending(environment):
            await peer.receive("back", _TIMEOUT)
            return {"trips": float(max(relay.trips[before:]) - 1)}


def _peers(channels: int) -> Iterator[tuple[str, Program]]:
    yield _OURS, programs.python("asyncnotify_listener")
    yield _PQ, programs.go("pq")
    yield "node pg-listen", programs.node("pg_listen.cjs", "pg-listen")
    yield "node postgres", programs.node("postgres_js.cjs", "postgres")
    if channels == 1:
        yield "asyncpg-listen", programs.packaged("asyncpg_listen", "asyncpg_listen")
        yield "asyncpg add_listener", programs.python("asyncpg_listener")
        yield "psycopg 3 notifies()", programs.packaged("psycopg_notifies", "psycopg")
        yield "broadcaster", programs.packaged("broadcaster", "broadcaster")
        yield "Litestar channels", programs.packaged("litestar_channels", "litestar")
        yield "node pg", programs.node("node_pg.cjs", "pg")


async def measure(environment: Environment) -> list[Section]:
    """Measure with one channel, and with many."""
    return [
        await _with(environment, channels)
        for channels in environment.sized((1, 1_000, _MANY), (1, 1_000))
    ]


async def _with(environment: Environment, channels: int) -> Section:
    measurements = [
        Measurement(
            name, functools.partial(recover, environment, program, channels), program.missing
        )
        for name, program in _peers(channels)
    ]
    if channels == 1:
        by_hand = functools.partial(
            recover, environment, programs.python("asyncpg_listener"), channels, "by_hand"
        )
        measurements.append(Measurement("asyncpg, connected anew by hand", by_hand))
    counted = Measurement(
        "asyncnotify, round trips", functools.partial(_round_trips, environment, channels)
    )
    title = f"Backend killed, {channels:,} channel{'s' * (channels > 1)}: listening again after"
    section = Section(
        key=f"recovery, {channels:,}",
        title=title,
        reference=_OURS,
        columns=(Column("back", "ms", 1), Column("trips", "round trips", 0)),
        series=[
            *await take_turns(measurements, environment.rounds, environment.progress),
            *await take_turns([counted], 1, environment.progress),
        ],
        remark=_REMARK if channels > 1 else "",
    )
    text = f"recovery, {channels:,}: as a multiple of {_PQ}"
    section.claim(text, _PQ_LIMIT, section.ratio(_OURS, _PQ), at_least=False)
    trips = section.named(counted.name).median("trips")
    section.claim(f"recovery, {channels:,}: round trips", _TRIPS_LIMIT, trips, at_least=False)
    if channels == _MANY:
        back = section.named(_OURS).median("back")
        section.claim(f"recovery, {channels:,}: ms", _MANY_LIMIT, back, at_least=False)
    return section
