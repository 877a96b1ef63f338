"""The last known state of logs as metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from opentelemetry.metrics import MeterProvider, Observation

from asyncnotify._arguments import check_plain_function
from asyncnotify.ext.opentelemetry._operations import meter_of
from asyncnotify.log import LogStatus

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions

    from asyncnotify.log import ConsumerStatus

    Read = Callable[[ConsumerStatus], float]
    Logs = Callable[[], Iterable[LogStatus]]

OF_CONSUMERS: Final[dict[str, tuple[Read, str, str]]] = {
    "lag": (lambda one: one.lag_events, "{event}", "Events that the consumer has before it."),
    "lag.age": (lambda one: one.lag_seconds, "s", "For how long the oldest has been there."),
    "dead_letters": (lambda one: one.dead_letters, "{event}", "Events that it could not handle."),
    "served": (lambda one: float(one.is_served), "1", "1 while a session serves it, else 0."),
}
"""The name of each metric is ``asyncnotify.log.`` and this."""


def observe_logs(
    logs: Callable[[], Iterable[LogStatus]], *, meter_provider: MeterProvider | None = None
) -> Callable[[], None]:
    """
    Report the lag of the consumers of logs as metrics; return what ends that.

    Metrics are collected in a thread of the SDK, which may not wait for a database. So the caller
    asks for ``await log.status()`` from time to time, and ``logs`` returns what it was told last.
    May be called from any thread, also before the first status is known.

    Args:
        logs: Returns the last known status of each log. It is called at each collection, from the
            thread that collects.
        meter_provider: Makes the metrics; None: the global provider.

    Returns:
        A function that ends the reports.

    Raises:
        TypeError: ``logs`` is no plain function without arguments, or ``meter_provider`` makes no
            meters.
    """
    check_plain_function("logs", logs)
    observed = _Observed(logs)
    meter = meter_of(meter_provider)
    for name, (read, unit, text) in OF_CONSUMERS.items():
        callbacks = [observed.reading(read)]
        meter.create_observable_gauge(f"asyncnotify.log.{name}", callbacks, unit, text)
    return observed.stop


class _Observed:
    """What is reported until somebody ends it: an instrument cannot be taken back."""

    def __init__(self, logs: Logs) -> None:
        self._logs: Logs | None = logs

    def stop(self) -> None:
        self._logs = None

    def reading(self, read: Read) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def callback(_: CallbackOptions) -> Iterable[Observation]:
            known = () if self._logs is None else self._logs()
            return [
                Observation(read(consumer), _attributes(log, consumer))
                for log in known
                for consumer in log.consumers
            ]

        return callback


def _attributes(log: LogStatus, consumer: ConsumerStatus) -> dict[str, str]:
    return {
        "asyncnotify.log.name": log.name,
        "messaging.consumer.group.name": consumer.name,
        "messaging.destination.partition.id": str(consumer.bucket),
    }
