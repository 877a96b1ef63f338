"""The programs of docs/fastapi.md and docs/starlette.md, as a reader runs them: by uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp
import pytest

from asyncnotify import Notifier
from asyncnotify.log import Log
from tests.support.machine import scaled
from tests.support.web import CLIENTS, SOON, events, session_with
from tests.support.web_servers import web_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.support.web_servers import WebServer

pytest.importorskip("httpx2")
pytest.importorskip("sse_starlette")
pytest.importorskip("websockets")

DOCS: Final = Path(__file__).parents[2] / "docs"
FILES: Final = {
    "fastapi.md": {
        *("fastapi_app.py", "fastapi_log.py", "fastapi_sockets.py", "test_fastapi_app.py"),
    },
    "starlette.md": {"starlette_app.py"},
    "how-to/browsers.md": {"sse_app.py"},
}
DSN: Final = "postgresql://localhost/postgres"
FILE: Final = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SETTINGS: Final = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""
AT_ONCE: Final = scaled(5.0)
"""Seconds until a service with open streams has ended; uvicorn would wait for ever."""


def files_of(page: str) -> dict[str, str]:
    """Return the files that a page shows, by their names."""
    return dict(FILE.findall((DOCS / page).read_text(encoding="utf-8")))


@pytest.fixture
def project(tmp_path: Path, dsn: str) -> Path:
    """An empty project into which all files have been pasted, with a database."""
    for page in FILES:
        for name, text in files_of(page).items():
            (tmp_path / name).write_text(text.replace(DSN, dsn), encoding="utf-8")
    return tmp_path


@contextlib.asynccontextmanager
async def served(
    project: Path, dsn: str, module: str
) -> AsyncGenerator[tuple[WebServer, aiohttp.ClientSession]]:
    """Run a file by the command uvicorn; have a client."""
    command = ("uvicorn", "--port=PORT", f"{module}:app")
    with web_server(project, dsn, *command) as server:
        async with session_with(server.port) as session:
            yield server, session


async def stop(server: WebServer, number: signal.Signals) -> None:
    """Stop a server with open streams: it ends at once, without complaint."""
    await asyncio.to_thread(server.end, number, limit=AT_ONCE)


def test_the_pages_have_these_files() -> None:
    """Each of them is run by a test below."""
    assert {page: set(files_of(page)) for page in FILES} == FILES


@pytest.mark.parametrize("module", ["fastapi_app", "starlette_app"])
async def test_the_first_program_runs_and_stops(project: Path, dsn: str, module: str) -> None:
    """Fifty clients get what the page says; Ctrl-C ends their responses, and the server."""
    async with (
        served(project, dsn, module) as (server, session),
        contextlib.AsyncExitStack() as stack,
    ):
        clients = [
            await stack.enter_async_context(events(session, "/events")) for _ in range(CLIENTS)
        ]
        assert {(await anext(client)).event for client in clients} == {"gap"}
        async with session.post("/orders/42") as answer:
            assert answer.status == 202
        assert {(await anext(client)).data for client in clients} == {"42"}
        async with session.get("/health") as answer:
            assert (answer.status, (await answer.json())["subscriptions"]) == (200, CLIENTS)
        await stop(server, signal.SIGINT)
        assert [event for client in clients async for event in client] == []


async def test_the_short_program_sends_events_and_stops(project: Path, dsn: str) -> None:
    """A client is told of the start and of a notification from anywhere; SIGTERM ends it."""
    async with (
        Notifier(dsn) as notifier,
        served(project, dsn, "sse_app") as (server, session),
        events(session, "/events") as client,
    ):
        assert (await anext(client)).event == "gap"
        await notifier.notify("orders", "42")
        assert (await anext(client)).data == "42"
        await stop(server, signal.SIGTERM)


async def test_the_program_with_a_log_resumes(project: Path, dsn: str) -> None:
    """A client that comes back gets what it has missed; SIGTERM ends the service."""
    async with Log("web", dsn) as log:
        await log.install()
    async with served(project, dsn, "fastapi_log") as (server, session):
        async with events(session, "/events") as client:
            place = (await anext(client)).id
        async with session.post("/orders/42") as answer:
            assert answer.status == 202
        assert place is not None
        async with events(session, "/events", {"Last-Event-ID": place}) as client:
            assert [(await anext(client)).event, (await anext(client)).data] == ["ready", "42"]
            await stop(server, signal.SIGTERM)


async def test_the_program_with_sockets_asks_who_may_listen(project: Path, dsn: str) -> None:
    """Who has no token is refused; the sockets of the others are closed when the service stops."""
    async with served(project, dsn, "fastapi_sockets") as (server, session):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect("/sockets/user_alice")
        assert caught.value.status == 403
        path = "/sockets/user_alice?token=secret-of-alice"
        async with session.ws_connect(path) as socket:
            assert (await socket.receive_json(timeout=SOON))["gap"] == "start"
            stopping = asyncio.create_task(stop(server, signal.SIGTERM))
            assert (await socket.receive(timeout=SOON)).data == 1012
            await stopping


def test_its_tests_pass(project: Path) -> None:
    """As the page shows them."""
    (project / "pytest.ini").write_text(SETTINGS, encoding="utf-8")
    ran = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "pytest",
            "-q",
            "test_fastapi_app.py",
        ],
        cwd=project,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=SOON,
        check=False,
    )
    assert (ran.returncode, "1 passed" in ran.stdout) == (0, True), ran.stdout + ran.stderr
