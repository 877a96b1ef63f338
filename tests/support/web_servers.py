"""Web servers in processes of their own, their clients, and the sessions that they have."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg

from tests.support.machine import scaled
from tests.support.ports import kept_port
from tests.support.services import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

LIMIT: Final = scaled(20.0)
"""Seconds until a fact that must come has come."""

SCRIPTS: Final = Path(sys.executable).parent
DOCS: Final = Path(__file__).parents[2] / "docs"
COMPLAINT: Final = re.compile(r"Traceback|Exception ignored|Warning|never (awaited|retrieved)")
SESSIONS: Final = """
    SELECT pid FROM pg_catalog.pg_stat_activity
    WHERE datname = pg_catalog.current_database() AND application_name = 'asyncnotify'
"""


def write_files(page: str, folder: Path, *names: str) -> None:
    """Write files that a page of the documents shows, whose names are given as patterns."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for name in names:
        found = re.findall(rf"^```python\n# ({name})\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        ((file, source),) = found
        (folder / file).write_text(source, encoding="utf-8")


def eventually(fact: Callable[[], bool], limit: float = LIMIT) -> None:
    """Return once this is so."""
    deadline = time.monotonic() + limit
    while not fact():
        assert time.monotonic() < deadline, "this has not become so in time"


def sessions(dsn: str) -> set[int]:
    """Return the backend pids of all sessions of asyncnotify's in a database."""
    with psycopg.connect(dsn, application_name="tests") as connection:
        return {pid for (pid,) in connection.execute(SESSIONS).fetchall()}


class Events:
    """A client that reads Server-Sent Events, in a thread."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
        self._connection.request("GET", "/events")
        self._socket = self._connection.sock
        self._response = self._connection.getresponse()
        self._items: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        kind = ""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            for line in self._response:
                name, _, value = line.decode().strip().partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    self._items.put((kind, json.loads(value)))
        self._response.close()
        self._connection.close()
        self._items.put(None)

    def next(self) -> tuple[str, str] | None:
        """Return the next event as kind and data; None: the response has ended."""
        return self._items.get(timeout=LIMIT)

    def leave(self) -> None:
        """Go away without a word."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class WebServer:
    """A server that runs."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port
        self.lines: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)

    def ask(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Return the status and the text of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        with contextlib.closing(connection):
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def health(self) -> dict[str, Any]:
        """Return what a process that serves says of its listener."""
        status, text = self.ask("/health")
        assert status == 200, text
        found: dict[str, Any] = json.loads(text)
        return found

    def answers(self) -> bool:
        """Return whether somebody listens on the port, and answers."""
        assert self.process.poll() is None, self.said
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.ask("/health")
            return True
        return False

    def clients(self, count: int) -> list[Events]:
        """Return so many clients, each of which has met its first gap."""
        found = [Events(self.port) for _ in range(count)]
        assert {client.next() for client in found} == {("gap", "start")}
        return found

    @property
    def said(self) -> str:
        """All that it has written."""
        return "".join(self.lines)

    def end(self, number: signal.Signals, *, limit: float) -> None:
        """Send the server a signal; it has to end without complaint, within so many seconds."""
        self.process.send_signal(number)
        self.process.wait(limit)
        self._reading.join(LIMIT)
        assert not COMPLAINT.search(self.said), self.said

    def kill(self) -> None:
        """Leave no process of its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def web_server(folder: Path, dsn: str, *command: str, **environment: str) -> Generator[WebServer]:
    """Run a command in a folder, with ``PORT`` put in; yield once it answers."""
    with kept_port() as port, _web_server_at(port, folder, dsn, command, environment) as server:
        yield server


@contextlib.contextmanager
def _web_server_at(
    port: int, folder: Path, dsn: str, command: tuple[str, ...], environment: dict[str, str]
) -> Generator[WebServer]:
    arguments = [part.replace("PORT", str(port)) for part in command]
    with subprocess.Popen(
        [str(SCRIPTS / arguments[0]), *arguments[1:]],
        cwd=folder,
        env={
            **ENVIRONMENT,
            "DATABASE_URL": dsn,
            "PYTHONUNBUFFERED": "1",
            "XDG_RUNTIME_DIR": str(folder),  # where gunicorn has a socket
            **environment,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        server = WebServer(process, port)
        try:
            eventually(server.answers)
            yield server
        finally:
            server.kill()
