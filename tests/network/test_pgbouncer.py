"""The PgBouncer that tests may have: what each verb has done on return, and what it leaves."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from asyncnotify.testing._server.wrapper import states
from asyncnotify.testing.server import (
    BinariesNotFoundError,
    PostgresServer,
    ServerNotRunningError,
    ServerStartError,
)
from tests.network.observed_listener import WAIT_LIMIT, execute, fetchval
from tests.support.machine import scaled
from tests.support.pgbouncer import PgBouncer, PoolMode

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.network.conftest import NewPooler

    Connection = asyncpg.Connection[asyncpg.Record]

DIE = f"""
import os
import sys
sys.path.append({str(Path(__file__).parents[2])!r})  # behind the installed asyncnotify
from tests.support.pgbouncer import PgBouncer
from asyncnotify.testing.server import PostgresServer
pooler = PgBouncer(PostgresServer(port=1))
pooler.start()
print(pooler.pid, pooler.log.parent, flush=True)
os.kill(os.getpid(), {signal.SIGKILL:d})
"""


@asynccontextmanager
async def clients(pooler: PgBouncer) -> AsyncGenerator[tuple[Connection, Connection]]:
    """Have two clients of a pooler; both may have lost their connection at the end."""
    # Named statements would meet each other in a backend that both get
    first = await asyncpg.connect(pooler.dsn, statement_cache_size=0)
    second = await asyncpg.connect(pooler.dsn, statement_cache_size=0)
    yield first, second
    first.terminate()
    second.terminate()


async def backends_of(pair: tuple[Connection, Connection]) -> list[int]:
    """Return the pid of the backend that each client gets, one after the other."""
    return [await client.fetchval("SELECT pg_backend_pid()") for client in pair]


@pytest.mark.parametrize(("mode", "backends"), [("session", 2), ("transaction", 1)])
async def test_the_pool_mode_is_in_force(
    new_pooler: NewPooler, mode: PoolMode, backends: int
) -> None:
    """In session mode a client keeps its backend; in transaction mode the next one gets it."""
    async with clients(new_pooler(pool_mode=mode)) as pair:
        assert len(set(await backends_of(pair))) == backends


async def test_restart_ends_connections_and_keeps_the_port(new_pooler: NewPooler) -> None:
    """restart() ends all connections; it comes back on its port, in another mode if wanted."""
    pooler = new_pooler()
    dsn = pooler.dsn
    async with clients(pooler) as (client, _):
        ended = asyncio.Event()
        client.add_termination_listener(lambda _: ended.set())
        pooler.restart(pool_mode="transaction")
        async with asyncio.timeout(WAIT_LIMIT):
            await ended.wait()
    assert (pooler.dsn, pooler.pool_mode) == (dsn, "transaction")
    async with clients(pooler) as pair:
        assert len(set(await backends_of(pair))) == 1


async def test_reload_changes_the_mode_of_open_connections(new_pooler: NewPooler) -> None:
    """reload() ends no connection; the mode holds for those that are open, too."""
    pooler = new_pooler()
    async with clients(pooler) as pair:
        assert len(set(await backends_of(pair))) == 2
        pooler.reload(pool_mode="transaction")
        await backends_of(pair)  # the last ones in the old mode
        assert len(set(await backends_of(pair))) == 1


async def test_it_outlives_the_server(new_pooler: NewPooler, own_server: PostgresServer) -> None:
    """A server that is away for a while is connected to again."""
    new_pooler()  # skips where there is none
    with PgBouncer(own_server) as pooler:
        assert await fetchval(pooler.dsn, "SELECT 42") == 42
        own_server.restart()
        async with asyncio.timeout(WAIT_LIMIT):
            while not await answers(pooler):  # noqa: ASYNC110 - nobody is told of it
                await asyncio.sleep(0.05)  # polls the pooler


async def answers(pooler: PgBouncer) -> bool:
    """Return whether it has a connection to the server to give."""
    try:
        return bool(await fetchval(pooler.dsn, "SELECT true"))
    except asyncpg.PostgresError:
        return False


async def test_users_need_their_passwords(new_pooler: NewPooler, alice: str) -> None:
    """A role comes in with its password, and with no other."""
    pooler = new_pooler(users={"alice": alice})
    right = pooler.dsn_for("postgres", user="alice", password=alice)
    assert await fetchval(right, "SELECT current_user") == "alice"
    with pytest.raises(asyncpg.PostgresError):
        await execute(pooler.dsn_for("postgres", user="alice", password="wrong"), "SELECT 1")
    with pytest.raises(asyncpg.PostgresError):
        await execute(pooler.dsn_for("postgres", user="bob"), "SELECT 1")


def test_stop_is_idempotent(new_pooler: NewPooler) -> None:
    """A stopped one refuses connections, and may be stopped and closed again."""
    pooler = new_pooler()
    pooler.stop()
    pooler.stop()
    assert not pooler.running
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((pooler.host, pooler.port))
    with pytest.raises(ServerNotRunningError):
        pooler.reload()
    directory = pooler.log.parent
    pooler.close()
    pooler.close()
    assert not directory.exists()


def test_it_never_runs_as_root(new_pooler: NewPooler) -> None:
    """It belongs to an unprivileged user, and nobody else can read the passwords."""
    pooler = new_pooler()
    directory = pooler.log.parent
    assert directory.stat().st_uid != 0
    assert directory.stat().st_mode & 0o077 == 0
    if (process := Path(f"/proc/{pooler.pid}")).exists():
        assert process.stat().st_uid == directory.stat().st_uid


def test_a_killed_owner_leaves_nothing(new_pooler: NewPooler) -> None:
    """When the owner is killed with SIGKILL, it and its directory go within seconds."""
    new_pooler()  # skips where there is none
    script = [sys.executable, "-c", DIE]
    result = subprocess.run(script, capture_output=True, check=False, text=True, timeout=scaled(30))
    assert result.returncode == -signal.SIGKILL, result.stderr
    pid, directory = result.stdout.split()
    deadline = time.monotonic() + WAIT_LIMIT
    while Path(directory).exists() and time.monotonic() < deadline:
        time.sleep(0.01)  # polls: no event tells of it
    assert not Path(directory).exists()
    assert int(pid) not in states()


def test_it_says_what_is_missing(
    pooled_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a program, or with one that is another, the error says so."""
    with pytest.raises(BinariesNotFoundError, match="/nowhere/pgbouncer"):
        PgBouncer(pooled_server, program="/nowhere/pgbouncer").start()
    with pytest.raises(BinariesNotFoundError, match="is it PgBouncer"):
        PgBouncer(pooled_server, program="/bin/echo").start()
    monkeypatch.setattr("tests.support.pgbouncer._PLACES", ())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BinariesNotFoundError, match="package manager"):
        PgBouncer(pooled_server).start()


def test_a_failed_start_shows_the_log(new_pooler: NewPooler) -> None:
    """One that does not start is no riddle: the error holds what it said."""
    with pytest.raises(ServerStartError, match="default_pool_size"):
        new_pooler(settings={"default_pool_size": "many"})


def test_a_given_port_that_is_taken_is_an_error(new_pooler: NewPooler) -> None:
    """A port that was asked for is never swapped for another."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ServerStartError):
        new_pooler(port=taken.getsockname()[1])
