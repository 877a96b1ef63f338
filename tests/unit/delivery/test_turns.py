from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncnotify._delivery.turns import Turns
from asyncnotify._tasks import SLICE
from tests.unit.clock import JumpingLoop

if TYPE_CHECKING:
    from collections.abc import Callable

WORK = 0.0003
"""Seconds of processor time that one step of a consumer takes."""


async def consume(turns: Turns, steps: int, work: Callable[[], None]) -> None:
    """Do so many steps without waiting for anything but the next turn."""
    for _ in range(steps):
        if turns.is_over:
            await turns.next()
        work()


async def longest_lag(consumers: int, steps: int) -> tuple[float, list[int]]:
    """Return the longest time for which another task had to wait, and who took which step."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, JumpingLoop)
    turns, order, lags = Turns(loop), list[int](), list[float]()

    def working(number: int) -> Callable[[], None]:
        def work() -> None:
            order.append(number)
            loop.spend(WORK)

        return work

    async def look() -> None:
        while True:
            before = loop.time()
            await asyncio.sleep(0)
            lags.append(loop.time() - before)

    turns.begin(loop.time())
    other = asyncio.create_task(look())
    tasks = [asyncio.create_task(consume(turns, steps, working(n))) for n in range(consumers)]
    await asyncio.gather(*tasks)
    other.cancel()
    return max(lags), order


async def test_r57_many_busy_consumers_share_one_budget() -> None:
    """300 of them with 20 steps of 0.3 ms each: no other task waits for over 50 ms."""
    lag, order = await longest_lag(300, 20)
    assert lag < 0.050
    assert sorted(order) == [n for n in range(300) for _ in range(20)]


async def test_r57_nobody_starves() -> None:
    """Who waits longest goes first: no one is two rounds ahead of another."""
    _, order = await longest_lag(50, 200)
    firsts = {number: order.index(number) for number in range(50)}
    assert max(firsts.values()) < len(order) / 2


async def test_a_lone_consumer_goes_on_in_the_next_turn() -> None:
    """One with a backlog uses a budget in each turn of the loop."""
    lag, _ = await longest_lag(1, 1_000)
    assert SLICE <= lag < 2 * SLICE


async def test_a_consumer_that_gave_up_takes_nobody_s_place() -> None:
    """Its turn passes to the next one."""
    turns = Turns(asyncio.get_running_loop())
    gone, waiting = turns.next(), turns.next()
    gone.cancel()
    await waiting
    assert gone.cancelled()
