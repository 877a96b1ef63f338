from __future__ import annotations

import asyncio

import pytest

from asyncnotify._run.deadline import Deadline


def now() -> float:
    """Return the loop's time."""
    return asyncio.get_running_loop().time()


async def test_it_waits_for_the_tasks_without_end_until_it_is_shortened() -> None:
    """A deadline that nobody has set is none."""
    before, deadline = now(), Deadline()
    assert deadline.remaining == float("inf")
    task = asyncio.ensure_future(asyncio.sleep(70_000))
    await deadline.wait_until_done(lambda: [task])
    assert now() - before == pytest.approx(70_000)


async def test_it_ends_the_wait_when_it_has_passed() -> None:
    """The tasks go on; then nothing remains, and nothing more is waited for."""
    before, deadline = now(), Deadline()
    task = asyncio.ensure_future(asyncio.sleep(1_000))
    deadline.shorten(10)
    await deadline.wait_until_done(lambda: [task])
    assert (now() - before, deadline.remaining) == pytest.approx((10, 0))
    await deadline.wait_until_done(lambda: [task])
    assert now() - before == pytest.approx(10)
    assert not task.done()
    task.cancel()


async def test_it_comes_nearer_while_somebody_waits() -> None:
    """The shortest stands: a longer one later changes nothing."""
    before, deadline = now(), Deadline()
    task = asyncio.ensure_future(asyncio.sleep(1_000))
    deadline.shorten(500)
    for seconds, end in ((5, 20), (6, 300), (7, 2)):
        asyncio.get_running_loop().call_later(seconds, deadline.shorten, end)
    await deadline.wait_until_done(lambda: [task])
    assert now() - before == pytest.approx(9)
    task.cancel()


async def test_it_does_not_wait_for_what_is_done() -> None:
    """Nor for nothing."""
    before, deadline = now(), Deadline()
    done = asyncio.get_running_loop().create_future()
    done.set_result(None)
    await deadline.wait_until_done(lambda: [done])
    await deadline.wait_until_done(list)
    assert now() == before
