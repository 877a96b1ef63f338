"""Publishing: calls that meet are sent together; what that brings."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from benchmarks import programs
from benchmarks.peers.publishing import WARM_UP
from benchmarks.results import Column, Section
from benchmarks.rounds import Contestant, take_turns
from benchmarks.stage import START_TIME, per_item

if TYPE_CHECKING:
    from benchmarks.results import Figures
    from benchmarks.stage import Stage

_OURS = "asyncnotify notify()"
_CONNECTION = "asyncpg, one connection"
_POOL = "asyncpg, pool of 8"
_MANY = "asyncnotify notify_many()"
_UNNEST = "unnest by hand, 1,000 each"
_IN_TURNS = "in_turns"
_WITHIN = 30.0
_ALONE_LIMIT = 0.95
_COLUMNS = (Column("wall", "µs each"), Column("cpu", "µs CPU each"), Column("rate", "a second", 0))


async def _publish(stage: Stage, work: str, count: int, tasks: int = 1) -> Figures:
    await stage.quiet()
    publisher, listener = programs.python("publishing"), programs.python("asyncpg_listener")
    ways = 2 if work == _IN_TURNS else 1
    expected = {"work": "parser", "count": ways * (count + WARM_UP)}
    async with listener.start(stage.dsn, **expected) as listening:
        await listening.hear("ready", START_TIME)
        async with publisher.start(stage.dsn, work=work, count=count, tasks=tasks) as publishing:
            await publishing.hear("ready", START_TIME)
            done = await publishing.hear("done", _WITHIN)
        await listening.hear("done", _WITHIN)  # all of them have arrived
    return {**per_item(done, count), "rate": count / done["wall"]}


async def measure(stage: Stage) -> list[Section]:
    """Measure by the number of tasks that publish at once."""
    return [
        await _alone(stage),
        await _from_tasks(stage, 1, {}),
        await _from_tasks(stage, 100, {_CONNECTION: 25.0, _POOL: 20.0}),
        await _from_tasks(stage, 1_000, {_CONNECTION: 35.0}),
        await _in_bulk(stage),
    ]


async def _from_tasks(stage: Stage, tasks: int, limits: dict[str, float]) -> Section:
    few = stage.sized(5_000, 1_500)
    ours = few if tasks == 1 else stage.sized(100_000, 30_000)
    works = ((_OURS, "notifier", ours), (_CONNECTION, "connection", few), (_POOL, "pool", few))
    contestants = [
        Contestant(name, functools.partial(_publish, stage, work, count, tasks))
        for name, work, count in works
    ]
    plural = "s" * (tasks > 1)
    section = Section(
        key=f"publishing, {tasks:,}",
        title=f"Publishing from {tasks:,} task{plural}",
        reference=_OURS,
        columns=_COLUMNS,
        series=await take_turns(contestants, stage.rounds, stage.progress),
    )
    for other, limit in limits.items():
        text = f"{tasks:,} task{plural}: {_OURS}, times faster than {other}"
        section.claim(text, limit, section.ratio(other, _OURS))
    return section


async def _alone(stage: Stage) -> Section:
    """Measure both in one process: of two, the scheduler favours one for a whole run."""
    run = functools.partial(_publish, stage, _IN_TURNS, stage.sized(5_000, 1_500))
    section = Section(
        key="alone",
        title="Publishing from one task, both ways in turns in one process",
        reference=_OURS,
        columns=(Column("wall", "µs each"), Column("times", "asyncpg : asyncnotify")),
        series=await take_turns([Contestant(_OURS, run)], stage.rounds, stage.progress),
    )
    text = f"1 task: {_OURS}, speed as a multiple of {_CONNECTION}"
    section.claim(text, _ALONE_LIMIT, section.named(_OURS).median("times"))
    return section


async def _in_bulk(stage: Stage) -> Section:
    count = stage.sized(100_000, 20_000)
    contestants = [
        Contestant(name, functools.partial(_publish, stage, work, count))
        for name, work in ((_MANY, "many"), (_UNNEST, "unnest"))
    ]
    section = Section(
        key="bulk",
        title=f"Publishing {count:,} at once",
        reference=_MANY,
        columns=_COLUMNS,
        series=await take_turns(contestants, stage.rounds, stage.progress),
    )
    text = f"{_MANY}: speed, as a multiple of {_UNNEST}"
    section.claim(text, 0.9, section.ratio(_UNNEST, _MANY))
    return section
