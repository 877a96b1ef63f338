"""The command that runs the handlers of a project, by a real ``manage.py``."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

from tests.support.commands import TIME_LIMIT, wait_for
from tests.support.django_project import NOTIFICATIONS, SETTINGS, TABLE, Project

pytest.importorskip("django", minversion="5.2")

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Generator
    from pathlib import Path

    from asyncnotify.testing.server import PostgresServer

LISTEN: Final = ("manage.py", "asyncnotify_listen")
LISTENERS: Final = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'asyncnotify'
"""


@pytest.fixture
def project(tmp_path: Path, dsn: str) -> Project:
    """A project on the test's database."""
    return Project(tmp_path, dsn)


def execute(dsn: str, *statements: str) -> list[Any]:
    """Execute statements; return the rows of the last one."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements[:-1]:
            connection.execute(statement.encode())
        cursor = connection.execute(statements[-1].encode())
        return cursor.fetchall() if cursor.description else []


def ended(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> str:
    """Send a signal; return what the process still says, once it has ended well."""
    process.send_signal(number)
    rest = process.communicate(timeout=TIME_LIMIT)[0]
    assert process.returncode == 0, rest
    assert "Traceback" not in rest
    return rest


@contextlib.contextmanager
def changing(file: Path, text: str) -> Generator[None]:
    """Write a file, again and again: the autoreloader compares with what it has seen before."""
    stop, new = threading.Event(), file.with_suffix(".new")

    def write() -> None:
        while not stop.wait(0.5):
            new.write_text(text, encoding="utf-8")
            new.replace(file)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


def test_handlers_use_the_database_also_after_a_restart(
    tmp_path: Path, own_server: PostgresServer
) -> None:
    """Plain ones and async ones, and what reads again: none is left with a dead connection."""
    dsn = own_server.dsn
    project = Project(tmp_path, dsn)
    settings = SETTINGS.replace('"CONN_MAX_AGE": 0', '"CONN_MAX_AGE": None')
    project.write("web/settings.py", settings)
    execute(dsn, TABLE)
    notify = "SELECT pg_notify(name, 'x') FROM unnest(ARRAY['orders', 'news', 'mixed']) AS name"
    with project.running(*LISTEN) as process:
        said = "".join(wait_for(process.stdout, "\n") for _ in range(4))  # in any order
        assert {"plain start 0", "async start 0"} < set(said.splitlines())
        assert "listening on orders, news, mixed\n" in said
        execute(dsn, notify)
        said = "".join(wait_for(process.stdout, " x ") for _ in range(3))
        assert "plain x 1" in said
        own_server.restart()
        said = "".join(wait_for(process.stdout, "reconnect 1") for _ in range(3))
        assert "Traceback" not in said
        execute(dsn, notify)
        said = "".join(wait_for(process.stdout, " x ") for _ in range(3))
        assert "plain x 2" in said
        assert ended(process) == "stopped\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_lets_the_handlers_finish(project: Project, dsn: str, number: int) -> None:
    """What has arrived is handled before the process ends, with the exit status of success."""
    project.write(
        "shop/notifications.py",
        """
import asyncio, os, signal
from asyncnotify.ext.django import on

@on("orders")
async def handle(notification):
    print("begun", notification.payload, flush=True)
    while not os.path.exists("go on"):
        await asyncio.sleep(0.01)  # polls: nothing tells of a file
    print("done", notification.payload, flush=True)
""",
    )
    with project.running(*LISTEN) as process:
        wait_for(process.stdout, "listening on")
        execute(dsn, "SELECT pg_notify('orders', '1'), pg_notify('orders', '2')")
        wait_for(process.stdout, "begun 1")
        process.send_signal(number)
        project.write("go on", "")
        rest = process.communicate(timeout=TIME_LIMIT)[0].splitlines()
        assert rest == ["done 1", "begun 2", "done 2", "stopped"]
        assert process.returncode == 0


def test_a_handler_that_a_signal_interrupts_is_waited_for(project: Project, dsn: str) -> None:
    """The signal comes in the middle of its code, and so in its context."""
    project.write(
        "shop/notifications.py",
        """
import asyncio
import os
import signal
from asyncnotify.ext.django import on

@on("orders")
async def handle(notification):
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.5)  # a run that does not wait has ended by then
    print("finished", flush=True)
""",
    )
    with project.running(*LISTEN) as process:
        wait_for(process.stdout, "listening on")
        execute(dsn, "NOTIFY orders")
        assert process.communicate(timeout=TIME_LIMIT)[0] == "finished\nstopped\n"
        assert process.returncode == 0


def test_a_second_signal_waits_for_no_handler(project: Project, dsn: str) -> None:
    """It ends the process in the middle of a handler that would run for ever."""
    project.write(
        "web/settings.py", SETTINGS.replace('"heartbeat": 1.0', '"close_timeout": 3600.0')
    )
    project.write(
        "shop/notifications.py",
        """
import asyncio
from asyncnotify.ext.django import on

@on("orders")
async def handle(notification):
    print("begun", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("cancelled", flush=True)
""",
    )
    with project.running(*LISTEN) as process:
        wait_for(process.stdout, "listening on")
        execute(dsn, "NOTIFY orders")
        wait_for(process.stdout, "begun")
        process.send_signal(signal.SIGTERM)
        while execute(dsn, LISTENERS) != [(0,)]:  # the first signal has been seen
            pass
        assert ended(process) == "cancelled\nstopped\n"


def test_the_autoreloader_listens_once(project: Project, dsn: str) -> None:
    """Of its two processes one; that is replaced when the code changes, and SIGTERM ends both."""
    execute(dsn, TABLE)
    project.environment["PYTHONWARNINGS"] = "error"
    with project.running(*LISTEN, "--autoreload") as process:
        wait_for(process.stdout, "listening on orders, news, mixed")
        assert execute(dsn, LISTENERS) == [(1,)]
        file = project.path / "shop" / "notifications.py"
        text = file.read_text(encoding="utf-8")
        with changing(file, text.replace('"news"', '"news of today"')):
            wait_for(process.stdout, "listening on orders, news of today, mixed")
        while execute(dsn, LISTENERS) != [(1,)]:  # the server has yet to see the old one's end
            pass
        ended(process)
        while execute(dsn, LISTENERS) != [(0,)]:
            pass


@pytest.mark.parametrize(
    ("notifications", "arguments", "expected"),
    [
        ("", [], "no handler is registered"),
        (NOTIFICATIONS, ["--database", "elsewhere"], "'elsewhere' doesn't exist"),
    ],
    ids=["no handler", "no such alias"],
)
def test_a_mistake_is_told_in_one_line(
    project: Project, notifications: str, arguments: list[str], expected: str
) -> None:
    """As an error of the command, with no traceback."""
    project.write("shop/notifications.py", notifications)
    run = project.manage("asyncnotify_listen", *arguments)
    assert run.returncode == 1
    assert expected in run.stderr
    assert "Traceback" not in run.stderr


def test_a_handler_that_cannot_be_called_is_refused_where_it_is_written(project: Project) -> None:
    """With the line of the app's module in the traceback."""
    project.write(
        "shop/notifications.py",
        "from asyncnotify.ext.django import on\n@on('orders')\ndef handle(a, b): ...\n",
    )
    run = project.manage("asyncnotify_listen")
    assert run.returncode == 1
    assert "notifications.py" in run.stderr
    assert "handler is called with 1 argument" in run.stderr


def test_a_test_of_django_listens_on_the_test_database(project: Project, dsn: str) -> None:
    """The settings are read when they are needed: not the database of the project."""
    project.write("shop/migrations/__init__.py", "")
    project.write(
        "shop/tests.py",
        """
from django.test import TestCase, TransactionTestCase
from asyncnotify import BlockingListener
from asyncnotify.ext.django import close_listeners, connect_arguments, get_listener
from asyncnotify.ext.django import anotify, notify, notify_on_commit

class Sending(TestCase):
    def test_on_commit(self):
        with self.captureOnCommitCallbacks() as callbacks:
            notify_on_commit("orders", "1")
        self.assertEqual(len(callbacks), 1)

class Listening(TransactionTestCase):
    def test_arrives(self):
        self.assertTrue(connect_arguments()["database"].startswith("test_"))
        with BlockingListener(**connect_arguments()) as listener:
            with listener.stream("orders") as stream:
                notify("orders", "1")
                self.assertEqual(stream.get(20).payload, "1")

    async def test_arrives_in_a_coroutine(self):
        listener = await get_listener()
        async with listener.stream("orders") as stream:
            await anotify("orders", "1")
            self.assertEqual((await anext(stream)).payload, "1")
        await close_listeners()
""",
    )
    run = project.manage("test", "-v", "0")
    assert run.returncode == 0, run.stderr
    assert "Ran 3 tests" in run.stderr
