"""The application of docs/celery.md, run by real workers, with forks, time limits and kills."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any, Final

import pytest

from asyncnotify import BlockingListener, BlockingNotifier
from tests.support.machine import scaled
from tests.support.services import ENVIRONMENT
from tests.support.web_servers import LIMIT, SCRIPTS, eventually, sessions, write_files

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from asyncnotify import BlockingStream, Notification

pytest.importorskip("celery")

CELERY: Final = ("worker", "--concurrency=1", "--without-gossip", "--without-mingle")
NAME: Final = {"application_name": "tests"}
OF_MAIN: Final = 2
"""Sessions of the main process: its listener, and the notifier that it has used."""

OF_POOL: Final = 2
"""Sessions of a process of the pool: that notifier, started anew, and the one of the page."""

SECONDS: Final = str(round(scaled(2.0)))
"""The time limit of a task, in which it has to begin to listen."""

END: Final = scaled(20.0)
"""Seconds for the warm shutdown of a worker, of which Celery itself takes five."""

MORE: Final = """
import json, os

from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import worker_process_init

from asyncnotify import WrongLoopError
from celery_app import DSN, BlockingListener, BlockingNotifier, app, notifier

used = BlockingNotifier(DSN)
used.notify("said", "while importing")

@worker_process_init.connect
def start(**_):
    try:
        used.notify("said", "before start()")
    except WrongLoopError:
        used.start()

@app.task(soft_time_limit=int(os.environ["SECONDS"]))
def collect():
    taken = []
    with BlockingListener(DSN) as listener, listener.stream("items") as stream:
        notifier.notify("said", json.dumps(["ready", os.getpid()]))
        while "end" not in taken:
            try:
                taken.append(stream.get(20).payload)
            except SoftTimeLimitExceeded:
                notifier.notify("said", json.dumps(["limit", taken]))
    notifier.notify("said", json.dumps(["taken", taken]))

@app.task(time_limit=int(os.environ["SECONDS"]))
def get_stuck():
    used.notify("said", json.dumps(["ready", os.getpid()]))
    with BlockingListener(DSN) as listener, listener.stream("items") as stream:
        stream.get()
"""

CALL: Final = "import more, sys; getattr(more, sys.argv[1]).delay()"


class Worker:
    """A worker that runs, and what it and its tasks send."""

    def __init__(self, folder: Path, dsn: str, stream: BlockingStream[Notification[str]]) -> None:
        self.dsn = dsn
        self._folder = folder
        self._stream = stream
        self.process: subprocess.Popen[bytes]

    def run(self, app: str, *options: str) -> subprocess.Popen[bytes]:
        """Start it."""
        command = [str(SCRIPTS / "celery"), "-A", app, *CELERY, *options]
        self.process = subprocess.Popen(
            command, cwd=self._folder, env=self._environment, start_new_session=True
        )
        return self.process

    @property
    def _environment(self) -> dict[str, str]:
        paths = os.pathsep.join((ENVIRONMENT["PYTHONPATH"], str(self._folder)))
        given = {"DATABASE_URL": self.dsn, "PYTHONPATH": paths, "SECONDS": SECONDS}
        return {**ENVIRONMENT, **given}

    def call(self, task: str) -> None:
        """Have a task of MORE run."""
        command = [str(SCRIPTS / "python"), "-c", CALL, task]
        subprocess.run(command, cwd=self._folder, env=self._environment, check=True, timeout=LIMIT)

    def next(self) -> str:
        """Return what was sent next, on ``said`` or ``shipped``."""
        return self._stream.get(LIMIT).payload

    def ships(self, order: str, notifier: BlockingNotifier) -> bool:
        """Notify an order; return whether it is shipped, as it is once the worker listens."""
        notifier.notify("orders", order)
        with contextlib.suppress(TimeoutError):
            return self._stream.get(2).payload == order
        return False

    def says(self, what: str) -> Any:
        """Return what a task says next about this."""
        while True:
            with contextlib.suppress(ValueError):
                said = json.loads(self.next())
                if said[0] == what:
                    return said[1]


@pytest.fixture
def notifier(dsn: str) -> Generator[BlockingNotifier]:
    """What sends to the worker."""
    with BlockingNotifier(dsn, server_settings=NAME) as notifier:
        yield notifier


@pytest.fixture
def worker(tmp_path: Path, dsn: str) -> Generator[Worker]:
    """What runs a worker in a folder that has the file of docs/celery.md, and further tasks."""
    write_files("celery.md", tmp_path, r"celery_app\.py")
    (tmp_path / "more.py").write_text(MORE, encoding="utf-8")
    with (
        BlockingListener(dsn, server_settings=NAME) as listener,
        listener.stream("said", "shipped") as stream,
    ):
        worker = Worker(tmp_path, dsn, stream)
        yield worker
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
    eventually(lambda: not sessions(dsn))


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.soak)])
def test_the_application_as_pasted(worker: Worker, notifier: BlockingNotifier, pool: str) -> None:
    """It ships each order that is notified; SIGTERM ends it with all of its sessions."""
    process = worker.run("celery_app", f"--pool={pool}")
    eventually(lambda: worker.ships("42", notifier))
    process.send_signal(signal.SIGTERM)
    assert process.wait(END) == 0
    assert not sessions(worker.dsn)


def test_a_worker_that_cannot_listen_does_not_start(worker: Worker, dsn: str) -> None:
    """It ends, in place of running without hearing anything."""
    worker.dsn = f"{dsn}_missing"
    assert worker.run("celery_app").wait(END) != 0


def test_forks_kills_and_soft_limits(worker: Worker, notifier: BlockingNotifier) -> None:
    """
    What the main process has used is usable in its pool; a soft time limit loses nothing.

    The first process is killed while it waits for a stream. Its sessions end, and the next one,
    forked while the main process listens, works.
    """
    worker.run("more")
    worker.call("get_stuck")
    first = worker.says("ready")
    os.kill(first, signal.SIGKILL)
    worker.call("collect")
    assert worker.says("ready") != first
    notifier.notify("items", "before the limit")
    assert worker.says("limit") == ["before the limit"]
    notifier.notify_many([("items", "after the limit"), ("items", "end")])
    assert worker.says("taken") == ["before the limit", "after the limit", "end"]
    eventually(lambda: worker.ships("43", notifier))
    eventually(lambda: len(sessions(worker.dsn)) == OF_MAIN + OF_POOL)


def test_a_hard_limit(worker: Worker) -> None:
    """
    It ends the sessions of the process, and the process in its place begins with one of its own.

    Here the test ends: that process may wait for ever for a lock of billiard's which the one before
    held when it died, since only its main thread blocks SIGTERM meanwhile.
    """
    worker.run("more")
    worker.call("get_stuck")
    assert worker.says("ready")
    before = sessions(worker.dsn)

    def replaced() -> bool:
        now = sessions(worker.dsn)
        return len(now & before) == OF_MAIN and len(now - before) == 1

    eventually(replaced)
