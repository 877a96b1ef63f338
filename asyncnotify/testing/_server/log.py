"""Reading the server's log, and waiting for what it says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from asyncnotify.testing._server.errors import ServerTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["await_log", "log_since", "log_size", "log_tail", "wait_until"]

_POLL = 0.005


def await_log(log: Path, text: str, position: int, timeout: float) -> None:
    """Wait until the log has the text, somewhere after so many bytes."""
    if not wait_until(lambda: text in log_since(log, position), timeout):
        operation = f"wait for {text!r}"
        raise ServerTimeoutError(operation, timeout, log_tail(log))


def log_size(log: Path) -> int:
    """Return how many bytes the log has."""
    return log.stat().st_size


def log_since(log: Path, position: int) -> str:
    """Return what the log has after so many bytes."""
    with log.open("rb") as file:
        file.seek(position)
        return file.read().decode(errors="replace").strip()


def log_tail(log: Path, lines: int = 20) -> str:
    """Return the log's last lines."""
    return "\n".join(log_since(log, 0).splitlines()[-lines:])


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Poll until the condition holds, a number of seconds at most; return whether it does."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True
