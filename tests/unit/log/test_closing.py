"""The end of what a log has in one event loop."""

from __future__ import annotations

import asyncio

import pytest

from asyncnotify.log._closing import Closing

TIMEOUT = 60.0  # seconds


@pytest.mark.parametrize("eager", [False, True])
async def test_what_is_to_finish_knows_that_it_ends_and_how_long_it_may_take(
    *, eager: bool
) -> None:
    """Also where tasks begin at once, before who has started them goes on."""
    loop = asyncio.get_running_loop()
    seen: list[tuple[bool, bool]] = []

    async def finish() -> None:
        seen.append((closing.has_begun, 0 < closing.remaining <= TIMEOUT))

    async def abandon() -> None:
        seen.append((closing.has_begun, closing.has_ended))

    closing = Closing(finish, abandon, lambda: None)
    assert not closing.has_begun
    before = loop.get_task_factory()
    if eager:
        if not hasattr(asyncio, "eager_task_factory"):
            pytest.skip("Python 3.12 brought eager tasks")
        loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - 3.12 on
    try:
        await closing.end(TIMEOUT)
    finally:
        loop.set_task_factory(before)
    assert seen == [(True, True), (True, False)]
    assert closing.has_ended


async def _nothing() -> None:
    """Finish, or abandon, what there is not."""


async def test_it_waits_for_what_nobody_else_waits_for() -> None:
    """Also for what is left just before: one who is collected says so in the next turn."""
    closing, gate = Closing(_nothing, _nothing, lambda: None), asyncio.Event()
    done: list[str] = []

    async def left() -> None:
        await gate.wait()
        done.append("left")

    asyncio.get_running_loop().call_soon(lambda: closing.leave(left()))
    ending = asyncio.create_task(closing.end(TIMEOUT))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not ending.done()
    gate.set()
    await ending
    assert done == ["left"]


async def test_what_was_left_is_cancelled_when_the_time_is_over() -> None:
    """It may hang: the end does not."""
    closing = Closing(_nothing, _nothing, lambda: None)
    left = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    closing.leave(hang())
    await asyncio.sleep(0)
    await closing.end(0.0)
    assert left.is_set()
    assert len(asyncio.all_tasks()) == 1
