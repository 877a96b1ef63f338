"""From the counters of a listener to a report, without what reporting itself has caused."""

from __future__ import annotations

import heapq
import os
import secrets
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeAlias

from asyncnotify import Listener, Stats, SubscriptionStats, __version__
from asyncnotify.ext.reporting._report import LONGEST_TEXT, ChannelReport, ServiceReport

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_CHANNELS: Final = 100
"""In one report: more than a reader looks at; a payload takes up room in the server's queue."""

_NAMES_SHOWN: Final = 3

Together: TypeAlias = list[SubscriptionStats]
"""The subscriptions that have the same channels; one at least."""


@dataclass(frozen=True, slots=True)
class Own:
    """What reporting itself has caused in the counters of its listener."""

    received: int = 0
    delivered: int = 0
    gaps: int = 0

    @staticmethod
    def of(subscriptions: Iterable[SubscriptionStats]) -> Own:
        """Return the sums of the subscriptions of reporting."""
        stats = tuple(subscriptions)
        delivered = sum(one.delivered for one in stats)
        waiting = sum(one.backlog + one.conflated for one in stats)
        return Own(delivered + waiting, delivered, sum(one.gaps for one in stats))


class Figures:
    """
    Makes the reports of one service, one after another.

    Args:
        listener: The listener reported of.
        name: The name of the service.
        every: Seconds from one report to the next.
        hidden: The channel of roll calls, which is not the user's.
    """

    def __init__(self, listener: Listener, name: str, every: float, hidden: str) -> None:
        self.id: Final = secrets.token_hex(8)
        self._listener = listener
        self._name = name
        self._every = every
        self._hidden = hidden
        self._host = socket.gethostname()[:LONGEST_TEXT]
        self._began = time.monotonic()
        self._backend_pid: int | None = None
        self._connected_since: datetime | None = None
        self._before: dict[tuple[str, ...], int] = {}

    async def report(self, own: Own) -> ServiceReport:
        """Return a report of what has become of the notifications so far."""
        stats = self._listener.stats()
        await self._look_for_backend(stats)
        users = [one for one in stats.subscriptions if one.channels != (self._hidden,)]
        count, busiest = self._busiest(users)
        now = datetime.now(UTC)
        return ServiceReport(
            id=self.id,
            name=self._name,
            host=self._host,
            pid=os.getpid(),
            backend_pid=self._backend_pid,
            version=__version__,
            every=self._every,
            uptime=round(time.monotonic() - self._began, 6),
            state=stats.state,
            received=max(0, stats.received - own.received),
            delivered=max(0, stats.delivered - own.delivered),
            backlog=sum(one.backlog for one in users),
            dropped=stats.dropped,
            gaps=max(0, stats.gaps - own.gaps),
            errors=stats.handler_errors + stats.decode_errors,
            reconnects=stats.reconnects,
            round_trip=stats.heartbeat_round_trip,
            heartbeat_age=_age(stats.last_heartbeat, now),
            connected_for=_age(stats.connected_since, now),
            channel_count=len(self._listener.channels - {self._hidden}),
            more=count - len(busiest),
            channels=tuple(map(row_of, busiest)),
        )

    async def _look_for_backend(self, stats: Stats) -> None:
        """Ask for the backend pid when there is another connection: the answer lists all."""
        if stats.connected_since != self._connected_since:
            self._backend_pid = (await self._listener.health(server=False))["backend_pid"]
            self._connected_since = stats.connected_since

    def _busiest(self, subscriptions: Iterable[SubscriptionStats]) -> tuple[int, list[Together]]:
        """Return how many different channels there are, and those of which to tell, in order."""
        groups = by_channel(subscriptions)
        counts = {one[0].channels: sum(s.delivered + s.dropped for s in one) for one in groups}
        before, self._before = self._before, counts

        def activity(group: Together) -> tuple[int, int, int]:
            channels = group[0].channels
            count = counts[channels]
            return count - before.get(channels, 0), sum(one.backlog for one in group), count

        return len(groups), heapq.nlargest(MOST_CHANNELS, groups, key=activity)


def by_channel(subscriptions: Iterable[SubscriptionStats]) -> list[Together]:
    """Return the subscriptions in groups, each of those that have the same channels."""
    together: dict[tuple[str, ...], Together] = {}
    for subscription in subscriptions:
        together.setdefault(subscription.channels, []).append(subscription)
    return [*together.values()]


def row_of(stats: Together) -> ChannelReport:
    """Return the sums of subscriptions that have the same channels."""
    return ChannelReport(
        channel=_label(stats[0].channels),
        subscriptions=len(stats),
        delivered=sum(one.delivered for one in stats),
        backlog=sum(one.backlog for one in stats),
        dropped=sum(one.dropped for one in stats),
        gaps=sum(one.gaps for one in stats),
        errors=sum(one.handler_errors + one.resync_errors + one.decode_errors for one in stats),
    )


def _label(channels: tuple[str, ...]) -> str:
    names = ", ".join(channels[:_NAMES_SHOWN])
    left = len(channels) - _NAMES_SHOWN
    return f"{names[: LONGEST_TEXT - 20]} and {left} more" if left > 0 else names[:LONGEST_TEXT]


def _age(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else max(0.0, (now - moment).total_seconds())
