from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import NoReturn

import pytest

from asyncnotify import ClosedError, ConnectError, WrongLoopError
from asyncnotify._blocking.call import Call
from asyncnotify._blocking.gateway import awaitable
from asyncnotify._blocking.portal import Portal

TIMEOUT = 20.0


def opened_portal() -> Portal:
    """Return a portal whose thread has been launched."""
    portal = Portal()
    portal.launch()
    return portal


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
    portal.join(TIMEOUT)
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
    loops[0].call_soon_threadsafe(loops[0].stop)
    for call in waiting:
        assert isinstance(call.outcome.exception(TIMEOUT), ClosedError)
    portal.join(TIMEOUT)
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
    portal.join(TIMEOUT)


def test_portals_share_a_loop_and_each_ends_by_itself() -> None:
    """The end of one ends its own calls; those of the other go on, and the thread with them."""
    first, second = opened_portal(), opened_portal()

    async def here() -> tuple[int, asyncio.AbstractEventLoop]:
        return threading.get_ident(), asyncio.get_running_loop()

    async def wait(event: asyncio.Event) -> str:
        await event.wait()
        return "waited"

    assert first.call(here) == second.call(here)
    released = asyncio.Event()
    calls = [portal.begin(Call(lambda: wait(released))) for portal in (first, second)]
    first.begin(Call(first.stop))
    first.join(TIMEOUT)
    assert isinstance(calls[0].outcome.exception(TIMEOUT), ClosedError)
    assert not first.is_open
    second.call(awaitable(released.set))
    assert calls[1].outcome.result(TIMEOUT) == "waited"
    second.begin(Call(second.stop))
    second.join(TIMEOUT)
    assert "asyncnotify" not in {thread.name for thread in threading.enumerate()}


def test_a_later_portal_begins_when_the_earlier_one_has_ended() -> None:
    """In the same loop: what the earlier one ran belongs to it until its last task has ended."""
    other, earlier = opened_portal(), opened_portal()
    order: list[str] = []

    async def outlive() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            order.append("earlier")

    outliving = earlier.begin(Call(outlive))
    earlier.begin(Call(earlier.stop)).outcome.result(TIMEOUT)
    later = Portal(earlier=earlier)
    later.launch()
    later.call(awaitable(lambda: order.append("later")))
    assert order == ["earlier", "later"]
    assert isinstance(outliving.outcome.exception(), ClosedError)
    for portal in (later, other):
        portal.begin(Call(portal.stop))
        portal.join(TIMEOUT)


def test_calls_before_a_failure_of_the_loop_are_told_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what was raised in the thread as the cause, however many wait."""

    def fail() -> NoReturn:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("asyncnotify._blocking.loop._new_loop", fail)
    portal = Portal()

    async def here() -> None:
        pass

    call = portal.begin(Call(here))  # before its thread begins
    portal.launch()
    assert isinstance(call.outcome.exception(TIMEOUT), ConnectError)
    portal.join(TIMEOUT)
    assert portal.has_failed
    with pytest.raises(ConnectError, match="Too many open files") as raised:
        portal.call(here)
    assert isinstance(raised.value.__cause__, OSError)


def test_r55_a_fork_cancels_no_call_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a copy of the loop, and of the socket that wakes it: the parent's call goes on."""
    portal, going_on = opened_portal(), asyncio.Event()

    async def wait() -> str:
        await going_on.wait()
        return "done"

    call = portal.begin(Call(wait))
    portal.call(awaitable(lambda: None))  # that one has begun
    with monkeypatch.context() as patch:
        patch.setattr(Portal, "is_other_process", property(lambda _: True))
        portal.abandon(call)
    portal.call(awaitable(going_on.set))
    assert call.outcome.result(TIMEOUT) == "done"
    portal.begin(Call(portal.stop))
    portal.join(TIMEOUT)
