"""Who listens: a guess, as no server tells; and an answer, where services report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify import Listener
from asyncnotify.doctor._checks._common import fine, first_of, named, needs_monitor
from asyncnotify.doctor._findings import Finding, Severity
from asyncnotify.ext.reporting import roll_call

if TYPE_CHECKING:
    from asyncnotify.doctor._server import Row, Server
    from asyncnotify.ext.reporting import ServiceReport

NAME: Final = "listeners"

_SHARE: Final = 0.4
"""How much of the check's time starting may take, and again waiting for answers."""

_MANY: Final = 100
_WAKES_FEW: Final = 19
"""The version from which on a NOTIFY wakes only sessions that listen on its channel."""

_ASK: Final = r"""
    SELECT pid, application_name, usename::pg_catalog.text, datname::pg_catalog.text, state,
        wait_event, extract(epoch FROM pg_catalog.clock_timestamp() - state_change
        )::pg_catalog.float8 AS seconds
    FROM pg_catalog.pg_stat_activity
    WHERE datname = pg_catalog.current_database() AND backend_type = 'client backend'
        AND pid <> pg_catalog.pg_backend_pid()
        AND (query ~* '^\s*LISTEN\M' OR application_name = 'asyncnotify')
    ORDER BY backend_start
"""
_GUESS: Final = (
    "a guess: the last statement was LISTEN, or the name is asyncnotify; the server tells nobody"
    " who listens"
)


async def look(server: Server) -> list[Finding]:
    """Count the sessions of this database that seem to listen."""
    rows = await server.fetch(_ASK)
    findings = [_guessed(rows, server.version)]
    if not await server.sees_all():
        findings.append(needs_monitor(NAME, "whose last statement was LISTEN"))
    return findings


def _guessed(rows: list[Row], version: int) -> Finding:
    title = f"{len(rows)} sessions of this database seem to listen"
    evidence = (_GUESS, *first_of([named(row) for row in rows]))
    if len(rows) < _MANY or version >= _WAKES_FEW:
        return fine(NAME, title, *evidence)
    title += f": before PostgreSQL {_WAKES_FEW} each NOTIFY wakes every one of them"
    cure = "let processes share a listener, or put listeners of another kind in another database"
    return Finding(NAME, Severity.WARNING, title, evidence, cure)


async def call(server: Server, channel: str) -> list[Finding]:
    """Ask the services that report on a channel; raises what a Listener and ``roll_call()`` do."""
    start = server.timeout * _SHARE
    async with Listener(server.dsn, start_timeout=start, **server.listener_arguments) as listener:
        wait = min(1.0, server.timeout * _SHARE)
        reports = await roll_call(listener, channel=channel, timeout=wait)
    title = f"{len(reports)} services that report have answered"
    return [Finding(NAME, Severity.INFO, title, first_of([_told(report) for report in reports]))]


def _told(report: ServiceReport) -> str:
    return (
        f"{report.name} on {report.host}, process {report.pid}, backend {report.backend_pid}:"
        f" {report.state}, {report.channel_count} channels, backlog {report.backlog},"
        f" dropped {report.dropped}, gaps {report.gaps}"
    )
