"""Runs of the demos, each in a process of its own, and what they have shown."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from asyncnotify.testing._server.wrapper import states
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = [
    "ENVIRONMENT",
    "PYTHON",
    "TIME_LIMIT",
    "Run",
    "assert_nothing_left",
    "outcome_of",
    "started",
]

PACKAGE_PARENT = Path(sys.modules["asyncnotify"].__path__[0]).parent
PATHS = (str(PACKAGE_PARENT), os.environ.get("PYTHONPATH"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, PATHS))}
PYTHON = (sys.executable, "-W", "error")
TIME_LIMIT = scaled(45.0)


class Run(NamedTuple):
    """What a demo has written, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def figures(self) -> dict[str, list[int]]:
        """The rows of the table at the end, without the column of promises."""
        rows = (re.fullmatch(r" {2}(\S.*?) {2,}([\d,]+)(?: +([\d,]+))?.*", n) for n in self.lines)
        return {
            row[1]: [int(figure.replace(",", "")) for figure in row.groups()[1:] if figure]
            for row in rows
            if row is not None
        }

    @property
    def lines(self) -> list[str]:
        """What was shown."""
        return self.out.splitlines()

    @property
    def labels(self) -> list[str]:
        """The labels of what was shown as it happened, in order, repetitions left out."""
        found = (re.match(r" *\d+\.\d{3}  (\S+(?: \S+)?)", line) for line in self.lines)
        labels = [match[1] for match in found if match is not None]
        return [now for was, now in zip(["", *labels], labels, strict=False) if now != was]


@contextlib.contextmanager
def started(*command: str, **environment: str) -> Generator[subprocess.Popen[str], None, None]:
    """Start a Python in which Ctrl-C works, also where we ourselves have been told to ignore it."""
    was = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [*PYTHON, *command],
            env={**ENVIRONMENT, **environment},
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, was)
    with process:
        try:
            yield process
        finally:
            process.kill()


def outcome_of(process: subprocess.Popen[str], said: str = "") -> Run:
    """Wait for a demo to end."""
    out, err = process.communicate(timeout=TIME_LIMIT)
    return Run(process.returncode, said + out, err)


def assert_nothing_left(said: str) -> None:
    """Check that the demo's server is gone, and its port with it."""
    match = re.search(r"ready at 127\.0\.0\.1:(\d+), process (\d+)", said)
    assert match is not None, said
    assert int(match[2]) not in states()
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", int(match[1]))) != 0
