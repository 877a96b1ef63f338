from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest

from asyncnotify.testing.clock import (
    DayOverError,
    NothingScheduledError,
    SpinningError,
    VirtualTimeLoop,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine


def run(coroutine: Coroutine[object, object, None]) -> None:
    """Run to the end on a clock that jumps."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(coroutine)


async def spin(pause: float) -> None:
    """Be busy for ever, with pauses."""
    for _ in itertools.repeat(None):
        await asyncio.sleep(pause)


async def test_a_sleep_takes_its_time_on_the_clock_and_no_other() -> None:
    """These tests run on the clock that jumps: a day's sleep is over at once, and exact."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    before = loop.time()
    await asyncio.sleep(86_400)
    assert loop.time() - before == pytest.approx(86_400)


async def test_timers_fire_in_their_order() -> None:
    """What is due earlier happens earlier, whatever was asked for first."""
    order: list[int] = []
    loop = asyncio.get_running_loop()
    for seconds in (30, 10, 20):
        loop.call_later(seconds, order.append, seconds)
    await asyncio.sleep(30)
    assert order == [10, 20, 30]


async def test_time_spent_computing_counts() -> None:
    """A timeout fires if the code inside took too long, as on a real clock."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)

    async def compute() -> None:
        loop.spend(2.0)
        await asyncio.sleep(0.5)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(compute(), timeout=1.0)


def test_waiting_for_nothing_is_an_error() -> None:
    """A test that waits for what nobody will do ends at once."""

    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(NothingScheduledError):
        run(wait())


def test_a_day_is_enough() -> None:
    """A test that waits for ever, with timers that fire for ever, ends."""
    with pytest.raises(DayOverError):
        run(spin(3_600))


def test_spinning_is_an_error() -> None:
    """A task that is busy for ever and lets no time pass is found out."""
    with pytest.raises(SpinningError):
        run(spin(0))
