"""Applications of aiohttp on a server in memory, each served in the event loop of its test."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from aiohttp import WSMsgType, WSServerHandshakeError, web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request

from asyncnotify import ConnectError, Listener, State
from asyncnotify.ext.aiohttp import FANOUT, LISTENER, events, health, setup, setup_log, websocket
from asyncnotify.ext.aiohttp._lifecycle import CLIENTS
from asyncnotify.ext.fanout import Fanout
from asyncnotify.log import Log
from asyncnotify.testing.fake import FakeServer
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from aiohttp import ClientWebSocketResponse

    Client = TestClient[web.Request, web.Application]

CLIENTS_AT_ONCE: Final = 50
DEADLINE: Final = scaled(20.0)
START: Final = {"gap": "start", "channel": "orders", "since": None, "dropped": None}
START_EVENT: Final = {"reason": "start", "channel": "orders", "since": None, "dropped": None}
FIRST: Final = {"channel": "orders", "payload": "1"}


async def by_websocket(request: web.Request) -> web.StreamResponse:
    """Serve a client by WebSocket."""
    return await websocket(request, [request.match_info["channel"]])


async def by_events(request: web.Request) -> web.StreamResponse:
    """Serve a client by server-sent events."""
    return await events(request, [request.match_info["channel"]])


def routed(app: web.Application) -> web.Application:
    """Add the routes that clients of these tests use."""
    app.router.add_get("/ws/{channel}", by_websocket)
    app.router.add_get("/events/{channel}", by_events)
    app.router.add_get("/health", health)
    return app


def application(source: Any, **options: Any) -> web.Application:
    """Return an application that serves clients."""
    app = routed(web.Application())
    setup(app, source, **options)
    return app


@contextlib.asynccontextmanager
async def serving(app: web.Application) -> AsyncGenerator[Client]:
    """Serve an application; at the end, stop as aiohttp does."""
    async with asyncio.timeout(DEADLINE), TestClient(TestServer(app)) as client:
        yield client


@contextlib.asynccontextmanager
async def served_as_in_production(app: web.Application) -> AsyncGenerator[int]:
    """Serve an application, and have its port. TestServer cancels handlers, as no other does."""
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def next_of(socket: ClientWebSocketResponse) -> dict[str, Any]:
    """Return the next message to a client."""
    message: dict[str, Any] = await socket.receive_json(timeout=DEADLINE)
    return message


async def until(fact: Callable[[], bool]) -> None:
    """Return once something is true."""
    async with asyncio.timeout(DEADLINE):
        while not fact():  # noqa: ASYNC110 - nobody tells of these facts
            await asyncio.sleep(0.01)  # polls


def left_of(app: web.Application) -> tuple[int, int, int]:
    """Return how many subscriptions, channels and responses an application has."""
    subscriptions = app[LISTENER].stats().subscriptions
    return len(subscriptions), len(app[FANOUT].channels), len(app[CLIENTS])


async def test_clients_are_sent_what_is_notified_and_where_something_is_missing() -> None:
    """Each gets a gap at the beginning, all that follows, and a gap where it missed something."""
    fake = FakeServer()
    async with (
        serving(app := application(fake.dsn)) as client,
        client.ws_connect("/ws/orders") as one,
        client.ws_connect("/ws/orders") as two,
    ):
        assert await next_of(one) == await next_of(two) == START
        await app[LISTENER].notify("orders", "1")
        assert await next_of(one) == await next_of(two) == FIRST
        assert fake.channels == {"orders"}
        fake.lose()
        assert (await next_of(one))["gap"] == "reconnect"


async def test_the_data_of_an_event_is_the_payload() -> None:
    """Server-sent events have a name of their own for gaps, and the default one for the rest."""
    pytest.importorskip("aiohttp_sse")
    fake = FakeServer()
    async with serving(application(fake.dsn)) as client, client.get("/events/orders") as response:
        assert response.content_type == "text/event-stream"
        await fake.until_listening("orders")
        fake.notify("orders", "1")
        assert await read_event(response.content) == ("gap", START_EVENT)
        assert await read_event(response.content) == ("message", "1")


async def read_event(content: Any) -> tuple[str, Any]:
    """Read one server-sent event; return its type and its object."""
    text = (await content.readuntil(b"\r\n\r\n")).decode()
    fields = dict(line.split(": ", 1) for line in text.splitlines() if line)
    return fields.get("event", "message"), json.loads(fields["data"])


async def test_a_client_that_may_not_listen_is_refused_before_anything_is_opened() -> None:
    """The status says why: no right, no possible name, too many channels, no WebSocket."""
    fake = FakeServer()

    async def authorize(request: web.Request, channel: str) -> bool:
        return channel != request.headers.get("X-Not")

    app = application(fake.dsn, authorize=authorize, max_channels=1)
    async with serving(app) as client:
        for path in ("/ws", "/events"):
            async with client.get(f"{path}/salaries", headers={"X-Not": "salaries"}) as answer:
                assert answer.status == 403
                assert "salaries" not in await answer.text()
            async with client.get(f"{path}/{'x' * 64}") as answer:
                assert answer.status == 400
        async with client.ws_connect("/ws/orders") as socket:
            assert await next_of(socket) == START
            with pytest.raises(WSServerHandshakeError, match="503"):
                await client.ws_connect("/ws/stock")
        assert fake.channels <= {"orders"}


async def test_the_health_check_tells_of_an_outage() -> None:
    """With 503 while notifications are missed; clients who come meanwhile are served afterwards."""
    fake = FakeServer()
    async with serving(app := application(fake.dsn)) as client:
        async with client.get("/health") as answer:
            assert (answer.status, (await answer.json())["state"]) == (200, "connected")
        fake.refuse()
        fake.lose()
        await until(lambda: app[LISTENER].state is State.RECONNECTING)
        async with client.get("/health") as answer:
            assert (answer.status, (await answer.json())["state"]) == (503, "reconnecting")
        async with client.ws_connect("/ws/orders") as socket:
            fake.reconnect()
            assert await next_of(socket) == START


@pytest.mark.parametrize("path", ["/ws/orders", "/events/orders"])
async def test_clients_that_leave_leave_nothing(path: str) -> None:
    """Fifty go without any notification: no subscription, channel or response is left of them."""
    if path.startswith("/events"):
        pytest.importorskip("aiohttp_sse")
    fake = FakeServer()
    async with served_as_in_production(app := application(fake.dsn)) as port:
        opened = [await open_raw(port, path) for _ in range(CLIENTS_AT_ONCE)]
        await until(lambda: left_of(app) == (CLIENTS_AT_ONCE, 1, CLIENTS_AT_ONCE))
        gc.collect()
        gc.disable()
        try:
            for writer in opened:
                writer.transport.abort()
            await until(lambda: left_of(app) == (0, 0, 0))
        finally:
            gc.enable()


async def open_raw(port: int | None, path: str) -> asyncio.StreamWriter:
    """Ask for a stream as a client that can vanish; return once the response has begun."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    upgrade = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    writer.write(upgrade.encode())
    await reader.readuntil(b"\r\n\r\n")
    return writer


async def flood(app: web.Application) -> None:
    """Notify until a client that does not read is too slow."""
    while not app[LISTENER].stats().dropped:
        await app[LISTENER].notify_many(("orders", f"{n:07900}") for n in range(500))


async def test_all_streams_end_when_the_server_stops() -> None:
    """Clients are closed with 1001, a client that reads nothing is cut, and none comes in anew."""
    fake = FakeServer()
    app = application(fake.dsn)
    async with serving(app) as client, client.ws_connect("/ws/orders") as socket:
        assert await next_of(socket) == START
        idle = await open_raw(client.port, "/ws/orders")
        await until(lambda: left_of(app)[0] == 2)
        await flood(app)
        stopping = asyncio.create_task(client.server.close())
        while (message := await socket.receive()).type is WSMsgType.TEXT:
            pass
        assert (message.type, socket.close_code) == (WSMsgType.CLOSE, 1001)
        async with asyncio.timeout(scaled(5.0)):
            await stopping
        assert left_of(app) == (0, 0, 0)
        idle.transport.abort()
    assert app[LISTENER].state is State.CLOSED


async def test_a_slow_client_may_be_closed_instead() -> None:
    """With overflow="fail", by 1013: the browser may try again later."""
    fake = FakeServer()
    app = application(fake.dsn, buffer=10, overflow="fail")
    async with serving(app) as client, client.ws_connect("/ws/orders") as socket:
        assert await next_of(socket) == START
        await flood(app)
        while (message := await socket.receive()).type is WSMsgType.TEXT:
            pass
        assert (message.type, socket.close_code) == (WSMsgType.CLOSE, 1013)


async def test_sub_applications_share_a_listener_or_have_their_own() -> None:
    """Handlers find that of their own application, else that of the one above it."""
    one, two = FakeServer(), FakeServer()
    app, shares, has = application(one.dsn), routed(web.Application()), application(two.dsn)
    app.add_subapp("/shares", shares)
    app.add_subapp("/has", has)
    async with (
        serving(app) as client,
        client.ws_connect("/shares/ws/orders") as socket,
        client.ws_connect("/has/ws/orders") as other,
    ):
        assert await next_of(socket) == await next_of(other) == START
        one.notify("orders", "1")
        two.notify("orders", "2")
        assert (await next_of(socket))["payload"] == "1"
        assert (await next_of(other))["payload"] == "2"
    assert {app[LISTENER].state, has[LISTENER].state} == {State.CLOSED}


async def test_several_listeners_have_keys_of_their_own() -> None:
    """A key that is taken is refused."""
    one, two = FakeServer(), FakeServer()
    app = application(one.dsn)
    key, fanout = web.AppKey("other", Listener), web.AppKey("others", Fanout[web.Request])
    setup(app, Listener(two.dsn), key=key, fanout_key=fanout)
    with pytest.raises(ValueError, match="LISTENER"):
        setup(app, one.dsn)
    with pytest.raises(ValueError, match="FANOUT"):
        setup(app, two.dsn, key=web.AppKey("third", Listener))

    async def other(request: web.Request) -> web.StreamResponse:
        return await websocket(request, ["orders"], key=fanout)

    app.router.add_get("/other", other)
    async with serving(app) as client, client.ws_connect("/other") as socket:
        assert await next_of(socket) == START
        assert not one.channels
        assert two.channels == {"orders"}


async def test_a_function_makes_the_listener_at_the_start() -> None:
    """Not before, so that it may read what the application has been configured with."""
    fakes: list[FakeServer] = []
    app = application(lambda: Listener(fakes[0].dsn))
    assert LISTENER not in app
    fakes.append(FakeServer())
    async with serving(app) as client, client.ws_connect("/ws/orders") as socket:
        assert await next_of(socket) == START


async def test_a_listener_that_runs_already_is_left_running() -> None:
    """Its streams to clients end with the application, and others may be opened afterwards."""
    fake = FakeServer()
    async with Listener(fake.dsn) as listener:
        async with serving(application(listener)) as client:
            socket = await client.ws_connect("/ws/orders")
            assert await next_of(socket) == START
        assert listener.is_connected
        async with listener.stream("orders") as stream:
            fake.notify("orders", "1")
            assert (await anext(stream)).payload == "1"


async def test_an_application_does_not_start_without_its_listener() -> None:
    """What refuses the listener ends the start."""
    fake = FakeServer()
    fake.refuse(permanently=True)
    runner = web.AppRunner(application(fake.dsn))
    with pytest.raises(ConnectError):
        await runner.setup()
    await runner.cleanup()


async def test_streams_of_other_responses_end_too_and_code_may_still_notify() -> None:
    """When the server stops: whoever reads a stream of the listener, and before it is closed."""
    fake = FakeServer()
    app = application(fake.dsn)

    async def plain(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for item in app[LISTENER].stream("orders", gaps=True):
            await response.write(type(item).__name__.encode())
        await app[LISTENER].notify("left", "a handler")
        return response

    async def say(app: web.Application) -> None:
        await app[LISTENER].notify("left", "on_shutdown")

    app.router.add_get("/plain", plain)
    app.on_shutdown.append(say)
    async with serving(app) as client, client.get("/plain") as response:
        assert await response.content.readany() == b"Gap"
        await client.server.close()
        assert await response.content.read() == b""
    assert {n.payload for n in fake.notifications} == {"a handler", "on_shutdown"}


@pytest.mark.parametrize("source", [42, Log])
def test_what_is_neither_a_source_nor_makes_one_is_refused(source: Any) -> None:
    """At once, and not when the application starts."""
    with pytest.raises(TypeError, match=r"a Log, or a function|source is the class Log"):
        setup_log(web.Application(), source)
    with pytest.raises(TypeError):
        setup(web.Application(), source)


async def test_what_has_not_been_set_up_is_named() -> None:
    """The error says which function to call."""
    request = make_mocked_request("GET", "/health", app=web.Application())
    with pytest.raises(RuntimeError, match=r"setup\(\)"):
        await health(request)
