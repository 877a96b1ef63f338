"""Spans and durations of what is sent and processed, as the conventions for messaging say."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final, Literal

from opentelemetry import context as contexts
from opentelemetry import metrics, propagate, trace
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from asyncnotify import ConnectionLostError, __version__
from asyncnotify._arguments import type_name
from asyncnotify.ext.opentelemetry._destinations import NAME, Destinations

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.trace import Span, Tracer, TracerProvider

SCOPE: Final = "asyncnotify"
SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""The buckets that the conventions give to durations."""

_SYSTEM: Final = {"messaging.system": "postgresql"}
_SEND: Final = {
    **_SYSTEM,
    "messaging.operation.name": "send",
    "messaging.operation.type": "send",
}
_PROCESS: Final = {
    **_SYSTEM,
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
}
_TRACEPARENT: Final = TraceContextTextMapPropagator()
_COUNT: Final = "messaging.batch.message_count"
_GROUP: Final = "messaging.consumer.group.name"
_ID: Final = "messaging.message.id"
_ERROR: Final = "error.type"


def check_provider(what: Literal["meter", "tracer"], provider: object) -> None:
    """Raise TypeError unless it is None, or makes meters, or tracers."""
    makes = callable(getattr(provider, f"get_{what}", None)) and not isinstance(provider, type)
    if provider is not None and not makes:
        kind = f"{what.capitalize()}Provider"
        given = (
            f"the class {provider.__name__}" if isinstance(provider, type) else type_name(provider)
        )
        msg = f"{what}_provider must be a {kind} of OpenTelemetry or None, not {given}"
        raise TypeError(msg)


def meter_of(provider: MeterProvider | None) -> Meter:
    """Return the meter of asyncnotify, of the global provider unless there is another."""
    check_provider("meter", provider)
    return metrics.get_meter(SCOPE, __version__, meter_provider=provider, schema_url=SCHEMA)


class Sent:
    """
    One sending.

    Attributes:
        count: How many notifications or events it was; None until that is known.
        before: How many of them had been sent before it failed.
    """

    count: int | None = 1
    before: int = 0


class Operations:
    """
    Records what is sent and processed through one object.

    Args:
        destinations: Names the channels.
        tracer_provider: Makes the spans; None: the global one.
        meter_provider: Makes the metrics; None: the global one.
    """

    def __init__(
        self,
        destinations: Destinations,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
    ) -> None:
        self._destinations = destinations
        self._tracer: Tracer = trace.get_tracer(
            SCOPE, __version__, tracer_provider=tracer_provider, schema_url=SCHEMA
        )
        self._has_ended = False
        meter = meter_of(meter_provider)
        self._operation = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of sending.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._sent = meter.create_counter(
            "messaging.client.sent.messages", "{message}", "Notifications and events sent."
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Handed over to handlers."
        )
        self._processing = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "Duration of calls of handlers.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )

    def end(self) -> None:
        """Record nothing more: handlers that are registered with a log cannot be taken back."""
        self._has_ended = True

    @contextlib.contextmanager
    def sending(self, channel: str | None) -> Generator[Sent]:
        """Record what is sent within the block; None: to several channels."""
        shown, few = ("", {}) if channel is None else self._destinations.of(channel)
        named = {} if channel is None else {**few, NAME: channel}
        sent = Sent()
        labels = {**_SEND, **few}
        with self._timed(f"send {shown}".rstrip(), SpanKind.PRODUCER, {**_SEND, **named}) as span:
            began = time.perf_counter()
            try:
                yield sent
            except BaseException as error:
                if sent.before:
                    self._sent.add(sent.before, labels)
                if isinstance(error, ConnectionLostError) and sent.count:
                    self._sent.add(sent.count, {**labels, _ERROR: _name(error)})
                labels = {**labels, _ERROR: _name(error)}
                raise
            else:
                self._sent.add(sent.count or 0, labels)
                if channel is None and sent.count is not None:
                    span.set_attribute(_COUNT, sent.count)
            finally:
                self._operation.record(time.perf_counter() - began, labels)

    @contextlib.contextmanager
    def processing(
        self,
        channel: str,
        *,
        group: str | None = None,
        message_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        traceparent: str | None = None,
    ) -> Generator[None]:
        """Record a call of a handler: a trace of its own, with a link to where it was sent."""
        if self._has_ended:
            yield
            return
        shown, few = self._destinations.of(channel)
        labels = {**_PROCESS, **few, **({} if group is None else {_GROUP: group})}
        attributes = {**labels, NAME: channel, **({} if message_id is None else {_ID: message_id})}
        self._consumed.add(1, labels)
        with self._timed(
            f"process {shown}",
            SpanKind.CONSUMER,
            attributes,
            links=_links(headers, traceparent),
            is_root=True,
        ):
            began = time.perf_counter()
            try:
                yield
            except BaseException as error:
                labels = {**labels, _ERROR: _name(error)}
                raise
            finally:
                self._processing.record(time.perf_counter() - began, labels)

    @contextlib.contextmanager
    def _timed(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, str],
        *,
        links: Sequence[Link] = (),
        is_root: bool = False,
    ) -> Generator[Span]:
        parent = contexts.Context() if is_root else None
        span = self._tracer.start_span(
            name, parent, kind, attributes, links, record_exception=False
        )
        with trace.use_span(
            span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            try:
                yield span
            except BaseException as error:
                # Its text may quote a payload: the log has it, with the traceback
                span.set_status(Status(StatusCode.ERROR, _name(error)))
                span.set_attribute(_ERROR, _name(error))
                raise


def _name(error: BaseException) -> str:
    kind = type(error)
    package = kind.__module__
    return kind.__qualname__ if package == "builtins" else f"{package}.{kind.__qualname__}"


def _links(headers: Mapping[str, str] | None, traceparent: str | None) -> list[Link]:
    if traceparent is not None:
        found = _TRACEPARENT.extract({"traceparent": traceparent}, contexts.Context())
    elif headers:
        found = propagate.extract(headers, contexts.Context())
    else:
        return []
    context = trace.get_current_span(found).get_span_context()
    return [Link(context)] if context.is_valid else []


def current_traceparent() -> str | None:
    """
    Return the ``traceparent`` of the current span, a text of 55 characters; None without a span.

    For ``Channel(…, context=current_traceparent)``: the ``process`` span of a notification then has
    a link to its ``send`` span. Each payload is 58 bytes longer, and receivers need the same
    argument.
    """
    carrier: dict[str, str] = {}
    _TRACEPARENT.inject(carrier)
    return carrier.get("traceparent")
