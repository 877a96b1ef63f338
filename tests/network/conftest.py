"""Poolers and dead networks: servers that are reached through one or the other."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import Listener
from asyncnotify.testing.server import BinariesNotFoundError, PostgresServer
from tests.network.arrivals import Arrivals
from tests.network.namespaces import RoutedHost, UnavailableError
from tests.network.observed_listener import execute, socket_dsn
from tests.support.pgbouncer import PgBouncer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    NewPooler = Callable[..., PgBouncer]

END_OTHER_SESSIONS = """
    SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid()
"""
SYN_SENT = "02"  # among the states in /proc/net/tcp
PASSWORD = "correct-horse"


@pytest.fixture(scope="session")
def pooled_server(template: PostgresServer) -> Iterator[PostgresServer]:
    """A server to stand behind poolers; it has a Unix socket in its data directory, too."""
    settings = {"unix_socket_directories": "."}
    hba = ["host all alice 127.0.0.1/32 scram-sha-256"]
    with PostgresServer(template=template, settings=settings, hba=hba) as server:
        yield server


@pytest.fixture
def new_pooler(pooled_server: PostgresServer) -> Iterator[NewPooler]:
    """Call it to have a PgBouncer before that server; it takes PgBouncer's arguments."""
    with ExitStack() as poolers:

        def new(**options: Any) -> PgBouncer:
            try:
                return poolers.enter_context(PgBouncer(pooled_server, **options))
            except BinariesNotFoundError as error:
                pytest.skip(str(error))

        yield new


@pytest_asyncio.fixture
async def server(
    pooled_server: PostgresServer,
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection past all poolers."""
    connection = await asyncpg.connect(pooled_server.dsn)
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def arrivals(
    pooled_server: PostgresServer, server: asyncpg.Connection[asyncpg.Record]
) -> AsyncIterator[Arrivals]:
    """What arrives past all poolers."""
    arrivals = Arrivals(server)
    async with Listener(pooled_server.dsn) as listener:
        await arrivals.listen(listener)
        yield arrivals


@pytest_asyncio.fixture
async def alice(pooled_server: PostgresServer) -> AsyncIterator[str]:
    """A role of this name, without privileges, that needs this password."""
    await execute(pooled_server.dsn, f"CREATE ROLE alice LOGIN PASSWORD '{PASSWORD}'")
    yield PASSWORD
    await execute(pooled_server.dsn, "DROP ROLE alice")


@pytest.fixture(scope="session")
def routed_host() -> Iterator[RoutedHost]:
    """A host that is reached through a router of ours."""
    try:
        host = RoutedHost()
    except UnavailableError as error:
        pytest.skip(str(error))
    yield host
    host.close()


@pytest.fixture(scope="session")
def remote_server(template: PostgresServer, routed_host: RoutedHost) -> Iterator[PostgresServer]:
    """A server on that host; past the network there is its Unix socket."""
    settings = {
        "listen_addresses": f"127.0.0.1,{routed_host.far}",
        "unix_socket_directories": ".",
    }
    hba = [f"host all all {routed_host.near}/32 trust"]
    server = PostgresServer(template=template, settings=settings, hba=hba)
    try:
        routed_host.host.call(server.start)
        yield server
    finally:
        server.close()


class Remote:
    """That server, the way to it that can be cut, and one past the network."""

    def __init__(self, host: RoutedHost, server: PostgresServer) -> None:
        self.dsn = f"postgresql://postgres@{host.far}:{server.port}/postgres"
        self.local = socket_dsn(server)
        self.cut = host.cut
        self.heal = host.open
        self._port = server.port

    @property
    def dialled(self) -> bool:
        """Whether somebody waits for an answer to his SYN."""
        sockets = Path("/proc/net/tcp").read_text(encoding="ascii")
        return f":{self._port:04X} {SYN_SENT}" in sockets


@pytest_asyncio.fixture
async def remote(routed_host: RoutedHost, remote_server: PostgresServer) -> AsyncIterator[Remote]:
    """The server behind the router, which forwards; sessions that are left in it are ended."""
    remote = Remote(routed_host, remote_server)
    yield remote
    remote.heal()
    await execute(remote.local, END_OTHER_SESSIONS)
