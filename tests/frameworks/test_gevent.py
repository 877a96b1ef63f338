"""Under gevent, which makes greenlets of threads: one loop serves all blocking objects."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.machine import scaled
from tests.support.web_servers import write_files

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gevent") is None, reason="gevent is not installed"
)

LIMIT: Final = scaled(50.0)
"""Seconds for a program that takes one."""

PRELUDE: Final = """
from gevent import monkey
monkey.patch_all()
import sys, threading
import gevent
from asyncnotify import *

dsn = sys.argv[1]
one, two, notifier = BlockingListener(dsn), BlockingListener(dsn), BlockingNotifier(dsn)
"""

TOGETHER: Final = """
handled = []

@two.on("orders", resync=lambda gap: handled.append(gap.reason))
def on_order(n):
    gevent.sleep(0)  # other greenlets run meanwhile
    handled.append(n.payload)
    if len(handled) == 21:
        notifier.notify("done", "from a handler")

payloads = [str(number) for number in range(20)]
with one, two, one.stream("orders", "done") as stream:
    sending = [gevent.spawn(notifier.notify, "orders", payload) for payload in payloads]
    gevent.joinall(sending, raise_error=True)
    received = [stream.get(20).payload for _ in range(21)]
    assert received == [*payloads, "from a handler"], received
    assert handled == ["start", *payloads], handled
    two.close()  # the others go on
    one.notify("orders", "again")
    assert stream.get(20).payload == "again"
    with two:
        notifier.notify("orders", "anew")
        assert stream.get(20).payload == "anew"
notifier.close()
assert "asyncnotify" not in [thread.name for thread in threading.enumerate()]
with notifier:  # after the last one has ended the loop, the next one begins another
    notifier.notify("orders")
"""

REFUSED: Final = """
import asyncio

async def main():
    await asyncio.get_running_loop().run_in_executor(None, start)

def start():
    try:
        one.start()
    except WrongLoopError as error:
        print(error)

asyncio.run(main())
"""

INTERRUPTED: Final = """
import random

COUNT = 1_000

def send():
    for number in range(COUNT):
        notifier.notify("orders", str(number))
        gevent.sleep(random.uniform(0, 0.001))

received = []
with one, notifier, one.stream("orders") as stream:
    sending = gevent.spawn(send)
    while len(received) < COUNT:
        try:
            with gevent.Timeout(random.uniform(0, 0.002)):
                for n in stream:
                    received.append(n.payload)
        except gevent.Timeout:
            pass
    assert received == [str(number) for number in range(COUNT)]
    killed = gevent.spawn(stream.get)
    gevent.sleep(0)  # it waits
    killed.kill()
    gevent.get_hub().threadpool.apply(notifier.notify, ("orders", "from a thread"))
    assert stream.get(20).payload == "from a thread"
"""

FORKED: Final = """
import os

with one, notifier:
    notifier.notify("orders")
    if (child := os.fork()) == 0:
        try:
            notifier.notify("orders")
        except WrongLoopError:
            pass
        notifier.start()
        one.start()
        with one.stream("orders") as stream:
            notifier.notify("orders", "in the child")
            os._exit(stream.get(20).payload != "in the child")
    assert os.waitpid(child, 0)[1] == 0
    assert one.is_connected
    notifier.notify("orders")
"""

UNCLOSED: Final = """
one.start()
two.start()
notifier.notify("orders")
"""


def run(program: str, dsn: str) -> str:
    """Run a program, which has to end without complaint; return what it printed."""
    command = [sys.executable, "-c", PRELUDE + program, dsn]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_two_listeners_and_a_notifier_run_in_one_process(dsn: str) -> None:
    """With handlers and streams; each ends by itself, and the loop with the last of them."""
    run(TOGETHER, dsn)


def test_beside_asyncio_the_start_is_refused(dsn: str) -> None:
    """Two loops cannot run in one thread: the error says so."""
    assert "would keep the event loop of this thread from running" in run(REFUSED, dsn)


def test_the_program_as_pasted(tmp_path: Path, dsn: str) -> None:
    """Hundreds of greenlets, each with a stream of its own."""
    write_files("gevent.md", tmp_path, r"gevent_app\.py")
    ended = subprocess.run(
        [sys.executable, "-W", "error", tmp_path / "gevent_app.py"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env={**os.environ, "DATABASE_URL": dsn},
    )
    assert (ended.stdout, ended.stderr) == ("300 greenlets got order 42\n", "")


def test_greenlets_that_are_interrupted_lose_nothing(dsn: str) -> None:
    """By a Timeout at any point, or by a kill; a thread of gevent's own pool may send as well."""
    run(INTERRUPTED, dsn)


def test_a_fork_starts_anew(dsn: str) -> None:
    """It is refused until then, and the parent goes on."""
    run(FORKED, dsn)


def test_a_program_ends_without_close(dsn: str) -> None:
    """Its sessions end with it."""
    run(UNCLOSED, dsn)
