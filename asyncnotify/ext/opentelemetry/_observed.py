"""The counters of listeners as metrics, read when they are collected: they cost nothing before."""

from __future__ import annotations

import itertools
import weakref
from typing import TYPE_CHECKING, Final

from opentelemetry.metrics import Observation

from asyncnotify.ext._counters import stats_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider

    from asyncnotify import BlockingListener, Listener, Stats

    Read = Callable[[Stats], float | None]

_CLIENT: Final = "messaging.client.id"
_numbers = itertools.count(1)

COUNTERS: Final[dict[str, tuple[str, str]]] = {
    "received": ("{notification}", "Notifications that arrived from the server."),
    "delivered": ("{notification}", "Notifications handed to handlers and streams."),
    "dropped": ("{notification}", "Notifications lost because a buffer was full."),
    "gaps": ("{gap}", "Gaps emitted, over all subscriptions."),
    "reconnects": ("{connection}", "Connections made again after a loss."),
    "handler_errors": ("{error}", "Calls of handlers and of resync that raised."),
    "decode_errors": ("{error}", "Payloads that could not be decoded."),
}
"""Fields of Stats. The name of the metric is ``asyncnotify.`` and that of the field."""


def _backlog(stats: Stats) -> float:
    return sum(subscription.backlog for subscription in stats.subscriptions)


def _connected(stats: Stats) -> float:
    return float(stats.state == "connected")


def _degraded(stats: Stats) -> float:
    return float(stats.state == "degraded")


def _round_trip(stats: Stats) -> float | None:
    return stats.heartbeat_round_trip


GAUGES: Final[dict[str, tuple[Read, str, str]]] = {
    "backlog": (_backlog, "{item}", "Notifications and gaps that wait in buffers."),
    "connected": (_connected, "1", "1 while the server listens for it, else 0."),
    "degraded": (_degraded, "1", "1 while something must be fixed before it can connect, else 0."),
    "heartbeat.round_trip": (_round_trip, "s", "Time that the server took for the last heartbeat."),
}


class Observed:
    """
    A listener whose counters are collected, until it is gone or ``stop()`` is called.

    Args:
        listener: The listener; it is not kept alive.
        client_id: What tells the listener from others of the process; None: a number.
    """

    def __init__(self, listener: Listener | BlockingListener, client_id: str | None) -> None:
        self._listener: weakref.ref[Listener | BlockingListener] | None = weakref.ref(listener)
        self._attributes = {_CLIENT: client_id or f"listener-{next(_numbers)}"}

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing to be read any more."""
        return self._listener is None or self._listener() is None

    def stop(self) -> None:
        """Report no more."""
        self._listener = None

    def observation(self, read: Read) -> Observation | None:
        """Return what there is to report now."""
        listener = None if self._listener is None else self._listener()
        stats = None if listener is None else stats_of(listener)
        value = None if stats is None else read(stats)
        return None if value is None else Observation(value, self._attributes)


class Observers:
    """The instruments of one provider, which has each of them once, and what they report."""

    def __init__(self, meter: Meter) -> None:
        self._observed: list[Observed] = []
        for field, (unit, text) in COUNTERS.items():
            callbacks = [self._reading(_field(field))]
            meter.create_observable_counter(f"asyncnotify.{field}", callbacks, unit, text)
        for name, (read, unit, text) in GAUGES.items():
            callbacks = [self._reading(read)]
            meter.create_observable_gauge(f"asyncnotify.{name}", callbacks, unit, text)

    def add(self, observed: Observed) -> None:
        """Report one more listener."""
        self._observed = [one for one in self._observed if not one.has_ended]
        self._observed.append(observed)

    def _reading(self, read: Read) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def callback(_: CallbackOptions) -> Iterable[Observation]:
            found = [observed.observation(read) for observed in self._observed]
            return [observation for observation in found if observation is not None]

        return callback


def _field(name: str) -> Read:
    def read(stats: Stats) -> float:
        value: int = getattr(stats, name)
        return value

    return read


_of_providers: weakref.WeakKeyDictionary[MeterProvider, Observers] = weakref.WeakKeyDictionary()
_of_the_global_one: list[Observers] = []


def observers_of(provider: MeterProvider | None, meter: Meter) -> Observers:
    """Return the instruments of a provider; None: of the global one, whenever that is set."""
    if provider is None:
        if not _of_the_global_one:
            _of_the_global_one.append(Observers(meter))
        return _of_the_global_one[0]
    if provider not in _of_providers:
        _of_providers[provider] = Observers(meter)
    return _of_providers[provider]
