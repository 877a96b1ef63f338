"""The lock that each notifying transaction takes for its commit, in all databases."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from asyncnotify.doctor._checks._common import fine, first_of, joined, named
from asyncnotify.doctor._findings import Finding, Severity

if TYPE_CHECKING:
    from asyncnotify.doctor._server import Row, Server

NAME: Final = "notify lock"

_LOOK_AGAIN: Final = 0.3
"""Seconds between two looks: commits of a busy server hold the lock for much less."""

_ASK: Final = """
    SELECT l.pid, l.virtualtransaction, l.granted, a.application_name, a.usename::pg_catalog.text,
        a.datname::pg_catalog.text, a.state, a.wait_event,
        extract(epoch FROM pg_catalog.clock_timestamp() - a.state_change)::pg_catalog.float8
            AS seconds,
        pg_catalog.pg_blocking_pids(l.pid) AS blocked_by
    FROM pg_catalog.pg_locks AS l LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.locktype = 'object' AND l.database = 0 AND l.classid = 1262 AND l.objid = 0
    ORDER BY l.granted DESC, l.pid
"""


async def look(server: Server) -> list[Finding]:
    """Look twice for a session that holds the lock: the same transaction must not be there."""
    before = _holders(await server.fetch(_ASK))
    if not before:
        return [fine(NAME, "no commit holds the lock of notifying transactions")]
    await asyncio.sleep(_LOOK_AGAIN)
    rows = await server.fetch(_ASK)
    stuck = [row for key, row in _holders(rows).items() if key in before]
    if not stuck:
        return [fine(NAME, "notifying transactions commit one after another, and none is stuck")]
    server.lock_is_held = True
    return [_of(row, [other for other in rows if not other["granted"]]) for row in stuck]


def _holders(rows: list[Row]) -> dict[tuple[int, str], Row]:
    return {(row["pid"], row["virtualtransaction"]): row for row in rows if row["granted"]}


def _of(holder: Row, waiting: list[Row]) -> Finding:
    pid, is_replica = holder["pid"], holder["wait_event"] == "SyncRep"
    behind = [row["pid"] for row in waiting if pid in row["blocked_by"]]
    waits = " for a synchronous standby" if is_replica else ""
    title = (
        f"the commit of pid {pid} waits{waits} and holds the notify lock: no transaction that"
        " notifies can commit, in any database"
    )
    evidence = [named(holder), f"{len(behind)} waiting behind it: {joined(behind)}"]
    cure = (
        "start the synchronous standby, or take it out of synchronous_standby_names and reload;"
        if is_replica
        else f"find out what pid {pid} waits for (wait_event, its host's disks);"
    )
    cure += (
        f" SELECT pg_cancel_backend({pid}) ends the wait for a standby; the transaction is then"
        " committed on this server only"
    )
    return Finding(NAME, Severity.ERROR, title, first_of(evidence), cure)
