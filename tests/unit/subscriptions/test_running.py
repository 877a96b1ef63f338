from __future__ import annotations

import asyncio
import threading

import pytest

from asyncnotify._subscriptions.running import Running


async def test_one_more_may_run_when_one_has_ended() -> None:
    """Those who wait come in their order."""
    running, entered = Running(2), list[int]()

    async def enter(number: int) -> None:
        await running.enter()
        entered.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(enter(number))
        await asyncio.sleep(1)
        assert entered == [0, 1]
        running.leave()
        await asyncio.sleep(1)
        assert entered == [0, 1, 2]
        running.leave()
    assert entered == [0, 1, 2, 3]


async def test_without_a_limit_nobody_waits() -> None:
    """Whatever runs."""
    running = Running(None)
    async with asyncio.timeout(1):
        for _ in range(100):
            await running.enter()


@pytest.mark.parametrize("is_woken", [False, True])
async def test_who_is_cancelled_while_waiting_takes_no_place(*, is_woken: bool) -> None:
    """Also if one had just ended: the next one has its place."""
    running = Running(1)
    await running.enter()
    waiting = asyncio.create_task(running.enter())
    other = asyncio.create_task(running.enter())
    await asyncio.sleep(1)
    if is_woken:
        running.leave()
    waiting.cancel()
    await asyncio.wait({waiting})
    if not is_woken:
        running.leave()
    async with asyncio.timeout(1):
        await other


def test_a_call_that_outlives_its_loop_counts_in_the_next_one() -> None:
    """It ends while nobody waits, or while one of a loop that is closed was waiting."""
    running = Running(1)

    async def give_up() -> None:
        await running.enter()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await running.enter()

    asyncio.run(give_up())
    threading.Timer(0.001, running.leave).start()
    asyncio.run(running.enter())
