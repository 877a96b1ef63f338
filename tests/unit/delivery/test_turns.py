from __future__ import annotations

import asyncio
import contextlib
import math
import time
from typing import TYPE_CHECKING

from asyncnotify._delivery.turns import Turns, clock_of
from asyncnotify._tasks import SLICE
from asyncnotify.testing.clock import VirtualTimeLoop

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
    assert isinstance(loop, VirtualTimeLoop)
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

    turns.begin()
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


async def test_r57_busy_consumers_have_the_same_share() -> None:
    """However many run in one turn: in each round, each of them gets about as far as the others."""
    for consumers in (2, 5, 64, 100):
        _, order = await longest_lag(consumers, 50)
        half = order[: len(order) // 2]
        taken = [half.count(number) for number in range(consumers)]
        # the first of them have had the first budget for themselves
        assert max(taken) - min(taken) <= 2 * SLICE / WORK, (consumers, taken)


async def test_who_comes_while_others_wait_goes_behind_them() -> None:
    """What a new notification wakes does not overtake what an earlier one has woken."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    turns = Turns(loop)
    turns.begin()
    loop.spend(2 * SLICE)
    first = turns.next()
    turns.begin()  # a new notification
    assert turns.is_taken
    second = turns.next()
    order: list[str] = []
    first.add_done_callback(lambda _: order.append("first"))
    second.add_done_callback(lambda _: order.append("second"))
    await second
    assert order == ["first", "second"]


async def test_who_is_woken_after_a_rest_does_not_wait() -> None:
    """A gap at the start comes at once, however long ago the last budget was used up."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    turns = Turns(loop)
    turns.begin()
    loop.spend(3_600)
    turns.begin_with_first()
    loop.spend(1)
    before = turns.is_taken
    loop.spend(2 * SLICE)
    assert (before, turns.is_taken) == (False, True)


async def test_who_is_woken_while_others_wait_has_no_budget_of_its_own() -> None:
    """What begins with the first who asks would else overtake all that wait for their turn."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    turns = Turns(loop)
    turns.begin()
    loop.spend(2 * SLICE)
    waiting = turns.next()
    turns.begin_with_first()
    assert turns.is_over
    await waiting


async def test_a_round_is_past_when_all_that_waited_together_have_run() -> None:
    """Until then nobody can say that a consumer is too slow."""
    turns = Turns(asyncio.get_running_loop())
    assert turns.is_past(turns.rounds)  # nobody waits
    waiting = [turns.next() for _ in range(100)]
    began, seen = turns.rounds + 1, list[bool]()
    for turn in waiting:
        turn.add_done_callback(lambda _: seen.append(turns.is_past(began)))
    await asyncio.wait(waiting)
    await turns.next()
    assert turns.is_past(began)
    assert seen == [False] * 100


def test_the_clock_is_finer_than_the_loop_s() -> None:
    """Unless the loop has a clock of its own: uvloop counts the monotonic one in milliseconds."""

    class MillisecondLoop(asyncio.SelectorEventLoop):
        def time(self) -> float:
            return math.floor(super().time() * 1_000) / 1_000

    for kind in (asyncio.SelectorEventLoop, MillisecondLoop, VirtualTimeLoop):
        with contextlib.closing(kind()) as loop:
            is_monotonic = clock_of(loop) is time.monotonic
            assert is_monotonic == (kind is not VirtualTimeLoop)
