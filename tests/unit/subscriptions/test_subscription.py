from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest_asyncio

from asyncnotify._subscriptions.subscription import Subscription
from tests.unit.subscription_harness import RosterHarness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncnotify._model import Notification


@pytest_asyncio.fixture
async def harness() -> AsyncIterator[RosterHarness]:
    """A roster that is open, and a server that confirms at once."""
    made = RosterHarness()
    async with made.running():
        yield made


async def subscribed(harness: RosterHarness) -> Subscription:
    """Return the handle of a handler that listens on ``orders``."""
    worker = harness.worker("orders")
    await harness.roster.serve(worker, 1.0)
    return Subscription(harness.roster, "orders", worker)


async def test_the_handle_tells_the_channel_and_whether_it_is_active(
    harness: RosterHarness,
) -> None:
    """Its repr does as well, and holds no payload."""
    subscription = await subscribed(harness)
    assert (subscription.channel, subscription.active) == ("orders", True)
    assert repr(subscription) == "<Subscription channel='orders' active=True>"


async def test_stats_are_those_of_this_subscription_alone(harness: RosterHarness) -> None:
    """Another subscription of the same channel has counters of its own."""
    first = await subscribed(harness)
    harness.send("orders", "1")
    second = await subscribed(harness)
    harness.send("orders", "2")
    await asyncio.sleep(1)
    assert (first.stats().delivered, second.stats().delivered) == (2, 1)


async def test_cancel_discards_what_waits_and_unlistens(harness: RosterHarness) -> None:
    """Once cancel() has returned, the handler is not called and the channel is not listened on."""
    subscription = await subscribed(harness)
    harness.send("orders", "1")
    await subscription.cancel()
    await asyncio.sleep(1)
    assert harness.handled == []
    assert not subscription.active
    assert harness.listening == set()


async def test_cancel_leaves_the_other_subscriptions_of_the_channel(
    harness: RosterHarness,
) -> None:
    """They go on to receive, and the server is not told to unlisten."""
    first, second = await subscribed(harness), await subscribed(harness)
    await first.cancel()
    assert (first.active, second.active) == (False, True)
    harness.send("orders", "1")
    await asyncio.sleep(1)
    assert harness.handled == ["1"]
    assert harness.listening == {"orders"}


async def test_cancel_may_be_called_again_and_from_the_handler(harness: RosterHarness) -> None:
    """The call that is running goes on to its end; later notifications are not handled."""
    ended: list[str] = []

    async def handle(notification: Notification[str]) -> None:
        await subscription.cancel()
        await subscription.cancel()
        ended.append(notification.payload)

    worker = harness.worker("orders", handle)
    await harness.roster.serve(worker, 1.0)
    subscription = Subscription(harness.roster, "orders", worker)
    harness.send("orders", "1")
    harness.send("orders", "2")
    await asyncio.sleep(1)
    assert ended == ["1"]
