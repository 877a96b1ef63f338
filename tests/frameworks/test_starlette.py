"""
What Starlette and FastAPI are given: server-sent events, WebSockets, health, and the lifespan.

The applications are served by uvicorn, on a real PostgreSQL; where a fault must come at one
moment, on the server in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

pytest.importorskip("sse_starlette")
pytest.importorskip("httpx2")
pytest.importorskip("websockets")

import aiohttp
import asyncpg
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

import asyncnotify.ext.starlette as ours
from asyncnotify import Listener
from asyncnotify.ext.fanout import Fanout
from asyncnotify.ext.starlette import websocket
from asyncnotify.log import Log
from asyncnotify.testing.fake import FakeServer
from tests.support.fastapi_application import ORDERS, Order, fastapi_app, may_listen
from tests.support.web import (
    HANDSHAKE,
    REQUEST,
    SOON,
    Received,
    be_slow_and_leave,
    come_and_leave,
    events,
    serving,
    session_with,
    until,
    until_clients,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

    from starlette.requests import Request

    from asyncnotify.testing.server import PostgresServer

STARTED: Final = Received(
    "gap", {"reason": "start", "channel": "orders", "since": None, "dropped": None}, None
)


OLD: Final = """
    WITH moved AS (DELETE FROM asyncnotify.web_events RETURNING *)
    INSERT INTO asyncnotify.web_events (x, id, uid, slot, channel, payload, appended_at)
    SELECT x, id, uid, $1, channel, payload, appended_at - interval '8 days' FROM moved
"""


OLD_TICKS: Final = "UPDATE asyncnotify.web_ticks SET taken_at = now() - interval '8 days'"


def starlette_app(listener: Listener, log: Log, fanout: Fanout[str]) -> Any:
    """Return an application of Starlette's."""

    async def order_events(request: Request) -> Any:
        return ours.sse(ours.get_listener(request).stream(ORDERS, gaps=True, buffer=10))

    async def log_events(request: Request) -> Any:
        after = await ours.last_event_id(request)
        return ours.sse(ours.get_log(request).read("orders", after=after, gaps=True))

    async def socket(socket: WebSocket) -> None:
        await ours.websocket(socket, fanout, [socket.path_params["channel"]], "ann")

    return Starlette(
        routes=[
            Route("/events", order_events),
            Route("/log", log_events),
            WebSocketRoute("/sockets/{channel}", socket),
            Route("/health", ours.health),
            Route("/health/log", ours.log_health),
        ],
        lifespan=ours.lifespan(listener, log),
    )


@dataclass
class Service:
    """An application that is served."""

    port: int
    listener: Listener
    log: Log
    fanout: Fanout[str]
    session: aiohttp.ClientSession

    async def notify(self, id_: int) -> None:
        """Tell of an order."""
        await self.listener.notify(ORDERS, Order(id_, "ß"))


@contextlib.asynccontextmanager
async def service_on(dsn: str, make_app: Callable[..., Any]) -> AsyncGenerator[Service]:
    """Serve an application that listens to a database, and has a log there."""
    listener, log = Listener(dsn), Log("web", dsn)
    fanout = Fanout(listener, authorize=may_listen, max_channels=2, buffer=10)
    app = make_app(listener, log, fanout)
    async with serving(app) as port, session_with(port) as session:
        try:
            yield Service(port, listener, log, fanout, session)
        finally:
            await listener.aclose()  # uvicorn waits for responses, which end with it
            await log.aclose()


@pytest.fixture(params=[starlette_app, fastapi_app])
def make_app(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Make the application with each of the frameworks."""
    made: Callable[..., Any] = request.param
    return made


@pytest_asyncio.fixture
async def service(dsn: str, make_app: Callable[..., Any]) -> AsyncIterator[Service]:
    """An application on a database that stays."""
    async with service_on(dsn, make_app) as service:
        yield service


# -- server-sent events ---------------------------------------------------------------------------


async def test_events_are_notifications_and_gaps(service: Service) -> None:
    """The payload of a typed channel is sent as JSON; a gap has a name of its own."""
    async with events(service.session, "/events") as got:
        assert await anext(got) == STARTED
        await service.notify(1)
        assert await anext(got) == Received("message", {"id": 1, "note": "ß"}, None)
        await until_clients(service.listener, 1)
    await until_clients(service.listener, 0)


async def test_clients_of_events_that_leave_leave_nothing(service: Service) -> None:
    """Fifty, within 1 s, although no notification ever comes."""
    await come_and_leave(service.port, REQUEST.format("/events"), service.listener)


@pytest.mark.parametrize(
    "request_of",
    [REQUEST.format("/events"), HANDSHAKE.format("/sockets/orders")],
    ids=["events", "socket"],
)
async def test_a_slow_client_that_leaves_leaves_nothing(service: Service, request_of: str) -> None:
    """It had a buffer with a bound, and is not waited for."""
    payload = json.dumps({"id": 0, "note": 7_000 * "x"})
    await be_slow_and_leave(service.port, request_of, service.listener, payload)


async def test_clients_are_told_when_the_server_was_killed(
    own_server: PostgresServer, make_app: Callable[..., Any]
) -> None:
    """By a gap, in events as in a WebSocket; the health check says what is going on meanwhile."""
    async with (
        service_on(own_server.dsn, make_app) as service,
        events(service.session, "/events") as got,
        service.session.ws_connect("/sockets/orders") as socket,
    ):
        assert await anext(got) == STARTED
        assert (await socket.receive_json(timeout=SOON))["gap"] == "start"
        await service.log.install()
        await asyncio.to_thread(own_server.kill)
        await until(lambda: not service.listener.is_connected)
        async with service.session.get("/health") as response:
            assert response.status == 503
            body = await response.json()
            assert body["state"] in {"reconnecting", "degraded"}
        async with service.session.get("/health/log") as response:
            assert response.status == 503
        await asyncio.to_thread(own_server.start)
        assert (await anext(got)).data["reason"] == "reconnect"
        assert (await socket.receive_json(timeout=SOON))["gap"] == "reconnect"
        for path in ("/health", "/health/log"):
            async with service.session.get(path) as response:
                assert (response.status, (await response.json())["status"]) == (200, "ok")


# -- events of a log ------------------------------------------------------------------------------


async def test_a_client_of_a_log_misses_nothing(service: Service) -> None:
    """It goes on behind its Last-Event-ID, also where it has left before the first event."""
    await service.log.install()
    async with events(service.session, "/log") as got:
        ready = await anext(got)
    assert ready.event == "ready"
    assert ready.id is not None
    await service.log.append("orders", "1")
    async with events(service.session, "/log", {"Last-Event-ID": ready.id}) as got:
        assert (await anext(got)).id == ready.id
        first = await anext(got)
    assert (first.event, first.data) == ("message", "1")
    assert first.id is not None
    await service.log.append("orders", "2")
    async with events(service.session, "/log", {"Last-Event-ID": first.id}) as got:
        assert [(await anext(got)).data, (await anext(got)).data] == [{}, "2"]


async def test_a_wrong_last_event_id_is_refused(service: Service) -> None:
    """With the status 400, after which browsers do not try again."""
    await service.log.install()
    for last in ("7", "other:1.2.3", "web:1.999999.1", "web:9.1.1", "'; --"):
        async with service.session.get("/log", headers={"Last-Event-ID": last}) as response:
            assert response.status == 400
            assert "Last-Event-ID" in await response.text()


async def make_older(dsn: str) -> None:
    """Make all events, and ticks, so old that they expire, in a partition that is not written."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "tests"})
    slot = await connection.fetchval(
        "SELECT (extract(epoch FROM now())::bigint / 100800 + 4) % 8"  # 7 days in 6 partitions
    )
    await connection.execute("SELECT asyncnotify.web_tick()")
    await connection.execute(OLD, slot)
    await connection.execute(
        "UPDATE asyncnotify.web_ticks SET taken_at = now() - interval '8 days'"
    )
    await connection.close()


async def test_a_client_that_was_away_too_long_is_told(dsn: str, service: Service) -> None:
    """What it has missed has expired: a gap says so."""
    await service.log.install()
    async with events(service.session, "/log") as got:
        place = (await anext(got)).id
    assert place is not None
    await service.log.append("orders", "1")
    async with service.log.read("orders", after="start") as stream:
        await anext(stream)
    await make_older(dsn)
    await service.log.append("orders", "2")
    assert await service.log.expire() == 1
    async with events(service.session, "/log", {"Last-Event-ID": place}) as got:
        assert (await anext(got)).event == "ready"
        gap = await anext(got)
        assert (gap.event, gap.data["reason"]) == ("gap", "expired")
        assert (await anext(got)).data == "2"


# -- WebSockets -----------------------------------------------------------------------------------


async def test_a_websocket_gets_notifications_and_gaps(service: Service) -> None:
    """As JSON; when the listener is closed the socket is, with 1012."""
    async with service.session.ws_connect("/sockets/orders") as socket:
        assert await socket.receive_json(timeout=SOON) == {
            "gap": "start",
            "channel": "orders",
            "since": None,
            "dropped": None,
        }
        await service.listener.notify("orders", "42")
        message = await socket.receive_json(timeout=SOON)
        assert message == {"channel": "orders", "payload": "42"}
        await service.listener.aclose()
        closed = await socket.receive(timeout=SOON)
        assert closed.type is aiohttp.WSMsgType.CLOSE
        assert closed.data == 1012


async def test_clients_of_websockets_that_leave_leave_nothing(service: Service) -> None:
    """Fifty, within 1 s, although no notification ever comes."""
    await come_and_leave(service.port, HANDSHAKE.format("/sockets/orders"), service.listener)


async def refused(service: Service, channel: str) -> bool:
    """Return whether a WebSocket is refused before it is accepted."""
    try:
        async with service.session.ws_connect(f"/sockets/{channel}") as socket:
            assert "gap" in await socket.receive_json(timeout=SOON)
    except aiohttp.WSServerHandshakeError as error:
        return error.status == 403
    return False


async def test_a_websocket_is_refused_what_its_client_may_not_have(service: Service) -> None:
    """Channels that are not for it, and a third one where all may have two; there is no LISTEN."""
    assert await refused(service, "salaries")
    assert await refused(service, "x" * 64)
    assert service.listener.channels == frozenset()
    async with (
        service.session.ws_connect("/sockets/orders") as one,
        service.session.ws_connect("/sockets/stock") as two,
    ):
        await one.receive_json(timeout=SOON)
        await two.receive_json(timeout=SOON)
        assert await refused(service, "other")
        assert service.listener.channels == {"orders", "stock"}
    await until(lambda: not service.fanout.channels)
    assert not await refused(service, "other")


# -- WebSockets, as an ASGI server speaks with them -----------------------------------------------


class Peer:
    """The ASGI server and the client of one WebSocket."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.say({"type": "websocket.connect"})
        scope = {"type": "websocket", "path": "/", "headers": []}
        self.socket = WebSocket(scope, self._said.get, self._send)

    def say(self, message: dict[str, Any]) -> None:
        """Let the client do something."""
        self._said.put_nowait(message)

    async def _send(self, message: Any) -> None:
        await self.takes.wait()
        self.sent.append(message)

    @property
    def last(self) -> dict[str, Any]:
        """The last thing that was sent."""
        return self.sent[-1] if self.sent else {}


@pytest.fixture
def fake() -> FakeServer:
    """A server in memory."""
    return FakeServer()


@pytest_asyncio.fixture
async def listener(fake: FakeServer) -> AsyncIterator[Listener]:
    """A listener on it."""
    async with Listener(fake.dsn, backoff=quick) as listener:
        yield listener


def quick() -> Iterator[float]:
    """Return the delays between attempts to connect."""
    while True:
        yield 0.01


async def until_refused(fake: FakeServer, listener: Listener) -> None:
    """Take the connection away, and let there be none."""
    fake.refuse()
    fake.lose()
    await until(lambda: not listener.is_connected)


async def test_a_client_that_does_not_take_messages_is_left(
    fake: FakeServer, listener: Listener
) -> None:
    """After the time that it had, with 1013; its stream does not wait for that to be taken."""
    peer, fanout = Peer(), Fanout[None](listener)
    serving = asyncio.create_task(
        websocket(peer.socket, fanout, ["orders"], None, send_timeout=0.1)
    )
    await until(lambda: len(peer.sent) == 2)
    peer.takes.clear()
    fake.notify("orders", "1")
    await until_clients(listener, 0)
    assert not serving.done()
    peer.takes.set()
    await serving
    assert (peer.last["type"], peer.last["code"]) == ("websocket.close", 1013)


async def test_a_client_whose_buffer_is_full_is_left(fake: FakeServer, listener: Listener) -> None:
    """With 1013, where the fan-out is of ``overflow="fail"``."""
    peer, fanout = Peer(), Fanout[None](listener, buffer=1, overflow="fail")
    serving = asyncio.create_task(websocket(peer.socket, fanout, ["orders"], None))
    await until(lambda: len(peer.sent) == 2)
    peer.takes.clear()
    for number in range(4):
        fake.notify("orders", str(number))
    await until(lambda: listener.stats().dropped > 0)
    peer.takes.set()
    await serving
    assert (peer.last["type"], peer.last["code"]) == ("websocket.close", 1013)
    assert not listener.channels


async def test_a_client_may_leave_while_there_is_no_connection(
    fake: FakeServer, listener: Listener
) -> None:
    """Nothing of it is left, although the server has never confirmed LISTEN."""
    await until_refused(fake, listener)
    peer, fanout = Peer(), Fanout[None](listener)
    serving = asyncio.create_task(websocket(peer.socket, fanout, ["orders"], None))
    await until_clients(listener, 1)
    peer.say({"type": "websocket.receive", "text": "are you there?"})
    peer.say({"type": "websocket.disconnect", "code": 1001})
    await serving
    assert [message["type"] for message in peer.sent] == ["websocket.accept"]
    assert not fanout.channels
    assert not listener.channels
    fake.reconnect()


async def test_a_client_does_not_wait_for_the_database_for_ever(
    fake: FakeServer, listener: Listener
) -> None:
    """With a timeout of the fan-out it is told to come later."""
    await until_refused(fake, listener)
    peer, fanout = Peer(), Fanout[None](listener, timeout=0.05)
    await websocket(peer.socket, fanout, ["orders"], None)
    assert (peer.last["type"], peer.last["code"]) == ("websocket.close", 1013)
    fake.reconnect()


async def test_a_socket_that_was_accepted_is_closed_with_the_reason(listener: Listener) -> None:
    """With 1008, where the application has accepted it for a subprotocol."""
    peer, fanout = Peer(), Fanout[str](listener, authorize=may_listen)
    await peer.socket.accept("orders.v1")
    await websocket(peer.socket, fanout, ["salaries"], "ann")
    assert [message["type"] for message in peer.sent] == ["websocket.accept", "websocket.close"]
    assert peer.last["code"] == 1008


async def test_cancelling_leaves_nothing(listener: Listener) -> None:
    """A server may cancel what it serves."""
    peer, fanout = Peer(), Fanout[None](listener)
    serving = asyncio.create_task(websocket(peer.socket, fanout, ["orders"], None))
    await until(lambda: len(peer.sent) == 2)
    serving.cancel()
    await asyncio.wait([serving])
    assert serving.cancelled()
    assert not listener.channels


async def test_an_error_of_the_application_is_its_own(fake: FakeServer, listener: Listener) -> None:
    """What ``encode`` raises is not taken for a client that has left."""

    def fail(item: object) -> str:
        raise LookupError

    with pytest.raises(LookupError):
        await websocket(Peer().socket, Fanout[None](listener), ["orders"], None, encode=fail)
    assert not listener.channels


# -- the lifespan ---------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def own(app: Starlette) -> AsyncGenerator[dict[str, Any]]:
    """Be the lifespan that the application has had before."""
    yield {"greeting": "hello"}


@pytest.mark.parametrize("kind", ["dsn", "listener", "function"])
def test_an_application_starts_more_than_once(fake: FakeServer, kind: str) -> None:
    """With a DSN, a Listener, or a function that makes one; with its own lifespan within."""
    listener = Listener(fake.dsn)
    given: Any = {"dsn": fake.dsn, "listener": listener, "function": lambda: Listener(fake.dsn)}[
        kind
    ]

    async def show(request: Request) -> Any:
        await ours.get_listener(request).notify("orders", request.state.greeting)
        return await ours.health(request)

    app = Starlette(
        routes=[Route("/", show)], lifespan=ours.lifespan(given, inner=own, end_streams=True)
    )
    for times in (1, 2):
        with TestClient(app) as client:
            assert client.get("/").json()["status"] == "ok"
        assert [n.payload for n in fake.notifications] == ["hello"] * times
        assert fake.pids == ()


def test_an_application_without_a_lifespan_is_told(make_app: Callable[..., Any]) -> None:
    """By an error that says what is missing."""
    listener = Listener()
    client = TestClient(make_app(listener, Log("web"), Fanout[str](listener)))
    with pytest.raises(RuntimeError, match=r"no Listener: give lifespan=lifespan\(…\)"):
        client.get("/health")


def start_and_stop(*given: Any) -> None:
    """Run the lifespan of an application."""
    with TestClient(Starlette(lifespan=ours.lifespan(*given))):
        pass


@pytest.mark.parametrize(
    "given", [Listener, may_listen, lambda: 1], ids=["class", "arguments", "nothing"]
)
def test_what_is_no_listener_is_refused(given: Any) -> None:
    """When the lifespan is made, or where a function returns it, at the start."""
    with pytest.raises(TypeError, match="lifespan"):
        start_and_stop(given)


def test_two_of_one_kind_are_refused(fake: FakeServer) -> None:
    """Which of them an endpoint means could not be said."""
    with pytest.raises(TypeError, match="two of type Listener"):
        start_and_stop(fake.dsn, fake.dsn)
