"""How long the server takes to answer, and how much that varies."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Final

from asyncnotify.doctor._checks._common import fine
from asyncnotify.doctor._findings import Finding, Severity

if TYPE_CHECKING:
    from asyncnotify.doctor._server import Server

NAME: Final = "round trip"

_QUESTIONS: Final = 10
_SLOW: Final = 1.0
"""Seconds: a heartbeat has five."""


async def look(server: Server) -> list[Finding]:
    """Ask some times."""
    connection = await server.connection()
    seconds: list[float] = []
    for _ in range(_QUESTIONS):
        began = time.perf_counter()
        await connection.execute("SELECT")
        seconds.append(time.perf_counter() - began)
    median, longest = statistics.median(seconds), max(seconds)
    jitter = statistics.pstdev(seconds)
    told = (
        f"of {_QUESTIONS}: median {median * 1000:.1f} ms, longest {longest * 1000:.1f} ms,"
        f" jitter {jitter * 1000:.1f} ms"
    )
    if longest > _SLOW:
        title = "the server answers slowly: heartbeats may be taken for a dead connection"
        cure = "find out whether the network or the server is slow; else raise heartbeat_timeout"
        return [Finding(NAME, Severity.WARNING, title, (told,), cure)]
    return [fine(NAME, "the server answers quickly", told)]
