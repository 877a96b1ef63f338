from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from asyncnotify import ConnectionLost, ExponentialBackoff, RetryScheduled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.faults.conftest import Rig, Subject

    Fault = Callable[[Rig, Subject], Awaitable[None]]

CAP = 1.0
LIMIT = CAP + 2.0


async def terminated(rig: Rig, subject: Subject) -> None:
    """The session ends three times, each time as soon as it is back."""
    for _ in range(3):
        await subject.flap()


async def reset(rig: Rig, subject: Subject) -> None:
    """The network resets every connection, and refuses new ones for a while."""
    rig.proxy.refuse()
    rig.proxy.reset()
    for _ in range(3):
        await subject.until(RetryScheduled)
    rig.proxy.accept()


async def swallowed(rig: Rig, subject: Subject) -> None:
    """The network drops everything until the connection has been given up, and then works again."""
    rig.proxy.black_hole()
    await subject.until(ConnectionLost)
    rig.proxy.heal()


async def silent(rig: Rig, subject: Subject) -> None:
    """Every new connection is accepted, and nothing is said on it."""
    rig.proxy.silent()
    rig.proxy.reset()
    for _ in range(2):
        await subject.until(RetryScheduled)
    rig.proxy.accept()


async def garbage(rig: Rig, subject: Subject) -> None:
    """Something answers that is no PostgreSQL."""
    rig.proxy.garbage()
    rig.proxy.fin()
    for _ in range(3):
        await subject.until(RetryScheduled)
    rig.proxy.accept()


@pytest.mark.parametrize("road", ["dsn", "connect"])
@pytest.mark.parametrize("fault", [terminated, reset, swallowed, silent, garbage])
async def test_r21_a_fresh_notification_arrives_soon_after_the_last_fault(
    rig: Rig, fault: Fault
) -> None:
    """Within the longest delay between two attempts, and 2 seconds."""
    backoff = ExponentialBackoff(cap=CAP)
    options = {"heartbeat": 0.3, "heartbeat_timeout": 0.3, "connect_timeout": 0.5}
    async with rig.running(backoff=backoff, **options) as subject:
        await fault(rig, subject)
        over = time.monotonic()
        async with (
            asyncio.timeout(LIMIT),
            subject.listener.stream("fresh", timeout=LIMIT) as stream,
        ):
            await rig.notify("fresh", "hello")
            assert (await anext(stream)).payload == "hello"
        assert time.monotonic() - over <= LIMIT
