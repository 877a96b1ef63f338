from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from asyncnotify import ClosedError, SubscriptionStats
from asyncnotify._blocking.gateway import Gateway
from asyncnotify._blocking.subscription import BlockingSubscription

if TYPE_CHECKING:
    from collections.abc import Iterator

STATS = SubscriptionStats(("orders",), 1, 2, 3, 4, 5, 6, 7, 8)


class FakeSubscription:
    """The subscription in the loop."""

    channel = "orders"

    def __init__(self) -> None:
        self.active = True
        self.cancels = 0
        self.error: Exception | None = None

    def __repr__(self) -> str:
        return "<Subscription channel='orders' active=True>"

    def stats(self) -> SubscriptionStats:
        """Return some figures."""
        return STATS

    async def cancel(self) -> None:
        """End."""
        self.cancels += 1
        self.active = False
        if self.error is not None:
            raise self.error


class Handle:
    """A handle for threads, and the subscription behind it."""

    def __init__(self, gateway: Gateway) -> None:
        self.behind = FakeSubscription()
        self.handle = BlockingSubscription(gateway, cast("Any", self.behind))


@pytest.fixture
def made() -> Iterator[Handle]:
    """A handle on an open loop."""

    async def end(_: float) -> None:
        pass

    gateway = Gateway(end, close_timeout=1.0)
    gateway.open()
    yield Handle(gateway)
    gateway.close()


def test_it_tells_what_the_subscription_tells(made: Handle) -> None:
    """Its repr says that it is the one for threads."""
    assert (made.handle.channel, made.handle.active) == ("orders", True)
    assert made.handle.stats() == STATS
    assert repr(made.handle) == "<BlockingSubscription channel='orders' active=True>"


def test_cancel_is_called_once(made: Handle) -> None:
    """A subscription that has ended is not asked to end again."""
    made.handle.cancel()
    made.handle.cancel()
    assert made.behind.cancels == 1


def test_a_listener_that_was_closed_meanwhile_is_no_error(made: Handle) -> None:
    """Closing has ended the subscription: that is what was asked for."""
    made.behind.error = ClosedError("the listener is closed")
    made.handle.cancel()
    assert not made.handle.active
