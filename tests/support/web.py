"""Applications that uvicorn serves in the event loop of a test, and clients of theirs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import aiohttp
import uvicorn

from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping

    from asyncnotify import Listener

SOON: Final = scaled(20.0)
CLIENTS: Final = 50

HANDSHAKE: Final = (
    "GET {} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
"""Of a client of which nothing more is wanted than that it is there, and then is not."""

REQUEST: Final = "GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Received(NamedTuple):
    """A server-sent event."""

    event: str
    data: Any
    id: str | None


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncGenerator[int]:
    """Serve an application, with its lifespan; have its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=2 * CLIENTS) as listening:
        config = uvicorn.Config(app, log_config=None, lifespan="on")
        server = uvicorn.Server(config)
        task = asyncio.create_task(server._serve([listening]))  # noqa: SLF001 - serve() would take the signals
        try:
            await until(lambda: server.started or task.done())
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await task


async def until(fact: Callable[[], bool], seconds: float = SOON) -> None:
    """Return once this is so."""
    async with asyncio.timeout(seconds):
        while not fact():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)


async def until_clients(listener: Listener, count: int, seconds: float = SOON) -> None:
    """Return once a listener has so many subscriptions."""
    await until(lambda: len(listener.stats().subscriptions) == count, seconds)


@contextlib.asynccontextmanager
async def session_with(port: int) -> AsyncGenerator[aiohttp.ClientSession]:
    """Have a client of the server at a port."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        yield session


@contextlib.asynccontextmanager
async def events(
    session: aiohttp.ClientSession, path: str, headers: Mapping[str, str] | None = None
) -> AsyncGenerator[AsyncIterator[Received]]:
    """Ask for server-sent events."""
    async with asyncio.timeout(SOON), session.get(path, headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        yield received(response.content)


async def received(content: aiohttp.StreamReader) -> AsyncIterator[Received]:
    """Read server-sent events."""
    fields: dict[str, str] = {}
    async for line in content:
        name, _, value = line.decode().rstrip("\r\n").partition(": ")
        if name:
            fields[name] = value
        elif "data" in fields:
            yield Received(
                fields.get("event", "message"), json.loads(fields["data"]), fields.get("id")
            )
            fields = {}


async def come(port: int, request: str) -> asyncio.StreamWriter:
    """Ask as a client that reads no more than its first gap: what follows is silence."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    await reader.readuntil(b'"start"')
    return writer


@contextlib.contextmanager
def without_collector() -> Generator[None]:
    """Let nothing end because the garbage collector happens to run."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()


async def come_and_leave(port: int, request: str, listener: Listener) -> None:
    """Let many clients come and, without a notification, leave; nothing is left within 1 s."""
    with without_collector():
        writers = await asyncio.gather(*(come(port, request) for _ in range(CLIENTS)))
        await until_clients(listener, CLIENTS)
        for writer in writers:
            writer.transport.abort()
        await until_clients(listener, 0, scaled(1.0))


async def be_slow_and_leave(port: int, request: str, listener: Listener, payload: str) -> None:
    """Let a client read nothing until its buffer has overflowed, and leave: nothing is left."""
    with without_collector():
        writer = await come(port, request)
        while not listener.stats().dropped:
            many = (payload.replace("0", str(number), 1) for number in range(100, 300))
            await listener.notify_many(("orders", one) for one in many)
        writer.transport.abort()
        await until_clients(listener, 0, scaled(1.0))
