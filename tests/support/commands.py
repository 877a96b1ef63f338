"""Commands of the command line, each in a process of its own, as users run them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
from typing import IO, TYPE_CHECKING, Any

import pytest

from tests.support.demo_runs import ENVIRONMENT, PYTHON, TIME_LIMIT
from tests.support.expected_text import check_expected

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

__all__ = [
    "TIME_LIMIT",
    "command_line",
    "environment",
    "lines_of",
    "on_terminal",
    "ran",
    "running",
    "shown_until",
    "wait_for",
]

OF_THE_USER = ("ASYNCNOTIFY_DSN", "DATABASE_URL", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE")


def command_line(*arguments: str) -> list[str]:
    """Return what starts a command."""
    return [*PYTHON, "-m", "asyncnotify", *arguments]


def environment(dsn: str | None, others: dict[str, str]) -> dict[str, str]:
    """Return an environment in which nothing but this says where the database is."""
    kept = {name: value for name, value in ENVIRONMENT.items() if name not in OF_THE_USER}
    given = {} if dsn is None else {"ASYNCNOTIFY_DSN": dsn}
    return {**kept, "COLUMNS": "80", **given, **others}


def ran(
    *arguments: str, dsn: str | None = None, text: str | bytes | None = None, **others: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with a text as its standard input."""
    data = text.encode() if isinstance(text, str) else text
    run = subprocess.run(
        command_line(*arguments),
        input=b"" if data is None else data,
        env=environment(dsn, others),
        capture_output=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    return subprocess.CompletedProcess(
        run.args, run.returncode, run.stdout.decode(), run.stderr.decode()
    )


@contextlib.contextmanager
def running(
    *arguments: str, dsn: str | None = None, **others: str
) -> Generator[subprocess.Popen[str]]:
    """Start a command; kill it at the end if it still runs."""
    was = signal.signal(signal.SIGINT, signal.default_int_handler)  # not ignored by the command
    try:
        process = subprocess.Popen(
            command_line(*arguments),
            env=environment(dsn, others),
            stdin=subprocess.PIPE,
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


def wait_for(stream: IO[str] | None, word: str) -> str:
    """Read lines as far as the one that holds a word; return them all."""
    check_expected(word)
    assert stream is not None
    said = ""
    for line in stream:
        said += line
        if word in line:
            return said
    pytest.fail(f"the command ended before it said {word!r}: {said}")


def lines_of(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Return lines of JSON as what they say."""
    return [json.loads(line) for line in lines]


@contextlib.contextmanager
def on_terminal(
    *arguments: str, dsn: str | None = None, **others: str
) -> Generator[tuple[subprocess.Popen[bytes], int]]:
    """Start a command on a terminal of 80 columns; yield it, and our end of the terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command_line(*arguments),
        env=environment(dsn, {"TERM": "xterm-256color", **others}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    with process:
        try:
            yield process, ours
        finally:
            process.kill()
            os.close(ours)


def shown_until(terminal: int, word: str) -> str:
    """Read what a terminal shows until it holds a word, or the command has ended."""
    shown = b""
    with contextlib.suppress(OSError):  # how the other end's closing shows on Linux
        while word.encode() not in shown and (data := os.read(terminal, 4096)):
            shown += data
    return shown.decode()
