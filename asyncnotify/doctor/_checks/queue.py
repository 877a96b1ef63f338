"""The queue of notifications, and who may keep it from being emptied."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from asyncnotify.doctor._checks._common import fine, first_of, named, needs_monitor
from asyncnotify.doctor._findings import Finding, Severity

if TYPE_CHECKING:
    from asyncnotify.doctor._server import Row, Server

NAME: Final = "queue"

_LOOK_AGAIN: Final = 0.3
_RISING: Final = 0.05
_SERVER_WARNS: Final = 0.5
_USAGE: Final = """
    SELECT pg_catalog.pg_notification_queue_usage() AS usage,
        pg_catalog.current_setting('max_notify_queue_pages', true) AS pages,
        pg_catalog.current_setting('block_size')::pg_catalog.int8 AS page
"""
_SUSPECTS: Final = """
    SELECT pid, application_name, usename::pg_catalog.text, datname::pg_catalog.text, state,
        wait_event, backend_xmin IS NOT NULL AS has_snapshot,
        extract(epoch FROM pg_catalog.clock_timestamp() - coalesce(xact_start, state_change)
            )::pg_catalog.float8 AS seconds
    FROM pg_catalog.pg_stat_activity
    WHERE pid <> pg_catalog.pg_backend_pid() AND backend_type = 'client backend'
        AND (wait_event = 'ClientWrite' OR state LIKE 'idle in transaction%'
            OR xact_start < pg_catalog.clock_timestamp() - interval '60 seconds')
    ORDER BY wait_event = 'ClientWrite' DESC NULLS LAST, coalesce(xact_start, state_change)
"""
_LOG: Final = (
    "the server's log names one that holds it, from 50 % on: WARNING «NOTIFY queue is … full», with"
    " the pid in its DETAIL. End it with SELECT pg_terminate_backend(pid), and let that program"
    " read its connection and end its transactions"
)
_GUESSED: Final = "no view shows how far a listener has read: these are suspects, not proved"


async def look(server: Server) -> list[Finding]:
    """Ask how full the queue is, and look twice for sessions that do not read."""
    [row] = await server.fetch(_USAGE)
    suspects = await server.fetch(_SUSPECTS)
    findings = _fullness(row, suspects)
    if not await server.sees_all():
        findings.append(needs_monitor(NAME, "which sessions may hold the queue"))
    unread = await _unread(server, suspects)
    if unread:
        findings.append(_stuck(unread))
    return findings


def _size(row: Row) -> str:
    pages = row["pages"]
    if pages is None:
        return "of 8 GB, which is fixed before PostgreSQL 17"
    return f"of {int(pages) * row['page'] // 1024} kB (max_notify_queue_pages is {pages})"


def _fullness(row: Row, suspects: list[Row]) -> list[Finding]:
    usage, size = row["usage"], _size(row)
    told = f"pg_notification_queue_usage() is {usage:.4f}, {size}"
    if usage < _RISING:
        return [fine(NAME, "the notification queue is nearly empty", told)]
    severity = Severity.ERROR if usage >= _SERVER_WARNS else Severity.WARNING
    title = f"the notification queue is {usage:.0%} full; when it is full, NOTIFY fails with 54000"
    lines = [f"suspect: {named(one)}" for one in suspects]
    return [Finding(NAME, severity, title, (told, _GUESSED, *first_of(lines)), _LOG)]


async def _unread(server: Server, suspects: list[Row]) -> list[Row]:
    """Return the sessions that are idle, and wait both times for their client to read."""
    before = {row["pid"] for row in suspects if _writes(row)}
    if not before:
        return []
    await asyncio.sleep(_LOOK_AGAIN)
    again = await server.fetch(_SUSPECTS)
    return [row for row in again if _writes(row) and row["pid"] in before]


def _writes(row: Row) -> bool:
    return bool(row["wait_event"] == "ClientWrite" and row["state"] == "idle")


def _stuck(rows: list[Row]) -> Finding:
    title = (
        f"{len(rows)} listening session(s) whose client does not read: the queue fills up behind"
        " them"
    )
    evidence = first_of([named(row) for row in rows])
    return Finding(NAME, Severity.WARNING, title, evidence, _LOG)
