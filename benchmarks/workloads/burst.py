"""A burst: many notifications on one channel, sent in one transaction."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING

from benchmarks import programs
from benchmarks.results import Column, Section
from benchmarks.rounds import Measurement, take_turns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.environment import Environment
    from benchmarks.programs import Program

STREAM = "asyncnotify stream()"
COROUTINE = "asyncnotify async def handler"
FUNCTION = "asyncnotify def handler"
BATCHES = "asyncnotify stream().batches()"
ASYNCPG = "asyncpg add_listener"
QUEUE = "asyncpg add_listener + Queue"
PARSER = "asyncpg, its parser alone"
PSYCOPG = "psycopg 3 notifies()"
ASYNCPG_LISTEN = "asyncpg-listen"
OURS = {STREAM: "stream", COROUTINE: "coroutine", FUNCTION: "function", BATCHES: "batches"}
COLUMNS = (Column("cpu", "µs CPU each"), Column("wall", "µs each"))

_SLOW_SHARE = 20
"""psqlpy takes fifty times as long: it gets a smaller burst."""


def _others() -> Iterator[tuple[str, Program]]:
    yield PSYCOPG, programs.packaged("psycopg_notifies", "psycopg")
    yield ASYNCPG_LISTEN, programs.packaged("asyncpg_listen", "asyncpg_listen")
    yield "broadcaster", programs.packaged("broadcaster", "broadcaster")
    yield "Litestar channels", programs.packaged("litestar_channels", "litestar")
    yield "libpq in C", programs.c("libpq.c")
    yield "Go lib/pq", programs.go("pq")
    yield "Go pgx", programs.go("pgx")
    yield "node pg", programs.node("node_pg.cjs", "pg")
    yield "node postgres", programs.node("postgres_js.cjs", "postgres")
    yield "node pg-listen", programs.node("pg_listen.cjs", "pg-listen")


async def measure(environment: Environment) -> list[Section]:
    """Measure every peer."""
    count = environment.sized(200_000, 50_000)

    def measurement(name: str, program: Program, workload: str, count: int = count) -> Measurement:
        run = functools.partial(environment.burst, program, count, workload=workload)
        return Measurement(name, run, program.missing)

    ours = programs.python("asyncnotify_burst")
    asyncpg = programs.python("asyncpg_listener")
    psqlpy = programs.packaged("psqlpy_listener", "psqlpy")
    measurements = [
        *(measurement(name, ours, workload) for name, workload in OURS.items()),
        measurement(ASYNCPG, asyncpg, "callback"),
        measurement(QUEUE, asyncpg, "queue"),
        measurement(PARSER, asyncpg, "parser"),
        *(measurement(name, program, "burst") for name, program in _others()),
        measurement("psqlpy", psqlpy, "burst", count // _SLOW_SHARE),
    ]
    section = Section(
        key="burst",
        title=f"Burst of {count:,} notifications of 32 bytes on one channel",
        reference=STREAM,
        columns=COLUMNS,
        series=await take_turns(measurements, environment.rounds, environment.progress),
        remark=f"psqlpy: {count // _SLOW_SHARE:,}.",
    )
    _claim(section)
    return [section]


def _claim(section: Section) -> None:
    for ours, other, limit in (
        (STREAM, ASYNCPG, 1.5),
        (STREAM, PSYCOPG, 1.7),
        (STREAM, ASYNCPG_LISTEN, 8.0),
        (COROUTINE, ASYNCPG, 1.4),
        (FUNCTION, ASYNCPG, 1.5),
        (BATCHES, ASYNCPG, 1.8),
    ):
        section.claim(f"{ours}: CPU, times less than {other}", limit, section.ratio(other, ours))


async def measure_loops(environment: Environment) -> list[Section]:
    """Measure ours and asyncpg on the other event loop, and on the other Pythons."""
    here = {"": sys.executable}
    return [
        await _on(environment, version, interpreter, loop)
        for version, interpreter in (here | dict(environment.pythons)).items()
        for loop in ("asyncio", "uvloop")
        if version or loop == "uvloop"
    ]


async def _on(environment: Environment, version: str, interpreter: str, loop: str) -> Section:
    count = environment.sized(200_000, 50_000)
    ours = programs.python("asyncnotify_burst", interpreter)
    asyncpg = programs.python("asyncpg_listener", interpreter)
    workloads = [(name, ours, workload) for name, workload in OURS.items()]
    workloads.append((ASYNCPG, asyncpg, "callback"))
    measurements = [
        Measurement(
            name, functools.partial(environment.burst, program, count, workload=workload, loop=loop)
        )
        for name, program, workload in workloads
    ]
    where = f"Python {version}, {loop}" if version else loop
    section = Section(
        key=f"burst on {where}",
        title=f"The same on {where}",
        reference=STREAM,
        columns=COLUMNS,
        series=await take_turns(measurements, environment.rounds, environment.progress),
    )
    for name in OURS:
        text = f"{name} on {where}: CPU, times less than {ASYNCPG}"
        section.claim(text, 1.3, section.ratio(ASYNCPG, name))
    return section
