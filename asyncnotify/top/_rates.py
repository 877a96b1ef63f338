"""From counters to rates: differences between two reports, by the clock of the service."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from asyncnotify.top._model import ChannelFigures, ServiceFigures

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify.ext.reporting import ChannelReport, ServiceReport

WINDOW: Final = 0.5
"""Seconds between two reports, at least, for their difference to be a rate."""

FORGOTTEN: Final = 60.0
"""Seconds after which a service that is silent is shown no more."""

_KEPT: Final = 8
_MOST_SERVICES: Final = 1_000


@dataclass(slots=True)
class _Heard:
    at: float
    reports: deque[ServiceReport] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def base(self) -> ServiceReport | None:
        """Return the newest report that is old enough to be compared with the last one."""
        last = self.reports[-1]
        older = (one for one in reversed(self.reports) if last.uptime - one.uptime >= WINDOW)
        return next(older, None)


class Rates:
    """
    Keeps the last reports of each service.

    Args:
        silent_after: Seconds without a report after which a service counts as silent.
        clock: Returns seconds that pass evenly.
    """

    def __init__(self, silent_after: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._silent_after = silent_after
        self._clock = clock
        self._heard: dict[str, _Heard] = {}

    def add(self, report: ServiceReport) -> None:
        """Take a report that has just arrived."""
        heard = self._heard.pop(report.id, None) or _Heard(0.0)
        heard.at = self._clock()
        heard.reports.append(report)
        self._heard[report.id] = heard  # the one that was heard last comes last
        if len(self._heard) > _MOST_SERVICES:
            del self._heard[next(iter(self._heard))]

    def keep(self, ids: set[str]) -> None:
        """Forget all services but these: they have said goodbye."""
        self._heard = {one: heard for one, heard in self._heard.items() if one in ids}

    def figures(self) -> tuple[ServiceFigures, ...]:
        """Return what is known of each service, by name, host and process."""
        now = self._clock()
        self._heard = {
            one: heard for one, heard in self._heard.items() if now - heard.at < FORGOTTEN
        }
        services = [self._service(heard, now - heard.at) for heard in self._heard.values()]
        return tuple(sorted(services, key=_order))

    def _service(self, heard: _Heard, silent_for: float) -> ServiceFigures:
        report, base = heard.reports[-1], heard.base()
        seconds = 0.0 if base is None else report.uptime - base.uptime
        received = None if base is None else rate(report.received, base.received, seconds)
        delivered = None if base is None else rate(report.delivered, base.delivered, seconds)
        return ServiceFigures(
            report=report,
            received_rate=received,
            delivered_rate=delivered,
            silent_for=silent_for,
            is_silent=silent_for > self._silent_after,
            channels=tuple(_channel(row, base, seconds) for row in report.channels),
        )


def rate(now: int, before: int, seconds: float) -> float | None:
    """Return the difference for each second; None where the counter was reset."""
    return (now - before) / seconds if now >= before and seconds > 0 else None


def _channel(row: ChannelReport, base: ServiceReport | None, seconds: float) -> ChannelFigures:
    return ChannelFigures(
        channel=row.channel,
        rate=None if base is None else _rate_of(row, base, seconds),
        subscriptions=row.subscriptions,
        delivered=row.delivered,
        backlog=row.backlog,
        dropped=row.dropped,
        gaps=row.gaps,
        errors=row.errors,
    )


def _rate_of(row: ChannelReport, base: ServiceReport, seconds: float) -> float | None:
    for before in base.channels:
        if before.channel == row.channel:
            return rate(row.delivered, before.delivered, seconds)
    return None if base.more else rate(row.delivered, 0, seconds)


def _order(service: ServiceFigures) -> tuple[str, str, int]:
    return service.report.name, service.report.host, service.report.pid
