"""Settings of the server, the database or the role that end sessions of a listener."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from asyncnotify.doctor._checks._common import fine
from asyncnotify.doctor._findings import Finding, Severity

if TYPE_CHECKING:
    from asyncnotify.doctor._server import Server

NAME: Final = "settings"


class _Limit(NamedTuple):
    """A timeout that is off at 0, and hurts if it is shorter than so many seconds."""

    name: str
    seconds: float
    harm: str


_LIMITS: Final = (
    _Limit(
        "idle_session_timeout",
        15.0,
        "a session that listens is idle: the server ends it between two heartbeats, of 10 s",
    ),
    _Limit(
        "transaction_timeout",
        10.0,
        "a commit that waits for the notify lock or a standby counts: the server ends the session",
    ),
    _Limit(
        "statement_timeout",
        1.0,
        "LISTEN, NOTIFY and heartbeats are cancelled when the server is busy",
    ),
    _Limit(
        "tcp_user_timeout",
        5.0,
        "the server ends a session whose network is slow for that long, and each is a Gap",
    ),
)
_ASK: Final = """
    SELECT name, reset_val::pg_catalog.int8 AS milliseconds, source
    FROM pg_catalog.pg_settings
    WHERE name = ANY ($1) AND reset_val::pg_catalog.int8 > 0
"""
_CURE: Final = (
    "raise it for the role that listens: ALTER ROLE … SET {0} = 0; source {1} says where it is set"
)


async def look(server: Server) -> list[Finding]:
    """Ask for the settings with which a session begins."""
    names = [limit.name for limit in _LIMITS]
    found = {row["name"]: row for row in await server.fetch_settings(_ASK, names)}
    findings: list[Finding] = []
    for limit in _LIMITS:
        row = found.get(limit.name)
        if row is not None and row["milliseconds"] < limit.seconds * 1000:
            seconds = row["milliseconds"] / 1000
            title = f"{limit.name} is {seconds:g} s: {limit.harm}"
            told = (f"{limit.name} is {row['milliseconds']} ms, source {row['source']}",)
            cure = _CURE.format(limit.name, row["source"])
            findings.append(Finding(NAME, Severity.WARNING, title, told, cure))
    return findings or [fine(NAME, "no setting ends sessions that listen")]
