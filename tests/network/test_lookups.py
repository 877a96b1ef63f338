"""A name service that hangs: one lookup at a time, whoever needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncnotify import ConnectError, ConnectTimeoutError, Listener, Reconnected, RetryScheduled
from asyncnotify.testing.faults import dns_hangs
from asyncnotify.testing.proxy import FaultProxy
from tests.network.observed_listener import QUICKLY, Stopwatch, observing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NAME = "localhost"
FOR_EVER = 3600.0


@pytest.fixture
async def proxy(dsn: str) -> AsyncIterator[FaultProxy]:
    """A way to the server that can be cut."""
    async with FaultProxy.for_dsn(dsn) as proxy:
        yield proxy


def by_name(proxy: FaultProxy, dsn: str) -> str:
    """Return a DSN that needs a lookup."""
    return proxy.proxied_dsn(dsn).replace("127.0.0.1", NAME)


async def test_r10_start_gives_up_in_time_on_a_lookup_that_hangs(
    proxy: FaultProxy, dsn: str
) -> None:
    """start() raises when its time is over, and several attempts have waited for one lookup."""
    listener = Listener(by_name(proxy, dsn), connect_timeout=0.05, start_timeout=0.5)
    with dns_hangs(FOR_EVER, NAME) as lookups:
        began = Stopwatch()
        with pytest.raises(ConnectTimeoutError):
            await listener.start()
        assert began.seconds < 0.5 + 1.0
        assert (lookups.started, lookups.peak) == (1, 1)


async def test_r10_a_running_listener_has_one_lookup_in_flight(proxy: FaultProxy, dsn: str) -> None:
    """However often it tries to come back, and notifies, one lookup hangs; then it is back."""
    listener = Listener(by_name(proxy, dsn), connect_timeout=0.05, backoff=QUICKLY)
    async with observing(listener, dsn) as observed:
        await observed.delivers()
        with dns_hangs(FOR_EVER, NAME) as lookups:
            proxy.reset()
            for _ in range(3):
                assert isinstance((await observed.until(RetryScheduled)).cause, TimeoutError)
            with pytest.raises((ConnectError, TimeoutError)):
                await listener.notify("orders")
            assert (lookups.started, lookups.peak) == (1, 1)
        await observed.until(Reconnected)
        await observed.delivers()
