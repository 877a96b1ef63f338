"""Under gevent, which makes greenlets of threads."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gevent") is None, reason="gevent is not installed"
)

LIMIT = 50.0

GREENLETS = """
from gevent import monkey
monkey.patch_all()
import sys
from asyncnotify import *

listener, notifier = BlockingListener(sys.argv[1]), BlockingNotifier(sys.argv[1])
with listener, listener.stream("orders") as stream:
    listener.notify("orders", "1")
    assert stream.get(20).payload == "1"
    try:
        notifier.start()
    except ConnectError as error:
        assert "only one BlockingListener or BlockingNotifier" in str(error)
    else:
        raise AssertionError
with notifier:
    notifier.notify("orders")
"""


def test_one_blocking_object_runs_and_a_second_is_refused(dsn: str) -> None:
    """By an error that says so; once the first is closed, the second can start."""
    command = [sys.executable, "-c", GREENLETS, dsn]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
