"""Publishing: each way measured for itself, as many tasks at once as are asked for."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from typing import TYPE_CHECKING, Any

import asyncpg

import asyncnotify
from benchmarks.peers.protocol import Meter, Options, run, say

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

    Notify = Callable[[str, str], Awaitable[object]]

_NOTIFY = "SELECT pg_notify($1, $2)"
_UNNEST = "SELECT count(pg_notify(c, p)) FROM unnest($1::text[], $2::text[]) AS batch (c, p)"
_BATCH = 1_000
_TURN = 100
WARM_UP = 8
"""Notifications that are sent before it counts."""


@contextlib.asynccontextmanager
async def _publisher(dsn: str) -> AsyncGenerator[Any]:
    notifier: Any = getattr(asyncnotify, "Notifier", asyncnotify.Listener)
    async with notifier(dsn) as publisher:
        yield publisher


async def _call(notify: Notify, numbers: Iterator[int]) -> None:
    for number in numbers:
        await notify("bench", f"{number:032}")


async def _warm_up(notify: Notify) -> None:
    """Have connections opened and statements prepared; those who count expect these."""
    await _call(notify, iter(range(-WARM_UP, 0)))


async def _from_tasks(options: Options, notify: Notify) -> None:
    """Call it so many times in all, from so many tasks."""
    calls, tasks = options.number("count"), options.number("tasks")
    await _warm_up(notify)
    say("ready")
    numbers = iter(range(calls))
    meter = Meter()
    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(_call(notify, numbers))
    say("done", received=calls, **meter.read())


async def notifier(options: Options) -> None:
    """Use ours."""
    async with _publisher(options.dsn) as publisher:
        await _from_tasks(options, publisher.notify)


async def connection(options: Options) -> None:
    """Use one connection, which takes one call at a time."""
    only, one_at_a_time = await asyncpg.connect(options.dsn), asyncio.Lock()

    async def notify(channel: str, payload: str) -> None:
        async with one_at_a_time:
            await only.execute(_NOTIFY, channel, payload)

    async def notify_alone(channel: str, payload: str) -> None:
        await only.execute(_NOTIFY, channel, payload)

    await _from_tasks(options, notify if options.number("tasks") > 1 else notify_alone)
    await only.close()


async def in_turns(options: Options) -> None:
    """Call ours and one connection from one task, in turns: both have the same luck."""
    only = await asyncpg.connect(options.dsn)

    async def notify(channel: str, payload: str) -> None:
        await only.execute(_NOTIFY, channel, payload)

    async with _publisher(options.dsn) as publisher:
        walls = {publisher.notify: 0.0, notify: 0.0}
        for call in walls:
            await _warm_up(call)
        numbers = iter(range(options.number("count")))
        say("ready")
        while turn := list(itertools.islice(numbers, _TURN)):
            for call in walls:
                began = time.perf_counter()
                await _call(call, iter(turn))
                walls[call] += time.perf_counter() - began
    ours, by_hand = walls.values()
    say("done", times=by_hand / ours, wall=ours)
    await only.close()


async def pool(options: Options) -> None:
    """Use a pool of eight."""
    async with asyncpg.create_pool(options.dsn, min_size=8, max_size=8) as eight:

        async def notify(channel: str, payload: str) -> None:
            await eight.execute(_NOTIFY, channel, payload)

        await _from_tasks(options, notify)


def _pairs(count: int) -> list[tuple[str, str]]:
    return [("bench", f"{number:032}") for number in range(count)]


async def many(options: Options) -> None:
    """Hand ours all of them in one call."""
    pairs = _pairs(options.number("count"))
    async with _publisher(options.dsn) as publisher:
        notify_many = getattr(publisher, "notify_many", None)
        if notify_many is None:
            message = "not there"
            raise NotImplementedError(message)
        await _warm_up(publisher.notify)
        say("ready")
        meter = Meter()
        await notify_many(pairs)
        say("done", received=len(pairs), **meter.read())


async def unnest(options: Options) -> None:
    """Send batches of a thousand by a statement written by hand."""
    pairs = _pairs(options.number("count"))
    only = await asyncpg.connect(options.dsn)

    async def notify(channel: str, payload: str) -> None:
        await only.execute(_UNNEST, [channel], [payload])

    await _warm_up(notify)
    say("ready")
    meter, rest = Meter(), iter(pairs)
    while batch := list(itertools.islice(rest, _BATCH)):
        channels, payloads = zip(*batch, strict=True)
        await only.execute(_UNNEST, channels, payloads)
    say("done", received=len(pairs), **meter.read())
    await only.close()


WORKLOADS = {
    "notifier": notifier,
    "connection": connection,
    "in_turns": in_turns,
    "pool": pool,
    "many": many,
    "unnest": unnest,
}

if __name__ == "__main__":
    run(WORKLOADS)
