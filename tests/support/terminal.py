"""A program in a terminal of its own, and what that shows."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Final, Self

import pytest

from tests.support.machine import scaled
from tests.support.services import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable

TIME_LIMIT: Final = scaled(15.0)
HOME: Final = "\x1b[H"
"""What moves the cursor to the corner: a frame begins."""

LEAVE: Final = "\x1b[?1049l"
"""What gives the terminal back the contents that it had before."""

CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class TerminalProgram:
    """
    Runs Python code in a terminal.

    Args:
        code: The program.
        arguments: What it finds in ``sys.argv``.
        columns: The width of the terminal.
        lines: Its height.
    """

    def __init__(self, code: str, *arguments: str, columns: int = 80, lines: int = 24) -> None:
        self._ours, self._theirs = pty.openpty()
        self.resize(columns, lines)
        self.modes_before = termios.tcgetattr(self._theirs)
        self.output = ""
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, *arguments],
            env={**ENVIRONMENT, "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""},
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            start_new_session=True,
            preexec_fn=self._take_terminal,  # noqa: PLW1509 - one call, of the kernel
        )

    def _take_terminal(self) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSCTTY, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size; the program is told by SIGWINCH."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._ours, keys.encode())

    @property
    def modes(self) -> list[object]:
        """The modes of the terminal now."""
        return termios.tcgetattr(self._theirs)

    def until(self, wanted: Callable[[str], object]) -> str:
        """Read until a frame, or its beginning, is as wanted; return it without control codes."""
        deadline = time.monotonic() + TIME_LIMIT
        while time.monotonic() < deadline:
            self._read(0.1)
            frames = [CONTROL.sub("", frame) for frame in self.output.split(HOME)[-3:]]
            for frame in reversed(frames):
                if wanted(frame):
                    return frame
        pytest.fail(f"the terminal never showed that: {self.output[-4_000:]!r}")

    def ended(self) -> int:
        """Wait until the program ends; return its exit status."""
        deadline = time.monotonic() + TIME_LIMIT
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read(0.1)
        while self._read(0.0):
            pass
        return self.process.wait(timeout=scaled(1.0))

    def _read(self, seconds: float) -> bool:
        readable, _, _ = select.select([self._ours], [], [], seconds)
        if readable:
            self.output += os.read(self._ours, 1 << 16).decode(errors="replace")
        return bool(readable)
