"""Several calls of start() at once: what happens to one of them does not affect another."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from asyncnotify import Listener, Notifier
from asyncnotify.lock import Leader, Locks
from asyncnotify.testing.proxy import FaultProxy
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from asyncnotify.lock import Held

SOON = scaled(10.0)


class Startable(Protocol):
    """What is started and closed."""

    async def start(self) -> None:
        """Start it."""

    async def aclose(self) -> None:
        """Close it."""


async def lead(held: Held) -> None:
    """Lead until asked to resign."""
    await held.resigning


each_kind = pytest.mark.parametrize(
    "new",
    [
        pytest.param(Listener, id="Listener"),
        pytest.param(Notifier, id="Notifier"),
        pytest.param(partial(Leader, "boss", lead), id="Leader"),
    ],
)


@asynccontextmanager
async def unreachable(dsn: str) -> AsyncGenerator[FaultProxy]:
    """A server that refuses connections at first, and has the table of locks."""
    await Locks(dsn).install()
    async with FaultProxy.for_dsn(dsn) as proxy:
        proxy.refuse()
        yield proxy


async def begun(thing: Startable) -> asyncio.Task[None]:
    """Begin to start it; return when the call waits."""
    starting = asyncio.create_task(thing.start())
    for _ in range(5):
        await asyncio.sleep(0)
    return starting


async def ended(*starting: asyncio.Task[None]) -> None:
    """Cancel calls, and wait for their end."""
    for call in starting:
        call.cancel()
    async with asyncio.timeout(SOON):
        await asyncio.wait(starting)
    assert all(call.cancelled() for call in starting)


@each_kind
@pytest.mark.parametrize("which", [0, 1, 2])
async def test_a_start_that_is_cancelled_affects_no_other(
    new: Callable[[str], Any], which: int, dsn: str
) -> None:
    """Whether it was the first or a later one, the others go on until they succeed."""
    async with unreachable(dsn) as proxy:
        thing = new(proxy.proxied_dsn(dsn))
        starting = [await begun(thing) for _ in range(3)]
        await ended(starting.pop(which))
        assert not any(call.done() for call in starting)
        proxy.accept()
        async with asyncio.timeout(SOON):
            await asyncio.gather(*starting)
        await thing.aclose()


@each_kind
async def test_a_start_during_the_end_of_one_that_was_cancelled_succeeds(
    new: Callable[[str], Any], dsn: str
) -> None:
    """It begins again once the other one has ended."""
    async with unreachable(dsn) as proxy:
        thing = new(proxy.proxied_dsn(dsn))
        first = await begun(thing)
        first.cancel()
        await asyncio.sleep(0)
        proxy.accept()
        async with asyncio.timeout(SOON):
            await thing.start()
        await ended(first)
        await thing.aclose()
