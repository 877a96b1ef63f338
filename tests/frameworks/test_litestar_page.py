"""The applications of docs/litestar.md, as pasted, under uvicorn's command."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Final

import aiohttp
import pytest

from tests.support.machine import scaled
from tests.support.web_servers import (
    Events,
    WebServer,
    eventually,
    sessions,
    web_server,
    write_files,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE: Final = "litestar.md"
DSN: Final = "postgresql://localhost/postgres"
CLIENTS: Final = 50
AT_ONCE: Final = scaled(10.0)
"""Seconds until a server with open streams has ended; uvicorn would wait for ever."""

FILES: Final = ("litestar_app.py", "litestar_log.py")


@pytest.fixture(params=FILES)
def server(request: pytest.FixtureRequest, dsn: str, tmp_path: Path) -> Iterator[WebServer]:
    """Each application of the page, in a folder that has nothing else."""
    write_files(PAGE, tmp_path, request.param)
    file = tmp_path / request.param
    source = file.read_text(encoding="utf-8")
    assert source.count(f'"{DSN}"') == 1
    file.write_text(source.replace(DSN, dsn), encoding="utf-8")
    command = ("uvicorn", f"{file.stem}:app", "--port", "PORT", "--log-level", "warning")
    with web_server(tmp_path, dsn, *command) as server:
        yield server


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_application(server: WebServer, number: signal.Signals, dsn: str) -> None:
    """With fifty clients, which get what is sent, it ends at once, and leaves no session."""
    clients = [Events(server.port) for _ in range(CLIENTS)]
    assert {kind for kind, _ in map(next_of, clients)} <= {"gap", "ready"}
    assert server.ask("/orders", "POST")[0] == 201
    assert {next_of(client) for client in clients} == {("changed", "42")}
    assert json.loads(server.ask("/health")[1])["status"] == "ok"
    server.end(number, limit=AT_ONCE)
    assert {client.next() for client in clients} == {None}
    eventually(lambda: not sessions(dsn))


def next_of(client: Events) -> tuple[str, str]:
    """Return the next event of a client, with data that can be in a set."""
    event = client.next()
    assert event is not None
    kind, data = event
    return kind, data if kind == "changed" else ""


@pytest.mark.parametrize("server", FILES[:1], indirect=True)
async def test_a_web_socket_hears_what_is_notified(server: WebServer) -> None:
    """The plugin's handler for the channel; the socket is closed when the server ends."""
    pytest.importorskip("websockets", reason="uvicorn speaks no WebSocket without it")
    url = f"http://127.0.0.1:{server.port}"
    async with (
        aiohttp.ClientSession(url) as session,
        session.ws_connect("/ws/orders") as socket,
    ):
        await session.post("/orders")
        assert await socket.receive_str(timeout=AT_ONCE) == "42"
        server.process.send_signal(signal.SIGTERM)
        assert (await socket.receive(timeout=AT_ONCE)).type is aiohttp.WSMsgType.CLOSE
    server.process.wait(AT_ONCE)
