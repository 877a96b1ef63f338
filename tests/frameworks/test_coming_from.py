"""What docs/coming-from shows of other libraries: the old program, and both in one process."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import psycopg
import pytest

from tests.support.commands import wait_for
from tests.support.django_project import SETTINGS, Project
from tests.support.machine import scaled
from tests.support.services import ENVIRONMENT
from tests.support.web import SOON, session_with
from tests.support.web_servers import DOCS, web_server, write_files

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

POSTGRES: Final = "localhost/postgres"
"""Behind the scheme, which SQLAlchemy has another of."""

REDIS: Final = "redis://localhost"
LIMIT: Final = scaled(30.0)
FLAGS: Final = re.MULTILINE | re.DOTALL

PROGRAMS: Final = (
    ("asyncpg-listen.md", "with_asyncpg_listen.py", "asyncpg_listen"),
    ("asyncpg-listen.md", "both_asyncpg_listen.py", "asyncpg_listen"),
    ("psycopg.md", "with_psycopg.py", "psycopg"),
    ("psycopg.md", "with_psycopg2.py", "psycopg2"),
    ("psycopg.md", "with_sqlalchemy.py", "sqlalchemy"),
    ("broadcaster.md", "with_broadcaster.py", "broadcaster"),
    ("broadcaster.md", "both_broadcaster.py", "broadcaster"),
    ("redis.md", "with_redis.py", "redis"),
    ("redis.md", "with_redis_stream.py", "redis"),
    ("redis.md", "both_redis.py", "redis"),
    ("pgqueuer.md", "with_pgqueuer.py", "pgqueuer"),
    ("pgqueuer.md", "both_pgqueuer.py", "pgqueuer"),
)
"""Each with its page, and the library that it needs."""


@contextlib.contextmanager
def redis_server(folder: Path) -> Generator[str]:
    """Run an empty Redis, and return its URL."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    socket = folder / "redis.sock"
    options = ("--port", "0", "--save", "", "--unixsocket", str(socket))
    with subprocess.Popen(
        [program, *options], cwd=folder, encoding="utf-8", stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        try:
            assert any("ready to accept" in line.lower() for line in server.stdout)
            yield f"unix://{socket}"
        finally:
            server.kill()


@pytest.mark.parametrize(("page", "name", "library"), PROGRAMS)
def test_program_prints_what_the_page_says(
    page: str, name: str, library: str, dsn: str, tmp_path: Path
) -> None:
    """A reader finds the code that is to be replaced, and it does what the new code does."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    text = (DOCS / "coming-from" / page).read_text(encoding="utf-8")
    block = rf"^```python\n# {name}\n(.*?)^```\n+```text\n(.*?)^```$"
    ((program, printed),) = re.findall(block, text, FLAGS)
    assert program.count(POSTGRES) + program.count(REDIS)
    with contextlib.ExitStack() as stack:
        program = program.replace(POSTGRES, dsn.partition("://")[2])
        if REDIS in program:
            program = program.replace(REDIS, stack.enter_context(redis_server(tmp_path)))
        (tmp_path / name).write_text(program, encoding="utf-8")
        ended = subprocess.run(
            [sys.executable, name],
            capture_output=True,
            check=False,
            cwd=tmp_path,
            encoding="utf-8",
            env=ENVIRONMENT,
            timeout=LIMIT,
        )
    assert (ended.stderr, ended.stdout) == ("", printed)
    assert ended.returncode == 0


ROOMS: Final = ("rooms_broadcaster.py", "rooms_asyncnotify.py")


async def test_websockets_of_both_services_share_a_room(dsn: str, tmp_path: Path) -> None:
    """What a client of either service sends reaches all clients of its room, in both services."""
    for library in ("broadcaster", "fastapi", "uvicorn", "websockets"):
        pytest.importorskip(library)
    write_files("coming-from/broadcaster.md", tmp_path, *map(re.escape, ROOMS))
    async with contextlib.AsyncExitStack() as stack:
        servers, sessions = [], []
        for name in ROOMS:
            file = tmp_path / name
            text = file.read_text(encoding="utf-8")
            assert text.count(f'"postgresql://{POSTGRES}"') == 1
            file.write_text(text.replace(f"postgresql://{POSTGRES}", dsn), encoding="utf-8")
            command = ("uvicorn", "--port=PORT", f"{file.stem}:app")
            servers.append(stack.enter_context(web_server(tmp_path, dsn, *command)))
            sessions.append(await stack.enter_async_context(session_with(servers[-1].port)))
        sockets = [
            await stack.enter_async_context(session.ws_connect("/rooms/lobby"))
            for session in sessions * 2
        ]
        elsewhere = await stack.enter_async_context(sessions[-1].ws_connect("/rooms/help"))
        for number, sender in enumerate(sockets):
            await sender.send_str(f"hello {number}")
            told = [await socket.receive_str(timeout=SOON) for socket in sockets]
            assert told == [f"hello {number}"] * len(sockets)
        await elsewhere.send_str("only here")
        assert await elsewhere.receive_str(timeout=SOON) == "only here"
        # broadcaster's ends with tracebacks: clients that leave at once unlisten at once
        await asyncio.to_thread(servers[-1].end, signal.SIGTERM, limit=LIMIT)


async def test_a_client_of_the_new_service_is_told_of_a_loss(dsn: str, tmp_path: Path) -> None:
    """After its sessions have ended, a client reads that something is missing, and what follows."""
    for library in ("fastapi", "uvicorn", "websockets"):
        pytest.importorskip(library)
    write_files("coming-from/broadcaster.md", tmp_path, re.escape("rooms_asyncnotify.py"))
    file = tmp_path / "rooms_asyncnotify.py"
    file.write_text(file.read_text("utf-8").replace(f"postgresql://{POSTGRES}", dsn), "utf-8")
    command = ("uvicorn", "--port=PORT", f"{file.stem}:app")
    with web_server(tmp_path, dsn, *command) as server:
        async with (
            session_with(server.port) as session,
            session.ws_connect("/rooms/lobby") as socket,
        ):
            with psycopg.connect(dsn, autocommit=True, application_name="tests") as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name = 'asyncnotify'"
                )
            assert "missing" in await socket.receive_str(timeout=SOON)
            await socket.send_str("later")
            assert await socket.receive_str(timeout=SOON) == "later"
        await asyncio.to_thread(server.end, signal.SIGTERM, limit=LIMIT)


SETTINGS_OF_BOTH: Final = """
INSTALLED_APPS = ["pgtrigger", "pgpubsub", "asyncnotify.ext.django", "orders.apps.OrdersConfig"]
"""
READY: Final = """
from django.apps import AppConfig

class OrdersConfig(AppConfig):
    name = "orders"

    def ready(self):
        import orders.listeners
"""
MIGRATE: Final = """
from pathlib import Path

import django
from django.core.management import call_command

django.setup()
call_command("makemigrations", "orders")
Path("changes.py").rename("orders/migrations/0002_changes.py")
call_command("migrate")
"""
CHANGES: Final = (
    "INSERT INTO orders_order (state, note) VALUES ('new', '')",
    "UPDATE orders_order SET state = 'paid'",
)


def test_both_commands_of_django_print_what_the_page_says(dsn: str, tmp_path: Path) -> None:
    """The triggers of django-pgpubsub and ours tell of the same changes, side by side."""
    for library in ("django", "pgpubsub"):
        pytest.importorskip(library)
    text = (DOCS / "coming-from" / "django-pgpubsub.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"^```python\n# (orders/[\w/.]+)\n(.*?)^```$", text, FLAGS))
    assert [*files] == [
        "orders/models.py",
        "orders/listeners.py",
        "orders/notifications.py",
        "orders/migrations/0002_changes.py",
    ]
    (printed,) = re.findall(r"^```text\n(.*?)^```$", text, FLAGS)
    project = Project(tmp_path, dsn)
    project.environment["PGPUBSUB_USE_PSYCOPG_V3"] = "True"
    project.write("web/settings.py", SETTINGS + SETTINGS_OF_BOTH)
    files["changes.py"] = files.pop("orders/migrations/0002_changes.py")
    files |= {"orders/__init__.py": "", "orders/apps.py": READY, "migrate.py": MIGRATE}
    for name, source in files.items():
        project.write(name, source)
    with project.running("migrate.py") as migrating:
        said = migrating.communicate(timeout=LIMIT)[0]
    assert "Create trigger" in said
    assert "Applying orders.0002_changes... OK" in said
    with (
        project.running("manage.py", "listen", "--worker") as theirs,
        project.running("manage.py", "asyncnotify_listen") as ours,
    ):
        wait_for(theirs.stdout, "Listening for notifications")
        wait_for(ours.stdout, "read all orders: start")
        with psycopg.connect(dsn, autocommit=True, application_name="tests") as connection:
            for change in CHANGES:
                connection.execute(change.encode())
        for command in (theirs, ours):
            said = wait_for(command.stdout, "order 1 paid")
            told = [line for line in said.splitlines() if line.startswith("order ")]
            assert told == printed.splitlines()
