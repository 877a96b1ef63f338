from __future__ import annotations

import asyncio
import itertools

import pytest

from asyncnotify import ClosedError
from asyncnotify._blocking.call import Call

MOMENTS = list(itertools.product(range(5), range(7)))


@pytest.mark.parametrize(("duration", "moment"), MOMENTS)
async def test_what_was_abandoned_is_not_done_or_undone(duration: int, moment: int) -> None:
    """Whenever a caller gives up, what has been done for nobody is undone, and nothing else."""
    done: list[str] = []

    async def do() -> str:
        for _ in range(duration):
            await asyncio.sleep(0)
        done.append("done")
        return "done"

    async def undo(result: str) -> None:
        done.remove(result)

    call = Call(do, undo)
    call.begin(asyncio.get_running_loop())
    for _ in range(moment):
        await asyncio.sleep(0)
    call.abandon()
    for _ in range(10):
        await asyncio.sleep(0)
    assert done == []
    assert call.outcome.done()


async def test_a_call_that_is_abandoned_before_it_began_never_begins() -> None:
    """What was given up while it was on its way to the loop does nothing there."""
    begun: list[bool] = []

    async def do() -> None:
        begun.append(True)

    call = Call(do)
    call.abandon()
    call.begin(asyncio.get_running_loop())
    await asyncio.sleep(0)
    assert begun == []
    assert isinstance(call.outcome.exception(), ClosedError)


async def test_what_a_caller_has_been_told_stands() -> None:
    """The loop has ended for it; what the function still returns or raises is nobody's."""
    for late in ("returns", "raises", "is cancelled"):
        told: list[object] = []
        going_on = asyncio.Event()

        async def do(late: str = late, going_on: asyncio.Event = going_on) -> str:
            await going_on.wait()
            if late == "raises":
                raise LookupError
            return late

        call = Call(do)
        call.outcome.add_done_callback(told.append)
        call.begin(asyncio.get_running_loop())
        await asyncio.sleep(0)
        call.fail(ClosedError("the end"))
        assert call.task is not None
        going_on.set()
        if late == "is cancelled":
            call.task.cancel()
        await asyncio.wait({call.task})
        with pytest.raises(ClosedError, match="the end"):
            call.outcome.result(0)
        assert told == [call.outcome]


async def test_a_call_whose_task_is_cancelled_before_its_first_step_has_ended() -> None:
    """As where all tasks of a loop are: who waits for it is told."""
    call = Call(asyncio.Event().wait)
    call.begin(asyncio.get_running_loop())
    assert call.task is not None
    call.task.cancel()
    await asyncio.wait({call.task})
    with pytest.raises(ClosedError):
        call.outcome.result(0)
