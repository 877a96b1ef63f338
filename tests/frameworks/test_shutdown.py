"""Web servers stop while clients are connected: all that has begun ends well."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from asyncnotify import Notifier
from tests.support.asgi_servers import WebServer, connected, rest_of, serving

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENTS: Final = 50

APPLICATION: Final = """
import asyncio, contextlib, os

from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from asyncnotify import Listener
from asyncnotify.ext.shutdown import end_streams_on_signal

listener = Listener(os.environ["DATABASE_URL"])
ended = asyncio.Event()


@listener.on("work")
async def work(notification):
    print("got", notification.payload)
    await ended.wait()
    print("handled", notification.payload)


async def lines():
    async with listener.stream("orders", gaps=True) as stream:
        async for item in stream:
            yield f"data: {item}\\n\\n"
    ended.set()


async def events(request):
    return StreamingResponse(lines(), media_type="text/event-stream")


@contextlib.asynccontextmanager
async def lifespan(app):
    line = end_streams_on_signal(listener) if os.environ["LINE"] else contextlib.nullcontext()
    async with listener, line:
        yield
    print("stopped", listener.state)


app = Starlette(routes=[Route("/events", events)], lifespan=lifespan)
"""

UVICORN: Final = ("uvicorn", "app:app", "--port", "{port}")
HYPERCORN: Final = ("hypercorn", "app:app", "--bind", "127.0.0.1:{port}")
GRANIAN: Final = ("granian", "app:app", "--interface", "asgi", "--port", "{port}")
GUNICORN: Final = ("gunicorn", "app:app", "--bind", "127.0.0.1:{port}")

SERVERS: Final[dict[str, tuple[str, ...]]] = {
    "uvicorn": UVICORN,
    "uvicorn, workers": (*UVICORN, "--workers", "2"),
    "uvicorn, reload": (*UVICORN, "--reload"),
    "hypercorn": HYPERCORN,
    "hypercorn, one process": (*HYPERCORN, "--workers", "0"),
    "granian": GRANIAN,
    "granian, workers": (*GRANIAN, "--workers", "2"),
    "gunicorn, uvicorn": (*GUNICORN, "--worker-class", "uvicorn_worker.UvicornWorker"),
    "gunicorn, asgi": (*GUNICORN, "--worker-class", "asgi"),
}
LONG: Final = pytest.mark.soak
STOPS: Final = [
    ("uvicorn", WebServer.terminate),
    ("hypercorn", WebServer.interrupt),
    ("granian", WebServer.terminate),
    ("gunicorn, uvicorn", WebServer.interrupt),
    pytest.param("uvicorn", WebServer.interrupt, marks=LONG),
    pytest.param("uvicorn, workers", WebServer.terminate, marks=LONG),
    pytest.param("uvicorn, workers", WebServer.interrupt, marks=LONG),
    pytest.param("uvicorn, reload", WebServer.terminate, marks=LONG),
    pytest.param("uvicorn, reload", WebServer.interrupt, marks=LONG),
    pytest.param("hypercorn, one process", WebServer.terminate, marks=LONG),
    pytest.param("hypercorn, one process", WebServer.interrupt, marks=LONG),
    pytest.param("granian", WebServer.interrupt, marks=LONG),
    pytest.param("granian, workers", WebServer.terminate, marks=LONG),
    pytest.param("granian, workers", WebServer.interrupt, marks=LONG),
    pytest.param("gunicorn, uvicorn", WebServer.terminate, marks=LONG),
    pytest.param("gunicorn, asgi", WebServer.terminate, marks=LONG),
]
NEEDS: Final = {"gunicorn, uvicorn": ["uvicorn_worker"], "gunicorn, asgi": ["gunicorn.asgi"]}
READY: Final = {"granian": ["Started worker-1"], "granian, workers": ["worker-1", "worker-2"]}
"""What says that a signal is not lost: granian's workers miss one that comes before that."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the application."""
    (tmp_path / "app.py").write_text(APPLICATION)
    return tmp_path


def command_of(server: str) -> tuple[str, ...]:
    """Return a command; skip where it is not installed."""
    command = SERVERS[server]
    for module in (command[0], *NEEDS.get(server, [])):
        pytest.importorskip(module)
    return command


@pytest.mark.parametrize(("name", "stop"), STOPS)
async def test_a_server_stops_while_clients_are_connected(
    dsn: str, folder: Path, name: str, stop: Callable[[WebServer], None]
) -> None:
    """Each of 50 responses ends well, handlers finish what they have, and the status is good."""
    with serving(folder, *command_of(name), DATABASE_URL=dsn, LINE="yes") as server:
        await server.until_said(*READY.get(name, []))
        clients = [connected(server, "/events", b"start") for _ in range(CLIENTS)]
        responses = await asyncio.gather(*clients)
        async with Notifier(dsn) as notifier:
            await notifier.notify_many(("work", str(number)) for number in range(3))
        await server.until_said("got 0")
        stop(server)
        assert {*await asyncio.gather(*map(rest_of, responses))} == {"clean"}
        assert await server.ended() in {0, -signal.SIGTERM}
        assert "stopped closed" in server.output
        assert [f"handled {number}" in server.output for number in range(3)] == [True] * 3
        assert "Traceback" not in server.output


PAGE: Final = Path(__file__).parents[2] / "docs" / "web-servers.md"
PASTED: Final = re.compile(r"^```python\n# web_app\.py\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EVENT: Final = re.compile(r"(?:event|data): .*\w")
SEEN: Final = re.compile(r"prints this.*?^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


async def test_the_service_of_the_page_says_and_does_what_it_shows(dsn: str, folder: Path) -> None:
    """Pasted into a file, with another DSN: what its client sees, and that Ctrl-C ends it."""
    text = PAGE.read_text(encoding="utf-8")
    (source,), (seen,) = PASTED.findall(text), SEEN.findall(text)
    assert source.count("postgresql://localhost/postgres") == 1
    pasted = source.replace("postgresql://localhost/postgres", dsn)
    (folder / "web_app.py").write_text(pasted, encoding="utf-8")
    with serving(folder, *UVICORN[:1], "web_app:app", *UVICORN[2:]) as server:
        client = reader, _ = await connected(server, "/events", b"\r\n\r\n")
        async with Notifier(dsn) as notifier:
            said = await reader.readuntil(b"start")
            await notifier.notify("orders", "42")
            said += await reader.readuntil(b"42")
        assert EVENT.findall(said.decode()) == EVENT.findall(seen)
        healthy = await connected(server, "/health", b'{"state":"connected"}')
        healthy[1].close()
        server.interrupt()
        assert await rest_of(client) == "clean"
        assert await server.ended() == 0


async def test_without_the_line_uvicorn_waits_for_ever(dsn: str, folder: Path) -> None:
    """It says what it waits for, and goes on to serve the client."""
    with serving(folder, *UVICORN, DATABASE_URL=dsn, LINE="") as server:
        reader, writer = await connected(server, "/events", b"start")
        server.terminate()
        await server.until_said("Waiting for connections to close")
        async with Notifier(dsn) as notifier:
            await notifier.notify("orders", "still there")
        await reader.readuntil(b"Notification")
        assert server.process.poll() is None
        writer.close()
        assert await server.ended() in {0, -signal.SIGTERM}


@pytest.mark.soak
async def test_hypercorns_workers_end_responses_when_their_time_is_over(
    dsn: str, folder: Path
) -> None:
    """The parent process tells them by an event, and not by a signal, that they are to stop."""
    command = (*command_of("hypercorn"), "--graceful-timeout", "1")
    with serving(folder, *command, DATABASE_URL=dsn, LINE="yes") as server:
        client = await connected(server, "/events", b"start")
        server.terminate()
        assert (await rest_of(client)).startswith("cut off")
        assert await server.ended() == 0


PRELOADED: Final = """
import asyncio, atexit, contextlib, os

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asyncnotify import BlockingListener, BlockingNotifier, Listener

dsn = os.environ["DATABASE_URL"]
ended, running = Listener(dsn), Listener(dsn)
notifier, blocking = BlockingNotifier(dsn), BlockingListener(dsn)
master = os.getpid()


async def use():
    async with ended:
        await ended.notify("orders", "from the master")


asyncio.run(use())
loop = asyncio.new_event_loop()
loop.run_until_complete(running.start())


@atexit.register
def stop():
    if os.getpid() == master:
        loop.run_until_complete(running.aclose())


notifier.start()
blocking.start()
notifier.notify("orders", "from the master")


def start_anew():
    assert os.getpid() != master
    notifier.start()
    blocking.start()


async def used(request):
    heard = []
    for listener in (ended, running):
        async with listener.stream("orders") as stream:
            await asyncio.to_thread(notifier.notify, "orders", "from the worker")
            heard.append((await anext(stream)).payload)
    await asyncio.to_thread(blocking.notify, "orders", "")
    states = [str(listener.state) for listener in (ended, running, blocking)]
    return PlainTextResponse(" ".join([*heard, *states]))


@contextlib.asynccontextmanager
async def lifespan(app):
    await asyncio.to_thread(start_anew)
    async with ended, running:
        yield
    await asyncio.to_thread(blocking.close)
    await asyncio.to_thread(notifier.close)
    print("stopped")


app = Starlette(routes=[Route("/used", used)], lifespan=lifespan)
"""


async def test_what_gunicorns_master_has_used_is_usable_in_its_workers(
    dsn: str, folder: Path
) -> None:
    """With ``--preload`` it is made before the fork, and here even started: start it anew there."""
    (folder / "app.py").write_text(PRELOADED)
    command = (*command_of("gunicorn, uvicorn"), "--preload")
    with serving(folder, *command, DATABASE_URL=dsn) as server:
        reader, writer = await connected(server, "/used", b"\r\n\r\n")
        said = "from the worker from the worker connected connected connected"
        assert (await reader.readexactly(len(said))).decode() == said
        writer.close()
        server.terminate()
        assert await server.ended() == 0
        assert "stopped" in server.output
        assert "Traceback" not in server.output
