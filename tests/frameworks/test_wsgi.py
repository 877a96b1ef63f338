"""
Async views under WSGI: each request has an event loop of its own, which ends with the request.

A BlockingNotifier serves them all. A Notifier belongs to one event loop: used by several at once it
is refused, by an error that says what to use.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Final

import pytest

from tests.support.machine import scaled

LIMIT: Final = scaled(50.0)
"""Seconds for a program that takes two."""

REQUESTS: Final = 60
"""By eight threads at a time, as a WSGI server has them."""

VIEWS: Final = """
import asyncio, json, sys, threading
from concurrent.futures import ThreadPoolExecutor
from asgiref.sync import sync_to_async
from asyncnotify import BlockingListener, BlockingNotifier, Notifier, WrongLoopError

dsn, requests = sys.argv[1], int(sys.argv[2])
notifier = BlockingNotifier(dsn)
of_one_loop = Notifier(dsn)
together = threading.Barrier(2, timeout=20)

async def by_sync_to_async():
    await sync_to_async(notifier.notify)("orders", "1")

async def by_thread():
    await asyncio.to_thread(notifier.notify, "orders", "1")

def plainly():
    notifier.notify("orders", "1")

async def blocking():
    notifier.notify("orders", "1")

async def by_notifier():
    try:
        await of_one_loop.notify("orders", "1")
    finally:
        together.wait()  # both requests run at the same time

ASYNC = {view.__name__: view for view in (by_sync_to_async, by_thread, blocking, by_notifier)}

async def answered(view):
    try:
        await view()
    except WrongLoopError as error:
        return str(error), 500
    return "sent", 200
"""

FLASK: Final = """
from flask import Flask

app = Flask(__name__)

@app.get("/plainly")
def plain_view():
    plainly()
    return "sent", 200

@app.get("/<name>")
async def async_view(name):
    return await answered(ASYNC[name])

def get(name):
    response = app.test_client().get(f"/{name}")
    return response.text
"""

DJANGO: Final = """
import django
from django.conf import settings
from django.http import HttpResponse
from django.test import Client
from django.urls import path

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="for a test")
django.setup()

def plain_view(request):
    plainly()
    return HttpResponse("sent")

async def async_view(request, name):
    text, status = await answered(ASYNC[name])
    return HttpResponse(text, status=status)

urlpatterns = [path("plainly", plain_view), path("<name>", async_view)]

def get(name):
    return Client().get(f"/{name}").content.decode()
"""

ASK: Final = """
answers = {}
with BlockingListener(dsn) as listener, listener.stream("orders") as stream:
    for name in ("plainly", *ASYNC):
        count = 2 if name == "by_notifier" else requests
        with ThreadPoolExecutor(min(count, 8)) as threads:
            answers[name] = list(threads.map(get, [name] * count))
        sent = answers[name].count("sent")
        assert [stream.get(20).payload for _ in range(sent)] == ["1"] * sent
notifier.close()
print(json.dumps(answers))
"""


def answers(framework: str, dsn: str) -> dict[str, list[str]]:
    """Return what was answered to each request, by view: ``sent``, or the text of the error."""
    if importlib.util.find_spec(framework) is None or importlib.util.find_spec("asgiref") is None:
        pytest.skip(f"{framework} is not installed")
    program = VIEWS + {"flask": FLASK, "django": DJANGO}[framework] + ASK
    command = [sys.executable, "-c", program, dsn, str(REQUESTS)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr
    found: dict[str, list[str]] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize("framework", ["flask", "django"])
def test_one_blocking_notifier_serves_all_requests(framework: str, dsn: str) -> None:
    """By sync_to_async() and asyncio.to_thread() in async views, and plainly in others."""
    found = answers(framework, dsn)
    for name in ("by_sync_to_async", "by_thread", "plainly"):
        assert found[name] == ["sent"] * REQUESTS, name
    assert all("sync_to_async" in text for text in found["blocking"])
    refused = [text for text in found["by_notifier"] if text != "sent"]
    assert len(refused) == 1
    assert "async view under WSGI" in refused[0]
    assert "use a BlockingNotifier there" in refused[0]
