from __future__ import annotations

from asyncnotify._model import SubscriptionStats
from asyncnotify._subscriptions.roster import Totals

SUBSCRIPTION = SubscriptionStats(
    channels=("orders",),
    backlog=1_000_000,
    delivered=1,
    dropped=2,
    conflated=1_000_000,
    handler_errors=3,
    resync_errors=10,
    decode_errors=4,
    gaps=5,
)


def test_a_subscription_is_counted_in() -> None:
    """Every counter goes to its own; errors of handlers and of resync are one."""
    totals = Totals()
    totals.add(SUBSCRIPTION)
    totals.add(SUBSCRIPTION)
    assert totals == Totals(2, 4, 26, 8, 10)


def test_a_snapshot_leaves_the_totals_as_they_are() -> None:
    """Counting open subscriptions in for one look does not count them for good."""
    past = Totals(10, 20, 30, 40, 50)
    assert past.plus([SUBSCRIPTION, SUBSCRIPTION]) == Totals(12, 24, 56, 48, 60)
    assert past.plus([]) == past == Totals(10, 20, 30, 40, 50)
