"""The log: as it grows by tens; and by the number of its consumers."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from benchmarks import pgbench
from benchmarks.environment import START_TIME, per_item
from benchmarks.queues import OURS, PGMQ, queues
from benchmarks.results import Column, Section, Series
from benchmarks.rounds import Measurement, take_turns

if TYPE_CHECKING:
    from benchmarks.queues import Bench, Queue
    from benchmarks.results import Figures

_SIZES = (10_000, 100_000, 1_000_000)
_QUICK_SIZES = (1_000, 10_000)
_LARGE = 10_000_000
_BATCH = 100
_ROUNDS = 5
_WRITERS = 8
_WITHIN = 120.0


async def measure(bench: Bench) -> list[Section]:
    """Measure growth and consumers."""
    return [await _growth(bench), await _consumers(bench)]


async def _growth(bench: Bench) -> Section:
    sizes = bench.environment.sized(_SIZES, _QUICK_SIZES)
    if bench.environment.large:
        sizes = (*sizes, _LARGE)
    series = [one for size in sizes for one in await _at_size(bench, size)]
    series.sort(key=lambda one: not one.peer.startswith(OURS))  # stable: sizes keep their order
    return Section(
        key="log growth",
        title="The log: by the number of events that it holds",
        reference=series[0].peer,
        columns=(
            Column("wall", f"µs each, consumed by {_BATCH}"),
            Column("append", f"µs, appended by {_WRITERS} writers", 0),
            Column("look", "ms to find that nothing is new"),
        ),
        series=series,
        remark=f"{PGMQ} holds as many messages that are not read yet.",
    )


async def _at_size(bench: Bench, size: int) -> list[Series]:
    """Fill both once, and measure in turns: what a round takes away is a little."""
    both = [queue for name, queue in queues().items() if name in (OURS, PGMQ)]
    for queue in both:
        if not queue.program.missing:
            bench.environment.progress(f"filling {queue.name}: {size:,}")
            await bench.fill(queue, size)
    measurements = [
        Measurement(
            f"{queue.name} · {size:,}",
            functools.partial(_once, bench, queue, size),
            queue.program.missing,
        )
        for queue in both
    ]
    rounds = min(bench.environment.rounds, _ROUNDS)
    return await take_turns(measurements, rounds, bench.environment.progress)


async def _once(bench: Bench, queue: Queue, size: int) -> Figures:
    count = size // _ROUNDS // _BATCH * _BATCH // 2
    figures = await bench.consume(queue, "consume", min(count, 10_000), _BATCH)
    statement = await bench.statement(queue, "'{}'", wake="false")
    rate = await pgbench.transactions(bench.server, f"{statement};", _WRITERS)
    look = await _look(bench) if queue.name == OURS else {}
    return {"n": float(size), "wall": figures["wall"], "append": 1e6 / rate, **look}


async def _look(bench: Bench) -> Figures:
    """Return how long it takes to see that there is nothing new."""
    statement = "SELECT asyncnotify.bench_tick();"
    return {"look": 1e3 / await pgbench.transactions(bench.server, statement, 1)}


async def _consumers(bench: Bench) -> Section:
    known, count = queues(), bench.environment.sized(20_000, 5_000)

    async def run(consumers: int) -> Figures:
        await bench.fill(known[OURS], count)
        return await _follow(bench, known[OURS], consumers, count)

    sizes = bench.environment.sized((1, 10, 100), (1, 10))
    measurements = [
        Measurement(f"{size} consumer{'s' * (size > 1)}", functools.partial(run, size))
        for size in sizes
    ]
    return Section(
        key="log consumers",
        title="The log: consumers of one process, each of which takes all events",
        reference=measurements[0].name,
        columns=(
            Column("wall", "µs for each event and consumer"),
            Column("cpu", "µs CPU of it in the process"),
            Column("idle", "% of a core while nothing comes, in all"),
        ),
        series=await take_turns(measurements, bench.environment.rounds, bench.environment.progress),
    )


async def _follow(bench: Bench, queue: Queue, consumers: int, count: int) -> Figures:
    arguments = {
        "workload": "consumers",
        "consumers": consumers,
        "count": count,
        "seconds": bench.environment.sized(10, 1),
    }
    async with queue.program.start(bench.dsn, **arguments) as peer:
        await peer.receive("ready", START_TIME)
        return per_item(await peer.receive("done", _WITHIN), consumers * count)
