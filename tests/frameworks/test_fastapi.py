"""What only FastAPI has: dependencies that tests replace. All else is tested beside Starlette."""

from __future__ import annotations

import pytest

pytest.importorskip("httpx2")

from fastapi import FastAPI
from fastapi.testclient import TestClient
from fastapi.websockets import WebSocket  # noqa: TC002 - FastAPI evaluates annotations

from asyncnotify import Channel, Listener
from asyncnotify.ext import fastapi as ours
from asyncnotify.ext.fanout import Fanout
from asyncnotify.log import Log
from asyncnotify.testing.fake import FakeServer
from tests.support.fastapi_application import fastapi_app, may_listen

NOWHERE = "postgresql://127.0.0.1:1/nowhere"


@pytest.fixture
def fake() -> FakeServer:
    """A server in memory."""
    return FakeServer()


@pytest.fixture
def app(fake: FakeServer) -> FastAPI:
    """An application on it; its log has no database."""
    listener = Listener(fake.dsn)
    return fastapi_app(listener, Log("web", NOWHERE), Fanout(listener, authorize=may_listen))


async def change(listener: ours.ListenerDep) -> None:
    """Tell of an order."""
    await listener.notify("orders", "1")


@pytest.fixture
def small_app(fake: FakeServer) -> FastAPI:
    """An application of which tests replace the listener."""
    app = FastAPI(lifespan=ours.lifespan(fake.dsn))
    app.get("/health")(ours.health)

    app.post("/orders")(change)
    return app


def test_a_test_replaces_the_listener(small_app: FastAPI, fake: FakeServer) -> None:
    """By ``app.dependency_overrides``, for endpoints and the health check alike."""
    with TestClient(small_app) as client:
        assert client.post("/orders").status_code == 200
        assert [n.payload for n in fake.notifications] == ["1"]
        small_app.dependency_overrides[ours.get_listener] = lambda: Listener(NOWHERE)
        answer = client.get("/health")
        assert (answer.status_code, answer.json()["state"]) == (503, "new")
        assert answer.headers["cache-control"] == "no-store"


def test_dependencies_are_no_parameters_of_the_api(app: FastAPI) -> None:
    """The schema has the Last-Event-ID of a log, and nothing else of ours."""
    paths = app.openapi()["paths"]
    named = {path: paths[path]["get"].get("parameters", []) for path in paths}
    assert [one["name"] for one in named.pop("/log")] == ["last-event-id"]
    assert not any(named.values())


def test_a_websocket_runs_under_the_test_client(fake: FakeServer) -> None:
    """With typed payloads as JSON; each run of the application has its own listener."""
    listener = Listener(fake.dsn)
    fanout = Fanout[None](listener)
    app = FastAPI(lifespan=ours.lifespan(listener))

    @app.websocket("/")
    async def serve(socket: WebSocket) -> None:
        await ours.websocket(socket, fanout, [Channel("orders", dict)], None)

    for _ in range(2):
        with TestClient(app) as client, client.websocket_connect("/") as socket:
            assert socket.receive_json()["gap"] == "start"
            fake.notify("orders", '{"id": 1}')
            assert socket.receive_json() == {"channel": "orders", "payload": {"id": 1}}
    assert fanout.channels == frozenset()
