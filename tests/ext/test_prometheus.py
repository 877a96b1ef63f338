"""Metrics for Prometheus: a real scrape, and that what is shown and alerted on exists."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import BlockingListener, Listener, RetryScheduled, Stats, SubscriptionStats
from asyncnotify.log import ConsumerStatus, LogStatus, Position
from asyncnotify.testing.fake import FakeServer

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from asyncnotify.ext.prometheus import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncnotify import ConnectionEvent

DSN = "postgresql://127.0.0.1:1/nowhere"
TWO = (Listener(DSN), Listener(DSN))
DOCS = Path(__file__).parents[2] / "docs" / "telemetry"
NOW = datetime(2026, 1, 2, tzinfo=UTC)
METRIC = re.compile(r"\basyncnotify_\w+")


def status_of_log() -> LogStatus:
    """Return the status of a log with one consumer."""
    position = Position("events", 1, 2, 3)
    consumer = ConsumerStatus(
        name="mailer",
        bucket=0,
        buckets=1,
        position=position,
        lag_events=7,
        lag_seconds=1.5,
        pid=42,
        is_served=True,
        is_paused=False,
        dead_letters=2,
        committed_at=NOW,
        holds_retention=True,
    )
    return LogStatus(
        name="events",
        version=1,
        end=position,
        events=10,
        kept_since=NOW,
        size=8192,
        retention=timedelta(days=1),
        limit=None,
        consumers=(consumer,),
        oldest_writer=None,
    )


class Counted(Listener):
    """A listener with the counters of a test."""

    def __init__(self, stats: Stats) -> None:
        super().__init__(DSN)
        self._given = stats

    def stats(self) -> Stats:
        """Return them."""
        return self._given


def subscription(channel: str, backlog: int) -> SubscriptionStats:
    """Return the counters of a subscription."""
    return SubscriptionStats((channel,), backlog, 1, 0, 0, 0, 0, 0, 1)


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return what a scrape has said, by the name and the values of the labels, which are sorted."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def collected(collector: Collector) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return what a collector gives to a registry."""
    registry = CollectorRegistry()
    registry.register(collector)
    return samples(generate_latest(registry).decode())


def scrape(port: int) -> str:
    """Return what a server of metrics says over HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


async def test_a_scrape_over_http_has_the_counters_of_a_running_listener() -> None:
    """Read in the thread of the scraper, while the loop goes on."""
    fake, registry, handled = FakeServer(), CollectorRegistry(), asyncio.Event()
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        async with Listener(fake.dsn) as listener:
            registry.register(Collector(listener, channels=5))
            await listener.listen("orders", lambda _: handled.set())
            await listener.notify("orders", "secret")
            await handled.wait()
            text = await asyncio.to_thread(scrape, server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    found = samples(text)
    assert found["asyncnotify_notifications_received_total", ("main",)] == 1
    assert found["asyncnotify_connected", ("main",)] == 1
    assert found["asyncnotify_channel_backlog", ("orders", "main")] == 0
    assert "secret" not in text


async def test_a_listener_that_the_server_refuses_is_degraded() -> None:
    """Which needs an alarm at once: a lost connection comes back by itself, this one does not."""
    fake, refused = FakeServer(), asyncio.Event()

    def on_event(event: ConnectionEvent) -> None:
        if isinstance(event, RetryScheduled) and event.needs_repair:
            refused.set()

    async with Listener(fake.dsn, on_event=on_event) as listener:
        collector = Collector(listener)
        assert collected(collector)["asyncnotify_degraded", ("main",)] == 0
        fake.refuse(permanently=True)
        fake.lose()
        await refused.wait()
        found = collected(collector)
    assert found["asyncnotify_degraded", ("main",)] == 1
    assert found["asyncnotify_connected", ("main",)] == 0


def test_registering_reads_nothing() -> None:
    """`describe()` is empty, so that a registry does not collect in order to learn the names."""
    collector = Collector(Listener(DSN))
    assert list(collector.describe()) == []


def test_several_listeners_are_told_from_each_other() -> None:
    """By a label; blocking ones as well."""
    found = collected(Collector(Listener(DSN), BlockingListener(DSN), names=["a", "b"]))
    assert {labels for name, labels in found if name == "asyncnotify_gaps_total"} == {
        ("a",),
        ("b",),
    }


def test_what_is_not_known_has_no_sample() -> None:
    """Before the first heartbeat there is no round trip; a 0 would be a lie."""
    names = {name for name, _ in collected(Collector(Listener(DSN)))}
    assert "asyncnotify_heartbeat_round_trip_seconds" not in names
    assert "asyncnotify_backlog" in names


@pytest.mark.parametrize(("channels", "expected"), [(0, {}), (2, {"a": 9, "b": 5, "": 3})])
def test_the_number_of_channels_is_bounded(channels: int, expected: dict[str, int]) -> None:
    """The busiest have labels of their own, the others share one; none without the option."""
    listener = Counted(
        Stats(
            subscriptions=(
                subscription("c", 2),
                subscription("a", 9),
                subscription("d", 1),
                subscription("b", 5),
            )
        )
    )
    found = collected(Collector(listener, channels=channels))
    by_channel = {
        labels[0]: value
        for (name, labels), value in found.items()
        if name == "asyncnotify_channel_backlog"
    }
    assert by_channel == expected


def test_logs_are_reported_as_they_were_last_known() -> None:
    """With the lag of each consumer."""
    found = collected(Collector(logs=lambda: [status_of_log()]))
    assert found["asyncnotify_log_lag_seconds", ("0", "mailer", "events")] == 1.5
    assert found["asyncnotify_log_lag_events", ("0", "mailer", "events")] == 7
    assert found["asyncnotify_log_events_total", ("events",)] == 10


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((5,), {}, TypeError),
        ((), {}, TypeError),
        ((), {"names": []}, TypeError),
        ((), {"channels": -1}, ValueError),
        ((), {"channels": True}, ValueError),
        ((), {"logs": 5}, TypeError),
        ((), {"logs": asyncio.sleep}, TypeError),
        (TWO, {"names": ["a"]}, ValueError),
        (TWO, {"names": ["a", "a"]}, ValueError),
        (TWO, {"names": "ab"}, TypeError),
        (TWO, {"names": 5}, TypeError),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception]
) -> None:
    """When they are given, not at the first scrape."""
    with pytest.raises(error):
        Collector(*arguments, **options)


def known_metrics() -> set[str]:
    """Return the names of all samples there can be."""
    stats = Stats(
        connected_since=NOW,
        last_heartbeat=NOW,
        heartbeat_round_trip=0.1,
        subscriptions=(subscription("a", 1),),
    )
    collector = Collector(Counted(stats), channels=1, logs=lambda: [status_of_log()])
    return {name for name, _ in collected(collector)}


def expressions_of_the_dashboard() -> Iterable[str]:
    """Yield what its panels ask for."""
    dashboard = json.loads((DOCS / "dashboard.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def expressions_of_the_alerts() -> Iterable[str]:
    """Yield what the rules ask for; of YAML no more is read than this file needs."""
    text = (DOCS / "alerts.yml").read_text(encoding="utf-8")
    return re.findall(r"^ +expr: (.+)$", text, re.MULTILINE)


@pytest.mark.parametrize("expressions", [expressions_of_the_dashboard, expressions_of_the_alerts])
def test_what_is_shown_and_alerted_on_exists(expressions: Any) -> None:
    """Every metric that the dashboard and the rules name is one that a scrape has."""
    found = list(expressions())
    assert len(found) > 7
    named = {name for expression in found for name in METRIC.findall(expression)}
    assert all(METRIC.search(expression) for expression in found)
    assert named - known_metrics() == set()


def test_the_alerts_are_yaml_with_a_name_and_a_text_for_each() -> None:
    """As Prometheus loads them."""
    yaml = pytest.importorskip("yaml")
    (group,) = yaml.safe_load((DOCS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]:
        assert rule.keys() >= {"alert", "expr", "labels", "annotations"}
        assert rule["annotations"].keys() == {"summary", "description"}
