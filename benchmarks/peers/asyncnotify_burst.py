"""asyncnotify: a burst on one channel, taken in each way there is."""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import time
from typing import TYPE_CHECKING, Any

import asyncnotify
from asyncnotify import Gap, Listener
from benchmarks.peers.protocol import Meter, Options, run, say

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from asyncnotify import Notification
    from asyncnotify.typing import CallNext, Middleware


async def stream(options: Options) -> None:
    """Take them one by one from a stream."""
    count = options.number("count")
    async with Listener(options.dsn) as listener, listener.stream("bench") as notifications:
        await _crowd(listener, options.number("channels"))
        meter, received = Meter.ready(), 0
        async for _ in notifications:
            received += 1
            if received == count:
                break
        say("done", received=received, **meter.read())


async def gaps(options: Options) -> None:
    """Take them from a stream that tells of gaps, and count what it says was dropped."""
    count = options.number("count")
    async with Listener(options.dsn) as listener, listener.stream("bench", gaps=True) as items:
        await anext(items)  # the gap at the start
        meter, received, dropped = Meter.ready(), 0, 0
        async for item in items:
            if isinstance(item, Gap):
                dropped += item.dropped or 0
            else:
                received += 1
            if received + dropped == count:
                break
        say("done", received=received, dropped=dropped, **meter.read())


async def batches(options: Options) -> None:
    """Take them from a stream, as many at a time as there are."""
    count = options.number("count")
    async with Listener(options.dsn) as listener, listener.stream("bench") as notifications:
        several: Any = getattr(notifications, "batches", None)
        if several is None:
            message = "not there"
            raise NotImplementedError(message)
        meter, received = Meter.ready(), 0
        async for batch in several():
            received += len(batch)
            if received == count:
                break
        say("done", received=received, **meter.read())


async def coroutine(
    options: Options,
    *middleware: Middleware,
    instrument: Callable[[Listener], None] | None = None,
) -> None:
    """Have them handed to an ``async def`` handler, in order."""
    count, received, all_here = options.number("count"), 0, asyncio.Event()

    async def handle(notification: Notification[str]) -> None:  # noqa: ARG001 - only counts
        nonlocal received
        received += 1
        if received == count:
            all_here.set()

    await _into(
        options, handle, all_here, lambda: received, middleware=middleware, instrument=instrument
    )


async def function(options: Options) -> None:
    """Have them handed to a plain function."""
    count, received, all_here = options.number("count"), 0, asyncio.Event()

    def handle(notification: Notification[str]) -> None:  # noqa: ARG001 - only counts
        nonlocal received
        received += 1
        if received == count:
            all_here.set()

    await _into(options, handle, all_here, lambda: received)


async def middleware(options: Options) -> None:
    """Have them handed to an ``async def`` handler, through a middleware that does nothing."""
    await coroutine(options, through)


async def traced(options: Options) -> None:
    """Have them handed to an ``async def`` handler, with a span of OpenTelemetry for each."""
    await coroutine(options, instrument=_instrumented)


async def through(notification: Notification[Any], call_next: CallNext) -> None:
    """Call the handler."""
    await call_next(notification)


def _instrumented(listener: Listener) -> None:
    trace_sdk: Any = importlib.import_module("opentelemetry.sdk.trace")
    export: Any = importlib.import_module("opentelemetry.sdk.trace.export")
    metrics: Any = importlib.import_module("opentelemetry.sdk.metrics")
    ours: Any = importlib.import_module("asyncnotify.ext.opentelemetry")
    provider = trace_sdk.TracerProvider()
    provider.add_span_processor(export.BatchSpanProcessor(_Nowhere()))
    ours.instrument(listener, tracer_provider=provider, meter_provider=metrics.MeterProvider())


class _Nowhere:
    """An exporter that drops what it is given."""

    def export(self, spans: object) -> None:
        """Drop spans."""

    def shutdown(self) -> None:
        """Do nothing."""


async def _into(
    options: Options,
    handler: Callable[[Notification[str]], object],
    all_here: asyncio.Event,
    received: Callable[[], int],
    *,
    middleware: Sequence[Middleware] = (),
    instrument: Callable[[Listener], None] | None = None,
) -> None:
    async with Listener(options.dsn, middleware=middleware) as listener:
        if instrument is not None:
            instrument(listener)
        await listener.listen("bench", handler)
        meter = Meter.ready()
        await all_here.wait()
        say("done", received=received(), **meter.read())


async def stuck(options: Options) -> None:
    """Have a handler that never returns: what arrives has to be read and bounded all the same."""
    count, never = options.number("count"), asyncio.Event()

    async def handle(notification: Notification[str]) -> None:  # noqa: ARG001 - takes one only
        await never.wait()

    async with Listener(options.dsn) as listener:
        await listener.listen("bench", handle)
        meter = Meter.ready()
        while (received := listener.stats().received) < count:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
        say("done", received=received, **meter.read())
        never.set()


async def typed(options: Options) -> None:
    """Take payloads that a channel decodes, and measure what decoding alone costs."""
    channel_class: Any = getattr(asyncnotify, "Channel", None)
    if channel_class is None:
        message = "not there"
        raise NotImplementedError(message)
    payload_type, decode = _coders(options.text("coder"))
    count = options.number("count")
    channel: Any = channel_class("bench", payload_type)
    async with Listener(options.dsn) as listener, listener.stream(channel) as notifications:
        meter, received = Meter.ready(), 0
        async for _ in notifications:
            received += 1
            if received == count:
                break
        figures = meter.read()
    payloads = [f'{{"number":{number},"name":"n{number:08}"}}' for number in range(count)]
    began = time.process_time()
    for payload in payloads:
        decode(payload)
    say("done", received=received, decoding=time.process_time() - began, **figures)


def _coders(name: str) -> tuple[Any, Callable[[str], object]]:
    """Return a type of payload, and what decodes it when nothing else is to be done."""
    if name == "json":
        return dict, json.loads
    msgspec: Any = importlib.import_module("msgspec")
    struct = msgspec.defstruct("Item", [("number", int), ("name", str)])
    return struct, msgspec.json.Decoder(struct).decode


async def _crowd(listener: Listener, channels: int) -> None:
    """Listen on many other channels, on which nothing comes."""

    def ignore(notification: Notification[str]) -> None:
        pass

    async with asyncio.TaskGroup() as group:
        for number in range(channels):
            group.create_task(listener.listen(f"other_{number}", ignore))
    gc.collect()  # else the burst pays for the first look at all that has just been made


WORKLOADS: dict[str, Callable[[Options], Coroutine[Any, Any, None]]] = {
    "stream": stream,
    "gaps": gaps,
    "batches": batches,
    "coroutine": coroutine,
    "middleware": middleware,
    "traced": traced,
    "function": function,
    "stuck": stuck,
    "typed": typed,
}

if __name__ == "__main__":
    run(WORKLOADS)
