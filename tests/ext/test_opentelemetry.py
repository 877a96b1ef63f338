"""Spans and metrics, as the exporters of OpenTelemetry's own SDK see them."""

from __future__ import annotations

import asyncio
import gc
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import pytest

from asyncnotify import (
    BlockingListener,
    BlockingNotifier,
    Channel,
    Listener,
    Notification,
    Notifier,
)
from asyncnotify.testing.fake import FakeServer

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from asyncnotify.ext.opentelemetry import current_traceparent, instrument, observe_logs
from asyncnotify.log import BlockingLog, Log
from asyncnotify.testing.clock import VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    import asyncpg

    from asyncnotify.log import LogStatus

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)


class Telemetry:
    """Providers of their own, and what they have recorded."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    @property
    def options(self) -> dict[str, Any]:
        """What `instrument()` is given."""
        return {"tracer_provider": self.tracers, "meter_provider": self.meters}

    def spans(self) -> dict[str, ReadableSpan]:
        """Return the spans that have ended, by name."""
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def points(self, name: str) -> list[Any]:
        """Return the data points of a metric."""
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in ([] if data is None else data.resource_metrics)
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Providers that nobody else uses."""
    telemetry = Telemetry()
    yield telemetry
    telemetry.tracers.shutdown()
    telemetry.meters.shutdown()


@pytest.fixture
def server() -> FakeServer:
    """A server that is there as long as the test."""
    return FakeServer()


def id_of(span: ReadableSpan) -> int:
    """Return the id of a span."""
    assert span.context is not None
    return int(span.context.span_id)


async def exchange(listener: Listener, channel: str | Channel[Any], payload: Any = "") -> None:
    """Send one notification to a handler, and return when it has been handled."""
    handled = asyncio.Event()
    subscription = await listener.listen(channel, lambda _: handled.set())
    await listener.notify(channel, payload)
    await handled.wait()
    await subscription.cancel()


async def test_sending_and_processing_have_spans_by_the_conventions(
    telemetry: Telemetry, server: FakeServer
) -> None:
    """Each with the names, kinds and attributes of messaging; a payload is in neither."""
    async with Listener(server.dsn) as listener:
        instrument(listener, **telemetry.options)
        await exchange(listener, "orders", "secret")
    spans = telemetry.spans()
    assert spans.keys() == {"send orders", "process orders"}
    send, process = spans["send orders"], spans["process orders"]
    assert (send.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    for span, operation in ((send, "send"), (process, "process")):
        assert dict(span.attributes or {}) == {
            "messaging.system": "postgresql",
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.destination.name": "orders",
        }
        assert "secret" not in span.to_json()


async def test_a_call_of_a_handler_is_a_trace_of_its_own(
    telemetry: Telemetry, server: FakeServer
) -> None:
    """Also where the handler was registered in a request; its own spans belong to it."""
    tracer = telemetry.tracers.get_tracer("user")
    handled = asyncio.Event()

    def handler(_: Notification[str]) -> None:
        with tracer.start_as_current_span("query"):
            handled.set()

    async with Listener(server.dsn) as listener:
        instrument(listener, **telemetry.options)
        with tracer.start_as_current_span("request"):
            await listener.listen("orders", handler)
            await listener.notify("orders")
            await handled.wait()
    spans = telemetry.spans()
    process, query, request = spans["process orders"], spans["query"], spans["request"]
    assert process.parent is None
    assert query.parent is not None
    assert query.parent.span_id == id_of(process)
    assert spans["send orders"].parent is not None
    assert spans["send orders"].parent.span_id == id_of(request)


async def test_an_error_shows_its_type_and_none_of_its_text(
    telemetry: Telemetry, server: FakeServer
) -> None:
    """The text may quote a payload; the log line has it."""
    failed = asyncio.Event()

    def handler(n: Notification[str]) -> None:
        raise ValueError(n.payload)

    async with Listener(server.dsn) as listener:
        instrument(listener, **telemetry.options)
        await listener.listen("orders", handler, on_error=lambda _, __: failed.set())
        await listener.notify("orders", "secret")
        await failed.wait()
    process = telemetry.spans()["process orders"]
    assert process.status.status_code is StatusCode.ERROR
    assert (process.attributes or {})["error.type"] == "ValueError"
    assert "secret" not in process.to_json()
    (point,) = telemetry.points("messaging.process.duration")
    assert point.attributes["error.type"] == "ValueError"


async def test_metrics_of_messaging_have_the_buckets_of_the_conventions(
    telemetry: Telemetry, server: FakeServer
) -> None:
    """And count what was sent and handed over."""
    async with Listener(server.dsn) as listener:
        instrument(listener, **telemetry.options)
        await exchange(listener, "orders")
        await listener.notify_many([("orders", str(number)) for number in range(5)])
        with pytest.raises(ValueError, match="channel"):
            await listener.notify("x" * 64)
    for name in ("messaging.client.operation.duration", "messaging.process.duration"):
        assert all(point.explicit_bounds == SECONDS for point in telemetry.points(name))
        assert telemetry.points(name)
    sent = {
        point.attributes.get("messaging.destination.name"): point.value
        for point in telemetry.points("messaging.client.sent.messages")
    }
    assert sent == {"orders": 1, None: 5}
    (consumed,) = telemetry.points("messaging.client.consumed.messages")
    assert (consumed.value, consumed.attributes["messaging.operation.name"]) == (1, "process")
    assert (telemetry.spans()["send"].attributes or {})["messaging.batch.message_count"] == 5


async def test_channels_that_are_many_share_a_template(
    telemetry: Telemetry, server: FakeServer
) -> None:
    """In names and metrics; a span says which channel it was."""
    async with Listener(server.dsn) as listener:
        instrument(
            listener,
            template=lambda name: "user_{id}" if name.startswith("user_") else None,
            **telemetry.options,
        )
        await exchange(listener, "user_42")
    span = telemetry.spans()["process user_{id}"]
    assert (span.attributes or {})["messaging.destination.name"] == "user_42"
    (point,) = telemetry.points("messaging.client.consumed.messages")
    assert point.attributes["messaging.destination.template"] == "user_{id}"
    assert "messaging.destination.name" not in point.attributes


async def test_without_a_template_the_number_of_names_is_bounded(
    telemetry: Telemetry, server: FakeServer
) -> None:
    """Any sender or tenant may make channels; metrics have a hundred, and one for the others."""
    async with Notifier(server.dsn) as notifier:
        instrument(notifier, **telemetry.options)
        for number in range(105):
            await notifier.notify(f"channel_{number}")
    points = telemetry.points("messaging.client.sent.messages")
    assert len(points) == 101
    (other,) = [p for p in points if "messaging.destination.template" in p.attributes]
    assert (other.attributes["messaging.destination.template"], other.value) == ("{other}", 5)


async def test_the_counters_of_each_listener_are_read_when_they_are_collected(
    telemetry: Telemetry, server: FakeServer
) -> None:
    """One that is gone is reported no more, and none is kept alive."""
    async with Listener(server.dsn) as first, Listener(server.dsn) as second:
        instrument(first, client_id="client-0", **telemetry.options)
        instrument(second, client_id="client-1", **telemetry.options)
        await exchange(first, "orders")
        expected = {"received": 1, "gaps": 1, "reconnects": 0, "connected": 1, "degraded": 0}
        for name, value in expected.items():
            by_client = {
                point.attributes["messaging.client.id"]: point.value
                for point in telemetry.points(f"asyncnotify.{name}")
            }
            assert by_client["client-0"] == value, name
            assert by_client.keys() == {"client-0", "client-1"}
    del first, second
    gc.collect()
    assert telemetry.points("asyncnotify.received") == []


async def test_undoing_leaves_no_trace(telemetry: Telemetry, server: FakeServer) -> None:
    """The methods of the class are those of the object again; undoing twice is undoing once."""
    async with Listener(server.dsn) as listener:
        undo = instrument(listener, **telemetry.options)
        undo()
        undo()
        await exchange(listener, "orders")
        assert "notify" not in vars(listener)
    assert telemetry.spans() == {}
    assert telemetry.points("asyncnotify.received") == []


@pytest.mark.parametrize(
    "kind", [Listener, BlockingListener, Notifier, BlockingNotifier, Log, BlockingLog]
)
def test_an_object_is_instrumented_once(
    telemetry: Telemetry, server: FakeServer, kind: Callable[..., Any]
) -> None:
    """A second time would record twice: it is refused, until the first is taken back."""
    target = kind(*["orders"] * (kind in {Log, BlockingLog}), server.dsn)
    undo = instrument(target, **telemetry.options)
    with pytest.raises(RuntimeError, match="instrumented already"):
        instrument(target, **telemetry.options)
    undo()
    undo = instrument(target, **telemetry.options)
    undo()
    assert not [name for name in vars(target) if "instrument" in name]


def test_a_blocking_notifier_sends_within_the_trace_of_its_thread(
    telemetry: Telemetry, server: FakeServer
) -> None:
    """One span for each call, whichever thread does the work."""
    with BlockingNotifier(server.dsn) as notifier:
        instrument(notifier, **telemetry.options)
        with telemetry.tracers.get_tracer("user").start_as_current_span("request") as request:
            notifier.notify("orders", "1")
            assert notifier.notify_many([("orders", "2"), ("orders", "3")]) == 2
    spans = telemetry.spans()
    assert spans.keys() == {"request", "send orders", "send"}
    for name in ("send orders", "send"):
        parent = spans[name].parent
        assert parent is not None
        assert parent.span_id == request.get_span_context().span_id


async def test_our_own_traffic_has_no_spans(telemetry: Telemetry, server: FakeServer) -> None:
    """What wakes the readers of a log, and what services report, is sent and handled unseen."""
    async with Listener(server.dsn) as listener:
        instrument(listener, **telemetry.options)
        await exchange(listener, "asyncnotify_log_events")
        await exchange(listener, "asyncnotify.reports")
    assert telemetry.spans() == {}


async def test_heartbeats_and_listen_have_no_spans(
    telemetry: Telemetry, server: FakeServer
) -> None:
    """Only what the program sends and handles is seen."""
    async with Listener(server.dsn) as listener:
        instrument(listener, **telemetry.options)
        async with listener.stream("orders") as stream:
            assert (await listener.health())["server_error"] is None  # asked as a heartbeat asks
            await listener.notify("orders")
            await anext(stream)
    assert telemetry.spans().keys() == {"send orders"}


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("options", [{}, {"compress": True, "keys": [b"0123456789abcdef"]}])
async def test_a_notification_leads_to_its_sender_where_its_channel_carries_that(
    telemetry: Telemetry, server: FakeServer, options: dict[str, Any], concurrency: int
) -> None:
    """By a link, from 55 characters before the payload; the payload is what it was."""
    channel = Channel("orders", dict, context=current_traceparent, **options)
    handled: asyncio.Queue[Notification[dict[str, int]]] = asyncio.Queue()
    async with Listener(server.dsn) as listener:
        instrument(listener, **telemetry.options)
        await listener.listen(channel, handled.put, concurrency=concurrency)
        await listener.notify(channel, {"id": 7})
        notification = await handled.get()
    assert notification == Notification("orders", {"id": 7}, notification.pid)
    assert len(notification.context or "") == 55
    spans = telemetry.spans()
    (link,) = spans["process orders"].links
    assert link.context.span_id == id_of(spans["send orders"])


async def test_the_event_of_a_log_leads_to_its_sender(telemetry: Telemetry, dsn: str) -> None:
    """By a link, from the headers, which keep what the caller has put there; for each attempt."""
    seen: list[dict[str, str]] = []
    handled = asyncio.Event()
    async with Log("events", dsn) as log:
        await log.install()
        instrument(log, **telemetry.options)

        @log.on("mailer", "orders")
        async def handler(event: Any) -> None:
            seen.append(dict(event.headers))
            assert get_current_span().is_recording()
            handled.set()

        with telemetry.tracers.get_tracer("user").start_as_current_span("request"):
            await log.append("orders", "1", headers={"tenant": "7"})
        await log.start()
        await handled.wait()
    spans = telemetry.spans()
    assert seen[0].keys() == {"tenant", "traceparent"}
    assert len(seen[0]["traceparent"]) == 55
    (link,) = spans["process orders"].links
    assert link.context.span_id == id_of(spans["send orders"])
    assert (spans["process orders"].attributes or {})["messaging.consumer.group.name"] == "mailer"
    assert spans.keys() == {"request", "send orders", "process orders"}


HEADERS: Final = MappingProxyType({"tenant": "7"})


async def soon(events: list[tuple[Any, ...]]) -> AsyncIterator[tuple[Any, ...]]:
    """Yield events."""
    for event in events:
        yield event


WAYS_TO_APPEND: dict[str, Callable[[Log], Awaitable[object]]] = {
    "append": lambda log: log.append("orders", "1", headers=HEADERS),
    "append by name": lambda log: log.append(channel="orders", payload="1", headers=HEADERS),
    "many": lambda log: log.append_many([("orders", "1", None, HEADERS)]),
    "many by name": lambda log: log.append_many(
        events=iter([("orders", "1", None, dict(HEADERS))])
    ),
    "many, asynchronously": lambda log: log.append_many(soon([("orders", "1", None, HEADERS)])),
}


@pytest.mark.parametrize("way", WAYS_TO_APPEND)
async def test_each_way_of_appending_tells_of_the_sender(
    telemetry: Telemetry, dsn: str, way: str
) -> None:
    """Beside the headers of the caller, which any mapping may be."""
    async with Log("events", dsn) as log:
        await log.install()
        instrument(log, **telemetry.options)
        await WAYS_TO_APPEND[way](log)
        async with log.read(after="start") as stream:
            headers = (await anext(stream)).headers
    (send,) = telemetry.exporter.get_finished_spans()
    assert headers.keys() == {"tenant", "traceparent"}
    assert f"{id_of(send):016x}" in headers["traceparent"]


@pytest.mark.parametrize(
    "event", [("orders", "1"), ("orders", "1", "key"), ("orders", "1", None, None)]
)
def test_each_of_many_events_tells_of_its_sender(
    telemetry: Telemetry, dsn: str, event: tuple[Any, ...]
) -> None:
    """However much of it is given, and in a thread."""
    with BlockingLog("events", dsn) as log:
        log.install()
        instrument(log, **telemetry.options)
        assert log.append_many([event] * 2) == 2
        with log.read(after="start") as stream:
            events = [next(stream) for _ in range(2)]
    (send,) = telemetry.exporter.get_finished_spans()
    for found in events:
        assert f"{id_of(send):016x}" in found.headers["traceparent"]
        assert (found.payload, found.key) == ("1", event[2] if len(event) == 3 else None)


@pytest.mark.parametrize("wrong", [{"orders": "1"}, "orders", 7, [("orders",)], ["orders"]])
async def test_what_holds_no_events_is_refused_as_without_telemetry(
    telemetry: Telemetry, wrong: Any
) -> None:
    """With the same text."""
    said: list[str] = []
    for options in ({}, telemetry.options):
        log = Log("events", "postgresql://127.0.0.1:1/nowhere")
        if options:
            instrument(log, **options)
        with pytest.raises(TypeError) as refusal:
            await log.append_many(wrong)
        said.append(str(refusal.value))
    assert said[0] == said[1]


def failing(count: int) -> Iterator[tuple[str, str]]:
    """Yield so many, and then fail."""
    for number in range(count):
        yield "orders", str(number)
    msg = "the file ends here"
    raise ValueError(msg)


async def test_what_was_sent_before_a_failure_is_counted(telemetry: Telemetry, dsn: str) -> None:
    """Of many notifications and events: as many as have been committed."""
    async with Log("events", dsn) as log, Notifier(dsn) as notifier:
        await log.install()
        for target in (log, notifier):
            instrument(target, **telemetry.options)
        for send in (log.append_many, notifier.notify_many):
            with pytest.raises(ValueError, match="ends here"):
                await send(failing(2_500))
        assert (await log.status()).events == 2_000
    (point,) = telemetry.points("messaging.client.sent.messages")
    assert point.value == 4_000
    assert "error.type" not in point.attributes


async def test_what_was_sent_in_a_transaction_that_fails_is_not_counted(
    telemetry: Telemetry, dsn: str, admin: asyncpg.Connection[Any]
) -> None:
    """It is not there."""
    async with Log("events", dsn) as log:
        await log.install()
        instrument(log, **telemetry.options)
        with pytest.raises(ValueError, match="ends here"):
            async with admin.transaction():
                await log.append_many(failing(2_500), connection=admin)
    assert telemetry.points("messaging.client.sent.messages") == []


async def test_the_lag_of_a_consumer_is_a_metric(telemetry: Telemetry, dsn: str) -> None:
    """As it was last known; nothing is reported before, nor after the end."""
    known: list[LogStatus] = []
    stop = observe_logs(lambda: known, meter_provider=telemetry.meters)
    assert telemetry.points("asyncnotify.log.lag") == []
    async with Log("events", dsn) as log:
        await log.install()
        consumer = log.consumer("mailer", "orders")
        async with consumer:
            await log.append_many([("orders", str(number)) for number in range(3)])
            async for event in consumer:
                await log.append("orders", "one more")
                assert event.payload == "0"
                break
        known.append(await log.status())
    (point,) = telemetry.points("asyncnotify.log.lag")
    assert point.value == known[0].consumers[0].lag_events > 0
    assert dict(point.attributes) == {
        "asyncnotify.log.name": "events",
        "messaging.consumer.group.name": "mailer",
        "messaging.destination.partition.id": "0",
    }
    (age,) = telemetry.points("asyncnotify.log.lag.age")
    assert age.value == known[0].consumers[0].lag_seconds
    stop()
    assert telemetry.points("asyncnotify.log.lag") == []


def test_what_returns_no_logs_is_refused_when_it_is_given(telemetry: Telemetry) -> None:
    """Not at the first collection."""
    with pytest.raises(TypeError, match="logs must be callable, not of type list"):
        observe_logs([], meter_provider=telemetry.meters)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # the mistake


@pytest.mark.parametrize("wrong", ["user_{id}", lambda: None])
def test_a_template_that_cannot_be_called_is_refused_when_it_is_given(wrong: Any) -> None:
    """And not with the first notification."""
    with pytest.raises(TypeError, match="template"):
        instrument(Notifier("postgresql://localhost/db"), template=wrong)


@pytest.mark.parametrize("wrong", [None, "orders", VirtualTimeLoop])
def test_what_is_no_listener_notifier_or_log_is_refused(wrong: Any) -> None:
    """By an error that says of which type it is."""
    with pytest.raises(TypeError, match="target must be"):
        instrument(wrong)
