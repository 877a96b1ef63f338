"""
A listener by a DSN, by ``connect=`` or on a server in memory; what sends to it, and what is kept.

Tests that the server in memory cannot run, because they need SQL, a network or a driver, are
marked ``needs_server``, with the reason.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import os
import subprocess
import sys
from collections import deque
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    nullcontext,
)
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import Listener, Reconnected
from asyncnotify.testing.fake import FakeServer
from tests.contract.fake_network import network_before
from tests.contract.refusals import (
    Guest,
    bad_refused,
    bad_refused_by_fake,
    guest_of_fake,
    guest_role,
)
from tests.contract.traffic import FakeTraffic, Traffic, running, sql_traffic
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Sequence

    from asyncnotify import Notification, Stream
    from asyncnotify.testing.fake import FakeTransaction
    from asyncnotify.testing.proxy import FaultProxy
    from tests.conftest import Maintenance, SharedServer

T = TypeVar("T")

DEADLINE = scaled(10.0)  # seconds for what takes milliseconds
APPLICATION_NAME = "asyncnotify"
BACKENDS = """
    SELECT pid, state, xact_start, backend_xmin, query_start FROM pg_catalog.pg_stat_activity
    WHERE datname = current_database() AND application_name = $1 ORDER BY backend_start
"""
BURST = """
    CREATE OR REPLACE PROCEDURE burst(channel text, payloads text[], rounds int)
    LANGUAGE plpgsql AS $$ BEGIN
        FOR round IN 1..rounds LOOP
            PERFORM pg_notify(channel, p) FROM unnest(payloads) p;
            PERFORM pg_notify('begun', 'begun') WHERE round = 1;
            COMMIT;
        END LOOP;
    END $$
"""


class Inbox(Generic[T]):
    """A handler, or a resync, that keeps what it is called with."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._news = asyncio.Event()

    def __call__(self, item: T) -> None:
        """Keep an item. Never waits."""
        self._items.append(item)
        self._news.set()

    def __len__(self) -> int:
        return len(self._items)

    async def next(self) -> T:
        """Return the next item; it has to come soon."""
        async with asyncio.timeout(DEADLINE):
            while not self._items:
                self._news.clear()
                await self._news.wait()
        return self._items.popleft()

    async def payloads(self: Inbox[Notification[str]], count: int) -> list[str]:
        """Return the payloads of the next so many notifications."""
        return [(await self.next()).payload for _ in range(count)]

    def taken(self) -> list[T]:
        """Return what is there, and keep it no longer."""
        items = list(self._items)
        self._items.clear()
        return items


def check_exit(codes: Collection[int], program: str, *arguments: str) -> None:
    """Run a program that has to end with one of these codes, and with no warning."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=scaled(20),
        check=False,
    )
    assert result.returncode in codes, result.stderr
    assert "never awaited" not in result.stderr


class ListenerFactory:
    """Makes listeners: that connect by a DSN, or by ``connect=`` with plain connections."""

    def __init__(self, connected_by: str, dsn: str) -> None:
        self.connected_by = connected_by
        self.dsn = dsn

    def listener(self, dsn: str | None = None, **options: Any) -> Listener:
        """Return a new listener, of the test's database unless another is given."""
        dsn = dsn or self.dsn
        if self.connected_by == "connect":
            return Listener(connect=functools.partial(self._connect, dsn), **options)
        return Listener(dsn, **options)

    async def _connect(self, dsn: str) -> asyncpg.Connection[Any]:
        return await asyncpg.connect(dsn, server_settings={"application_name": APPLICATION_NAME})


def open_connections() -> list[asyncpg.Connection[Any]]:
    """Return every open connection of this process: only a session itself can be asked."""
    # not isinstance(): asyncpg answers that with yes for a proxy as well; and unit tests leave some
    # behind that have no session, and never had the driver's attributes
    found = [o for o in gc.get_objects() if issubclass(type(o), asyncpg.Connection)]
    return [each for each in found if hasattr(each, "_aborted") and not each.is_closed()]


class Database:
    """The test's database, as those who notify see it."""

    load: ClassVar[int] = 1_000_000
    """How many notifications are many: more than the default buffer holds."""

    def __init__(self, dsn: str, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._dsn = dsn
        self._connection = connection

    @property
    def connection(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection that is not asyncnotify's."""
        return self._connection

    @property
    def pid(self) -> int:
        """The backend pid of what is sent from here."""
        return self.connection.get_server_pid()

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Any]:
        """Have all that is sent from here be one transaction, on the connection that is yielded."""
        async with self.connection.transaction():
            yield self.connection

    async def notify(self, channel: str, *payloads: str) -> None:
        """Commit notifications on a channel one by one."""
        for payload in payloads:
            await self.connection.execute("SELECT pg_notify($1, $2)", channel, payload)

    async def flood(self, channel: str, count: int, *, size: int = 0) -> None:
        """Commit the numbers 1 to ``count`` at once, padded with zeros to ``size`` characters."""
        await self.connection.execute(
            "SELECT count(pg_notify($1, lpad(n::text, greatest($3, length(n::text)), '0')))"
            " FROM generate_series(1, $2) n",
            channel,
            count,
            size,
        )

    async def flood_in_turn(self, channels: Sequence[str], count: int) -> None:
        """Commit the numbers from 0 to below ``count`` at once, on one channel after another."""
        await self.connection.execute(
            "SELECT count(pg_notify(($1::text[])[1 + n % cardinality($1::text[])], n::text))"
            " FROM generate_series(0, $2 - 1) n",
            channels,
            count,
        )

    async def notify_all(self, channels: Sequence[str], payloads: Sequence[str]) -> None:
        """Commit a payload on each of the channels, all at once."""
        await self.connection.execute(
            "SELECT count(pg_notify(c, p)) FROM unnest($1::text[], $2::text[]) _ (c, p)",
            channels,
            payloads,
        )

    async def burst(self, channel: str, payloads: Sequence[str], rounds: int) -> None:
        """Commit all of these so many times, without a pause; at first also "begun" on "begun"."""
        await self.connection.execute(BURST)
        await self.connection.execute("CALL burst($1, $2, $3)", channel, payloads, rounds)

    def traffic(self, channel: str) -> AbstractAsyncContextManager[Traffic]:
        """Return a context in which numbers are published on a channel."""
        return sql_traffic(self._dsn, channel)

    def refusing_bad(self) -> AbstractAsyncContextManager[None]:
        """Return a context in which payloads ``bad SQLSTATE`` are refused, with that error."""
        return bad_refused(self.connection)

    def guest(self) -> AbstractAsyncContextManager[Guest]:
        """Return a client that may not notify."""
        return guest_role(self._dsn, self.connection)

    def dsn_of_none(self) -> str:
        """Return the DSN of a database that is not there."""
        return f"{self._dsn}_not_there"

    async def now(self) -> datetime:
        """Return the time by the server's clock."""
        now: datetime = await self.connection.fetchval("SELECT clock_timestamp()")
        return now

    async def fence(self, listener: Listener) -> None:
        """Return once what was committed so far has passed through the listener."""
        stream: Stream[Notification[str]]
        # A million notifications may be before the answer: the test has a limit, this has none.
        async with listener.stream("fence", timeout=None) as stream:
            await self.notify("fence", "")
            await anext(stream)

    async def backends(self) -> list[asyncpg.Record]:
        """Return asyncnotify's sessions in this database, the oldest first."""
        return await self.connection.fetch(BACKENDS, APPLICATION_NAME)

    async def server_channels(self, listener: Listener) -> set[str]:
        """Return the channels on which the server listens, once it knows what is desired."""
        await listener.unlisten("to be sure that no command is under way")
        pids = {backend["pid"] for backend in await self.backends()}
        channels: set[str] = set()
        for connection in open_connections():
            if connection.get_server_pid() in pids:
                rows = await connection.fetch("SELECT pg_listening_channels()")
                channels.update(row[0] for row in rows)
        return channels

    async def until_backends(self, count: int) -> list[asyncpg.Record]:
        """Return asyncnotify's sessions once there are so many."""
        async with asyncio.timeout(DEADLINE):
            while len(backends := await self.backends()) != count:
                pass
        return backends

    async def last_commands(self) -> object:
        """Return what differs once asyncnotify's sessions have given another command."""
        return [(b["pid"], b["query_start"]) for b in await self.backends()]

    async def kill_backends(self) -> None:
        """End asyncnotify's sessions in this database."""
        for backend in await self.backends():
            await self.connection.execute("SELECT pg_terminate_backend($1)", backend["pid"])

    async def interrupt(self, listener: Listener) -> None:
        """Cut the listener's connection; return once it listens again."""
        events = listener.events()
        await self.kill_backends()
        async with asyncio.timeout(DEADLINE):
            async for event in events:
                if isinstance(event, Reconnected):
                    return


class FakeDatabase(Database):
    """The same, of a server in memory."""

    load: ClassVar[int] = 100_000  # here the test itself is the server: a million take 20 s

    def __init__(self, fake: FakeServer) -> None:
        self._fake = fake
        self._transaction: FakeTransaction | None = None

    @property
    def connection(self) -> asyncpg.Connection[asyncpg.Record]:
        """Say that there is none: who needs one has to be marked."""
        pytest.fail("there is no SQL here: mark the test needs_server")

    @property
    def pid(self) -> int:
        """The backend pid of what is sent from here."""
        return self._fake.pid

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Any]:
        """Have all that is sent from here be one transaction, which is yielded."""
        with self._fake.transaction() as self._transaction:
            yield self._transaction
        self._transaction = None

    async def notify(self, channel: str, *payloads: str) -> None:
        """Commit notifications on a channel one by one."""
        send = self._transaction.pg_notify if self._transaction else self._fake.notify
        for payload in payloads:
            send(channel, payload)
            await self._others_run()

    async def flood(self, channel: str, count: int, *, size: int = 0) -> None:
        """Commit the numbers 1 to ``count`` at once, padded with zeros to ``size`` characters."""
        with self._transaction_here() as transaction:
            for number in range(1, count + 1):
                transaction.pg_notify(channel, str(number).rjust(size, "0"))

    async def flood_in_turn(self, channels: Sequence[str], count: int) -> None:
        """Commit the numbers from 0 to below ``count`` at once, on one channel after another."""
        names = itertools.islice(itertools.cycle(channels), count)
        await self.notify_all([*names], [*map(str, range(count))])

    async def notify_all(self, channels: Sequence[str], payloads: Sequence[str]) -> None:
        """Commit a payload on each of the channels, all at once."""
        with self._fake.transaction() as transaction:
            for channel, payload in zip(channels, payloads, strict=True):
                transaction.pg_notify(channel, payload)

    async def burst(self, channel: str, payloads: Sequence[str], rounds: int) -> None:
        """Commit all of these so many times, in another thread: as fast as that goes."""
        await asyncio.to_thread(self._burst, channel, payloads, rounds)

    def _burst(self, channel: str, payloads: Sequence[str], rounds: int) -> None:
        for number in range(rounds):
            with self._fake.transaction() as transaction:
                for payload in payloads:
                    transaction.pg_notify(channel, payload)
                if number == 0:
                    transaction.pg_notify("begun", "begun")

    def traffic(self, channel: str) -> AbstractAsyncContextManager[Traffic]:
        """Return a context in which numbers are published on a channel."""
        return running(FakeTraffic(channel, self._fake))

    def refusing_bad(self) -> AbstractAsyncContextManager[None]:
        """Return a context in which payloads ``bad SQLSTATE`` are refused, with that error."""
        return bad_refused_by_fake(self._fake)

    def guest(self) -> AbstractAsyncContextManager[Guest]:
        """Return a client that may not notify."""
        return guest_of_fake(self._fake)

    def dsn_of_none(self) -> str:
        """Return the DSN, by which nobody connects for good: there is one database."""
        self._fake.refuse(permanently=True)
        return self._fake.dsn

    async def now(self) -> datetime:
        """Return the time by the server's clock."""
        return datetime.now(UTC)

    async def backends(self) -> list[Any]:
        """Return asyncnotify's sessions, the oldest first: none is ever in a transaction."""
        await self._others_run()
        idle = {"state": "idle", "xact_start": None, "backend_xmin": None}
        return [{"pid": pid, **idle} for pid in self._fake.pids]

    async def server_channels(self, listener: Listener) -> set[str]:
        """Return the channels on which the server listens, once it knows what is desired."""
        await listener.unlisten("to be sure that no command is under way")
        return set(self._fake.channels)

    async def _others_run(self) -> None:
        """Take some turns of the event loop, as a round trip does."""
        for _ in range(3):
            await asyncio.sleep(0)

    def _transaction_here(self) -> AbstractContextManager[FakeTransaction]:
        return nullcontext(self._transaction) if self._transaction else self._fake.transaction()

    async def until_backends(self, count: int) -> list[Any]:
        """Return asyncnotify's sessions once there are so many."""
        async with asyncio.timeout(DEADLINE):
            await self._fake.until_connected(count)
        return await self.backends()

    async def last_commands(self) -> object:
        """Return what differs once a connection has given another command."""
        return self._fake.commands, self._fake.pids

    async def kill_backends(self) -> None:
        """End asyncnotify's sessions."""
        self._fake.lose(notice="terminating connection due to administrator command")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test with every way of connecting; without the fake server where it cannot serve."""
    if "connected_by" not in metafunc.fixturenames:
        return
    ways = ["dsn"]
    if "factory" in metafunc.fixturenames:
        ways.append("connect")
    if metafunc.definition.get_closest_marker("needs_server") is None:
        ways.append("fake")
    if "caller" in metafunc.fixturenames:
        kinds: dict[str, list[str]] = getattr(metafunc.module, "CALLERS")  # noqa: B009 - may be absent
        callers = [(connected_by, kind) for connected_by in ways for kind in kinds[connected_by]]
        metafunc.parametrize(("connected_by", "caller"), callers, indirect=True)
    else:
        metafunc.parametrize("connected_by", ways, indirect=True)


@pytest.fixture
def connected_by(request: pytest.FixtureRequest) -> str:
    """How the listeners of the test get their connections."""
    name: str = request.param
    return name


@pytest.fixture
def fake(connected_by: str) -> FakeServer | None:
    """The server in memory, where the test runs on that."""
    return FakeServer() if connected_by == "fake" else None


@pytest.fixture(scope="module")
def databases(maintenance: Maintenance) -> Iterator[list[str]]:
    """The name of a database that a module's tests use one after the other."""
    names = [maintenance.create_database()]
    yield names
    maintenance.drop_database(names[0])


@pytest.fixture
def dsn(request: pytest.FixtureRequest, fake: FakeServer | None) -> Iterator[str]:
    """The URL of a database that no session of ours uses, and in which none may stay."""
    if fake is None:
        yield request.getfixturevalue("real_dsn")
    else:
        yield fake.dsn
        assert not fake.pids, "sessions of asyncnotify left"


@pytest.fixture
def real_dsn(
    pg_server: SharedServer, maintenance: Maintenance, databases: list[str]
) -> Iterator[str]:
    """The URL of a database of the real server."""
    yield pg_server.dsn_for(databases[0])
    left = maintenance.left_backends(databases[0])
    if left:
        maintenance.drop_database(databases.pop())
        databases.append(maintenance.create_database())
    assert not left, f"sessions of asyncnotify left in the database: {left}"


@pytest.fixture
def factory(connected_by: str, dsn: str) -> ListenerFactory:
    """Each of the two ways in which notifications leave the driver, and the server in memory."""
    return ListenerFactory(connected_by, dsn)


@pytest_asyncio.fixture
async def listener(factory: ListenerFactory) -> AsyncIterator[Listener]:
    """A running listener."""
    async with factory.listener() as listener:
        yield listener


@pytest_asyncio.fixture
async def slow_listener(factory: ListenerFactory) -> AsyncIterator[Listener]:
    """A running listener that does not take a busy machine for a dead server."""
    async with factory.listener(heartbeat_timeout=60, operation_timeout=60) as listener:
        yield listener


@pytest_asyncio.fixture
async def proxy(dsn: str) -> AsyncIterator[FaultProxy]:
    """A proxy before the server."""
    async with network_before(dsn) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def database(dsn: str, fake: FakeServer | None) -> AsyncIterator[Database]:
    """The test's database, through a connection that is not asyncnotify's."""
    if fake is not None:
        yield FakeDatabase(fake)
        return
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "tests"})
    yield Database(dsn, connection)
    await connection.close(timeout=5.0)


@pytest.fixture
def inbox() -> Inbox[Notification[str]]:
    """A handler that keeps what it is given."""
    return Inbox()


@pytest.fixture
def new_inbox() -> type[Inbox[Any]]:
    """What makes inboxes, where one is not enough."""
    return Inbox
