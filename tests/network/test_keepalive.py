"""TCP keepalive: set at both ends where it can be, and no reason to fail where it cannot."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify import Keepalive, Listener
from asyncnotify._asyncpg.session import ListeningSession
from tests.network.observed_listener import KeptConnections, execute, observing, socket_dsn

if TYPE_CHECKING:
    import asyncio

    from asyncnotify.testing.server import PostgresServer

    Connection = asyncpg.Connection[asyncpg.Record]

GIVEN = Keepalive(idle=7, interval=8, count=9, user_timeout=11)
DEFAULT = Keepalive(idle=10, interval=5, count=3, user_timeout=30)
SERVER_SETTINGS = """
    SELECT current_setting('tcp_keepalives_idle'), current_setting('tcp_keepalives_interval'),
        current_setting('tcp_keepalives_count'), current_setting('tcp_user_timeout')
"""
SERVERS_DEFAULT = ["7200", "75", "9", "0"]  # the system's; as Linux has it
SOCKET_OPTIONS = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
NO_SET_CONFIG = "ON FUNCTION pg_catalog.set_config(text, text, boolean)"

needs_linux = pytest.mark.skipif(
    not all(hasattr(socket, name) for name in SOCKET_OPTIONS),
    reason="the options of the socket are known by other names here",
)


def connection_of(listener: Listener) -> Connection:
    """Return the connection that a listener has opened by itself."""
    lifetime = listener._runs.running()  # noqa: SLF001 - nobody else knows the session
    session = lifetime._session_loop.session  # noqa: SLF001 - as above
    assert isinstance(session, ListeningSession)
    return session._connection  # noqa: SLF001 - as above


def options_of(connection: Connection) -> list[int]:
    """Return what the socket on our side is set to: whether to probe, then as Keepalive has it."""
    transport: asyncio.Transport = connection._transport  # type: ignore[attr-defined] # noqa: SLF001 - as above
    sock = transport.get_extra_info("socket")
    figures = [sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, n)) for n in SOCKET_OPTIONS]
    return [sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), *figures]


async def settings_of(connection: Connection) -> list[str]:
    """Return what the server has made of the socket on its side."""
    row = await connection.fetchrow(SERVER_SETTINGS)
    assert row is not None
    return list(row)


def expected(keepalive: Keepalive) -> tuple[list[int], list[str]]:
    """Return what both are to be."""
    figures = [keepalive.idle, keepalive.interval, keepalive.count]
    ours = [1, *figures, keepalive.user_timeout * 1000]
    return ours, [str(figure) for figure in (*figures, keepalive.user_timeout * 1000)]


@needs_linux
@pytest.mark.parametrize("keepalive", [GIVEN, None], ids=["given", "default"])
async def test_r38_keepalive_is_set_at_both_ends(
    pooled_server: PostgresServer, keepalive: Keepalive | None
) -> None:
    """The listening connection and the notifying one probe the other end, and are probed by it."""
    kept = KeptConnections(pooled_server.dsn)
    given: dict[str, Any] = {} if keepalive is None else {"keepalive": keepalive}
    async with Listener(connect=kept.connect, heartbeat=60, **given) as listener:
        await listener.notify("orders")
        assert len(kept.opened) == 2
        for connection in kept.opened:  # idle, so that it may be asked behind the listener's back
            found = options_of(connection), await settings_of(connection)
            assert found == expected(keepalive or DEFAULT)


@needs_linux
async def test_r38_keepalive_is_set_on_connections_of_its_own(
    pooled_server: PostgresServer,
) -> None:
    """A connection that the listener opens by DSN is treated no differently."""
    async with Listener(pooled_server.dsn, heartbeat=60, keepalive=GIVEN) as listener:
        connection = connection_of(listener)
        found = options_of(connection), await settings_of(connection)
        assert found == expected(GIVEN)


@needs_linux
async def test_keepalive_can_be_left_alone(pooled_server: PostgresServer) -> None:
    """With keepalive=None neither end is touched."""
    untouched = await asyncpg.connect(pooled_server.dsn)
    kept = KeptConnections(pooled_server.dsn)
    async with Listener(connect=kept.connect, heartbeat=60, keepalive=None):
        assert options_of(kept.opened[0]) == options_of(untouched)
        assert await settings_of(kept.opened[0]) == await settings_of(untouched) == SERVERS_DEFAULT
    await untouched.close()


async def test_r38_a_unix_socket_needs_no_keepalive(
    pooled_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Through a Unix socket it listens and notifies all the same, and complains of nothing."""
    caplog.set_level(logging.DEBUG, "asyncnotify")
    listener = Listener(socket_dsn(pooled_server), keepalive=GIVEN)
    async with observing(listener, pooled_server.dsn) as observed, listener.stream("orders") as s:
        await observed.delivers()
        await listener.notify("orders", "by the socket")
        assert (await anext(s)).payload == "by the socket"
    assert "stays as it is" not in caplog.text


async def test_r38_a_server_that_refuses_keepalive_is_listened_to(
    pooled_server: PostgresServer, alice: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the role may not change settings they stay, which is said at DEBUG only."""
    caplog.set_level(logging.DEBUG, "asyncnotify")
    kept = KeptConnections(pooled_server.dsn_for("postgres", user="alice", password=alice))
    await execute(pooled_server.dsn, f"REVOKE EXECUTE {NO_SET_CONFIG} FROM PUBLIC")
    try:
        listener = Listener(connect=kept.connect, heartbeat=60, keepalive=GIVEN)
        async with observing(listener, pooled_server.dsn) as observed:
            await observed.delivers()
            assert await settings_of(kept.opened[0]) == SERVERS_DEFAULT
    finally:
        await execute(pooled_server.dsn, f"GRANT EXECUTE {NO_SET_CONFIG} TO PUBLIC")
    refusals = [r for r in caplog.records if "stay as they are" in r.getMessage()]
    assert {refusal.levelno for refusal in refusals} == {logging.DEBUG}
    assert all("permission denied for function set_config" in r.getMessage() for r in refusals)
