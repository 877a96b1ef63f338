"""The owner's side of the wrapper process: run a program there, learn of its end."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

from asyncnotify.testing._server import wrapper
from asyncnotify.testing._server.errors import PostgresServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncnotify.testing._server.binaries import Account

__all__ = ["WrapperProcess"]

_CLOSE_TIMEOUT = 10.0
_ANSWER_TIMEOUT = 10.0


class WrapperProcess:
    """
    A process that runs programs, one at a time, and owns ``directory``.

    It outlives its owner for as long as it takes to end the program and remove the directory.
    """

    def __init__(self, directory: Path, log: Path, account: Account | None) -> None:
        self._owner = os.getpid()
        self._directory = directory
        self._log = log
        self._account = account
        self._pid: int | None = None
        self._status = 0
        self._answers = b""
        script = str(Path(wrapper.__file__).resolve())
        command = [sys.executable, "-I", "-S", script, str(self._owner), str(directory)]
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                cwd="/",
                start_new_session=True,
            )

    @property
    def pid(self) -> int | None:
        """The process id of the program that runs now, None if there is none."""
        self.wait(0)
        return self._pid

    def spawn(self, argv: Sequence[str | Path]) -> int:
        """Start a program, when none is running; return its process id."""
        request = {
            "argv": [str(word) for word in argv],
            "env": self._environment(),
            "log": str(self._log),
            "cwd": str(self._directory),
            "account": self._account and (self._account.uid, self._account.gid),
        }
        try:
            _pipe(self._process.stdin).write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise self._gone() from None
        answer = self._read_answer(_ANSWER_TIMEOUT)
        if answer is None or answer[0] != "started":
            raise self._gone()
        self._pid = answer[1]
        return answer[1]

    def wait(self, timeout: float) -> int | None:
        """Wait for the program's end, in seconds; return its exit status, None if it still runs."""
        if self._pid is not None:
            answer = self._read_answer(timeout)
            if answer is None:
                return None
            self._pid, self._status = None, answer[1]
        return self._status

    def close(self) -> None:
        """End what runs, remove the directory, and return when that is done. Idempotent."""
        if os.getpid() != self._owner:
            return  # in a fork of the owner, which does not own the wrapper
        _pipe(self._process.stdin).close()
        try:
            self._process.wait(_CLOSE_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _pipe(self._process.stdout).close()
        self._pid = None
        # Only a wrapper that was killed leaves anything.
        shutil.rmtree(self._directory, ignore_errors=True)

    def _read_answer(self, timeout: float) -> tuple[str, int] | None:
        poller = select.poll()
        output = _pipe(self._process.stdout)
        poller.register(output, select.POLLIN)
        while b"\n" not in self._answers:
            if not poller.poll(timeout * 1000):
                return None
            data = output.read(4096)
            if not data:
                return "exited", -9  # the wrapper was killed, and the program with it
            self._answers += data
        line, _, self._answers = self._answers.partition(b"\n")
        word, number = line.decode().split()
        return word, int(number)

    def _environment(self) -> dict[str, str]:
        ours = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))}
        return {**ours, "LC_ALL": "C", "HOME": str(self._directory)}

    def _gone(self) -> PostgresServerError:
        return PostgresServerError("the process that runs the server was killed; make a new server")


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101 - it was asked for
    return pipe
