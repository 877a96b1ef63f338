"""Taking events: from the right loop, with any patience, and beside other tasks."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import Channel, WrongLoopError
from asyncnotify.log import Consumer, Event, Log, LogStream
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncnotify.log._names import Names

    Taker = LogStream[Event[str]] | Consumer[Event[str]]


def stream_of(log: Log) -> LogStream[Event[str]]:
    """Return a stream from the beginning."""
    return log.read(after="start")


def consumer_of(log: Log, *channels: Any) -> Consumer[Any]:
    """Return a consumer from the beginning."""
    return log.consumer("mailer", *channels)


def sharing_consumer_of(log: Log, *channels: Any) -> Consumer[Any]:
    """Return a consumer that is split, from the beginning."""
    return log.consumer("mailer", *channels, buckets=2)


async def batch_of(taker: Taker) -> object:
    """Take a batch."""
    async for batch in taker.batches():
        return batch
    return None


MAKERS = pytest.mark.parametrize("make", [stream_of, consumer_of])
USES: list[Callable[[Any], Any]] = [
    anext,
    batch_of,
    lambda taker: taker.__aenter__(),
    lambda taker: taker.aclose(),
]


def refused(taker: Taker) -> int:
    """Return how many uses of a taker are refused in a new event loop."""

    async def use_all() -> int:
        count = 0
        for use in USES:
            try:
                await use(taker)
            except WrongLoopError:
                count += 1
        return count

    with asyncio.Runner() as runner:
        return runner.run(use_all())


@MAKERS
async def test_other_loops_and_forks_are_refused_and_harm_nothing(
    dsn: str, installed: Names, make: Callable[[Log], Taker]
) -> None:
    """Each use says so; no socket is touched: the owner goes on, on the same connection."""
    async with Log("orders", dsn) as log, asyncio.timeout(scaled(20)):
        await log.append_many([("things", str(n)) for n in range(3)])
        taker = make(log)
        async with taker:
            assert (await anext(taker)).payload == "0"
            assert await asyncio.to_thread(refused, taker) == len(USES)
            if (child := os.fork()) == 0:
                asyncio._set_running_loop(None)  # noqa: SLF001
                is_serving = isinstance(taker, Consumer) and taker.is_serving
                os._exit(10 * is_serving + refused(taker))
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            assert os.waitstatus_to_exitcode(status) == len(USES)
            assert [(await anext(taker)).payload for _ in range(2)] == ["1", "2"]


@pytest.mark.parametrize("make", [stream_of, consumer_of, sharing_consumer_of])
async def test_the_impatient_get_everything(
    dsn: str, installed: Names, make: Callable[[Log], Taker]
) -> None:
    """Who is cancelled sooner than a query takes gets all events in the end, and once each."""
    async with Log("orders", dsn) as log, make(log) as taker, asyncio.timeout(scaled(30)):
        numbers = [str(n) for n in range(20)]
        events = (("things", n, "a key: all are of one bucket") for n in numbers)
        await log.append_many(events)
        found: list[str] = []
        while len(found) < 20:
            taking = asyncio.ensure_future(anext(taker))
            await asyncio.sleep(0)
            taking.cancel()
            await asyncio.wait({taking})
            if not taking.cancelled():
                found.append(taking.result().payload)
        assert found == numbers


@pytest.mark.parametrize("make", [consumer_of, sharing_consumer_of])
async def test_the_impatient_get_past_what_cannot_be_decoded(
    dsn: str, installed: Names, make: Callable[..., Consumer[Any]]
) -> None:
    """Also whoever is cancelled sooner than a dead letter, or a cursor, is written."""
    async with Log("orders", dsn) as log, make(log, Channel("things", int)) as taker:
        await log.append_many([("things", text, "a key") for text in ("bad", "1", "bad", "2")])
        found: list[int] = []
        async with asyncio.timeout(scaled(30)):
            while len(found) < 2:
                taking = asyncio.ensure_future(taker.next_batch(1))
                await asyncio.sleep(0)
                taking.cancel()
                await asyncio.wait({taking})
                if not taking.cancelled():
                    found += [event.payload for event in taking.result()]
        assert found == [1, 2]
        assert [letter.event.payload for letter in await log.dead_letters()] == ["bad", "bad"]


@pytest.mark.parametrize("make", [consumer_of, sharing_consumer_of])
async def test_a_consumer_refuses_a_second_task(
    dsn: str, installed: Names, make: Callable[[Log], Consumer[Event[str]]]
) -> None:
    """While the first one waits; that goes on, and gets each event once."""
    async with Log("orders", dsn) as log, make(log) as taker, asyncio.timeout(scaled(20)):
        first = asyncio.ensure_future(anext(taker))
        await asyncio.sleep(0)
        for use in (anext(taker), taker.next_batch(5), batch_of(taker)):
            with pytest.raises(RuntimeError, match="another task waits"):
                await use
        await log.append_many([("things", str(n), "a key") for n in range(5)])
        found = [await first, *[await anext(taker) for _ in range(4)]]
        assert [event.payload for event in found] == ["0", "1", "2", "3", "4"]


@MAKERS
async def test_a_backlog_leaves_the_loop_to_others(
    dsn: str, installed: Names, make: Callable[[Log], Taker]
) -> None:
    """Who takes what is there, and works on it without waiting, lets others run now and then."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with Log("orders", dsn) as log, make(log) as taker:
        await log.append_many([("things", str(n)) for n in range(150)])
        await anext(taker)
        other = asyncio.ensure_future(count())
        for _ in range(100):
            before = time.thread_time()
            await anext(taker)
            while time.thread_time() - before < 0.001:
                pass
        other.cancel()
    assert turns >= 5


@pytest.mark.parametrize("buckets", [1, 2])
async def test_a_consumer_that_nobody_refers_to_is_given_back(
    dsn: str, installed: Names, buckets: int
) -> None:
    """At once, whoever serves it next; its session ends, and no warning is given."""
    async with Log("orders", dsn) as log, asyncio.timeout(scaled(20)):
        await log.append_many([("things", str(n)) for n in range(3)])
        for _ in range(3):
            async for event in log.consumer("mailer", buckets=buckets):
                assert event.channel == "things"
                break
            gc.collect()
        while any(status.is_served for status in (await log.status()).consumers):
            gc.collect()


def _serves(tasks: Iterable[asyncio.Task[Any]]) -> bool:
    return any(task.get_name() == "asyncnotify log consumer" for task in tasks)


@pytest.mark.parametrize("buckets", [1, 2])
@pytest.mark.parametrize("is_served_elsewhere", [False, True])
async def test_what_a_forgotten_consumer_waited_for_ends(
    dsn: str, installed: Names, buckets: int, *, is_served_elsewhere: bool
) -> None:
    """What cancelled calls have left to run ends too: for events, or for its turn to serve."""
    async with Log("orders", dsn) as log, asyncio.timeout(scaled(20)):
        other = log.consumer("mailer", buckets=buckets)
        if is_served_elsewhere:
            await log.append_many([("things", str(n)) for n in range(20)])
            await anext(other)
        before = asyncio.all_tasks()
        forgotten = log.consumer("mailer", buckets=buckets)
        waiting = asyncio.ensure_future(anext(forgotten))
        while not _serves(asyncio.all_tasks() - before):  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        del forgotten, waiting
        gc.collect()
        while _serves(asyncio.all_tasks() - before):  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0)
        await other.aclose()


async def test_a_consumer_that_is_forgotten_with_its_log_leaves_no_task(dsn: str) -> None:
    """Nor does what removes old events go on for it, and connect, as long as the program runs."""
    before = asyncio.all_tasks()
    Log("orders", dsn).consumer("mailer")
    async with asyncio.timeout(scaled(20)):
        while asyncio.all_tasks() - before:
            gc.collect()
            await asyncio.sleep(0)
