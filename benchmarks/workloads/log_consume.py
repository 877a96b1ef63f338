"""The log: consuming what is there, in batches; beside an old snapshot; what is left behind."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.queues import OURS, PGMQ, queues
from benchmarks.results import Column, Section
from benchmarks.rounds import Measurement, take_turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.queues import Bench, Queue
    from benchmarks.results import Figures

_POP = f"{PGMQ} pop()"
_LIMITS = {100: 3.0, 1_000: 6.0}
_COUNTS = {1: 1_000, 10: 10_000, 100: 50_000, 1_000: 200_000}
_QUICK_COUNTS = {100: 2_000, 1_000: 10_000}
_PINNED_BATCH = 100
_PINNED_LIMIT = 1.25
_COLUMNS = (
    Column("wall", "µs each"),
    Column("cpu", "µs CPU each"),
    Column("rate", "a second", 0),
)


async def measure(bench: Bench) -> list[Section]:
    """Measure each size of batches, then beside an old snapshot, then what is left behind."""
    counts = bench.environment.sized(_COUNTS, _QUICK_COUNTS)
    return [
        *[await _by(bench, batch, count) for batch, count in counts.items()],
        await _pinned(bench, counts[_PINNED_BATCH]),
        await _dead(bench, counts[_PINNED_BATCH]),
    ]


@dataclass(frozen=True, slots=True)
class _Way:
    """A way of consuming: the queue, its workload, how many at once, and how many in all."""

    name: str
    queue: Queue
    workload: str
    batch: int
    count: int

    @property
    def share(self) -> int:
        """How many events are consumed."""
        return self.queue.share(self.count, self.batch)

    async def run(self, bench: Bench, *, skip: bool = False) -> Figures:
        """Consume from a queue that has just been filled; at first a batch, or as many again."""
        skipped = self.share if skip else self.batch
        await bench.fill(self.queue, skipped + self.share + 1)
        return await bench.consume(self.queue, self.workload, self.share, self.batch, skipped)


def _ways(batch: int, count: int) -> list[_Way]:
    return [
        _Way(name, queue, "consume", min(batch, queue.most), count)
        for name, queue in queues().items()
    ]


async def _by(bench: Bench, batch: int, count: int) -> Section:
    ways = _ways(batch, count)
    ways.insert(2, _Way(_POP, queues()[PGMQ], "pop", batch, count))
    measurements = [
        Measurement(way.name, functools.partial(way.run, bench), way.queue.program.missing)
        for way in ways
    ]
    counts = ", ".join(f"{way.name} {way.share:,}" for way in ways)
    section = Section(
        key=f"log consume, {batch:,}",
        title=f"The log: consuming {batch:,} a batch, each committed",
        reference=OURS,
        columns=_COLUMNS,
        series=await take_turns(measurements, bench.environment.rounds, bench.environment.progress),
        remark=f"How many: {counts}.",
    )
    if batch in _LIMITS:
        text = f"{batch:,} a batch: {OURS}, times faster than {PGMQ} read and delete"
        section.claim(text, _LIMITS[batch], section.ratio(PGMQ, OURS))
    return section


@contextlib.asynccontextmanager
async def _old_snapshot(bench: Bench) -> AsyncGenerator[None]:
    """Keep a snapshot open, and an xid: what dies meanwhile cannot be removed."""
    async with bench.other.transaction(isolation="repeatable_read"):
        await bench.other.execute("SELECT pg_current_xact_id()")
        yield


async def _consume_pinned(bench: Bench, way: _Way) -> Figures:
    """Consume as many before it counts, so that dead versions of rows are in the way."""
    await bench.fill(way.queue, 0)
    async with _old_snapshot(bench):
        return await way.run(bench, skip=True)


async def _pinned(bench: Bench, count: int) -> Section:
    measurements: list[Measurement] = []
    for way in _ways(_PINNED_BATCH, count):
        missing = way.queue.program.missing
        free = functools.partial(way.run, bench, skip=True)
        pinned = functools.partial(_consume_pinned, bench, way)
        measurements += [
            Measurement(way.name, free, missing),
            Measurement(f"{way.name}, old snapshot", pinned, missing),
        ]
    section = Section(
        key="log pinned",
        title=f"The log: consuming {_PINNED_BATCH} a batch, beside an old snapshot",
        reference=OURS,
        columns=_COLUMNS,
        series=await take_turns(measurements, bench.environment.rounds, bench.environment.progress),
        remark="As many events are consumed before it counts.",
    )
    text = f"{OURS} beside an old snapshot: time, as a multiple of that without"
    measured = section.ratio(f"{OURS}, old snapshot", OURS)
    section.claim(text, _PINNED_LIMIT, measured, at_least=False)
    return section


async def _leave(bench: Bench, way: _Way) -> Figures:
    """Return how many versions of rows each event leaves in the table of events."""
    await bench.fill(way.queue, 0)
    await bench.count_dead()
    await way.run(bench)
    consumed = way.share + way.batch
    return {"dead": await bench.dead_rows(way.queue, consumed) / consumed}


async def _dead(bench: Bench, count: int) -> Section:
    measurements = [
        Measurement(way.name, functools.partial(_leave, bench, way), way.queue.program.missing)
        for way in _ways(_PINNED_BATCH, count)
    ]
    section = Section(
        key="log dead",
        title="The log: rows of the table of events that were updated or deleted",
        reference=PGMQ,
        columns=(Column("dead", "dead versions of rows for each event", 2),),
        series=await take_turns(measurements, 1, bench.environment.progress),
        remark="VACUUM has to remove them.",
    )
    measured = section.named(OURS).median("dead")
    section.claim(f"{OURS}: dead rows for each event", 0.0, measured, at_least=False)
    return section
