from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp
import pytest
import pytest_asyncio

from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from tests.examples.conftest import ExampleRunner, Program

    Subscribe: TypeAlias = Callable[
        [aiohttp.ClientSession, str], AbstractAsyncContextManager["Feed"]
    ]

NEVER_LISTENED = """
    NOT EXISTS (SELECT FROM pg_stat_activity
                WHERE datname = current_database() AND query ~ '^(UN)?LISTEN')
"""
READY = {"fastapi_service": "Uvicorn running on", "aiohttp_service": "Running on"}


class Feed:
    """What a service sends to one client: pairs such as ``("gap", "start")``."""

    def __init__(self, items: AsyncIterator[tuple[str, str]]) -> None:
        self._items = items

    async def next(self) -> tuple[str, str]:
        """Return what comes next."""
        async with asyncio.timeout(scaled(20)):
            return await anext(self._items)


@contextlib.asynccontextmanager
async def server_sent_events(session: aiohttp.ClientSession, channel: str) -> AsyncGenerator[Feed]:
    """Subscribe to a channel of the FastAPI service."""
    async with session.get(f"/events/{channel}") as response:
        assert response.content_type == "text/event-stream"
        yield Feed(events(response.content))


async def events(content: aiohttp.StreamReader) -> AsyncIterator[tuple[str, str]]:
    """Read Server-Sent Events."""
    kind = ""
    async for line in content:
        name, _, value = line.decode().strip().partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            data = json.loads(value)
            yield kind, data["reason"] if kind == "gap" else data


@contextlib.asynccontextmanager
async def web_socket(session: aiohttp.ClientSession, channel: str) -> AsyncGenerator[Feed]:
    """Subscribe to a channel of the aiohttp service."""
    async with session.ws_connect(f"/events/{channel}") as websocket:
        yield Feed(messages(websocket))


async def messages(websocket: aiohttp.ClientWebSocketResponse) -> AsyncIterator[tuple[str, str]]:
    """Read the messages of a WebSocket."""
    async for message in websocket:
        item = json.loads(message.data)
        yield ("gap", item["gap"]) if "gap" in item else ("changed", item["payload"])


SUBSCRIBE: dict[str, Subscribe] = {
    "fastapi_service": server_sent_events,
    "aiohttp_service": web_socket,
}


class Service:
    """A service that runs, and what clients do with it."""

    def __init__(
        self, program: Program, session: aiohttp.ClientSession, subscribe: Subscribe
    ) -> None:
        self.program = program
        self._session = session
        self._subscribe = subscribe

    def listen(self, channel: str) -> AbstractAsyncContextManager[Feed]:
        """Subscribe to a channel as one more client."""
        return self._subscribe(self._session, channel)

    async def status_of(self, channel: str) -> int:
        """Return the status of the answer to a client that asks for a channel."""
        async with self._session.get(f"/events/{channel}") as response:
            return response.status

    async def change(self, order: int) -> int:
        """Change an order; return the status of the answer."""
        async with self._session.post(f"/orders/{order}") as response:
            return response.status

    async def health(self) -> tuple[int, dict[str, Any]]:
        """Return the status and the content of the answer to a health check."""
        async with self._session.get("/health") as response:
            facts = await response.json()
            return response.status, {"clients": facts.get("subscriptions"), **facts}

    async def until(self, **facts: object) -> None:
        """Return once a health check says this."""
        async with asyncio.timeout(scaled(20)):
            while not facts.items() <= (await self.health())[1].items():
                pass


@contextlib.asynccontextmanager
async def serving(runner: ExampleRunner, example: str) -> AsyncGenerator[Service]:
    """Run a service on a free port; at the end, stop it as Ctrl-C does."""
    port = runner.keep_port()
    program = await runner.run(example, PORT=str(port))
    await program.expect(READY[example])
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        yield Service(program, session, SUBSCRIBE[example])


@pytest.fixture(params=SUBSCRIBE)
def example(request: pytest.FixtureRequest) -> str:
    """Each of the services."""
    name: str = request.param
    return name


@pytest_asyncio.fixture
async def service(runner: ExampleRunner, example: str) -> AsyncIterator[Service]:
    """A service on a database that stays."""
    async with serving(runner, example) as service:
        yield service


async def test_clients_hear_what_is_published(service: Service) -> None:
    """Clients of a channel get what is published, and are forgotten as soon as they have left."""
    async with service.listen("orders") as one, service.listen("orders") as two:
        assert await one.next() == await two.next() == ("gap", "start")
        assert await service.change(42) == 202
        assert await one.next() == await two.next() == ("changed", "42")
        await service.until(clients=2)
    await service.until(clients=0)
    await service.program.interrupt()


async def test_clients_are_told_of_an_outage(fragile_runner: ExampleRunner, example: str) -> None:
    """
    A client gets a gap where it may have missed something; the service says so meanwhile.

    Ctrl-C then ends the service, whoever is connected.
    """
    async with serving(fragile_runner, example) as service, contextlib.AsyncExitStack() as stack:
        early = await stack.enter_async_context(service.listen("orders"))
        assert await early.next() == ("gap", "start")
        async with fragile_runner.outage():
            await service.until(state="reconnecting")
            status, health = await service.health()
            assert (status, health["clients"]) == (503, 1)
            assert await service.change(1) == 503
            late = await stack.enter_async_context(service.listen("orders"))
            await service.until(clients=2)
        assert await early.next() == ("gap", "reconnect")
        assert await late.next() == ("gap", "start")
        await service.until(state="connected", reconnects=1, clients=2)
        assert (await service.health())[0] == 200
        assert await service.change(2) == 202
        assert await early.next() == await late.next() == ("changed", "2")
        await service.program.interrupt()
        with pytest.raises(StopAsyncIteration):
            await early.next()


async def test_a_service_ends_without_a_database(runner: ExampleRunner, example: str) -> None:
    """Ctrl-C ends a service also while its clients wait for a connection to the database."""
    async with serving(runner, example) as service, runner.outage():
        await service.until(state="reconnecting")
        async with service.listen("orders"):
            await service.until(clients=1)
            await service.program.interrupt()


async def test_clients_choose_among_public_channels(
    service: Service, runner: ExampleRunner
) -> None:
    """Any other channel is refused, and not listened on."""
    assert await service.status_of("salaries") in {404, 422}
    assert await service.status_of('x"; DROP TABLE y; --') in {404, 422}
    await runner.until(NEVER_LISTENED)
    await service.program.interrupt()
