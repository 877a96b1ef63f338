"""How each peer is started, and why it may not be there."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.launcher import PeerProcess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PEERS = Path(__file__).parent / "peers"
_BUILD_TIME = 180.0
_GOPATH = "/usr/share/gocode"  # where Debian's packages put their sources


@dataclass(frozen=True, slots=True)
class Program:
    """
    What runs a peer.

    Attributes:
        command: The beginning of its command line.
        missing: Why it cannot be run; empty if it can.
        environment: Variables on top of ours.
    """

    command: tuple[str, ...] = ()
    missing: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self, dsn: str, **arguments: object) -> PeerProcess:
        """Return a process for this workload, to be entered."""
        return PeerProcess([*self.command, dsn], arguments, self.environment)


def python(module: str, interpreter: str = sys.executable) -> Program:
    """Return a peer written in Python."""
    return Program((interpreter, "-m", f"benchmarks.peers.{module}"))


@functools.cache
def packaged(module: str, package: str) -> Program:
    """Return a peer that needs a package from PyPI."""
    parent = package.partition(".")[0]  # one that is not there is an error for find_spec
    if importlib.util.find_spec(parent) is None or importlib.util.find_spec(package) is None:
        return Program(missing=f"not installed: {package}")
    return python(module)


@functools.cache
def node(script: str, package: str) -> Program:
    """Return a peer that runs on node; NODE_PATH says where its package is."""
    executable = shutil.which("node")
    if executable is None:
        return Program(missing="not installed: node")
    if not succeeds((executable, "-e", f"require({package!r})"))[0]:
        return Program(missing=f"not installed: {package} (npm)")
    return Program((executable, str(_PEERS / script)))


@functools.cache
def go(directory: str) -> Program:
    """Return a peer written in Go, on the libraries that Debian packages."""
    executable = shutil.which("go")
    if executable is None:
        return Program(missing="not installed: go")
    target = _build_directory() / directory
    command = (executable, "build", "-o", str(target), str(_PEERS / directory / "main.go"))
    built, said = succeeds(command, {"GO111MODULE": "off", "GOPATH": _GOPATH})
    return Program((str(target),)) if built else Program(missing=f"not built: {said}")


@functools.cache
def c(source: str) -> Program:
    """Return a peer written in C, on libpq."""
    compiler, config = shutil.which("cc"), shutil.which("pg_config")
    if compiler is None or config is None:
        return Program(missing="not installed: cc with libpq")
    target = _build_directory() / Path(source).stem
    found, headers = succeeds((config, "--includedir"))
    command = (compiler, "-O2", f"-I{headers}", "-o", str(target), str(_PEERS / source), "-lpq")
    built, said = succeeds(command) if found else (False, headers)
    return Program((str(target),)) if built else Program(missing=f"not built: {said}")


@functools.cache
def _build_directory() -> Path:
    """Return a directory for what is compiled; it is removed when this process ends."""
    return Path(_build_directory_owner().name)


@functools.cache
def _build_directory_owner() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="asyncnotify-bench-")


def succeeds(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> tuple[bool, str]:
    """Run a command to its end; return whether it succeeded, and the last line it printed."""
    try:
        run = subprocess.run(  # noqa: S603 - a list of arguments, no shell
            command,
            capture_output=True,
            check=False,
            env={**os.environ, **(environment or {})},
            text=True,
            timeout=_BUILD_TIME,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return False, str(error)
    lines = (run.stdout if run.returncode == 0 else run.stderr).strip().splitlines()
    return run.returncode == 0, lines[-1] if lines else ""
