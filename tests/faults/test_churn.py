"""Many tasks listening and unlistening at once, while connections die under them."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import TYPE_CHECKING

import pytest

from asyncnotify import ExponentialBackoff
from asyncnotify.testing.proxy import ProxiedConnection
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify import Listener, Subscription
    from tests.faults.conftest import ProxiedDatabase

AT_ONCE = ExponentialBackoff(initial=0.001, cap=0.001)
LIMITS = {"heartbeat": 0.2, "heartbeat_timeout": scaled(0.2), "backoff": AT_ONCE}
CHANNELS = tuple(f"channel {number}" for number in range(10))
TASKS, CALLS = 50, 20
CALLS_BETWEEN_FAULTS = 100
WAIT_LIMIT = scaled(30.0)


def faults(database: ProxiedDatabase) -> tuple[Callable[[], object], ...]:
    """Return what is done to the network, in turns."""
    proxy = database.proxy
    return (
        proxy.reset,
        lambda: proxy.cut_on(b"LISTEN", then=ProxiedConnection.reset),
        proxy.fin,
        lambda: proxy.cut_on(b"UNLISTEN", then=ProxiedConnection.fin, answer=b"LISTEN\0"),
        lambda: proxy.cut_on(b"LISTEN", then=ProxiedConnection.pause),
    )


class Churn:
    """Calls at random, and a fault after every so many of them."""

    def __init__(self, database: ProxiedDatabase, listener: Listener) -> None:
        self._faults = itertools.cycle(faults(database))
        self._listener = listener
        self._calls = itertools.count(1)

    async def run(self, seed: int) -> None:
        """Make calls, one after the other."""
        chance = random.Random(seed)
        subscriptions: list[Subscription] = []
        for _ in range(CALLS):
            await self._call(chance, subscriptions)
            if next(self._calls) % CALLS_BETWEEN_FAULTS == 0:
                next(self._faults)()

    async def _call(self, chance: random.Random, subscriptions: list[Subscription]) -> None:
        channel = chance.choice(CHANNELS)
        match chance.randrange(8):
            case 0 | 1 | 2:
                subscriptions.append(await self._listener.listen(channel, len))
            case 3 | 4 if subscriptions:
                await subscriptions.pop(chance.randrange(len(subscriptions))).cancel()
            case 5 | 6:
                async with self._listener.stream(channel, chance.choice(CHANNELS)):
                    await asyncio.sleep(0)
            case _:
                await self._listener.unlisten(channel)


@pytest.mark.parametrize("connects_by", ["dsn", "connect"])
async def test_r22_the_server_agrees_after_a_thousand_calls_under_faults(
    database: ProxiedDatabase,
) -> None:
    """Fifty tasks listen and unlisten while connections die; in the end both sides agree."""
    async with database.running(**LIMITS) as subject:
        churn = Churn(database, subject.listener)
        async with asyncio.timeout(WAIT_LIMIT), asyncio.TaskGroup() as group:
            for seed in range(TASKS):
                group.create_task(churn.run(seed))
        assert database.proxy.accepted > 4
        database.proxy.heal()
        await subject.listener.wait_connected()
        await database.until_backends(1)
        assert subject.listener.channels > {"fence"}
        await database.check_agreement(subject, CHANNELS)
        for channel in CHANNELS[::2]:
            await subject.listener.unlisten(channel)
        await database.check_agreement(subject, CHANNELS)
