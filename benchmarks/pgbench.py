"""Runs scripts by pgbench, which comes with the server."""

from __future__ import annotations

import asyncio
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.launcher import PeerError

if TYPE_CHECKING:
    from asyncnotify.testing.server import PostgresServer

_WITHIN = 30.0
_RATE = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)
_COMMENT = re.compile(r"--[^\n]*")


async def transactions(
    server: PostgresServer, script: str, clients: int, *, seconds: int = 1
) -> float:
    """
    Return how many times a second so many clients can run a script.

    Raises:
        PeerError: It failed; the text says why.
    """
    with tempfile.TemporaryDirectory(prefix="asyncnotify-bench-") as directory:
        file = _written(Path(directory, "script.sql"), script)
        options = ("-n", "-M", "prepared", "-T", str(seconds))
        process = await asyncio.create_subprocess_exec(
            server.bin_dir / "pgbench",
            *(*options, "-c", str(clients), "-f", str(file)),
            server.dsn,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(_WITHIN):
                output, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            message = "stalled"
            raise PeerError(message) from None
    return _rate(output.decode(errors="replace"))


def _written(file: Path, script: str) -> Path:
    """Write a script in one line, as pgbench wants a statement."""
    file.write_text(" ".join(_COMMENT.sub("", script).split()), encoding="utf-8")
    return file


def _rate(said: str) -> float:
    found = _RATE.search(said)
    if found is None:
        raise PeerError(said.strip().splitlines()[-1] if said.strip() else "pgbench said nothing")
    return float(found[1])
