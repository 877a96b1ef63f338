"""The programs of docs/aiohttp.md, as a reader runs them: by run_app() and by gunicorn."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from asyncnotify.ext.aiohttp import LOG, health
from asyncnotify.ext.aiohttp._lifecycle import CLIENTS as CLIENTS_OF_APP
from tests.support.machine import scaled
from tests.support.ports import kept_port

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import asyncpg

    Client = TestClient[web.Request, web.Application]

pytest.importorskip("aiohttp_sse")

PAGE: Final = Path(__file__).parents[2] / "docs" / "aiohttp.md"
FILES: Final = {
    *("aiohttp_app.py", "aiohttp_authorize.py", "aiohttp_log.py", "aiohttp_parts.py"),
    "test_aiohttp_app.py",
}
DSN: Final = "postgresql://localhost/postgres"
LIMIT: Final = scaled(20.0)
CLIENTS: Final = 50
AT_ONCE: Final = scaled(5.0)
"""Seconds until a service with open streams has ended; aiohttp would wait for 60."""

SETTINGS: Final = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""
COMPLAINT: Final = re.compile(r"Traceback|Exception|Warning|never (awaited|retrieved)")
LISTENING: Final = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'asyncnotify'
"""


def files_of_page() -> dict[str, str]:
    """Return the files that the page shows, by their names."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^```python\n# ([\w/.]+\.py)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return dict(found)


@pytest.fixture
def project(tmp_path: Path, dsn: str) -> Path:
    """An empty project into which all files have been pasted, with a database."""
    for name, text in files_of_page().items():
        (tmp_path / name).write_text(text.replace(DSN, dsn), encoding="utf-8")
    return tmp_path


class Service:
    """A server process, and a client of it."""

    def __init__(
        self, process: asyncio.subprocess.Process, session: aiohttp.ClientSession, log: Path
    ) -> None:
        self.session = session
        self._process = process
        self._log = log

    async def ready(self) -> None:
        """Return once it answers."""
        async with asyncio.timeout(LIMIT):
            while not await self._answers():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)  # polls

    async def _answers(self) -> bool:
        assert self._process.returncode is None, self.said
        with contextlib.suppress(aiohttp.ClientConnectionError):
            async with self.session.get("/health"):
                return True
        return False

    async def stop(self, number: signal.Signals) -> None:
        """Send a signal; return when the process has ended, without complaint."""
        self._process.send_signal(number)
        async with asyncio.timeout(LIMIT):
            await self._process.wait()
        assert self._process.returncode == 0, self.said
        assert not COMPLAINT.search(self.said), self.said

    @property
    def said(self) -> str:
        """What it has printed."""
        return self._log.read_text(encoding="utf-8")


@contextlib.asynccontextmanager
async def served(project: Path, module: str, *gunicorn: str) -> AsyncGenerator[Service]:
    """Run a file of the page, by run_app() or by gunicorn; whatever happens, it ends."""
    with kept_port() as port:
        async with _served_at(port, project, module, gunicorn) as service:
            yield service


@contextlib.asynccontextmanager
async def _served_at(
    port: int, project: Path, module: str, gunicorn: tuple[str, ...]
) -> AsyncGenerator[Service]:
    log = project / "output"
    run = f"from aiohttp import web; import {module} as m; web.run_app(m.app, port={port})"
    command = [*gunicorn, f"--bind=127.0.0.1:{port}", f"{module}:app"] if gunicorn else ["-c", run]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *command),
            cwd=project,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(project), *sys.path]),
                "XDG_RUNTIME_DIR": str(project),  # where gunicorn has a socket
            },
            stdout=output,
            stderr=output,
        )
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            service = Service(process, session, log)
            await service.ready()
            yield service
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def event_of(response: aiohttp.ClientResponse) -> dict[str, str]:
    """Read one server-sent event, past comments."""
    async with asyncio.timeout(LIMIT):
        text = (await response.content.readuntil(b"\r\n\r\n")).decode()
    return dict(line.split(": ", 1) for line in text.splitlines() if line)


async def data_of(response: aiohttp.ClientResponse) -> Any:
    """Read the object of one server-sent event."""
    return json.loads((await event_of(response))["data"])


def test_the_page_has_these_files() -> None:
    """Each of them is run by a test below."""
    assert files_of_page().keys() == FILES


async def test_ctrl_c_ends_the_service_at_once_with_fifty_open_streams(project: Path) -> None:
    """Of both kinds: WebSockets are closed with 1001, events end, and nobody waits."""
    async with served(project, "aiohttp_app") as service, contextlib.AsyncExitStack() as stack:
        session = service.session
        sockets = [
            await stack.enter_async_context(session.ws_connect("/ws/orders"))
            for _ in range(CLIENTS // 2)
        ]
        responses = [
            await stack.enter_async_context(session.get("/events/orders"))
            for _ in range(CLIENTS // 2)
        ]
        for one in sockets:
            assert (await one.receive_json(timeout=LIMIT))["gap"] == "start"
        for response in responses:
            assert (await data_of(response))["reason"] == "start"
        async with session.post("/orders/42") as answer:
            assert answer.status == 202
        assert {(await one.receive_json(timeout=LIMIT))["payload"] for one in sockets} == {"42"}
        assert [await data_of(r) for r in responses] == ["42"] * len(responses)
        began = asyncio.get_running_loop().time()
        stopping = asyncio.create_task(service.stop(signal.SIGINT))
        for one in sockets:
            assert (await one.receive(timeout=LIMIT)).data == aiohttp.WSCloseCode.GOING_AWAY
        for response in responses:
            assert await response.content.read() == b""
        await stopping
        assert asyncio.get_running_loop().time() - began < AT_ONCE


async def test_gunicorn_serves_and_stops(project: Path, admin: asyncpg.Connection[Any]) -> None:
    """
    Each of two workers has a connection of its own, also of an application made before the fork.

    SIGTERM ends both with streams open.
    """
    pytest.importorskip("gunicorn")
    workers = ("--worker-class=aiohttp.GunicornWebWorker", "--workers=2", "--preload")
    async with served(project, "aiohttp_app", "-m", "gunicorn", *workers) as service:
        async with asyncio.timeout(LIMIT):
            while await admin.fetchval(LISTENING) < 2:
                pass
        async with (
            service.session.ws_connect("/ws/orders") as client,
            service.session.get("/events/orders") as response,
        ):
            assert (await client.receive_json(timeout=LIMIT))["gap"] == "start"
            assert (await data_of(response))["reason"] == "start"
            await admin.execute("NOTIFY orders, '42'")
            assert (await client.receive_json(timeout=LIMIT))["payload"] == "42"
            assert await data_of(response) == "42"
            began = asyncio.get_running_loop().time()
            stopping = asyncio.create_task(service.stop(signal.SIGTERM))
            assert (await client.receive(timeout=LIMIT)).data == aiohttp.WSCloseCode.GOING_AWAY
            assert await response.content.read() == b""
            await stopping
            assert asyncio.get_running_loop().time() - began < AT_ONCE


def application_of(project: Path, module: str) -> web.Application:
    """Import a file, and return its application."""
    spec = spec_from_file_location(module, project / f"{module}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    app: web.Application = loaded.app
    return app


@contextlib.asynccontextmanager
async def client_of(project: Path, module: str) -> AsyncGenerator[Client]:
    """Serve the application of a file in this process; at the end, stop as aiohttp does."""
    server = TestServer(application_of(project, module))
    async with asyncio.timeout(LIMIT), TestClient(server) as client:
        yield client


async def test_a_client_that_comes_again_gets_what_it_has_missed(project: Path) -> None:
    """By the id of the last event; one that is of no event of this log is refused."""
    async with client_of(project, "aiohttp_log") as client:
        async with client.get("/events") as response:
            ready = await event_of(response)
            assert ready["event"] == "ready"
        await client.post("/orders/1")
        async with client.get("/events", headers={"Last-Event-ID": ready["id"]}) as response:
            assert (await event_of(response))["event"] == "ready"
            first = await event_of(response)
            assert first["data"] == '"1"'
        await client.post("/orders/2")
        for wrong in ("42", first["id"].replace("web:", "other:")):
            async with client.get("/events", headers={"Last-Event-ID": wrong}) as answer:
                assert answer.status == 400
        response = await client.get("/events", headers={"Last-Event-ID": first["id"]})
        assert (await event_of(response))["event"] == "ready"
        assert await data_of(response) == "2"
        await client.server.close()
        assert await response.content.read() == b""


async def test_the_health_of_a_log_is_asked_of_its_database(project: Path) -> None:
    """By the same handler, with the key of the log."""
    app = application_of(project, "aiohttp_log")
    app.router.add_get("/health", functools.partial(health, key=LOG))
    async with TestClient(TestServer(app)) as client, client.get("/health") as answer:
        assert (answer.status, (await answer.json())["status"]) == (200, "ok")


async def test_clients_of_a_log_that_leave_leave_nothing(project: Path) -> None:
    """Without any event: a response ends when its client has left."""
    app = application_of(project, "aiohttp_log")
    runner = web.AppRunner(app)  # TestServer would cancel the handlers
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with asyncio.timeout(LIMIT), aiohttp.ClientSession() as session:
        for _ in range(CLIENTS):
            response = await session.get(f"http://127.0.0.1:{runner.addresses[0][1]}/events")
            response.close()
        while len(app[CLIENTS_OF_APP]):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)  # polls
        await runner.cleanup()


async def test_a_user_listens_to_her_own_channel(project: Path) -> None:
    """And to no other one; who says nothing of herself is refused too."""
    async with client_of(project, "aiohttp_authorize") as client:
        alice = {"Authorization": "secret-of-alice"}
        async with client.ws_connect("/ws/user_alice", headers=alice) as socket:
            assert (await socket.receive_json())["gap"] == "start"
        for path, headers in (("/ws/user_bob", alice), ("/ws/user_alice", {})):
            async with client.get(path, headers=headers) as answer:
                assert answer.status == 403


async def test_parts_of_an_application_share_its_listener(
    project: Path, admin: asyncpg.Connection[Any]
) -> None:
    """One connection serves the clients of both."""
    async with (
        client_of(project, "aiohttp_parts") as client,
        client.ws_connect("/shop/orders") as one,
        client.ws_connect("/admin/orders") as two,
    ):
        for socket in (one, two):
            assert (await socket.receive_json())["gap"] == "start"
        assert await admin.fetchval(LISTENING) == 1


def test_its_tests_pass(project: Path) -> None:
    """With pytest-aiohttp, and the fake of the plugin."""
    pytest.importorskip("pytest_aiohttp")
    command = ("pytest", "-q", "-p", "asyncnotify.testing.plugin", "-p", "no:anyio")
    (project / "pytest.ini").write_text(SETTINGS, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", *command, "test_aiohttp_app.py"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (ran.returncode, "1 passed" in ran.stdout) == (0, True), ran.stdout + ran.stderr
