"""
Metrics of listeners and logs for Prometheus, for the extra ``prometheus``.

::

    from prometheus_client import REGISTRY

    from asyncnotify.ext.prometheus import Collector

    REGISTRY.register(Collector(listener))

The counters of the listeners are read when somebody scrapes, and cost nothing before. The module's
path is its API, with the names in ``__all__``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector as _Collector
except ImportError as _error:
    _text = (
        "asyncnotify.ext.prometheus needs prometheus_client: pip install"
        " 'asyncnotify-pg[prometheus]'"
    )
    raise ImportError(_text) from _error

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.metrics_core import Metric

from asyncnotify import BlockingListener, Listener
from asyncnotify._arguments import check_names, check_plain_function
from asyncnotify.ext._counters import stats_of
from asyncnotify.log import LogStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncnotify import Stats, SubscriptionStats

__all__ = ["Collector"]

_COUNTERS: Final = {
    "received": ("notifications_received", "Notifications that arrived from the server."),
    "delivered": ("notifications_delivered", "Notifications handed to handlers and streams."),
    "dropped": ("notifications_dropped", "Notifications lost because a buffer was full."),
    "gaps": ("gaps", "Gaps emitted, over all subscriptions."),
    "reconnects": ("reconnects", "Connections made again after a loss."),
    "handler_errors": ("handler_errors", "Calls of handlers and of resync that raised."),
    "decode_errors": ("decode_errors", "Payloads that could not be decoded."),
}
"""Fields of Stats, and the names of their metrics without ``asyncnotify_`` and ``_total``."""


def _connected(stats: Stats) -> float | None:
    return float(stats.state == "connected")


def _degraded(stats: Stats) -> float | None:
    return float(stats.state == "degraded")


def _since(stats: Stats) -> float | None:
    return None if stats.connected_since is None else stats.connected_since.timestamp()


def _heartbeat(stats: Stats) -> float | None:
    return None if stats.last_heartbeat is None else stats.last_heartbeat.timestamp()


def _round_trip(stats: Stats) -> float | None:
    return stats.heartbeat_round_trip


def _backlog(stats: Stats) -> float | None:
    return sum(subscription.backlog for subscription in stats.subscriptions)


_GAUGES: Final[dict[str, tuple[Callable[[Stats], float | None], str]]] = {
    "connected": (_connected, "1 while the server listens for the listener, else 0."),
    "degraded": (_degraded, "1 while something must be fixed before it can connect, else 0."),
    "connected_since_timestamp_seconds": (_since, "When the present connection began to listen."),
    "last_heartbeat_timestamp_seconds": (_heartbeat, "When the server last answered a heartbeat."),
    "heartbeat_round_trip_seconds": (_round_trip, "How long the last answer to a heartbeat took."),
    "backlog": (_backlog, "Notifications and gaps that wait in buffers."),
}

_OF_CHANNELS: Final = {
    "backlog": ("channel_backlog", "Notifications and gaps that wait, by channel."),
    "delivered": ("channel_delivered", "Handed over by the subscriptions there are now."),
    "dropped": ("channel_dropped", "Dropped by the subscriptions there are now."),
}
"""Fields of SubscriptionStats. They are gauges: what has ended is not counted any more."""

_OF_CONSUMERS: Final = {
    "lag_events": ("log_lag_events", "Events that the consumer has before it."),
    "lag_seconds": ("log_lag_seconds", "For how long the oldest of them has been there."),
    "dead_letters": ("log_dead_letters", "Events that the consumer could not handle."),
    "is_served": ("log_consumer_served", "1 while a session serves the consumer, else 0."),
}
"""Fields of ConsumerStatus."""


class Collector(_Collector):
    """
    Collects the counters of listeners, and the last known status of logs, at each scrape.

    Register it with a registry of ``prometheus_client``. In its multiprocess mode no custom
    collector works, so neither does this one: let each process be scraped by itself, on a port of
    its own. The listeners are kept alive. After a restart of a listener its counters start again,
    which ``rate()`` takes for what it is.

    Args:
        listeners: Listeners, or BlockingListeners. With several, give ``names``.
        names: The value of the label ``listener`` of each; None: ``main``, or their numbers.
        channels: How many channels have metrics of their own, those with the largest backlog
            first; what the others have is summed up under ``channel=""``. 0: none, as there may be
            as many channels as users.
        logs: Returns the last known status of each log. The caller keeps it up to date, because a
            scrape may not wait for a database: ``[await log.status()]`` from time to time.

    Raises:
        TypeError: An argument is of a wrong type, or there is neither a listener nor ``logs``.
        ValueError: ``channels`` is negative, or there is not a name of its own for each listener.
    """

    def __init__(
        self,
        *listeners: Listener | BlockingListener,
        names: Sequence[str] | None = None,
        channels: int = 0,
        logs: Callable[[], Iterable[LogStatus]] | None = None,
    ) -> None:
        _check(listeners, channels, logs)
        if names is not None:
            check_names("names", names)
        given = _default_names(len(listeners)) if names is None else list(names)
        if len(given) != len(listeners):
            msg = f"names must be one for each of the {len(listeners)} listeners, not {len(given)}"
            raise ValueError(msg)
        if len(set(given)) != len(given):
            msg = f"names must be different for each listener, not {given!r}"
            raise ValueError(msg)
        self._listeners = dict(zip(given, listeners, strict=True))
        self._channels = channels
        self._logs = logs

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registering the collector reads no counters."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of now."""
        found = {name: stats_of(listener) for name, listener in self._listeners.items()}
        stats = {name: one for name, one in found.items() if one is not None}
        yield from _counters(stats)
        yield from _gauges(stats)
        if self._channels:
            yield from _of_channels(stats, self._channels)
        if self._logs is not None:
            yield from _of_logs(self._logs())


def _check(listeners: Sequence[object], channels: object, logs: object) -> None:
    for listener in listeners:
        if not isinstance(listener, Listener | BlockingListener):
            msg = f"a listener must be a Listener, not of type {type(listener).__name__}"
            raise TypeError(msg)
    if not isinstance(channels, int) or isinstance(channels, bool) or channels < 0:
        msg = f"channels must be a whole number, at least 0, not {channels!r}"
        raise ValueError(msg)
    if logs is not None:
        check_plain_function("logs", logs)
    elif not listeners:
        msg = "Collector() has nothing to collect: give it a Listener, or a function as logs="
        raise TypeError(msg)


def _default_names(count: int) -> list[str]:
    return ["main"] if count == 1 else [str(number) for number in range(1, count + 1)]


def _counters(stats: Mapping[str, Stats]) -> Iterator[Metric]:
    for field, (name, text) in _COUNTERS.items():
        family = CounterMetricFamily(f"asyncnotify_{name}", text, labels=["listener"])
        for listener, one in stats.items():
            family.add_metric([listener], float(getattr(one, field)))
        yield family


def _gauges(stats: Mapping[str, Stats]) -> Iterator[Metric]:
    for name, (read, text) in _GAUGES.items():
        family = GaugeMetricFamily(f"asyncnotify_{name}", text, labels=["listener"])
        for listener, one in stats.items():
            if (value := read(one)) is not None:
                family.add_metric([listener], value)
        yield family


def _of_channels(stats: Mapping[str, Stats], most: int) -> Iterator[Metric]:
    tables = {name: _by_channel(one.subscriptions, most) for name, one in stats.items()}
    for field, (name, text) in _OF_CHANNELS.items():
        family = GaugeMetricFamily(f"asyncnotify_{name}", text, labels=["listener", "channel"])
        for listener, table in tables.items():
            for channel, figures in table.items():
                family.add_metric([listener, channel], figures[field])
        yield family


def _by_channel(
    subscriptions: Iterable[SubscriptionStats], most: int
) -> dict[str, dict[str, float]]:
    """Return the figures of the first channels, and of all others under the empty name."""
    table: dict[str, dict[str, float]] = {}
    for subscription in sorted(subscriptions, key=lambda one: one.backlog, reverse=True):
        name = subscription.channels[0] if len(subscription.channels) == 1 else ""
        channel = name if name in table or len(table.keys() - {""}) < most else ""
        figures = table.setdefault(channel, dict.fromkeys(_OF_CHANNELS, 0.0))
        for field in figures:
            figures[field] += getattr(subscription, field)
    return table


def _of_logs(logs: Iterable[LogStatus]) -> Iterator[Metric]:
    known = list(logs)
    events = CounterMetricFamily("asyncnotify_log_events", "Events appended.", labels=["log"])
    size = GaugeMetricFamily("asyncnotify_log_size_bytes", "Of the events kept.", labels=["log"])
    for log in known:
        events.add_metric([log.name], log.events)
        size.add_metric([log.name], log.size)
    yield from (events, size)
    labels = ["log", "consumer", "bucket"]
    for field, (name, text) in _OF_CONSUMERS.items():
        family = GaugeMetricFamily(f"asyncnotify_{name}", text, labels=labels)
        for log in known:
            for consumer in log.consumers:
                value: Any = getattr(consumer, field)
                family.add_metric([log.name, consumer.name, str(consumer.bucket)], float(value))
        yield family
