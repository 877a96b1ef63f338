"""The log: consuming what is there, in batches; and what is left behind."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.queues import OURS, PGMQ, queues
from benchmarks.results import Column, Section
from benchmarks.rounds import Measurement, take_turns

if TYPE_CHECKING:
    from benchmarks.queues import Bench, Queue
    from benchmarks.results import Figures

_POP = f"{PGMQ} pop()"
_CLIENT = f"{PGMQ}, its client"
_LIMITS = {100: 3.0, 1_000: 6.0}
COUNTS = {1: 1_000, 10: 10_000, 100: 50_000, 1_000: 200_000}
QUICK_COUNTS = {100: 2_000, 1_000: 10_000}
_BATCH = 100
COLUMNS = (
    Column("wall", "µs each"),
    Column("cpu", "µs CPU each"),
    Column("rate", "a second", 0),
)


async def measure(bench: Bench) -> list[Section]:
    """Measure each size of batches, then what is left behind."""
    counts = bench.environment.sized(COUNTS, QUICK_COUNTS)
    return [
        *[await _by(bench, batch, count) for batch, count in counts.items()],
        await _dead(bench, counts[_BATCH]),
    ]


@dataclass(frozen=True, slots=True)
class Way:
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


def ways(batch: int, count: int) -> list[Way]:
    """Return how each of the queues is consumed."""
    return [
        Way(name, queue, "consume", min(batch, queue.most), count)
        for name, queue in queues().items()
    ]


async def _by(bench: Bench, batch: int, count: int) -> Section:
    compared = ways(batch, count)
    compared[2:2] = [
        Way(name, queues()[PGMQ], workload, batch, count)
        for name, workload in ((_CLIENT, "client"), (_POP, "pop"))
    ]
    measurements = [
        Measurement(way.name, functools.partial(way.run, bench), way.queue.program.missing)
        for way in compared
    ]
    counts = ", ".join(f"{way.name} {way.share:,}" for way in compared)
    section = Section(
        key=f"log consume, {batch:,}",
        title=f"The log: consuming {batch:,} a batch, each committed",
        reference=OURS,
        columns=COLUMNS,
        series=await take_turns(measurements, bench.environment.rounds, bench.environment.progress),
        remark=f"How many: {counts}.",
    )
    if batch in _LIMITS:
        for name in (PGMQ, _CLIENT):
            text = f"{batch:,} a batch: {OURS}, times faster than {name}, read and delete"
            section.claim(text, _LIMITS[batch], section.ratio(name, OURS))
    return section


async def _leave(bench: Bench, way: Way) -> Figures:
    """Return how many versions of rows each event leaves in the table of events."""
    await bench.fill(way.queue, 0)
    await bench.count_dead()
    await way.run(bench)
    consumed = way.share + way.batch
    return {"dead": await bench.dead_rows(way.queue, consumed) / consumed}


async def _dead(bench: Bench, count: int) -> Section:
    measurements = [
        Measurement(way.name, functools.partial(_leave, bench, way), way.queue.program.missing)
        for way in ways(_BATCH, count)
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
