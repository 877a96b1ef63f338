"""The plugins and the server-sent events of asyncnotify.ext.litestar, served by uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import aiohttp
import pytest
import uvicorn
from litestar import Litestar, Request, get, post
from litestar.response import ServerSentEvent
from litestar.testing import TestClient

from asyncnotify import Channel, Listener, NotStartedError
from asyncnotify.ext.litestar import (
    ListenerDependency,
    LogDependency,
    LogPlugin,
    NotifyPlugin,
    resume_after,
    sse_messages,
)
from asyncnotify.log import Log, NotInstalledError
from asyncnotify.testing.fake import FakeServer
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from asyncnotify.testing.server import PostgresServer

AnyRequest: TypeAlias = Request[Any, Any, Any]

LIMIT: Final = scaled(20.0)
CLIENTS: Final = 50


class Message(NamedTuple):
    """A server-sent event, as it came."""

    event: str
    data: str
    id: str | None


@get("/events", sync_to_thread=False)
def of_listener(listener: ListenerDependency) -> ServerSentEvent:
    """Stream a channel."""
    stream = listener.stream(Channel("orders", object), gaps=True)
    return ServerSentEvent(sse_messages(stream, event="changed"))


@get("/log", sync_to_thread=False)
def of_log(request: AnyRequest, log: LogDependency) -> ServerSentEvent:
    """Stream a channel of a log."""
    stream = log.read("orders", after=resume_after(request, log), gaps=True)
    return ServerSentEvent(sse_messages(stream))


@post("/orders")
async def change(listener: ListenerDependency) -> None:
    """Notify of an order."""
    await listener.notify("orders", "42")


@contextlib.asynccontextmanager
async def serving(app: Litestar) -> AsyncGenerator[aiohttp.ClientSession]:
    """Serve an application on a free port; have a client of it."""
    with socket.create_server(("127.0.0.1", 0), backlog=CLIENTS) as listening:
        config = uvicorn.Config(app, log_config=None, lifespan="on")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve([listening]))  # noqa: SLF001 - serve() would take the signals
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        connector = aiohttp.TCPConnector(limit=2 * CLIENTS)
        try:
            async with aiohttp.ClientSession(url, connector=connector) as session:
                yield session
        finally:
            server.should_exit = True
            await serving


@contextlib.asynccontextmanager
async def events(
    session: aiohttp.ClientSession, path: str, last_id: str | None = None
) -> AsyncGenerator[Callable[[], Any]]:
    """Be a client of server-sent events; have what returns the next one."""
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    async with session.get(path, headers=headers) as response:
        assert response.content_type == "text/event-stream"
        messages = parsed(response.content)

        async def next_message() -> Message:
            async with asyncio.timeout(LIMIT):
                return await anext(messages)

        yield next_message


async def parsed(content: aiohttp.StreamReader) -> AsyncIterator[Message]:
    """Read server-sent events as browsers do, but for data of several lines."""
    fields: dict[str, str] = {}
    async for line in content:
        if text := line.decode().rstrip("\r\n"):
            name, _, value = text.partition(":")
            fields[name] = value.removeprefix(" ")
        elif fields:
            yield Message(fields.get("event", "message"), fields["data"], fields.get("id"))
            fields = {}


def reason(message: Message) -> str:
    """Return the reason that a gap tells."""
    assert message.event == "gap"
    return str(json.loads(message.data)["reason"])


# -- the plugins ----------------------------------------------------------------------------------


def test_handlers_get_the_listener(dsn: str) -> None:
    """By a parameter, in each run of the application; outside of a run there is an error."""
    plugin = NotifyPlugin(dsn)
    app = Litestar([change], plugins=[plugin])
    for _ in range(2):
        with TestClient(app) as client:
            assert client.post("/orders").status_code == 201
            assert plugin.listener.is_connected
        with pytest.raises(NotStartedError, match="while the application does"):
            _ = plugin.listener


async def test_it_runs_on_a_fake() -> None:
    """Tests of an application give it the DSN of a FakeServer."""
    fake = FakeServer()
    app = Litestar([change], plugins=[NotifyPlugin(fake.dsn)])
    async with serving(app) as session, session.post("/orders") as response:
        assert response.status == 201
    assert [(n.channel, n.payload) for n in fake.notifications] == [("orders", "42")]


async def test_what_the_application_runs_may_use_it(dsn: str) -> None:
    """The listener and the log run before the application's lifespan begins, and after its end."""
    listener, log = Listener(dsn), Log("web", dsn)
    seen = []

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncGenerator[None]:
        await log.append("orders")
        seen.append(listener.is_connected)
        yield
        await log.append("orders")
        seen.append(listener.is_connected)

    plugins: list[Any] = [NotifyPlugin(listener), LogPlugin(log, install=True)]
    async with Litestar(lifespan=[lifespan], plugins=plugins).lifespan():
        assert seen == [True]
    assert seen == [True, True]
    assert listener.state == "closed"


async def test_a_start_that_fails_leaves_nothing(dsn: str) -> None:
    """An application without its log does not start, and closes what it has opened."""
    listener = Listener(dsn)
    log = Log("web", dsn)
    log.on("mailer")(print)
    app = Litestar(plugins=[LogPlugin(log), NotifyPlugin(listener)])
    with pytest.raises(BaseExceptionGroup) as error:
        async with app.lifespan():
            pass
    assert error.group_contains(NotInstalledError)
    assert listener.state == "closed"


async def test_the_health_check(own_server: PostgresServer) -> None:
    """200 while notifications are delivered; 503 while they are not, with the reason."""
    plugin = NotifyPlugin(own_server.dsn, health_path="/health")
    async with serving(Litestar(plugins=[plugin])) as session:

        async def health() -> tuple[int, Any]:
            async with session.get("/health") as response:
                assert response.headers["Cache-Control"] == "no-store"
                return response.status, await response.json()

        status, body = await health()
        assert (status, body["state"]) == (200, "connected")
        own_server.kill()
        async with asyncio.timeout(LIMIT):
            while (await health())[0] == 200:
                pass
            status, body = await health()
            assert (status, body["state"]) == (503, "reconnecting")
            assert "missed" in body["meaning"]
            own_server.start()
            while (await health())[0] != 200:
                pass


# -- server-sent events ---------------------------------------------------------------------------


async def test_clients_hear_of_an_outage(own_server: PostgresServer) -> None:
    """A client gets what is notified, as JSON, and a gap where it may have missed something."""
    app = Litestar([of_listener, change], plugins=[NotifyPlugin(own_server.dsn)])
    async with serving(app) as session, events(session, "/events") as next_message:
        assert reason(await next_message()) == "start"
        async with session.post("/orders"):
            assert await next_message() == ("changed", "42", None)
        own_server.kill()
        own_server.start()
        assert reason(await next_message()) == "reconnect"


async def test_clients_that_leave_leave_nothing(dsn: str) -> None:
    """Fifty clients leave while nothing is notified: all their streams end."""
    plugin = NotifyPlugin(dsn)
    async with serving(Litestar([of_listener], plugins=[plugin])) as session:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(CLIENTS):
                next_message = await stack.enter_async_context(events(session, "/events"))
                assert reason(await next_message()) == "start"
            assert len(plugin.listener.stats().subscriptions) == CLIENTS
        async with asyncio.timeout(LIMIT):
            while plugin.listener.stats().subscriptions:  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0)


async def test_a_client_resumes_where_it_left_off(dsn: str) -> None:
    """By Last-Event-ID, also one that had not seen an event; nothing is missed or comes twice."""
    log = Log("web", dsn)
    app = Litestar([of_log], plugins=[LogPlugin(log, install=True)])
    async with serving(app) as session:
        async with events(session, "/log") as next_message:
            ready = await next_message()
        await log.append("orders", "1")
        await log.append("users", "no order")
        async with events(session, "/log", ready.id) as next_message:
            assert (await next_message()).event == "ready"
            first = await next_message()
        await log.append("orders", "two\nlines")
        async with events(session, "/log", first.id) as next_message:
            assert (await next_message()).id == first.id
            second = await next_message()
    assert (first.event, first.data, second.data) == ("message", '"1"', r'"two\nlines"')


@pytest.mark.parametrize("last_id", ["nonsense", "other:1.1.1"])
async def test_an_id_of_another_log_is_refused(dsn: str, last_id: str) -> None:
    """With the status 400: a browser then does not come again."""
    app = Litestar([of_log], plugins=[LogPlugin(Log("web", dsn), install=True)])
    async with (
        serving(app) as session,
        session.get("/log", headers={"Last-Event-ID": last_id}) as response,
    ):
        assert response.status == 400


async def test_an_id_that_the_log_does_not_know_is_a_gap(dsn: str) -> None:
    """After a restore, for example. The empty id makes the browser begin anew."""
    app = Litestar([of_log], plugins=[LogPlugin(Log("web", dsn), install=True)])
    async with serving(app) as session, events(session, "/log", "web:9.9.9") as next_message:
        gap = await next_message()
        assert (reason(gap), gap.id) == ("expired", "")
        with pytest.raises(StopAsyncIteration):
            await next_message()
