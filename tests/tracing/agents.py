"""
Tracing agents, each of which replaces functions of drivers and of asyncio, for a whole process.

A process has one of them. It is switched on before the drivers are imported, as agents ask for.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager


@dataclass(frozen=True)
class Noted:
    """
    What an agent has noted: a span, or a breadcrumb.

    Attributes:
        trace: The trace to which it belongs; None: a breadcrumb, which belongs to none.
        text: Its name, and the statement that it is about.
    """

    trace: str | None
    text: str


class Agent(Protocol):
    """One agent, switched on."""

    def request(self) -> AbstractContextManager[str]:
        """Return what runs as a request, and gives the name of its trace."""
        ...

    def current(self) -> str | None:
        """Return the trace in which a span would be noted here; None: in one of its own."""
        ...

    def take(self) -> list[Noted]:
        """Return what has been noted since this was called last, requests left out."""
        ...


REQUEST: Final = "GET /orders"


class Datadog:
    """ddtrace, which returns connections of asyncpg and psycopg in proxies of wrapt."""

    def __init__(self) -> None:
        os.environ |= {
            "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
            "DD_REMOTE_CONFIGURATION_ENABLED": "false",
        }
        importlib.import_module("ddtrace.auto")
        trace = importlib.import_module("ddtrace.trace")
        spans: list[Any] = []

        class Keep(trace.TraceFilter):  # type: ignore[misc,name-defined]  # an extra
            """Keeps spans, and sends none."""

            def process_trace(self, trace: list[Any]) -> None:
                spans.extend(trace)

        self._tracer = trace.tracer
        self._tracer.configure(trace_processors=[Keep()])
        self._spans = spans

    @contextlib.contextmanager
    def request(self) -> Generator[str]:
        """Run as a request."""
        with self._tracer.trace(REQUEST) as span:
            yield str(span.trace_id)

    def current(self) -> str | None:
        """Return the current trace."""
        context = self._tracer.current_trace_context()
        return None if context is None else str(context.trace_id)

    def take(self) -> list[Noted]:
        """Return what has been noted."""
        spans, self._spans[:] = list(self._spans), []
        return [
            Noted(str(span.trace_id), f"{span.name}: {span.resource}")
            for span in spans
            if span.name != REQUEST
        ]


class OpenTelemetry:
    """OpenTelemetry, with what it has for the drivers, for threads and for asyncio."""

    INSTRUMENTATIONS: Final = {
        "asyncio": "AsyncioInstrumentor",
        "asyncpg": "AsyncPGInstrumentor",
        "psycopg": "PsycopgInstrumentor",
        "sqlalchemy": "SQLAlchemyInstrumentor",
        "threading": "ThreadingInstrumentor",
    }

    def __init__(self) -> None:
        sdk = importlib.import_module("opentelemetry.sdk.trace")
        export = importlib.import_module("opentelemetry.sdk.trace.export")
        memory = importlib.import_module("opentelemetry.sdk.trace.export.in_memory_span_exporter")
        self._trace = importlib.import_module("opentelemetry.trace")
        self._exporter = memory.InMemorySpanExporter()
        provider = sdk.TracerProvider()
        provider.add_span_processor(export.SimpleSpanProcessor(self._exporter))
        self._trace.set_tracer_provider(provider)
        for name, instrumentor in self.INSTRUMENTATIONS.items():
            module = importlib.import_module(f"opentelemetry.instrumentation.{name}")
            getattr(module, instrumentor)().instrument()

    @contextlib.contextmanager
    def request(self) -> Generator[str]:
        """Run as a request."""
        with self._trace.get_tracer("tests").start_as_current_span(REQUEST) as span:
            yield str(span.get_span_context().trace_id)

    def current(self) -> str | None:
        """Return the current trace."""
        context = self._trace.get_current_span().get_span_context()
        return str(context.trace_id) if context.is_valid else None

    def take(self) -> list[Noted]:
        """Return what has been noted."""
        spans = self._exporter.get_finished_spans()
        self._exporter.clear()
        return [
            Noted(str(span.context.trace_id), f"{span.name}: {span.attributes.get('db.statement')}")
            for span in spans
            if span.name != REQUEST
        ]


class Sentry:
    """sentry-sdk, which notes a breadcrumb for each statement, in a request or outside."""

    def __init__(self) -> None:
        self._sdk = importlib.import_module("sentry_sdk")
        self._noted: list[Noted] = []
        self._sdk.init(
            dsn="http://key@localhost:1/1",
            traces_sample_rate=1.0,
            shutdown_timeout=0,
            before_breadcrumb=self._keep_breadcrumb,
            before_send=self._keep_event,
            before_send_transaction=self._keep_transaction,
        )

    def _keep_breadcrumb(self, crumb: dict[str, Any], _hint: object) -> dict[str, Any]:
        if crumb.get("category") == "query":
            self._noted.append(Noted(None, f"breadcrumb: {crumb['message']}"))
        return crumb

    def _keep_event(self, event: dict[str, Any], _hint: object) -> None:
        """Keep the breadcrumbs of a request, as an error in it would be reported with them."""
        self._noted += [
            Noted(event["contexts"]["trace"]["trace_id"], f"breadcrumb: {crumb['message']}")
            for crumb in event.get("breadcrumbs", {}).get("values", ())
        ]

    def _keep_transaction(self, event: dict[str, Any], _hint: object) -> None:
        self._noted += [
            Noted(span["trace_id"], f"{span['op']}: {span['description']}")
            for span in event["spans"]
        ]

    @contextlib.contextmanager
    def request(self) -> Generator[str]:
        """Run as a request."""
        with (
            self._sdk.isolation_scope() as scope,
            self._sdk.start_transaction(op="http.server", name=REQUEST) as span,
        ):
            scope.clear_breadcrumbs()  # those of earlier uses
            yield span.trace_id
            outside, self._noted = self._noted, []
            self._sdk.capture_message("an error in the request")
            own = [noted.text for noted in self._noted]
            self._noted += [noted for noted in outside if noted.text not in own]

    def current(self) -> str | None:
        """Return the current trace."""
        span = self._sdk.get_current_span()
        return None if span is None else str(span.trace_id)

    def take(self) -> list[Noted]:
        """Return what has been noted."""
        noted, self._noted = self._noted, []
        return noted


class Elastic:
    """elastic-apm, which replaces methods of asyncpg's protocol."""

    def __init__(self) -> None:
        self._apm = importlib.import_module("elasticapm")
        self._noted: list[Noted] = []
        self._client = self._apm.Client(
            service_name="tests",
            central_config=False,
            cloud_provider="none",
            metrics_interval="0s",
            span_compression_enabled=False,
            server_url="http://localhost:1",
            transport_class="elasticapm.transport.base.Transport",
        )
        self._client.tracer.queue_func = self._keep
        self._apm.instrument()

    def _keep(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "span":
            statement = data["context"].get("db", {}).get("statement")
            self._noted.append(Noted(data["trace_id"], f"{data['name']}: {statement}"))

    @contextlib.contextmanager
    def request(self) -> Generator[str]:
        """Run as a request."""
        transaction = self._client.begin_transaction("request")
        try:
            yield transaction.trace_parent.trace_id
        finally:
            self._client.end_transaction(REQUEST, "OK")

    def current(self) -> str | None:
        """Return the current trace."""
        return self._apm.get_trace_id() or None

    def take(self) -> list[Noted]:
        """Return what has been noted."""
        noted, self._noted = self._noted, []
        return noted


class NewRelic:
    """newrelic, which puts asyncpg's protocol into a proxy, and knows traces by their tasks."""

    def __init__(self) -> None:
        os.environ |= {
            "NEW_RELIC_APP_NAME": "tests",
            "NEW_RELIC_DEVELOPER_MODE": "true",
            "NEW_RELIC_LICENSE_KEY": "0" * 40,
        }
        self._api = importlib.import_module("newrelic.agent")
        self._api.initialize()
        self._application = self._api.register_application(timeout=20)
        self._noted: list[Noted] = []
        engine = importlib.import_module("newrelic.core.stats_engine").StatsEngine
        record = engine.record_transaction

        def keep(stats: object, transaction: Any) -> object:
            self._noted += self._noted_below(transaction.root, transaction.guid)
            return record(stats, transaction)

        engine.record_transaction = keep

    def _noted_below(self, node: Any, trace: str) -> list[Noted]:
        noted: list[Noted] = []
        for child in node.children:
            text = getattr(child, "sql", None) or getattr(child, "name", "")
            noted.append(Noted(trace, f"{type(child).__name__}: {text}"))
            noted += self._noted_below(child, trace)
        return noted

    @contextlib.contextmanager
    def request(self) -> Generator[str]:
        """Run as a request."""
        with self._api.BackgroundTask(self._application, name=REQUEST) as transaction:
            yield transaction.guid

    def current(self) -> str | None:
        """Return the current trace."""
        transaction = self._api.current_transaction(active_only=False)
        return None if transaction is None else transaction.guid

    def take(self) -> list[Noted]:
        """Return what has been noted."""
        noted, self._noted = self._noted, []
        return noted


AGENTS: Final[dict[str, tuple[str, Callable[[], Agent]]]] = {
    "datadog": ("ddtrace", Datadog),
    "elastic": ("elasticapm", Elastic),
    "newrelic": ("newrelic", NewRelic),
    "opentelemetry": ("opentelemetry.instrumentation.asyncpg", OpenTelemetry),
    "sentry": ("sentry_sdk", Sentry),
}
"""By name: the module without which it cannot be had, and what switches it on."""
