"""Recovery: how soon after its backend was killed a peer receives again."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from typing import TYPE_CHECKING

from benchmarks import programs
from benchmarks.relay import CountingRelay
from benchmarks.results import Column, Section
from benchmarks.rounds import Contestant, take_turns
from benchmarks.stage import START_TIME

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from benchmarks.programs import Program
    from benchmarks.results import Figures
    from benchmarks.stage import Stage

_OURS = "asyncnotify"
_PQ = "Go lib/pq"
_PATIENCE, _QUICK_PATIENCE = 12.0, 2.0
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
async def _sending(stage: Stage) -> AsyncGenerator[None]:
    """Send a notification each millisecond, from the sender's connection."""

    async def send() -> None:
        while True:
            await stage.sender.execute("NOTIFY bench")
            await asyncio.sleep(_INTERVAL)

    sending = asyncio.create_task(send())
    try:
        yield
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending


async def recover(stage: Stage, program: Program, channels: int, work: str = "recovery") -> Figures:
    """Return the milliseconds from the kill to the first notification on the last channel."""
    await stage.quiet()
    arguments = {"work": work, "others": channels - 1}
    async with program.start(stage.dsn, **arguments) as peer:
        await peer.hear("ready", START_TIME)
        await asyncio.sleep(_SETTLED)
        killed = time.monotonic()
        await stage.kill_others()
        async with _sending(stage):
            await peer.hear("back", stage.sized(_PATIENCE, _QUICK_PATIENCE))
            return {"n": float(channels), "back": (time.monotonic() - killed) * _MILLI}


async def _round_trips(stage: Stage, channels: int) -> Figures:
    """Return how often the server is asked and answers, from the connection on."""
    await stage.quiet()
    program = programs.python("asyncnotify_listener")
    arguments = {"work": "recovery", "others": channels - 1}
    relay = CountingRelay(stage.server)
    async with relay, program.start(relay.dsn, **arguments) as peer:
        await peer.hear("ready", START_TIME)
        before = len(relay.trips)
        await stage.kill_others()
        async with _sending(stage):
            await peer.hear("back", _PATIENCE)
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


async def measure(stage: Stage) -> list[Section]:
    """Measure with one channel, and with many."""
    return [await _with(stage, channels) for channels in stage.sized((1, 1_000, _MANY), (1, 1_000))]


async def _with(stage: Stage, channels: int) -> Section:
    contestants = [
        Contestant(name, functools.partial(recover, stage, program, channels), program.missing)
        for name, program in _peers(channels)
    ]
    if channels == 1:
        by_hand = functools.partial(
            recover, stage, programs.python("asyncpg_listener"), channels, "by_hand"
        )
        contestants.append(Contestant("asyncpg, connected anew by hand", by_hand))
    counted = Contestant(
        "asyncnotify, round trips", functools.partial(_round_trips, stage, channels)
    )
    title = f"Backend killed, {channels:,} channel{'s' * (channels > 1)}: listening again after"
    section = Section(
        key=f"recovery, {channels:,}",
        title=title,
        reference=_OURS,
        columns=(Column("back", "ms", 1), Column("trips", "round trips", 0)),
        series=[
            *await take_turns(contestants, stage.rounds, stage.progress),
            *await take_turns([counted], 1, stage.progress),
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
