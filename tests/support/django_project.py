"""A project of Django's, in a folder, and what runs in it: each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tests.support.demo_runs import ENVIRONMENT, PYTHON, TIME_LIMIT

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["MODELS", "NOTIFICATIONS", "SETTINGS", "TABLE", "Project"]

TABLE: Final = "CREATE TABLE shop_order (id bigserial PRIMARY KEY, text text NOT NULL)"
"""That of the model: a migration would take a second."""

MANAGE: Final = """
import sys
from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
"""
SETTINGS: Final = """
import os

ALLOWED_HOSTS = ["*"]
ASYNCNOTIFY = {"LISTENER": {"heartbeat": 1.0}}
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ["PGDATABASE"],
        "CONN_MAX_AGE": 0,
        "OPTIONS": {"connect_timeout": 5},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["asyncnotify.ext.django", "shop"]
ROOT_URLCONF = "web.urls"
SECRET_KEY = "for a test"
USE_TZ = True
"""
MODELS: Final = """
from django.db import models

class Order(models.Model):
    text = models.TextField()
"""
NOTIFICATIONS: Final = """
import sys

from asyncnotify.ext.django import on
from shop.models import Order

def say(*words):
    # At once: print() writes each word by itself, and there are several threads
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()

def read_again(gap):
    say("plain", gap.reason, Order.objects.count())

async def read_again_async(gap):
    say("async", gap.reason, await Order.objects.acount())

@on("orders", resync=read_again)
def plain(notification):
    Order.objects.create(text=notification.payload)
    say("plain", notification.payload, Order.objects.count())

@on("news", resync=read_again_async)
async def asynchronous(notification):
    say("async", notification.payload, await Order.objects.acount())

@on("mixed", resync=read_again)
async def mixed(notification):
    say("mixed", notification.payload, await Order.objects.acount())
"""
URLS: Final = """
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

from asyncnotify import Gap
from asyncnotify.ext.django import append, get_listener, get_log, health, notify
from asyncnotify.log import Position

async def lines(stream):
    async with stream:
        async for item in stream:
            text = item.reason if isinstance(item, Gap) else item.payload
            yield f"data: {text}\\n\\n"

async def events(request):
    stream = (await get_listener()).stream("orders", gaps=True)
    return StreamingHttpResponse(lines(stream), content_type="text/event-stream")

async def log_lines(stream):
    async with stream:
        yield f"id: {stream.position}\\ndata: ready\\n\\n"
        async for event in stream:
            yield f"id: {event.position}\\ndata: {event.payload}\\n\\n"

async def log_events(request):
    last = request.headers.get("Last-Event-ID")
    stream = get_log("web").read("orders", after=Position.parse(last) if last else "now")
    return StreamingHttpResponse(log_lines(stream), content_type="text/event-stream")

async def streams(request):
    return HttpResponse(str(len((await get_listener()).stats().subscriptions)))

def change(request, order):
    notify("orders", str(order))
    return HttpResponse(status=202)

def change_in_log(request, order):
    append("web", "orders", str(order))
    return HttpResponse(status=202)

urlpatterns = [
    path("events", events),
    path("health", health),
    path("log", log_events),
    path("log/<int:order>", change_in_log),
    path("orders/<int:order>", change),
    path("streams", streams),
]
"""
ASGI: Final = """
from django.core.asgi import get_asgi_application

from asyncnotify.ext.django import Lifespan

plain = get_asgi_application()
application = Lifespan(plain)
"""


class Project:
    """
    A project, with the app ``shop``.

    Args:
        path: An empty folder.
        dsn: The URL of its database.
    """

    def __init__(self, path: Path, dsn: str) -> None:
        self.path = path
        place = urlsplit(dsn)
        self.environment = {
            **ENVIRONMENT,
            "DJANGO_SETTINGS_MODULE": "web.settings",
            "PGDATABASE": place.path[1:],
            "PGHOST": place.hostname or "",
            "PGPASSWORD": place.password or "",
            "PGPORT": str(place.port),
            "PGUSER": place.username or "",
            "PYTHONPATH": os.pathsep.join([str(path), ENVIRONMENT["PYTHONPATH"]]),
        }
        self.write("manage.py", MANAGE)
        self.write("web/__init__.py", "")
        self.write("web/settings.py", SETTINGS)
        self.write("web/urls.py", URLS)
        self.write("web/asgi.py", ASGI)
        self.write("shop/__init__.py", "")
        self.write("shop/models.py", MODELS)
        self.write("shop/notifications.py", NOTIFICATIONS)

    def write(self, name: str, text: str) -> None:
        """Write a file."""
        file = self.path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ``manage.py`` to its end."""
        return subprocess.run(
            [*PYTHON, "manage.py", *arguments],
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            check=False,
        )

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Generator[subprocess.Popen[str]]:
        """Start a program of Python's; kill it at the end, and its children."""
        with subprocess.Popen(
            [*PYTHON, *arguments],
            cwd=self.path,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # of the autoreloader's processes none is left behind
        ) as process:
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
