"""
A log in a database of the test's own, or in memory; connections that append to it and walk it.

The tests of the contract run on PostgreSQL and on the server in memory. Those that the latter
cannot run, because they need SQL, a network or another process, are marked ``needs_server``, one by
one or a whole module.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify.log import Log
from asyncnotify.log._names import Names
from asyncnotify.log._values import time_of
from asyncnotify.log._walk.statements import Statements
from asyncnotify.log._walk.walk import DEFAULT_SIZE, SqlQueries, Walk
from asyncnotify.testing.fake import FakeServer
from tests.log.fake_connection import FakeConnection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from asyncnotify.log._ports import Queries
    from asyncnotify.log._walk.walk import Size

    Connection = asyncpg.Connection[Any] | Any
    Connect = Callable[[], AbstractAsyncContextManager[Connection]]

NAMES: Final = Names("orders")
COLUMNS: Final = ("id", "uid", "channel", "key", "payload", "headers", "appended_at")
SESSIONS: Final = """
    SELECT pid FROM pg_stat_activity
    WHERE application_name = 'asyncnotify' AND datname = current_database()
"""
KILL: Final = f"SELECT pg_terminate_backend(pid) FROM ({SESSIONS}) AS session"


def queries_of(connection: Connection) -> Queries:
    """Return what asks on a connection as a log does."""
    return connection if isinstance(connection, FakeConnection) else SqlQueries(connection)


class Reader:
    """Walks a log from its beginning, on a connection, and keeps what it has read."""

    def __init__(
        self,
        connection: Connection,
        channels: Sequence[str] | None = None,
        size: Size = DEFAULT_SIZE,
    ) -> None:
        self.walk = Walk(queries_of(connection), Statements(NAMES, channels), size)
        self.tick = 0
        self.portions: list[int] = []

    async def read(self) -> list[dict[str, Any]]:
        """Take a tick; return the events of all ticks that are new to this reader."""
        await self.walk.take_tick()
        found: list[dict[str, Any]] = []
        while len(ticks := await self.walk.ticks(self.tick, 100)) > 1:
            for last, tick in pairwise(ticks):
                async for columns in self.walk.events(last, tick):
                    self.portions.append(columns.size)
                    found.extend(map(_named, zip(*columns, strict=True)))
            self.tick = ticks[-1].number
        return found

    async def payloads(self) -> list[str]:
        """Take a tick; return the payloads that are new to this reader."""
        return [row["payload"] for row in await self.read()]


def _named(values: tuple[Any, ...]) -> dict[str, Any]:
    row = dict(zip(COLUMNS, values, strict=True))
    return row | {"uid": UUID(bytes=row["uid"]), "appended_at": time_of(row["appended_at"])}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test of the contract on both servers."""
    if "server_kind" not in metafunc.fixturenames:
        return
    needs_server = metafunc.definition.get_closest_marker("needs_server") is not None
    metafunc.parametrize(
        "server_kind", ["server"] if needs_server else ["server", "fake"], indirect=True
    )


@pytest.fixture
def server_kind(request: pytest.FixtureRequest) -> str:
    """Where the test's log is."""
    name: str = request.param
    return name


@pytest.fixture
def fake(server_kind: str) -> FakeServer | None:
    """The server in memory, where the test runs on that."""
    return FakeServer() if server_kind == "fake" else None


@pytest.fixture
def dsn(request: pytest.FixtureRequest, fake: FakeServer | None) -> Iterator[str]:
    """The URL of a database of the test's own; no session of ours may stay in it."""
    if fake is None:
        yield request.getfixturevalue("dsn")
    else:
        yield fake.dsn
        assert not fake.pids, "sessions of asyncnotify left"


@pytest.fixture
def connect(dsn: str, fake: FakeServer | None) -> Connect:
    """Open a plain connection to the test's database, as a context."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncGenerator[Connection]:
        connection: Any
        if fake is not None:
            connection = FakeConnection(fake)
        else:
            connection = await asyncpg.connect(dsn, server_settings={"application_name": "tests"})
        try:
            yield connection
        finally:
            await (connection.close() if fake else connection.close(timeout=5.0))

    return opened


@pytest_asyncio.fixture
async def admin(connect: Connect) -> AsyncIterator[Connection]:
    """A plain connection to the test's database."""
    async with connect() as connection:
        yield connection


@pytest_asyncio.fixture
async def installed(dsn: str) -> Names:
    """The names of a log that has been installed."""
    async with Log(NAMES.log, dsn) as log:
        await log.install()
    return NAMES


@pytest_asyncio.fixture
async def reader(installed: Names, connect: Connect) -> AsyncIterator[Reader]:
    """A reader from the beginning, on a connection of its own."""
    async with connect() as connection:
        yield Reader(connection)


async def append(connection: Connection, *payloads: str, channel: str = "things") -> None:
    """Append events without key and headers."""
    if isinstance(connection, FakeConnection):
        await connection.append(*payloads, channel=channel)
        return
    for payload in payloads:
        await connection.execute("SELECT asyncnotify.orders_append($1, $2)", channel, payload)


async def take_tick(connection: Connection) -> None:
    """Take a tick."""
    if isinstance(connection, FakeConnection):
        await connection.tick()
    else:
        await connection.execute(f"SELECT {NAMES.prefix}_tick()")


async def place(connection: Connection, consumer: str = "mailer") -> int:
    """Return the id behind which the consumer's cursor stands."""
    if isinstance(connection, FakeConnection):
        return await connection.place(consumer)
    query = f"SELECT id FROM {NAMES.consumers} WHERE consumer = $1"
    return int(await connection.fetchval(query, consumer))


async def times_taken(connection: Connection, consumer: str = "mailer") -> int:
    """Return how often a session has begun to serve the consumer."""
    if isinstance(connection, FakeConnection):
        return connection.times_taken(consumer)
    query = f"SELECT token FROM {NAMES.consumers} WHERE consumer = $1"
    return int(await connection.fetchval(query, consumer))


async def count_of_sessions(connection: Connection) -> int:
    """Return how many sessions of logs and listeners there are."""
    if isinstance(connection, FakeConnection):
        return len(connection.fake.pids)
    return int(await connection.fetchval(f"SELECT count(*) FROM ({SESSIONS}) AS session"))


@contextlib.asynccontextmanager
async def transaction_of(connection: Connection) -> AsyncGenerator[object]:
    """Begin a transaction of a caller's; return what is given as ``connection=``."""
    if isinstance(connection, FakeConnection):
        async with connection.fake.transaction() as transaction:
            yield transaction
    else:
        async with connection.transaction():
            yield connection


async def kill_sessions(connection: Connection) -> None:
    """End the sessions of logs and listeners."""
    if isinstance(connection, FakeConnection):
        connection.kill_others()
    else:
        await connection.execute(KILL)


async def server_time(connection: Connection) -> datetime:
    """Return the time by the server's clock, which is the test's own for a server in memory."""
    if isinstance(connection, FakeConnection):
        return datetime.now(UTC)
    time: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return time
