"""Whether this is the server that notifications are sent on: a standby, or an old primary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.doctor._checks._common import fine, needs_monitor
from asyncnotify.doctor._findings import Finding, Severity

if TYPE_CHECKING:
    from asyncnotify.doctor._server import Row, Server

NAME: Final = "primary"

_ASK: Final = """
    SELECT pg_catalog.pg_is_in_recovery() AS standby,
        pg_catalog.current_setting('default_transaction_read_only') = 'on' AS read_only,
        pg_catalog.current_setting('synchronous_standby_names') AS names,
        pg_catalog.current_setting('synchronous_commit') AS mode,
        (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_replication
            WHERE sync_state IN ('sync', 'quorum')) AS synchronous
"""
_LOCAL: Final = {"off", "local"}


async def look(server: Server) -> list[Finding]:
    """Ask whether the server is a standby, refuses to write, or lacks its synchronous standby."""
    [row] = await server.fetch(_ASK)
    if row["standby"] and server.is_balanced:
        title = "a standby answers: the load balancer gives questions to it"
        return [Finding(NAME, Severity.INFO, title, ("pg_is_in_recovery() is true",))]
    server.is_standby = row["standby"]
    if row["standby"]:
        title = "the server is a standby: it refuses LISTEN and NOTIFY"
        cure = "connect to the primary: name all hosts, with target_session_attrs=read-write"
        return [Finding(NAME, Severity.ERROR, title, ("pg_is_in_recovery() is true",), cure)]
    findings = [*_read_only(row["read_only"]), *await _synchronous(server, row)]
    return findings or [fine(NAME, "the server is a primary that accepts writes")]


def _read_only(read_only: bool) -> list[Finding]:  # noqa: FBT001 - a value of the server's
    if not read_only:
        return []
    title = "transactions are read-only by default: perhaps an old primary after a failover"
    cure = (
        "find out which server is the primary now; else ALTER SYSTEM, ALTER DATABASE or ALTER ROLE"
        " RESET default_transaction_read_only"
    )
    return [Finding(NAME, Severity.WARNING, title, ("default_transaction_read_only is on",), cure)]


async def _synchronous(server: Server, row: Row) -> list[Finding]:
    if not row["names"] or row["mode"] in _LOCAL or row["synchronous"]:
        return []
    if not await server.sees_all():
        return [needs_monitor(NAME, "whether the synchronous standby is connected")]
    title = (
        "no synchronous standby is connected: every commit that writes waits, and all that notify"
        " wait behind one of them"
    )
    evidence = (
        f"synchronous_standby_names is {row['names']!r}",
        f"synchronous_commit is {row['mode']}",
        "pg_stat_replication has no row with sync_state sync or quorum",
    )
    cure = "start that standby, or set synchronous_standby_names to those that are there and reload"
    return [Finding(NAME, Severity.ERROR, title, evidence, cure)]
