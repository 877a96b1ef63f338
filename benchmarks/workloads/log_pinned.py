"""The log: consuming beside an old snapshot, which keeps VACUUM from removing anything."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Final

from benchmarks.queues import OLD_SNAPSHOT, OURS, queues
from benchmarks.results import Column, Section
from benchmarks.rounds import Measurement, take_turns
from benchmarks.workloads.log_consume import COLUMNS, COUNTS, QUICK_COUNTS, ways

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.queues import Bench
    from benchmarks.results import Figures
    from benchmarks.workloads.log_consume import Way

_BATCHES: Final = (100, 1_000)
_MOST: Final = 50_000
"""Events: most of the others take longer for each one that they have consumed before."""

_LIMIT: Final = 1.2
_SECONDS: Final = 600
_FREE_SECONDS: Final = 60


async def measure(bench: Bench) -> list[Section]:
    """Measure by two sizes of batches; in a large run also for ten minutes."""
    counts = bench.environment.sized(COUNTS, QUICK_COUNTS)
    sections = [await _pinned(bench, batch, min(counts[batch], _MOST)) for batch in _BATCHES]
    if bench.environment.large:
        sections.append(await _for_long(bench))
    return sections


@contextlib.asynccontextmanager
async def _old_snapshot(bench: Bench) -> AsyncGenerator[None]:
    """Keep a snapshot open, and an xid: what dies meanwhile cannot be removed."""
    async with bench.other.transaction(isolation="repeatable_read"):
        await bench.other.execute("SELECT pg_current_xact_id()")
        yield


async def _consume_pinned(bench: Bench, way: Way) -> Figures:
    """Consume as many before it counts, so that dead versions of rows are in the way."""
    await bench.fill(way.queue, 0)
    async with _old_snapshot(bench):
        return await way.run(bench, skip=True)


async def _pinned(bench: Bench, batch: int, count: int) -> Section:
    measurements: list[Measurement] = []
    for way in ways(batch, count):
        missing = way.queue.program.missing
        free = functools.partial(way.run, bench, skip=True)
        pinned = functools.partial(_consume_pinned, bench, way)
        measurements += [
            Measurement(way.name, free, missing),
            Measurement(f"{way.name}{OLD_SNAPSHOT}", pinned, missing),
        ]
    section = Section(
        key=f"log pinned, {batch:,}",
        title=f"The log: consuming {batch:,} a batch, beside an old snapshot",
        reference=OURS,
        columns=COLUMNS,
        series=await take_turns(measurements, bench.environment.rounds, bench.environment.progress),
        remark="As many events are consumed before it counts.",
    )
    text = f"{batch:,} a batch: {OURS} beside an old snapshot: time, as a multiple of that without"
    section.claim(text, _LIMIT, section.ratio(f"{OURS}{OLD_SNAPSHOT}", OURS), at_least=False)
    return section


async def _for_long(bench: Bench) -> Section:
    measurements = [
        Measurement(f"{batch:,} a batch", functools.partial(_endure, bench, batch))
        for batch in _BATCHES
    ]
    section = Section(
        key="log pinned for long",
        title=f"The log: beside a snapshot that has been open for {_SECONDS // 60} minutes",
        reference=measurements[0].name,
        columns=(
            Column("slower", "times as long as before and after", 2),
            Column("free", "µs each before"),
            Column("pinned", "µs each in the last tenth of the time"),
            Column("after", "µs each after it"),
            Column("commits", "commits of the cursor meanwhile", 0),
        ),
        series=await take_turns(measurements, 1, bench.environment.progress),
        remark="Events are appended and consumed in turns all the time.",
    )
    for one in section.series:
        text = f"{one.peer}: {OURS} beside an old snapshot: time, as a multiple of that without"
        section.claim(text, _LIMIT, one.median("slower"), at_least=False)
    return section


async def _endure(bench: Bench, batch: int) -> Figures:
    ours = queues()[OURS]
    await bench.fill(ours, 1)
    return await bench.ask(
        ours,
        "endure",
        within=2.0 * (2 * _FREE_SECONDS + _SECONDS),
        batch=batch,
        free=_FREE_SECONDS,
        seconds=_SECONDS,
    )
