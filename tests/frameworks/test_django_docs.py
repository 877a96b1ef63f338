"""The page on Django: its programs, pasted into an empty folder, do what it says."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psycopg
import pytest

from asyncnotify.log import BlockingLog, Log
from tests.support.commands import TIME_LIMIT, wait_for
from tests.support.django_project import MODELS, TABLE, Project
from tests.support.ports import kept_port

pytest.importorskip("django", minversion="5.2")

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

PAGE: Final = (Path(__file__).parents[2] / "docs/django.md").read_text(encoding="utf-8")
TEXTS: Final = re.findall(r"^```text\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def url() -> Iterator[str]:
    """Where a server of the test's is."""
    with kept_port() as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def project(tmp_path: Path, dsn: str) -> Project:
    """A project on the test's database, before what the page says is written into it."""
    return Project(tmp_path, dsn)


def shown(name: str) -> str:
    """Return what the page shows of a file."""
    (text,) = re.findall(rf"^```python\n# {name}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return str(text)


def ended(process: subprocess.Popen[str]) -> str:
    """Press Ctrl-C; return what the process still says, once it has ended."""
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=TIME_LIMIT)[0]
    assert "Traceback" not in rest
    return rest


def test_the_first_program_runs_as_it_is_pasted(project: Project, url: str) -> None:
    """The command and the server say what the page says, and Ctrl-C ends both."""
    text = shown(r"django_app\.py")
    place = project.environment
    for said, real in {
        '"HOST": "localhost"': f'"HOST": "{place["PGHOST"]}", "PORT": {place["PGPORT"]}',
        '"NAME": "postgres"': f'"NAME": "{place["PGDATABASE"]}"',
    }.items():
        assert text.count(said) == 1
        text = text.replace(said, real)
    project.write("django_app.py", text)
    del project.environment["DJANGO_SETTINGS_MODULE"]
    server = ("-m", "uvicorn", "django_app:application", f"--port={url.rpartition(':')[2]}")
    with (
        project.running("django_app.py", "asyncnotify_listen") as command,
        project.running(*server) as web,
    ):
        said = wait_for(command.stdout, "reading everything")
        wait_for(web.stdout, "Uvicorn running on")
        of_command, of_client = TEXTS
        with urlopen(f"{url}/events", timeout=TIME_LIMIT) as events:  # noqa: S310 - http
            read = [events.readline() for _ in range(3)]
            with urlopen(f"{url}/orders/42", timeout=TIME_LIMIT) as answer:  # noqa: S310 - http
                assert answer.status == 202
            read += [events.readline() for _ in range(3)]
            assert b"".join(read).decode().strip() == of_client.strip()
            with urlopen(f"{url}/health", timeout=TIME_LIMIT) as answer:  # noqa: S310 - http
                assert answer.status == 200
            said += wait_for(command.stdout, "has changed")
            # Two threads write the first two lines: in either order, or one into the other
            assert len(said) == len(of_command)
            assert all(line in said for line in of_command.splitlines())
            assert ended(command) == "stopped\n"
            ended(web)
            assert events.read() == b""


def test_the_files_of_a_project_work_together(project: Project, dsn: str) -> None:
    """Its settings, ``asgi.py`` and ``notifications.py``, and the settings behind a pooler."""
    base = (project.path / "web/settings.py").read_text(encoding="utf-8")
    project.write("web/settings.py", base + shown(r"web/settings\.py"))
    project.write("web/asgi.py", shown(r"web/asgi\.py"))
    model = "is_shipped = models.BooleanField(default=False)\n    __str__ = lambda self: 'it'"
    project.write("shop/models.py", MODELS.replace("text = models.TextField()", model))
    project.write("shop/notifications.py", shown(r"shop/notifications\.py"))
    pooled = shown(r"web/pooled_settings\.py")
    pooled = pooled.replace('"PORT": 5432', f'"PORT": {project.environment["PGPORT"]}')
    project.write("web/pooled_settings.py", pooled)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE shop_order (id bigserial PRIMARY KEY, is_shipped bool)")
        connection.execute("INSERT INTO shop_order (is_shipped) VALUES (false)")
        for settings in ("web.settings", "web.pooled_settings"):
            project.environment["DJANGO_SETTINGS_MODULE"] = settings
            check = project.manage("check", "--database", "default")
            assert check.returncode == 0, check.stderr
            with project.running("manage.py", "asyncnotify_listen") as command:
                wait_for(command.stdout, "1 orders to ship")
                connection.execute("NOTIFY orders, '1'")
                wait_for(command.stdout, "to ship: it")
                ended(command)
    with project.running("-m", "uvicorn", "web.asgi:application", "--port=0") as web:
        wait_for(web.stdout, "Uvicorn running on")
        ended(web)


URLS: Final = """
from django.urls import path
from shop.views import change, events

urlpatterns = [path("events", events), path("orders/<int:order>", change)]
"""


def test_clients_of_the_log_resume(project: Project, url: str) -> None:
    """After the migration, which makes the log, a client that comes back gets what it missed."""
    project.write("shop/models.py", "")
    project.write("shop/migrations/__init__.py", "")
    project.write("shop/migrations/0001_log.py", shown(r"shop/migrations/0001_log\.py"))
    project.write("shop/views.py", shown(r"shop/views\.py"))
    project.write("web/urls.py", URLS)
    for _ in range(2):
        migrated = project.manage("migrate", "-v", "0")
        assert migrated.returncode == 0, migrated.stderr
    server = ("-m", "uvicorn", "web.asgi:application", f"--port={url.rpartition(':')[2]}")
    with project.running(*server) as web:
        wait_for(web.stdout, "Uvicorn running on")
        with urlopen(f"{url}/events", timeout=TIME_LIMIT) as events:  # noqa: S310 - http
            ready = [events.readline().decode().strip() for _ in range(4)]
        assert ready[0] == "event: ready"
        for order in (1, 2):
            with urlopen(f"{url}/orders/{order}", timeout=TIME_LIMIT):  # noqa: S310 - http
                pass
        headers = {"Last-Event-ID": ready[1].removeprefix("id: ")}
        again = Request(f"{url}/events", headers=headers)  # noqa: S310 - http
        with urlopen(again, timeout=TIME_LIMIT) as events:  # noqa: S310 - http
            lines = [events.readline().decode().strip() for _ in range(10)]
        assert [line for line in lines if line.startswith("data")][1:] == ['data: "1"', 'data: "2"']
        wrong = Request(f"{url}/events", headers={"Last-Event-ID": "x"})  # noqa: S310 - http
        with pytest.raises(HTTPError, match="400") as refused:
            urlopen(wrong, timeout=TIME_LIMIT)  # noqa: S310 - http
        refused.value.close()
        ended(web)


def test_a_command_consumes_the_log(project: Project, dsn: str) -> None:
    """It gets what is appended, reads by the model, and SIGTERM ends it."""
    for folder in ("shop/management", "shop/management/commands"):
        project.write(f"{folder}/__init__.py", "")
    name = "shop/management/commands/send_mails.py"
    project.write(name, shown(re.escape(name)))
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in (TABLE, *Log("web").statements()):
            connection.execute(statement.encode())
        connection.execute("INSERT INTO shop_order (text) VALUES ('tea')")
    with project.running("manage.py", "send_mails") as command, BlockingLog("web", dsn) as log:
        log.append("orders", "1")
        wait_for(command.stdout, "mail for order 1")
        command.terminate()
        command.communicate(timeout=TIME_LIMIT)
