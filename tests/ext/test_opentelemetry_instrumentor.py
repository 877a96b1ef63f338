"""That ``opentelemetry-instrument`` finds asyncnotify, and instruments what a program makes."""

from __future__ import annotations

import asyncio
import gc
import tomllib
import weakref
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
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asyncnotify.ext.opentelemetry import instrument
from asyncnotify.ext.opentelemetry.instrumentor import AsyncNotifyInstrumentor

if TYPE_CHECKING:
    from collections.abc import Iterator

DSN = "postgresql://127.0.0.1:1/nowhere"
PROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """What records, while everything is instrumented."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = AsyncNotifyInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield exporter
    instrumentor.uninstrument()
    provider.shutdown()


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
