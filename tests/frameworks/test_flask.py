"""The application of docs/flask.md, under the servers that the page names."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.machine import scaled
from tests.support.web_servers import (
    SCRIPTS,
    WebServer,
    eventually,
    sessions,
    web_server,
    write_files,
)

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

pytest.importorskip("flask")

FLASK: Final = ("flask", "--app", "flask_app", "run", "--port", "PORT")
GUNICORN: Final = (
    *("gunicorn", "--bind", "127.0.0.1:PORT", "--log-level", "warning"),
    *("--timeout", "600", "--graceful-timeout", "600"),  # nothing passes because of them
)
UWSGI: Final = (
    *("uwsgi", "--http-socket", "127.0.0.1:PORT", "--module", "flask_app:create_app()"),
    *("--master", "--processes", "2", "--threads", "30", "--die-on-term", "--disable-logging"),
)
READY: Final = "this worker serves"
SAYS_SO: Final = f"""
init_of_the_page = post_worker_init


def post_worker_init(worker):
    init_of_the_page(worker)
    print("{READY}", flush=True)
"""
"""What says that no signal is lost: workers of gunicorn miss one that comes while they start."""

AT_ONCE: Final = scaled(10.0)
"""Seconds until a server with open streams has ended; by itself gunicorn would wait for them."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project that has the files of docs/flask.md, and nothing else."""
    write_files("flask.md", tmp_path, r"flask_app\.py", r"gunicorn\.conf\.py")
    return tmp_path


@contextlib.contextmanager
def gunicorn(folder: Path, dsn: str, *options: str, workers: int = 2) -> Generator[WebServer]:
    """Run gunicorn as the page does, with further options; yield once all of its workers serve."""
    pytest.importorskip("gunicorn")
    file = folder / "gunicorn.conf.py"
    file.write_text(file.read_text(encoding="utf-8") + SAYS_SO, encoding="utf-8")
    command = (*GUNICORN, *options, f"--workers={workers}")
    with web_server(folder, dsn, *command) as server:
        eventually(lambda: server.said.count(READY) >= workers)
        yield server


def worker_of(server: WebServer) -> int:
    """Return the process that answers next."""
    return int(server.ask("/orders/0")[1].rpartition(" ")[2])


def end_and_leave_nothing(server: WebServer, number: signal.Signals, dsn: str, count: int) -> None:
    """With so many clients, which get what is sent, a signal ends server, streams and sessions."""
    clients = server.clients(count)
    assert server.ask("/orders/7", "POST")[0] == 202
    assert {client.next() for client in clients} == {("changed", "7")}
    server.end(number, limit=AT_ONCE)
    assert {client.next() for client in clients} == {None}
    eventually(lambda: not sessions(dsn))


def test_the_application_as_pasted(folder: Path, dsn: str) -> None:
    """Events, the cache, a client that leaves, and the health of the listener; Ctrl-C ends it."""
    with web_server(folder, dsn, *FLASK) as server:
        first = server.ask("/orders/42")[1]
        (client,) = server.clients(1)
        assert server.ask("/orders/42", "POST") == (202, "")
        assert client.next() == ("changed", "42")
        assert first.startswith("order 42, as read by process ")
        health = server.health()
        assert (health["state"], len(health["subscriptions"])) == ("connected", 2)
        assert dsn not in json.dumps(health)
        client.leave()
        eventually(lambda: is_forgotten(server))
        end_and_leave_nothing(server, signal.SIGINT, dsn, 20)


def is_forgotten(server: WebServer) -> bool:
    """Send one more, and return whether the client that has left has no stream any more."""
    server.ask("/orders/1", "POST")
    return len(server.health()["subscriptions"]) == 1


def test_one_that_cannot_connect_says_so(folder: Path, dsn: str) -> None:
    """With 503 and the reason, on every route that needs the listener."""
    with web_server(folder, f"{dsn}_missing", *FLASK) as server:
        status, text = server.ask("/events")
        assert status == 503
        assert "does not exist" in json.loads(text)["error"]
        assert server.ask("/health")[0] == 503


def test_of_the_reloader_only_the_process_that_serves_listens(folder: Path, dsn: str) -> None:
    """After a change of a file it is another one, and the sessions of the former are gone."""
    with web_server(folder, dsn, *FLASK, "--debug") as server:
        before = sessions(dsn)
        assert len(before) == 1
        worker = worker_of(server)
        file = folder / "flask_app.py"
        file.write_text(file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        eventually(lambda: server.answers() and worker_of(server) != worker)
        assert len(sessions(dsn) - before) == 1
        eventually(lambda: not sessions(dsn) & before)


@pytest.mark.parametrize("worker", ["gthread", "gevent"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_gunicorn_ends_with_open_streams(
    folder: Path, dsn: str, worker: str, number: signal.Signals
) -> None:
    """Though it waits for all responses: fifty end, with what had been sent."""
    if worker == "gevent":
        pytest.importorskip("gevent")
    with gunicorn(folder, dsn, f"--worker-class={worker}") as server:
        end_and_leave_nothing(server, number, dsn, 50)


def test_a_worker_that_is_replaced_ends_its_streams(folder: Path, dsn: str) -> None:
    """After ``max_requests``; its clients connect to another one, and get a gap."""
    with gunicorn(folder, dsn, "--max-requests=6", workers=1) as server:
        worker = worker_of(server)
        clients = server.clients(3)
        eventually(lambda: worker_of(server) != worker)
        assert {client.next() for client in clients} == {None}
        server.clients(1)


def test_a_worker_that_is_killed_leaves_no_session(folder: Path, dsn: str) -> None:
    """Its successor listens by one of its own; so it is when the master is killed."""
    with gunicorn(folder, dsn, workers=1) as server:
        worker, before = worker_of(server), sessions(dsn)
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: not sessions(dsn) & before)
        eventually(lambda: server.answers() and worker_of(server) != worker)
        assert server.health()["state"] == "connected"
        server.process.kill()
        eventually(lambda: not sessions(dsn))


USED_IN_MASTER: Final = """
import flask_app

flask_app.listener.start()
flask_app.listener.notify("orders", "from the master")
app = flask_app.create_app()
"""


def test_what_the_master_has_used_is_usable_in_its_workers(folder: Path, dsn: str) -> None:
    """A listener that was started, and has sent, before the fork; the master's are its own."""
    (folder / "used.py").write_text(USED_IN_MASTER, encoding="utf-8")
    with gunicorn(folder, dsn, "used:app", workers=1) as server:
        of_master = sessions(dsn) - {server.health()["backend_pid"]}
        assert len(of_master) == 2
        (client,) = server.clients(1)
        server.ask("/orders/1", "POST")
        assert client.next() == ("changed", "1")
        os.kill(worker_of(server), signal.SIGKILL)
        eventually(lambda: sessions(dsn) == of_master)
        assert server.health()["state"] == "connected"
        assert of_master < sessions(dsn)
        server.process.kill()  # nobody is left who could close anything
        eventually(lambda: not sessions(dsn) & of_master)


@pytest.mark.skipif(not (SCRIPTS / "uwsgi").exists(), reason="uWSGI is not installed")
def test_under_uwsgi(folder: Path, dsn: str) -> None:
    """With processes that are forks, and threads, it is the same."""
    with web_server(folder, dsn, *UWSGI) as server:
        end_and_leave_nothing(server, signal.SIGTERM, dsn, 20)
