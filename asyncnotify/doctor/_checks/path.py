"""What is between this program and the server: a pooler, a load balancer, a proxy."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from asyncnotify._errors import describe_error
from asyncnotify.doctor._checks._common import fine
from asyncnotify.doctor._findings import Finding, Severity

if TYPE_CHECKING:
    from asyncnotify.doctor._server import Server

NAME: Final = "path"

_ASK: Final = """
    SELECT pg_catalog.pg_backend_pid() AS pid, pg_catalog.inet_client_port() AS port,
        pg_catalog.inet_server_addr()::pg_catalog.text AS server
"""
_EXPOSED: Final = (
    "the keepalive of the pooler's own connection decides how soon a dead server is noticed: set"
    " its tcp_keepalive, tcp_keepidle and tcp_user_timeout; a listener's heartbeat does the rest"
)

_STATEMENT_MODE: Final = "statement pooling mode"
"""What PgBouncer says of a transaction in that mode."""


async def look(server: Server) -> list[Finding]:
    """Compare the backend pid that was told at the start with the server's, and the ports."""
    connection = await server.connection()
    told, port = connection.get_server_pid(), _own_port(connection)
    try:
        [row] = await server.fetch(_ASK)
    except asyncpg.PostgresError as error:
        if not await _allows_no_transaction(server, error):
            raise
        server.is_pooled = True
        title = "a pooler in statement mode is in the path: it allows no transaction"
        cure = "run the doctor past the pooler: without transactions little else can be examined"
        return [Finding(NAME, Severity.WARNING, title, (describe_error(error),), cure)]
    pids = f"backend pid {told} was told at the start, pg_backend_pid() is {row['pid']}"
    if told == row["pid"] and port in {None, row["port"]}:
        return [fine(NAME, "no pooler is in the path", pids)]
    evidence = (pids, f"this end has port {port}, and the server sees {row['port']}")
    return [await _between(server, evidence, is_other=told != row["pid"])]


async def _allows_no_transaction(server: Server, error: asyncpg.PostgresError) -> bool:
    """
    Return whether it is transactions that are refused.

    PgBouncer says so, and ends the connection; asyncpg 0.29 tells only of the end. Then a
    statement without a transaction has to succeed where two transactions have failed.
    """
    if not isinstance(error, asyncpg.ConnectionDoesNotExistError):
        return _STATEMENT_MODE in str(error)
    return await server.accepts_alone("SELECT 1") and not await server.accepts("SELECT 1")


def _own_port(connection: asyncpg.Connection[Any]) -> int | None:
    sock: socket.socket | None = None
    if (transport := getattr(connection, "_transport", None)) is not None:
        sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    return int(sock.getsockname()[1])


async def _between(server: Server, evidence: tuple[str, ...], *, is_other: bool) -> Finding:
    """Return what is between, where either the backend pids or the ports are not the same."""
    if await server.accepts("SHOW pool_version"):
        server.is_pooled = server.is_balanced = True
        title = "Pgpool-II is in the path: questions may be answered by another server"
        evidence = (*evidence, "SHOW pool_version succeeds")
        return Finding(NAME, Severity.INFO, title, evidence, _EXPOSED)
    if is_other:
        server.is_pooled = True
        title = "a connection pooler is in the path"
        return Finding(NAME, Severity.INFO, title, evidence, _EXPOSED)
    title = "something forwards the connection: a proxy, a load balancer or NAT"
    cure = "let what forwards keep idle connections for longer than the heartbeat"
    return Finding(NAME, Severity.INFO, title, evidence, cure)
