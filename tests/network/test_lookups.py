"""A name service that hangs: one lookup at a time, however many calls need it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from asyncnotify import ConnectTimeoutError, Listener, Reconnected, RetryScheduled
from asyncnotify.testing.faults import dns_fails, dns_hangs
from asyncnotify.testing.proxy import FaultProxy
from tests.network.observed_listener import SHORT_BACKOFF, Stopwatch, observing
from tests.support.machine import scaled

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
    listener = Listener(
        by_name(proxy, dsn), connect_timeout=scaled(0.05), start_timeout=scaled(0.5)
    )
    with dns_hangs(FOR_EVER, NAME) as lookups:
        began = Stopwatch()
        with pytest.raises(ConnectTimeoutError):
            await listener.start()
        assert began.seconds < scaled(0.5 + 1.0)
        assert (lookups.started, lookups.peak) == (1, 1)


async def test_r10_a_running_listener_has_one_lookup_in_flight(proxy: FaultProxy, dsn: str) -> None:
    """However often it tries to come back, and notifies, one lookup hangs, and no second one."""
    listener = Listener(by_name(proxy, dsn), connect_timeout=scaled(0.2), backoff=SHORT_BACKOFF)
    async with observing(listener, dsn) as watched:
        await watched.delivers()
        with dns_hangs(FOR_EVER, NAME) as lookups:
            proxy.refuse()
            proxy.reset()
            for _ in range(3):
                await watched.until(RetryScheduled)
            assert (lookups.started, lookups.peak) == (1, 1)
            proxy.heal()
            await watched.until(Reconnected)
        await watched.delivers()


async def test_r52_the_last_addresses_serve_while_the_name_service_fails(
    proxy: FaultProxy, dsn: str
) -> None:
    """A name that was resolved once needs no name service to be connected to again."""
    listener = Listener(by_name(proxy, dsn), connect_timeout=scaled(0.2), backoff=SHORT_BACKOFF)
    for fault in (dns_fails(NAME), dns_hangs(FOR_EVER, NAME)):
        async with observing(listener, dsn) as watched:
            await watched.delivers()
            with fault:
                proxy.reset()
                await watched.until(Reconnected)
                await watched.delivers()


async def test_r52_a_lookup_needs_no_thread_of_the_applications(
    proxy: FaultProxy, dsn: str
) -> None:
    """While jobs of the application's hold every thread of the loop's, a name is looked up."""
    loop = asyncio.get_running_loop()
    released = threading.Event()
    with ThreadPoolExecutor(max_workers=1) as only:
        loop.set_default_executor(only)
        job = loop.run_in_executor(None, released.wait)
        try:
            listener = Listener(by_name(proxy, dsn), start_timeout=scaled(5.0))
            async with observing(listener, dsn) as watched:
                await watched.delivers()
                proxy.reset()
                await watched.until(Reconnected)
                await watched.delivers()
        finally:
            released.set()
            await job
