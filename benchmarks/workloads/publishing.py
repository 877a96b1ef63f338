"""Publishing: calls that meet are sent together; what that brings."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from benchmarks import programs
from benchmarks.environment import START_TIME, per_item
from benchmarks.peers.publishing import WARM_UP
from benchmarks.results import Column, Section
from benchmarks.rounds import Measurement, take_turns

if TYPE_CHECKING:
    from benchmarks.environment import Environment
    from benchmarks.results import Figures

_OURS = "asyncnotify notify()"
_CONNECTION = "asyncpg, one connection"
_POOL = "asyncpg, pool of 8"
_MANY = "asyncnotify notify_many()"
_UNNEST = "unnest by hand, 1,000 each"
_IN_TURNS = "in_turns"
_WITHIN = 30.0
_ALONE_LIMIT = 0.95
_COLUMNS = (Column("wall", "µs each"), Column("cpu", "µs CPU each"), Column("rate", "a second", 0))


async def _publish(environment: Environment, workload: str, count: int, tasks: int = 1) -> Figures:
    await environment.quiet()
    publisher, listener = programs.python("publishing"), programs.python("asyncpg_listener")
    ways = 2 if workload == _IN_TURNS else 1
    expected = {"workload": "parser", "count": ways * (count + WARM_UP)}
    async with listener.start(environment.dsn, **expected) as listening:
        await listening.receive("ready", START_TIME)
        async with publisher.start(
            environment.dsn, workload=workload, count=count, tasks=tasks
        ) as publishing:
            await publishing.receive("ready", START_TIME)
            done = await publishing.receive("done", _WITHIN)
        await listening.receive("done", _WITHIN)  # all of them have arrived
    return {**per_item(done, count), "rate": count / done["wall"]}


async def measure(environment: Environment) -> list[Section]:
    """Measure by the number of tasks that publish at once."""
    return [
        await _alone(environment),
        await _from_tasks(environment, 1, {}),
        await _from_tasks(environment, 100, {_CONNECTION: 25.0, _POOL: 20.0}),
        await _from_tasks(environment, 1_000, {_CONNECTION: 35.0}),
        await _in_bulk(environment),
    ]


async def _from_tasks(environment: Environment, tasks: int, limits: dict[str, float]) -> Section:
    few = environment.sized(5_000, 1_500)
    ours = few if tasks == 1 else environment.sized(100_000, 30_000)
    workloads = ((_OURS, "notifier", ours), (_CONNECTION, "connection", few), (_POOL, "pool", few))
    measurements = [
        Measurement(name, functools.partial(_publish, environment, workload, count, tasks))
        for name, workload, count in workloads
    ]
    plural = "s" * (tasks > 1)
    section = Section(
        key=f"publishing, {tasks:,}",
        title=f"Publishing from {tasks:,} task{plural}",
        reference=_OURS,
        columns=_COLUMNS,
        series=await take_turns(measurements, environment.rounds, environment.progress),
    )
    for other, limit in limits.items():
        text = f"{tasks:,} task{plural}: {_OURS}, times faster than {other}"
        section.claim(text, limit, section.ratio(other, _OURS))
    return section


async def _alone(environment: Environment) -> Section:
    """Measure both in one process: of two, the scheduler favours one for a whole run."""
    run = functools.partial(_publish, environment, _IN_TURNS, environment.sized(5_000, 1_500))
    section = Section(
        key="alone",
        title="Publishing from one task, both ways in turns in one process",
        reference=_OURS,
        columns=(Column("wall", "µs each"), Column("times", "asyncpg : asyncnotify")),
        series=await take_turns(
            [Measurement(_OURS, run)], environment.rounds, environment.progress
        ),
    )
    text = f"1 task: {_OURS}, speed as a multiple of {_CONNECTION}"
    section.claim(text, _ALONE_LIMIT, section.named(_OURS).median("times"))
    return section


async def _in_bulk(environment: Environment) -> Section:
    count = environment.sized(100_000, 20_000)
    measurements = [
        Measurement(name, functools.partial(_publish, environment, workload, count))
        for name, workload in ((_MANY, "many"), (_UNNEST, "unnest"))
    ]
    section = Section(
        key="bulk",
        title=f"Publishing {count:,} at once",
        reference=_MANY,
        columns=_COLUMNS,
        series=await take_turns(measurements, environment.rounds, environment.progress),
    )
    text = f"{_MANY}: speed, as a multiple of {_UNNEST}"
    section.claim(text, 0.9, section.ratio(_UNNEST, _MANY))
    return section
