"""How soon each end notices that the other has vanished without a word."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from asyncnotify import Keepalive
from asyncnotify.doctor._checks._common import fine
from asyncnotify.doctor._findings import Finding, Severity

if TYPE_CHECKING:
    from asyncnotify.doctor._server import Server

NAME: Final = "keepalive"

_ASK: Final = """
    SELECT pg_catalog.inet_client_addr() IS NULL AS is_socket,
        pg_catalog.current_setting('tcp_keepalives_idle')::pg_catalog.int4 AS idle,
        pg_catalog.current_setting('tcp_keepalives_interval')::pg_catalog.int4 AS interval,
        pg_catalog.current_setting('tcp_keepalives_count')::pg_catalog.int4 AS count,
        pg_catalog.current_setting('tcp_user_timeout') AS user_timeout
"""
_TRY: Final = """
    SELECT pg_catalog.set_config('tcp_keepalives_idle', $1, true)::pg_catalog.int4 AS idle,
        pg_catalog.set_config('tcp_keepalives_interval', $2, true)::pg_catalog.int4 AS interval,
        pg_catalog.set_config('tcp_keepalives_count', $3, true)::pg_catalog.int4 AS count
"""
_LONG: Final = 900
"""Seconds: many firewalls and load balancers forget an idle connection sooner."""


async def look(server: Server) -> list[Finding]:
    """Ask for the server's values, and whether a session may set its own, as a Listener does."""
    [row] = await server.fetch(_ASK)
    if row["is_socket"] or _is_socket(await server.connection()):
        return [fine(NAME, "a Unix socket needs no keepalive")]
    ours = Keepalive()
    wanted = (str(ours.idle), str(ours.interval), str(ours.count))
    [changed] = await server.fetch(_TRY, *wanted)
    seconds = row["idle"] + row["interval"] * row["count"]
    told = (
        f"server: idle {row['idle']} s, {row['count']} probes every {row['interval']} s,"
        f" tcp_user_timeout {row['user_timeout']}"
    )
    if server.is_pooled:
        return [_pooled(told)]
    if tuple(map(str, changed.values())) != wanted:
        title = "the server takes no keepalive for its sessions: one whose client vanished stays"
        cure = "set tcp_keepalives_idle, _interval and _count, where its system knows them"
        return [Finding(NAME, Severity.WARNING, title, (told,), cure)]
    if row["idle"] == 0 or seconds > _LONG:
        return [_of_others(seconds, told)]
    return [fine(NAME, f"the server ends sessions of vanished clients within {seconds} s", told)]


def _of_others(seconds: int, told: str) -> Finding:
    title = (
        "asyncnotify sets keepalive at both ends of its connections; other sessions whose client"
        f" vanished stay for {seconds} s, and may hold the queue"
    )
    cure = "set tcp_keepalives_idle = 10 and tcp_user_timeout = 30s in postgresql.conf"
    return Finding(NAME, Severity.INFO, title, (told,), cure)


def _pooled(told: str) -> Finding:
    title = "half-open exposure: behind a pooler a listener cannot set the server's keepalive"
    cure = "set keepalive in the pooler; keep the heartbeat of Listener, which notices in any case"
    return Finding(NAME, Severity.INFO, title, (told,), cure)


def _is_socket(connection: Any) -> bool:  # noqa: ANN401 - the driver ships no types for it
    transport = getattr(connection, "_transport", None)
    sock = transport.get_extra_info("socket") if transport is not None else None
    return sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6)
