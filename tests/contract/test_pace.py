"""Whether it is quick enough for what it promises; how quick it is, the benchmarks measure."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncnotify import Notification
    from tests.contract.conftest import Database, Road

ROUNDS = 4  # the machine may be busy with other things in one of them: the best one counts
MILLION = 1_000_000
PER_SECOND = 150_000  # of processor time: that of others does not count, here and in the next one
LONGEST_LAG = 0.050
MEDIAN, P99 = 0.001, 0.005


async def test_r24_a_handler_is_called_within_a_millisecond(road: Road, database: Database) -> None:
    """From the call that notifies to the handler: half within 1 ms, all but one in 100 in 5."""
    arrived = asyncio.Event()
    times: list[float] = []

    def handle(_: Notification[str]) -> None:
        times.append(time.perf_counter())
        arrived.set()

    medians: list[float] = []
    slowest: list[float] = []
    async with road.listener() as listener:
        await listener.listen("orders", handle)
        for _ in range(ROUNDS):
            latencies: list[float] = []
            for _ in range(200):
                arrived.clear()
                began = time.perf_counter()
                await database.notify("orders", "")
                await arrived.wait()
                latencies.append(times[-1] - began)
            medians.append(statistics.median(latencies))
            slowest.append(statistics.quantiles(latencies, n=100)[-1])
    assert min(medians) <= MEDIAN
    assert min(slowest) <= P99


async def test_r29_a_million_are_read_quickly_and_the_loop_goes_on(
    road: Road, database: Database
) -> None:
    """
    At 150,000 a second at least, and no other task waits for longer than 50 ms.

    The latter not where the driver itself schedules a call for each: all of them run in one turn.
    """
    rates: list[float] = []
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
    async with road.listener() as listener:
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
            rates.append(MILLION / ROUNDS / (time.process_time() - processor))
            lags.append(longest)
            await flood
        assert listener.stats().dropped == 0
    gc.unfreeze()
    assert max(rates) >= PER_SECOND
    if road.name == "dsn":
        assert min(lags) <= LONGEST_LAG
