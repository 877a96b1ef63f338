"""What gives many connections few backends: refused, as nothing would ever arrive."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify import (
    BlockingListener,
    ConnectionLost,
    Listener,
    PoolerError,
    RetryScheduled,
    State,
)
from tests.network.observed_listener import WAIT_LIMIT, execute
from tests.support.machine import scaled
from tests.support.multiplexer import Multiplexer
from tests.support.server_features import needs_version

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncnotify import EventStream
    from asyncnotify.testing.server import PostgresServer

SERVE = """
import { PGlite } from "@electric-sql/pglite"
import { PGLiteSocketServer } from "@electric-sql/pglite-socket"
const db = await PGlite.create()
const server = new PGLiteSocketServer({ db, port: 0, host: "127.0.0.1", maxConnections: 10 })
server.addEventListener("listening", (event) => console.log(`port ${event.detail.port}`))
await server.start()
"""
PACKAGES = ("@electric-sql/pglite@0.5.14", "@electric-sql/pglite-socket@0.2.17")
INSTALL_LIMIT = scaled(120.0)  # seconds


async def until(events: EventStream, kind: type) -> Any:
    """Return the next event of this kind."""
    async with asyncio.timeout(WAIT_LIMIT):
        while not isinstance(event := await anext(events), kind):
            pass
    return event


async def test_r59_a_backend_older_than_the_connection_is_suspected(
    pooled_server: PostgresServer,
) -> None:
    """Then a second connection proves that it has the same one: start() says what this is."""
    async with Multiplexer(pooled_server.dsn) as multiplexer:
        await execute(multiplexer.dsn, "SELECT pg_sleep(1)")
        with pytest.raises(PoolerError, match=r"gives all connections the same backend"):
            await Listener(multiplexer.dsn).start()
        with pytest.raises(PoolerError, match=r"gives all connections the same backend"):
            await asyncio.to_thread(BlockingListener(multiplexer.dsn).start)


async def test_r59_a_second_connection_with_the_same_backend_gives_it_away(
    pooled_server: PostgresServer,
) -> None:
    """One that the listener opens for its own notify(); from there on each session is checked."""
    async with Multiplexer(pooled_server.dsn) as multiplexer:
        listener = Listener(multiplexer.dsn)
        events = listener.events()
        async with listener, listener.stream("orders"):
            await listener.notify("orders")
            lost = await until(events, ConnectionLost)
            assert isinstance(lost.cause, PoolerError)
            assert "PGlite" in str(lost.cause)
            failed = await until(events, RetryScheduled)
            assert isinstance(failed.cause, PoolerError)
            assert listener.state is State.DEGRADED


async def test_r59_a_notification_of_our_own_that_does_not_come_back_is_a_sign(
    pooled_server: PostgresServer,
) -> None:
    """Where the backends differ, a check shows that nothing is delivered."""
    async with Multiplexer(pooled_server.dsn, backends=2) as multiplexer:
        listener = Listener(multiplexer.dsn)
        events = listener.events()
        async with listener:
            await listener.listen("orders", print)
            await listener.notify("orders")
            lost = await until(events, ConnectionLost)
            assert isinstance(lost.cause, PoolerError)


async def test_r59_pids_that_are_invented_do_not_hide_it(pooled_server: PostgresServer) -> None:
    """They are not those of the backend, as with a pooler."""
    async with Multiplexer(pooled_server.dsn, own_pids=True) as multiplexer:
        with pytest.raises(PoolerError):
            await Listener(multiplexer.dsn).start()


async def test_r59_an_own_notification_that_comes_back_costs_nothing(
    pooled_server: PostgresServer,
) -> None:
    """No further connection is made, and nothing is asked."""
    needs_version(pooled_server.version, 15, "pg_stat_force_next_flush()")
    count = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    connection = await asyncpg.connect(pooled_server.dsn)

    async def sessions() -> int:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        counted: int = await connection.fetchval(count)
        return counted

    async with asyncio.timeout(WAIT_LIMIT):
        while await connection.fetchval(others):  # they may be counted late, at their end
            pass
    before = await sessions()
    async with Listener(pooled_server.dsn) as listener, listener.stream("orders") as stream:
        for _ in range(3):
            await listener.notify("orders")
            async with asyncio.timeout(WAIT_LIMIT):
                await anext(stream)
        assert await sessions() == before + 2
    await connection.close()


# -- the real one ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pglite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A DSN of PGlite behind its socket server."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("needs node and npm")
    folder: Path = tmp_path_factory.mktemp("pglite")
    command = [npm, "install", "--no-audit", "--no-fund", *PACKAGES]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=INSTALL_LIMIT)
    except subprocess.SubprocessError as error:
        pytest.skip(f"PGlite cannot be installed: {type(error).__name__}")
    (folder / "serve.mjs").write_text(SERVE)
    with subprocess.Popen(
        [node, "serve.mjs"], cwd=folder, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        port = re.fullmatch(r"port (\d+)\n", line)
        assert port is not None, line
        yield f"postgresql://postgres@127.0.0.1:{port[1]}/postgres?sslmode=disable"
        process.kill()


async def test_r59_pglite_behind_its_socket_server_is_refused(pglite: str) -> None:
    """start() says so, or the first notification of our own brings it to light."""
    listener = Listener(pglite)
    events = listener.events()
    try:
        await listener.start()
        await listener.listen("orders", print)
        await listener.notify("orders")
        error = (await until(events, ConnectionLost)).cause
    except PoolerError as refusal:
        error = refusal
    await listener.aclose()
    assert isinstance(error, PoolerError)
    assert "PGlite" in str(error)
