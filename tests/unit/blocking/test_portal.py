from __future__ import annotations

import asyncio
import itertools
import os
import sys
import threading
import time
from typing import NoReturn

import pytest

from asyncnotify import ClosedError, ConnectError, WrongLoopError
from asyncnotify._blocking.portal import Call, Portal


def opened_portal() -> Portal:
    """Return a portal whose thread has been launched."""
    portal = Portal()
    portal.launch()
    return portal


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


def test_calls_return_and_raise_in_the_calling_thread() -> None:
    """What the function returns or raises, even SystemExit, is the caller's; the loop goes on."""
    portal = opened_portal()

    async def fail() -> NoReturn:
        sys.exit(7)

    async def where() -> int:
        with pytest.raises(WrongLoopError):
            portal.call(where)
        return threading.get_ident()

    with pytest.raises(SystemExit):
        portal.call(fail)
    assert portal.call(where) != threading.get_ident()
    portal.begin(Call(portal.stop))
    portal.join(20)
    with pytest.raises(ClosedError):
        portal.call(where)


def test_callers_are_let_go_when_the_loop_ends() -> None:
    """Whatever ends the loop, nobody waits for it for ever."""
    portal = opened_portal()
    loops: list[asyncio.AbstractEventLoop] = []

    async def wait() -> None:
        loops.append(asyncio.get_running_loop())
        await asyncio.Event().wait()

    waiting = [portal.begin(Call(wait)) for _ in range(3)]
    while len(loops) < 3:
        pass
    loops[0].call_soon_threadsafe(sys.exit, "for a test")
    for call in waiting:
        assert isinstance(call.outcome.exception(20), ClosedError)
    portal.join(20)
    assert not portal.is_open


def test_the_loop_is_asyncios_own() -> None:
    """Whatever event loop policy is set, the portal's loop is a plain one, and so are lookups."""
    portal = opened_portal()

    async def kind() -> tuple[asyncio.AbstractEventLoop, int]:
        loop = asyncio.get_running_loop()
        return loop, await loop.run_in_executor(None, os.getpid)

    loop, process = portal.call(kind)
    assert isinstance(loop, asyncio.BaseEventLoop)
    assert process == os.getpid()
    portal.begin(Call(portal.stop))
    portal.join(20)


def test_r55_a_paused_loop_stands_still_until_it_is_resumed() -> None:
    """So a fork finds no lock of a library held by what the loop runs."""
    portal = opened_portal()
    passed = threading.Event()

    async def pass_by() -> None:
        passed.set()

    portal.call(pass_by)
    passed.clear()
    portal.pause(time.monotonic() + 20)
    call = portal.begin(Call(pass_by))
    with pytest.raises(TimeoutError):
        call.outcome.result(0.05)
    portal.resume()
    call.outcome.result(20)
    assert passed.is_set()
    portal.begin(Call(portal.stop))
    portal.join(20)


def test_r57_a_loop_that_cannot_be_made_ends_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what was raised in the thread as the cause, however many wait."""

    def fail() -> NoReturn:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("asyncnotify._blocking.portal._new_loop", fail)
    portal = Portal()

    async def here() -> None:
        pass

    call = portal.begin(Call(here))  # before its thread begins
    portal.launch()
    assert isinstance(call.outcome.exception(20), ConnectError)
    portal.join(20)
    assert portal.has_failed
    with pytest.raises(ConnectError, match="Too many open files") as raised:
        portal.call(here)
    assert isinstance(raised.value.__cause__, OSError)
