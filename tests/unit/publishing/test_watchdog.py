from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from asyncnotify._publishing.watchdog import Watchdog
from asyncnotify.testing.clock import VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECONDS = 5.0
GRACE = 0.05


class WatchdogHarness:
    """When the watchdog has called its function, counted from the beginning of the test."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.times: list[float] = []
        self.watchdog = Watchdog(SECONDS, self._on_overdue)

    def _on_overdue(self) -> None:
        self.times.append(self.loop.time() - self.began)

    def timers(self) -> int:
        """Return how many timers are set: of all the loop's, as these tests set no other."""
        handles = cast("list[asyncio.TimerHandle]", getattr(self.loop, "_scheduled"))  # noqa: B009 - untyped
        return sum(not handle.cancelled() for handle in handles)


@pytest.fixture
async def harness() -> AsyncIterator[WatchdogHarness]:
    """A watchdog, stopped in the end."""
    made = WatchdogHarness()
    yield made
    made.watchdog.stop()


async def test_what_does_not_end_is_overdue_once(harness: WatchdogHarness) -> None:
    """The function is called after so many seconds and a moment of grace, and then no more."""
    harness.watchdog.begin()
    await asyncio.sleep(100)
    assert harness.times == pytest.approx([SECONDS + GRACE])


async def test_what_ends_in_time_is_not_overdue(harness: WatchdogHarness) -> None:
    """Whatever ends before its deadline is fine, though it ends a moment before."""
    for _ in range(20):
        harness.watchdog.begin()
        await asyncio.sleep(SECONDS - 0.01)
        harness.watchdog.end()
    await asyncio.sleep(100)
    assert harness.times == []


async def test_what_ends_within_the_grace_is_not_overdue(harness: WatchdogHarness) -> None:
    """Its answer lay in the socket when the deadline came."""
    harness.watchdog.begin()
    await asyncio.sleep(SECONDS + GRACE / 2)
    harness.watchdog.end()
    await asyncio.sleep(100)
    assert harness.times == []
    harness.watchdog.begin()
    await asyncio.sleep(100)
    assert len(harness.times) == 1


async def test_each_beginning_has_its_own_deadline(harness: WatchdogHarness) -> None:
    """The timer of something that has ended does not shorten the time of what began after it."""
    harness.watchdog.begin()
    await asyncio.sleep(4)
    harness.watchdog.end()
    harness.watchdog.begin()
    await asyncio.sleep(100)
    assert harness.times == pytest.approx([4 + SECONDS + GRACE])


async def test_a_beginning_within_the_grace_of_another_is_not_blamed(
    harness: WatchdogHarness,
) -> None:
    """Something ends in the moment of grace, and the next thing gets all of its time."""
    harness.watchdog.begin()
    await asyncio.sleep(SECONDS + GRACE / 2)
    harness.watchdog.end()
    harness.watchdog.begin()
    await asyncio.sleep(SECONDS - GRACE)
    assert harness.times == []
    await asyncio.sleep(100)
    assert harness.times == pytest.approx([2 * SECONDS + 1.5 * GRACE])


async def test_a_blocked_loop_is_given_a_moment_to_look(harness: WatchdogHarness) -> None:
    """The loop was blocked past the deadline: what ends as soon as it looks is not overdue."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    harness.watchdog.begin()
    await asyncio.sleep(1)
    loop.spend(3 * SECONDS)
    await asyncio.sleep(GRACE / 2)
    harness.watchdog.end()
    await asyncio.sleep(100)
    assert harness.times == []


async def test_a_thousand_beginnings_set_one_timer(harness: WatchdogHarness) -> None:
    """Beginning and ending sets no timer of its own, and none is left when nothing goes on."""
    for _ in range(1_000):
        harness.watchdog.begin()
        harness.watchdog.end()
    assert harness.timers() == 1
    await asyncio.sleep(SECONDS + 0.01)
    assert harness.timers() == 0


async def test_the_function_is_called_again_for_what_begins_after(harness: WatchdogHarness) -> None:
    """Having called its function, and having been idle, it goes on watching."""
    harness.watchdog.begin()
    await asyncio.sleep(10)
    harness.watchdog.end()
    await asyncio.sleep(10)
    harness.watchdog.begin()
    await asyncio.sleep(10)
    assert harness.times == pytest.approx([SECONDS + GRACE, 20 + SECONDS + GRACE])


@pytest.mark.parametrize("moment", [1.0, SECONDS + GRACE / 2])
async def test_once_stopped_it_is_silent(harness: WatchdogHarness, moment: float) -> None:
    """stop() takes the timer back, in the moment of grace as well."""
    harness.watchdog.begin()
    await asyncio.sleep(moment)
    harness.watchdog.stop()
    assert harness.timers() == 0
    await asyncio.sleep(100)
    assert harness.times == []
