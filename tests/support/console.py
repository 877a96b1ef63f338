"""Sessions of a shell, as documents show them: commands behind ``$``, and what they write."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.commands import TIME_LIMIT, environment, wait_for

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["alike", "played"]

_VARYING = re.compile(r"\d[\d,.:T+-]*")
"""Numbers and times."""


def alike(text: str) -> str:
    """Return a text without what is another one each time."""
    return _VARYING.sub("#", text)


def played(session: str, dsn: str, folder: Path) -> str:
    """
    Run the commands of a session; return it with what they have really written.

    A command with ``&`` at its end has said on standard error that it is ready before the next one
    begins; what it writes to standard output stands at the end.
    """
    environ = _environment(dsn, folder)
    shown, background = "", None
    for line in session.splitlines():
        if not line.startswith("$ "):
            continue
        shown += f"{line}\n"
        command = line.removeprefix("$ ")
        if command.endswith(" &"):
            background = subprocess.Popen(
                ["/bin/sh", "-c", command.removesuffix(" &")],
                env=environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            shown += wait_for(background.stderr, "listening on")
        else:
            shown += _output_of(command, environ)
    if background is not None:
        with background:
            out, err = background.communicate(timeout=TIME_LIMIT)
        shown += err + out
    return shown


def _output_of(command: str, environ: dict[str, str]) -> str:
    run = subprocess.run(
        ["/bin/sh", "-c", command],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    return run.stdout


def _environment(dsn: str, folder: Path) -> dict[str, str]:
    """Return an environment in which ``asyncnotify`` is that of this project."""
    program = folder / "asyncnotify"
    python = shlex.quote(sys.executable)
    program.write_text(f'#!/bin/sh\nexec {python} -m asyncnotify "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return environment(dsn, {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"})
