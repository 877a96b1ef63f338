"""That ``opentelemetry-instrument`` finds asyncnotify, and instruments what a program makes."""

from __future__ import annotations

import asyncio
import functools
import gc
import tomllib
import weakref
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import BlockingListener, Listener, Notifier
from asyncnotify.log import Log
from asyncnotify.testing.fake import FakeServer

pytest.importorskip("opentelemetry.instrumentation.instrumentor")
pytest.importorskip("opentelemetry.sdk")

from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]  # mypy reads nothing of it
    BaseInstrumentor,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asyncnotify.ext.opentelemetry import instrument
from asyncnotify.ext.opentelemetry.instrumentor import AsyncNotifyInstrumentor

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

DSN = "postgresql://127.0.0.1:1/nowhere"
PROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture
def reader() -> InMemoryMetricReader:
    """What reads the metrics, while everything is instrumented."""
    return InMemoryMetricReader()


@pytest.fixture
def exporter(reader: InMemoryMetricReader) -> Iterator[InMemorySpanExporter]:
    """What records, while everything is instrumented."""
    exporter, provider, meters = InMemorySpanExporter(), TracerProvider(), MeterProvider([reader])
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = AsyncNotifyInstrumentor()
    instrumentor.instrument(tracer_provider=provider, meter_provider=meters)
    yield exporter
    instrumentor.uninstrument()
    provider.shutdown()
    meters.shutdown()


def connected(reader: InMemoryMetricReader) -> list[float]:
    """Return of each listener that is observed whether it is connected."""
    data = reader.get_metrics_data()
    return [
        point.value
        for resource in ([] if data is None else data.resource_metrics)
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "asyncnotify.connected"
        for point in metric.data.data_points
        if isinstance(point, NumberDataPoint)
    ]


async def exchange(dsn: str) -> None:
    """Send and handle a notification."""
    handled = asyncio.Event()
    async with Listener(dsn) as listener:
        await listener.listen("orders", lambda _: handled.set())
        await listener.notify("orders")
        await handled.wait()


async def test_what_a_program_makes_is_instrumented(exporter: InMemorySpanExporter) -> None:
    """Each notification once, though the notifier of a listener is a notifier as well."""
    server = FakeServer()
    await exchange(server.dsn)
    names = [span.name for span in exporter.get_finished_spans()]
    assert sorted(names) == ["process orders", "send orders"]


async def test_what_is_asked_for_goes_before_what_is_done_by_itself(
    exporter: InMemorySpanExporter,
) -> None:
    """An object that the program instruments is recorded once, as the program says."""
    server = FakeServer()
    own, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(own))
    async with Notifier(server.dsn) as notifier:
        instrument(notifier, tracer_provider=provider)
        await notifier.notify("orders")
    assert [span.name for span in own.get_finished_spans()] == ["send orders"]
    assert not exporter.get_finished_spans()
    provider.shutdown()


def test_what_is_instrumented_can_be_collected(exporter: InMemorySpanExporter) -> None:
    """Nothing keeps it beyond the last reference of the program."""
    made = [weakref.ref(kind(DSN)) for kind in (Listener, BlockingListener, Notifier)]
    gc.collect()
    assert [reference() for reference in made] == [None, None, None]
    assert not exporter.get_finished_spans()


async def test_afterwards_nothing_is_left(exporter: InMemorySpanExporter) -> None:
    """Neither in the classes nor in what was made meanwhile."""
    server = FakeServer()
    async with Listener(server.dsn) as listener:
        AsyncNotifyInstrumentor().uninstrument()
        handled = asyncio.Event()
        await listener.listen("orders", lambda _: handled.set())
        await listener.notify("orders")
        await handled.wait()
        await exchange(server.dsn)
    assert exporter.get_finished_spans() == ()
    assert not hasattr(Listener.__init__, "__wrapped__")


@asynccontextmanager
async def served_by_starlette(source: Any) -> AsyncGenerator[Listener]:
    """Run the lifespan of Starlette and FastAPI; return its listener."""
    integration = pytest.importorskip("asyncnotify.ext.starlette", exc_type=ImportError)
    async with integration.lifespan(source)(None) as state:
        yield state["asyncnotify_listener"]


@asynccontextmanager
async def served_by_aiohttp(source: Any) -> AsyncGenerator[Listener]:
    """Run an application of aiohttp; return its listener."""
    integration = pytest.importorskip("asyncnotify.ext.aiohttp", exc_type=ImportError)
    web = pytest.importorskip("aiohttp.web")
    app = web.Application()
    integration.setup(app, source)
    runner = web.AppRunner(app)
    await runner.setup()
    yield app[integration.LISTENER]
    await runner.cleanup()


@asynccontextmanager
async def served_by_litestar(source: Any) -> AsyncGenerator[Listener]:
    """Run an application of Litestar; return its listener."""
    integration = pytest.importorskip("asyncnotify.ext.litestar", exc_type=ImportError)
    plugin = integration.NotifyPlugin(source)
    async with pytest.importorskip("litestar").Litestar(plugins=[plugin]).lifespan():
        yield plugin.listener


@pytest.mark.parametrize("served", [served_by_starlette, served_by_aiohttp, served_by_litestar])
@pytest.mark.parametrize("given", ["a DSN", "a function", "a function of functools"])
async def test_what_an_integration_makes_for_the_program_is_instrumented(
    exporter: InMemorySpanExporter,
    reader: InMemoryMetricReader,
    served: Callable[[Any], AbstractAsyncContextManager[Listener]],
    given: str,
) -> None:
    """In each form in which it is given, and what only tries the DSN is not reported."""
    server = FakeServer()
    source = {
        "a DSN": server.dsn,
        "a function": lambda: Listener(server.dsn),
        "a function of functools": functools.partial(Listener, server.dsn),
    }[given]
    async with served(source) as listener:
        await listener.notify("orders")
        assert connected(reader) == [1]
    assert [span.name for span in exporter.get_finished_spans()] == ["send orders"]


def test_what_asyncnotify_makes_for_itself_is_left_alone(exporter: InMemorySpanExporter) -> None:
    """The listener within a blocking one; what an engine's address makes is the program's."""
    blocking: Any = BlockingListener(DSN)
    assert "notify" in vars(blocking)
    assert "notify" not in vars(vars(blocking)["_listener"])
    sqlalchemy = pytest.importorskip("sqlalchemy.ext.asyncio")
    engine = sqlalchemy.create_async_engine("postgresql+asyncpg://127.0.0.1:1/nowhere")
    assert "notify" in vars(Notifier.from_sqlalchemy(engine))
    assert "append" in vars(Log("events", DSN))


def test_the_entry_point_names_it() -> None:
    """As `opentelemetry-instrument` loads it."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    (value,) = project["entry-points"]["opentelemetry_instrumentor"].values()
    module, _, name = value.partition(":")
    found = getattr(import_module(module), name)
    assert issubclass(found, BaseInstrumentor)
    assert found().instrumentation_dependencies() == ()
