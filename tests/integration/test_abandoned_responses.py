"""Web frameworks, served by uvicorn: a client that has left leaves no subscription behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from litestar import Litestar, get
from litestar.response import Stream as LitestarStream
from sse_starlette import EventSourceResponse as SseStarletteResponse
from starlette.applications import Starlette
from starlette.routing import Route

from asyncnotify import Listener
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    Client: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

CLIENTS: Final = 50
DEADLINE: Final = scaled(20.0)
REQUEST: Final = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def lines(listener: Listener) -> AsyncIterator[str]:
    """Iterate a stream, as the documentation of every framework says."""
    async for notification in listener.stream("orders"):
        yield f"data: {notification.payload}\n\n"


async def lines_of_lists(listener: Listener) -> AsyncIterator[str]:
    """Iterate the lists of a stream."""
    async for notifications in listener.stream("orders").batches():
        yield "".join(f"data: {notification.payload}\n\n" for notification in notifications)


def starlette(listener: Listener) -> Any:
    """Return a StreamingResponse of Starlette's."""

    async def events(_: object) -> StreamingResponse:
        return StreamingResponse(lines(listener), media_type="text/event-stream")

    return Starlette(routes=[Route("/events", events)])


def starlette_with_lists(listener: Listener) -> Any:
    """Return a StreamingResponse of Starlette's, fed by lists."""

    async def events(_: object) -> StreamingResponse:
        return StreamingResponse(lines_of_lists(listener), media_type="text/event-stream")

    return Starlette(routes=[Route("/events", events)])


def sse_starlette(listener: Listener) -> Any:
    """Return an EventSourceResponse of sse-starlette's."""

    async def events(_: object) -> SseStarletteResponse:
        return SseStarletteResponse(lines(listener))

    return Starlette(routes=[Route("/events", events)])


def fastapi(listener: Listener) -> Any:
    """Return a StreamingResponse of FastAPI's."""
    app = FastAPI()

    async def events() -> StreamingResponse:
        return StreamingResponse(lines(listener), media_type="text/event-stream")

    app.get("/events")(events)
    return app


def fastapi_sse(listener: Listener) -> Any:
    """Return an endpoint of FastAPI's that yields server-sent events."""
    app = FastAPI()

    async def events() -> AsyncIterator[ServerSentEvent]:
        async for notification in listener.stream("orders"):
            yield ServerSentEvent(data=notification.payload)

    app.get("/events", response_class=EventSourceResponse)(events)
    return app


def litestar(listener: Listener) -> Any:
    """Return a Stream of Litestar's."""

    @get("/events")
    async def events() -> LitestarStream:
        return LitestarStream(lines(listener), media_type="text/event-stream")

    return Litestar([events])


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncGenerator[int]:
    """Serve the application; have its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=CLIENTS) as listening:
        config = uvicorn.Config(app, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve([listening]))  # noqa: SLF001 - serve() would take the signals
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


async def subscribe(port: int) -> Client:
    """Ask for the events as a client that reads them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def until_subscriptions(listener: Listener, count: int) -> None:
    """Return once there are so many."""
    while len(listener.stats().subscriptions) != count:
        await listener.unlisten("to give others their turn")


def abandon(clients: list[Client]) -> None:
    """Leave as one whose process ends; a server that stops would wait for them."""
    for _, writer in clients:
        writer.transport.abort()


@pytest.mark.parametrize(
    "make_app", [starlette, starlette_with_lists, sse_starlette, fastapi, fastapi_sse, litestar]
)
async def test_r49_clients_that_leave_leave_no_subscription(
    dsn: str, make_app: Callable[[Listener], Any]
) -> None:
    """50 clients come, read, and go: none of their subscriptions waits for the collector."""
    clients: list[Client] = []
    async with Listener(dsn) as listener, serving(make_app(listener)) as port:
        await listener.listen("orders", print)  # a stream is counted before the server listens
        gc.collect()
        gc.disable()
        try:
            async with asyncio.timeout(DEADLINE):
                clients += await asyncio.gather(*(subscribe(port) for _ in range(CLIENTS)))
                await until_subscriptions(listener, 1 + CLIENTS)
                await listener.notify("orders", "42")
                for reader, _ in clients:
                    await reader.readuntil(b"42")
                abandon(clients)
                await until_subscriptions(listener, 1)
        finally:
            abandon(clients)
            gc.enable()
            gc.collect()
