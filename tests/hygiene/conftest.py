"""What the tests of this directory share: a guarded server, a relay, and an ear for secrets."""

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
from tests.hygiene.ear import OURS, PASSWORD, USER, Ear
from tests.hygiene.patient import Patient
from tests.hygiene.relay import Relay
from tests.hygiene.scene import PATIENCE, QUICKLY, Scene, until
from tests.support.server_faults import ServerFaults

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

    Connection = asyncpg.Connection[asyncpg.Record]

# Cancelled just when its socket is open, asyncpg.connect() leaves a future with this behind.
FORGOTTEN_BY_ASYNCPG: Final = "unexpected connection_lost() call"


# -- servers --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def guarded_server(template: PostgresServer) -> Iterator[PostgresServer]:
    """A server with a small notification queue, where one role needs its password."""
    settings = {"max_notify_queue_pages": "64"}
    hba = [f"host all {USER} 127.0.0.1/32 scram-sha-256"]
    with PostgresServer(template=template, settings=settings, hba=hba) as server:
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
        async with asyncio.timeout(PATIENCE):
            while await backends(connection):
                await connection.execute("SELECT pg_catalog.pg_sleep(0.01)")


@asynccontextmanager
async def superuser(dsn: str) -> AsyncGenerator[Connection]:
    """Have a plain connection."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "tests"})
    yield connection
    await connection.close(timeout=PATIENCE)


async def backends(connection: Connection) -> list[int]:
    """Return the pids of our sessions in the connection's database."""
    query = """
        SELECT pid FROM pg_catalog.pg_stat_activity
        WHERE datname = pg_catalog.current_database() AND application_name = $1
    """
    return [row["pid"] for row in await connection.fetch(query, OURS)]


# -- what is heard -------------------------------------------------------------------------------


@pytest.fixture
def ear() -> Iterator[Ear]:
    """Hears what any logger says at INFO and above."""
    ear, logger = Ear(), logging.getLogger()
    level = logger.level
    logger.addHandler(ear)
    logger.setLevel(logging.INFO)
    yield ear
    logger.removeHandler(ear)
    logger.setLevel(level)


class Complaints(logging.Handler):
    """What asyncio has to complain about: tasks that failed unseen, callbacks that raised."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a complaint, unless asyncpg is to blame."""
        line = self.format(record)
        if FORGOTTEN_BY_ASYNCPG not in line:
            self.lines.append(line)


@pytest.fixture(scope="module", autouse=True)
def frozen_past() -> Iterator[None]:
    """Keep the collector from looking through all there was before, after every test."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest_asyncio.fixture(autouse=True)
async def complaints() -> AsyncIterator[list[str]]:
    """Check after every test that asyncio does not complain; a test that expects it clears it."""
    handler, logger = Complaints(), logging.getLogger("asyncio")
    logger.addHandler(handler)
    yield handler.lines
    gc.collect()
    logger.removeHandler(handler)
    assert not handler.lines


@pytest.fixture
def road() -> str:
    """How a listener is told the password; tests that try several ways override it."""
    return "dsn"


@pytest_asyncio.fixture
async def scene(
    guarded_server: PostgresServer, root: Connection, ear: Ear, road: str
) -> AsyncIterator[Scene]:
    """A server that wants a password, behind a proxy, and an ear."""
    async with FaultProxy.for_dsn(guarded_server.dsn) as proxy:
        yield Scene(guarded_server, proxy, root, ear, road)


# -- a server that errs -------------------------------------------------------------------------


@pytest_asyncio.fixture
async def relay(guarded_server: PostgresServer, root: Connection) -> AsyncIterator[Relay]:
    """A relay before that server."""
    async with Relay(guarded_server) as relay:
        yield relay


# -- health ---------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def proxy(guarded_server: PostgresServer) -> AsyncIterator[FaultProxy]:
    """A proxy before the server with a small queue."""
    async with FaultProxy.for_dsn(guarded_server.dsn) as proxy:
        yield proxy


@pytest.fixture
def new_patient(
    guarded_server: PostgresServer, proxy: FaultProxy, root: Connection
) -> Callable[..., Patient]:
    """Call it to have a listener that never asks for a heartbeat, unless told otherwise."""

    def new(
        dsn: str = guarded_server.dsn,
        *,
        heartbeat_timeout: float = 2.0,
        **options: Any,  # noqa: ANN401 - as Listener takes them
    ) -> Patient:
        options = {"heartbeat": None, "backoff": QUICKLY, "connect_timeout": 1.0, **options}
        options["heartbeat_timeout"] = heartbeat_timeout
        listener = Listener(proxy.proxied_dsn(dsn), **options)
        return Patient(proxy, root, listener, heartbeat_timeout)

    return new


@pytest_asyncio.fixture
async def patient(new_patient: Callable[..., Patient]) -> AsyncIterator[Patient]:
    """Such a listener, running."""
    patient = new_patient()
    async with patient.listener:
        await until(patient.events, Connected)
        yield patient


@pytest_asyncio.fixture
async def faults(guarded_server: PostgresServer) -> AsyncIterator[ServerFaults]:
    """Faults of that server."""
    async with ServerFaults(guarded_server.dsn) as faults:
        yield faults
