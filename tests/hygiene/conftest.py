"""What the tests here share: a guarded server, an error injector, a detector of secrets."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import Connected, Listener
from asyncnotify.testing.proxy import FaultProxy
from asyncnotify.testing.server import PostgresServer
from tests.hygiene.error_injector import ErrorInjector
from tests.hygiene.monitored_listener import MonitoredListener
from tests.hygiene.secret_detector import OURS, PASSWORD, USER, SecretDetector
from tests.hygiene.secrets_harness import SHORT_BACKOFF, WAIT_LIMIT, SecretsHarness, until
from tests.support.machine import scaled
from tests.support.server_faults import ServerFaults
from tests.support.server_features import small_queue

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

    Connection = asyncpg.Connection[asyncpg.Record]

# Cancelled just when its socket is open, asyncpg.connect() leaves a future with this behind.
FORGOTTEN_BY_ASYNCPG: Final = "unexpected connection_lost() call"


# -- servers --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def guarded_server(template: PostgresServer) -> Iterator[PostgresServer]:
    """A server whose queue is small, if it can be, and where one role needs its password."""
    hba = [f"host all {USER} 127.0.0.1/32 scram-sha-256"]
    with PostgresServer(template=template, settings=small_queue(template), hba=hba) as server:
        asyncio.run(_execute(server.dsn, f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'"))
        yield server


async def _execute(dsn: str, query: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(query)
    await connection.close()


@pytest_asyncio.fixture
async def root(guarded_server: PostgresServer) -> AsyncIterator[Connection]:
    """The superuser's connection to that server; no session of ours may stay in it."""
    async with superuser(guarded_server.dsn) as connection:
        yield connection
        await connection.execute("SELECT pg_catalog.pg_notification_queue_usage()")  # empties it
        async with asyncio.timeout(WAIT_LIMIT):
            while await backends(connection):
                await connection.execute("SELECT pg_catalog.pg_sleep(0.01)")


@asynccontextmanager
async def superuser(dsn: str) -> AsyncGenerator[Connection]:
    """Have a plain connection."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "tests"})
    yield connection
    await connection.close(timeout=WAIT_LIMIT)


async def backends(connection: Connection) -> list[int]:
    """Return the pids of our sessions in the connection's database."""
    query = """
        SELECT pid FROM pg_catalog.pg_stat_activity
        WHERE datname = pg_catalog.current_database() AND application_name = $1
    """
    return [row["pid"] for row in await connection.fetch(query, OURS)]


# -- what is heard -------------------------------------------------------------------------------


@pytest.fixture
def detector() -> Iterator[SecretDetector]:
    """Collects what any logger logs at INFO and above."""
    detector, logger = SecretDetector(), logging.getLogger()
    level = logger.level
    logger.addHandler(detector)
    logger.setLevel(logging.INFO)
    yield detector
    logger.removeHandler(detector)
    logger.setLevel(level)


class AsyncioErrorHandler(logging.Handler):
    """Collects the errors that asyncio logs: of tasks never awaited, of callbacks that raised."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Collect a record, unless asyncpg caused it."""
        line = self.format(record)
        if FORGOTTEN_BY_ASYNCPG not in line:
            self.lines.append(line)


@pytest.fixture(scope="module", autouse=True)
def frozen_objects() -> Iterator[None]:
    """Freeze the objects that exist already, so that collecting after each test stays cheap."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest_asyncio.fixture(autouse=True)
async def asyncio_errors() -> AsyncIterator[list[str]]:
    """Check after every test that asyncio logged no error; clear the list to expect one."""
    handler, logger = AsyncioErrorHandler(), logging.getLogger("asyncio")
    logger.addHandler(handler)
    yield handler.lines
    gc.collect()
    logger.removeHandler(handler)
    assert not handler.lines


@pytest.fixture
def connects_by() -> str:
    """How a listener is given the password; tests that try several ways override this fixture."""
    return "dsn"


@pytest_asyncio.fixture
async def harness(
    guarded_server: PostgresServer, root: Connection, detector: SecretDetector, connects_by: str
) -> AsyncIterator[SecretsHarness]:
    """A server that requires a password, behind a proxy, and a detector of secrets."""
    async with FaultProxy.for_dsn(guarded_server.dsn) as proxy:
        yield SecretsHarness(guarded_server, proxy, root, detector, connects_by)


# -- a server that errs -------------------------------------------------------------------------


@pytest_asyncio.fixture
async def injector(
    guarded_server: PostgresServer, root: Connection
) -> AsyncIterator[ErrorInjector]:
    """An error injector in front of that server."""
    async with ErrorInjector(guarded_server) as injector:
        yield injector


# -- health ---------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def proxy(guarded_server: PostgresServer) -> AsyncIterator[FaultProxy]:
    """A proxy before the server with a small queue."""
    async with FaultProxy.for_dsn(guarded_server.dsn) as proxy:
        yield proxy


@pytest.fixture
def new_monitored(
    guarded_server: PostgresServer, proxy: FaultProxy, root: Connection
) -> Callable[..., MonitoredListener]:
    """Call it to have a listener that never asks for a heartbeat, unless told otherwise."""

    def new(
        dsn: str = guarded_server.dsn,
        *,
        heartbeat_timeout: float = scaled(2.0),
        **options: Any,
    ) -> MonitoredListener:
        options = {
            "heartbeat": None,
            "backoff": SHORT_BACKOFF,
            "connect_timeout": scaled(1.0),
            **options,
        }
        options["heartbeat_timeout"] = heartbeat_timeout
        listener = Listener(proxy.proxied_dsn(dsn), **options)
        return MonitoredListener(proxy, root, listener, heartbeat_timeout)

    return new


@pytest_asyncio.fixture
async def monitored(
    new_monitored: Callable[..., MonitoredListener],
) -> AsyncIterator[MonitoredListener]:
    """Such a listener, running."""
    monitored = new_monitored()
    async with monitored.listener:
        await until(monitored.events, Connected)
        yield monitored


@pytest_asyncio.fixture
async def faults(guarded_server: PostgresServer) -> AsyncIterator[ServerFaults]:
    """Faults of that server."""
    async with ServerFaults(guarded_server.dsn) as faults:
        yield faults
