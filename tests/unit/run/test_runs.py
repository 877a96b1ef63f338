from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from asyncnotify import ClosedError, NotStartedError, State, Stats, WrongLoopError
from asyncnotify._run.runs import Runs
from asyncnotify.testing.clock import VirtualTimeLoop
from tests.unit.lifetime_harness import LifetimeHarness

if TYPE_CHECKING:
    from asyncnotify._run.lifetime import Lifetime


async def begun() -> Runs:
    """Return the runs of a listener that is listening, and has received something."""
    harness = LifetimeHarness()
    runs = Runs()
    runs.last = harness.lifetime
    await harness.start()
    harness.send("1")
    await asyncio.sleep(1)
    return runs


@pytest_asyncio.fixture
async def runs() -> Runs:
    """The runs of a listener that is listening, and has received something."""
    return await begun()


def seen(runs: Runs) -> tuple[Lifetime | None, bool, bool, State]:
    """Return what can be seen of a run without using it."""
    return runs.present_here, runs.has_present, runs.last_is_parents, runs.state


async def test_before_the_first_run_there_is_nothing() -> None:
    """Neither to wait for nor to end."""
    runs = Runs()
    assert seen(runs) == (None, False, False, State.NEW)
    assert runs.stats() == Stats()
    await runs.end(drain=True, timeout=0)
    with pytest.raises(NotStartedError, match="async with"):
        runs.running()
    with pytest.raises(NotStartedError):
        await runs.wait_ended(0)


async def test_a_run_is_present_until_it_is_ended(runs: Runs) -> None:
    """Then its counters are still there, and calls are refused."""
    assert seen(runs) == (runs.running(), True, False, State.CONNECTED)
    with pytest.raises(TimeoutError):
        await runs.wait_ended(1)
    await runs.end(drain=True, timeout=1)
    await runs.wait_ended(None)
    assert seen(runs) == (None, False, False, State.CLOSED)
    assert runs.stats().received == 1
    with pytest.raises(ClosedError):
        runs.running()


def test_r35_another_event_loop_may_not_use_it() -> None:
    """Though it can see that there is one."""

    async def elsewhere(runs: Runs) -> None:
        assert runs.present_here is not None
        with pytest.raises(WrongLoopError):
            runs.running()
        with pytest.raises(WrongLoopError):
            await runs.end(drain=True, timeout=0)
        with pytest.raises(WrongLoopError):
            await runs.wait_ended(0)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runs = runner.run(begun())
        asyncio.run(elsewhere(runs))
        runner.run(runs.end(drain=False, timeout=0))


async def test_in_a_fork_the_run_is_the_parents(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listener is new there, and what would touch the connection is refused."""
    with monkeypatch.context() as fork:
        fork.setattr(os, "getpid", lambda: 1)
        fork.setattr("asyncnotify._owner.Owner.is_here", property(lambda _: False))
        assert seen(runs) == (None, True, True, State.NEW)
        assert runs.stats() == Stats()
        with pytest.raises(WrongLoopError, match="fork"):
            runs.running()
        with pytest.raises(WrongLoopError, match="fork"):
            await runs.end(drain=True, timeout=0)
        with pytest.raises(WrongLoopError, match="fork"):
            await runs.wait_ended(0)
    await runs.end(drain=False, timeout=0)
