"""Whether it is quick enough for what it promises; how quick it is, the benchmarks measure."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.machine import of_processor, scaled

if TYPE_CHECKING:
    from asyncnotify import Listener, Notification, Stream
    from tests.contract.conftest import Database, ListenerFactory

pytestmark = pytest.mark.load

ROUNDS = 4  # the machine may be busy with other things in one of them: the best one counts
MILLION = 1_000_000
# Of processor time: that of others does not count, here and in what follows. On the reference
# machine: how much slower this one is, at the time, is measured beside it
PER_SECOND = 150_000
LONGEST_LAG = 0.050
MEDIAN, P99 = 0.001, 0.005


async def test_r24_a_handler_is_called_within_a_millisecond(
    factory: ListenerFactory, database: Database
) -> None:
    """
    From the call that notifies to the handler: within 1 ms, all but one in 100 in 5.

    Of the processor's time in this thread: other programs may be given theirs in between. One in
    ten takes no longer by the clock either, so nothing waits for a timer.
    """
    arrived = asyncio.Event()
    times: list[tuple[float, float]] = []

    def handle(_: Notification[str]) -> None:
        times.append((time.thread_time(), time.perf_counter()))
        arrived.set()

    used: list[float] = []
    passed: list[float] = []
    async with factory.listener() as listener:
        await listener.listen("orders", handle)
        for _ in range(ROUNDS * 200):
            arrived.clear()
            before, began = time.thread_time(), time.perf_counter()
            await database.notify("orders", "")
            await arrived.wait()
            used.append(times[-1][0] - before)
            passed.append(times[-1][1] - began)
    assert statistics.median(used) <= MEDIAN
    assert statistics.quantiles(used, n=100)[-1] <= P99
    assert statistics.quantiles(passed, n=10)[0] <= MEDIAN


async def test_r29_a_million_are_read_quickly_and_the_loop_goes_on(
    factory: ListenerFactory, database: Database
) -> None:
    """
    At 150,000 a second at least, and no other task waits for longer than 50 ms.

    The latter not where the driver itself schedules a call for each: all of them run in one turn.
    """
    times: list[float] = []  # as multiples of the limit
    lags: list[float] = []
    done = asyncio.Event()
    seen = 0

    def handle(_: Notification[str]) -> None:
        nonlocal seen
        seen += 1
        if seen == MILLION // ROUNDS:
            done.set()

    gc.collect()
    gc.freeze()  # what other tests have left in this process is not to be looked through here
    async with factory.listener() as listener:
        await listener.listen("orders", handle)
        for _ in range(ROUNDS):
            seen, longest = 0, 0.0
            done.clear()
            processor, before = time.process_time(), time.thread_time()
            flood = asyncio.create_task(database.flood("orders", MILLION // ROUNDS, size=32))
            while not done.is_set():
                await asyncio.sleep(0)
                now = time.thread_time()
                longest, before = max(longest, now - before), now
            used = time.process_time() - processor
            times.append(used / of_processor(MILLION / ROUNDS / PER_SECOND))
            lags.append(longest)
            await flood
        assert listener.stats().dropped == 0
    gc.unfreeze()
    assert min(times) <= 1
    if factory.connected_by == "dsn":
        assert min(lags) <= LONGEST_LAG


def spend(seconds: float) -> None:
    """Use the processor for so long, as a handler does that computes something."""
    ends = time.thread_time() + seconds
    while time.thread_time() < ends:
        pass


async def read_to_the_last(stream: Stream[Notification[str]]) -> None:
    """Read without waiting for anything but the next item, and compute something for each."""
    async for n in stream:
        spend(0.0003)
        if n.payload == "last":
            return


async def measure_lags(lags: list[float]) -> None:
    """Note how long another task waits for its turn."""
    while True:
        began = time.thread_time()
        await asyncio.sleep(0)
        lags.append(time.thread_time() - began)


async def test_r57_many_busy_handlers_and_a_backlog_share_the_loop(
    listener: Listener, database: Database
) -> None:
    """300 handlers of 0.3 ms and a stream that never waits: no other task waits over 50 ms."""
    lags: list[float] = []
    done, left = asyncio.Event(), 300 * 10

    def handle(_: Notification[str]) -> None:
        nonlocal left
        spend(0.0003)
        left -= 1
        if not left:
            done.set()

    for _ in range(300):
        await listener.listen("orders", handle)
    async with listener.stream("events") as stream:
        reading = asyncio.create_task(read_to_the_last(stream))
        measuring = asyncio.create_task(measure_lags(lags))
        await database.notify("events", *map(str, range(3_000)), "last")
        await database.notify("orders", *map(str, range(10)))
        async with asyncio.timeout(scaled(30)):
            await done.wait()
            await reading
        measuring.cancel()
    assert max(lags) <= LONGEST_LAG
