"""Counters summed up over subscriptions, those that have ended included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncnotify._model import SubscriptionStats


@dataclass(slots=True)
class Totals:
    """What became of the notifications of several subscriptions."""

    delivered: int = 0
    dropped: int = 0
    handler_errors: int = 0
    decode_errors: int = 0
    gaps: int = 0

    def add(self, subscription: SubscriptionStats) -> None:
        """Count one subscription in."""
        self.delivered += subscription.delivered
        self.dropped += subscription.dropped
        self.handler_errors += subscription.handler_errors + subscription.resync_errors
        self.decode_errors += subscription.decode_errors
        self.gaps += subscription.gaps

    def plus(self, subscriptions: Iterable[SubscriptionStats]) -> Totals:
        """Return these totals with some more subscriptions counted in."""
        result = Totals(
            self.delivered, self.dropped, self.handler_errors, self.decode_errors, self.gaps
        )
        for subscription in subscriptions:
            result.add(subscription)
        return result
