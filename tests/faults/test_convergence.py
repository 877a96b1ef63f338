from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from asyncnotify import ConnectionLost, ExponentialBackoff, RetryScheduled
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.faults.conftest import ProxiedDatabase, Subject

    Fault = Callable[[ProxiedDatabase, Subject], Awaitable[None]]

CAP = 1.0
LIMIT = CAP + scaled(2.0)


async def terminated(database: ProxiedDatabase, subject: Subject) -> None:
    """The session ends three times, each time as soon as it is back."""
    for _ in range(3):
        await subject.flap()


async def reset(database: ProxiedDatabase, subject: Subject) -> None:
    """The network resets every connection, and refuses new ones for a while."""
    database.proxy.refuse()
    database.proxy.reset()
    for _ in range(3):
        await subject.until(RetryScheduled)
    database.proxy.accept()


async def swallowed(database: ProxiedDatabase, subject: Subject) -> None:
    """The network drops everything until the connection has been given up, and then works again."""
    database.proxy.black_hole()
    await subject.until(ConnectionLost)
    database.proxy.heal()


async def silent(database: ProxiedDatabase, subject: Subject) -> None:
    """Every new connection is accepted, and nothing is said on it."""
    database.proxy.silent()
    database.proxy.reset()
    for _ in range(2):
        await subject.until(RetryScheduled)
    database.proxy.accept()


async def garbage(database: ProxiedDatabase, subject: Subject) -> None:
    """Something answers that is no PostgreSQL."""
    database.proxy.garbage()
    database.proxy.fin()
    for _ in range(3):
        await subject.until(RetryScheduled)
    database.proxy.accept()


@pytest.mark.parametrize("connects_by", ["dsn", "connect"])
@pytest.mark.parametrize("fault", [terminated, reset, swallowed, silent, garbage])
async def test_r21_a_fresh_notification_arrives_soon_after_the_last_fault(
    database: ProxiedDatabase, fault: Fault
) -> None:
    """Within the longest delay between two attempts, and 2 seconds."""
    backoff = ExponentialBackoff(cap=CAP)
    options = {"heartbeat": 0.3, "heartbeat_timeout": scaled(0.3), "connect_timeout": scaled(0.5)}
    async with database.running(backoff=backoff, **options) as subject:
        await fault(database, subject)
        over = time.monotonic()
        async with (
            asyncio.timeout(LIMIT),
            subject.listener.stream("fresh", timeout=LIMIT) as stream,
        ):
            await database.notify("fresh", "hello")
            assert (await anext(stream)).payload == "hello"
        assert time.monotonic() - over <= LIMIT
