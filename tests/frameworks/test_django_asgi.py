"""Async views of Django, in a real server of ASGI, and clients that read, leave, and stay."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import pytest

from asyncnotify.log import Log
from tests.support.commands import TIME_LIMIT, wait_for
from tests.support.django_project import SETTINGS, Project
from tests.support.machine import scaled
from tests.support.ports import kept_port

pytest.importorskip("django", minversion="5.2")

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator, Generator
    from pathlib import Path

    from asyncnotify.testing.server import PostgresServer

WAIT: Final = aiohttp.ClientTimeout(scaled(20.0))
CLIENTS: Final = 20


class Service:
    """A server that runs, and its address."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    def ended(self) -> str:
        """Stop it as a process manager does; return what it says until it has ended well."""
        self.process.send_signal(signal.SIGTERM)
        rest = self.process.communicate(timeout=TIME_LIMIT)[0]
        assert "Traceback" not in rest, rest
        assert self.process.returncode in {0, -signal.SIGTERM}, rest
        return rest


@contextlib.contextmanager
def serving(project: Project, application: str = "application") -> Generator[Service]:
    """Serve the project by uvicorn's command."""
    with kept_port() as port:
        command = ("-m", "uvicorn", f"web.asgi:{application}", f"--port={port}")
        with project.running(*command) as process:
            wait_for(process.stdout, "Uvicorn running on")
            yield Service(process, port)


@pytest.fixture
def project(tmp_path: Path, dsn: str) -> Project:
    """A project on the test's database."""
    return Project(tmp_path, dsn)


async def texts(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """Yield what the events of a response say."""
    async for line in response.content:
        if line.strip():
            yield line.decode().removeprefix("data: ").strip()


async def until_streams(session: aiohttp.ClientSession, service: Service, count: int) -> None:
    """Return once the process has so many subscriptions."""
    while True:
        async with session.get(f"{service.url}/streams") as response:
            if await response.text() == str(count):
                return


@pytest.mark.parametrize("application", ["application", "plain"])
async def test_clients_read_and_leave(project: Project, application: str) -> None:
    """With the lifespan and without: all get what a transaction notifies; who left is forgotten."""
    with serving(project, application) as service:
        async with aiohttp.ClientSession(timeout=WAIT) as session:
            clients = [await session.get(f"{service.url}/events") for _ in range(CLIENTS)]
            streams = [texts(client) for client in clients]
            assert [await anext(stream) for stream in streams] == ["start"] * CLIENTS
            async with session.get(f"{service.url}/orders/42") as response:
                assert response.status == 202
            assert [await anext(stream) for stream in streams] == ["42"] * CLIENTS
            await until_streams(session, service, CLIENTS)
            for client in clients:
                client.close()
            await until_streams(session, service, 0)
        service.ended()


async def test_streams_end_when_the_process_stops(project: Project) -> None:
    """Each response ends as a whole one does, and the server does not wait for its clients."""
    with serving(project) as service:
        async with aiohttp.ClientSession(timeout=WAIT) as session:
            clients = [await session.get(f"{service.url}/events") for _ in range(CLIENTS)]
            streams = [texts(client) for client in clients]
            assert [await anext(stream) for stream in streams] == ["start"] * CLIENTS
            assert "Application shutdown complete" in service.ended()
            assert [await anext(stream, "ended") for stream in streams] == ["ended"] * CLIENTS


async def test_clients_of_a_log_resume(project: Project, dsn: str) -> None:
    """By Last-Event-ID, after a restart of the server, whose end ends their responses."""
    async with Log("web", dsn) as log:
        await log.install()
    last: dict[str, str] = {}
    for order in (41, 42):
        with serving(project) as service:
            async with (
                aiohttp.ClientSession(timeout=WAIT) as session,
                session.get(f"{service.url}/log", headers=last) as response,
            ):
                stream = texts(response)
                seen = [await anext(stream) for _ in range(2)]
                assert seen[1] == "ready"
                if last:
                    seen += [await anext(stream) for _ in range(2)]
                    assert seen[3] == "missed"
                async with session.get(f"{service.url}/log/{order}") as answer:
                    assert answer.status == 202
                seen += [await anext(stream) for _ in range(2)]
                assert seen[-1] == str(order)
                service.ended()
                assert await anext(stream, "ended") == "ended"
        last = {"Last-Event-ID": seen[-2].removeprefix("id: ")}
        async with Log("web", dsn) as log:
            await log.append("orders", "missed")


async def health(session: aiohttp.ClientSession, service: Service, status: int) -> dict[str, Any]:
    """Return what a health check says, once it has this status."""
    while True:
        async with session.get(f"{service.url}/health") as response:
            if response.status == status:
                answer: dict[str, Any] = await response.json()
                return answer


async def test_health_tells_of_an_outage(tmp_path: Path, own_server: PostgresServer) -> None:
    """503 while the server is gone, with what that means; clients get a gap when it is back."""
    with serving(Project(tmp_path, own_server.dsn)) as service:
        async with (
            aiohttp.ClientSession(timeout=WAIT) as session,
            session.get(f"{service.url}/events") as response,
        ):
            stream = texts(response)
            assert await anext(stream) == "start"
            assert (await health(session, service, 200))["status"] == "ok"
            await asyncio.to_thread(own_server.stop)
            assert "being missed" in (await health(session, service, 503))["meaning"]
            await asyncio.to_thread(own_server.start)
            assert (await health(session, service, 200))["reconnects"] == 1
            assert await anext(stream) == "reconnect"
        service.ended()


def test_a_server_does_not_start_with_settings_that_are_wrong(project: Project) -> None:
    """It says which name is wrong: it does not take the application for one without a lifespan."""
    project.write("web/settings.py", f'{SETTINGS}ASYNCNOTIFY["LISTENER"]["hartbeat"] = 5\n')
    with project.running("-m", "uvicorn", "web.asgi:application", "--port=0") as process:
        assert "hartbeat" in process.communicate(timeout=TIME_LIMIT)[0]
        assert process.returncode == 3


def test_a_server_does_not_start_without_its_database(project: Project) -> None:
    """The lifespan says what is wrong in one line, without the password."""
    project.environment |= {"PGDATABASE": "not_there", "PGPASSWORD": "s3cret"}
    with project.running("-m", "uvicorn", "web.asgi:application", "--port=0") as process:
        said: Any = process.communicate(timeout=TIME_LIMIT)[0]
        assert process.returncode == 3
        assert "not_there" in said
        assert "s3cret" not in said
        assert "Traceback" not in said
