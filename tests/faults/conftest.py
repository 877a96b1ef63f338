"""A listener among faults: what the tests of this directory share."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import (
    Connected,
    ConnectionEvent,
    ConnectionLost,
    ExponentialBackoff,
    Gap,
    Listener,
    Notification,
    Reconnected,
    State,
)
from asyncnotify.testing.proxy import FaultProxy
from asyncnotify.testing.server import PostgresServer
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Callable,
        Collection,
        Iterable,
        Iterator,
    )

    from asyncnotify import Stream
    from asyncnotify.testing.proxy import Direction, ProxiedConnection
    from tests.conftest import Maintenance, SharedServer

    Connection = asyncpg.Connection[asyncpg.Record]
    Login = tuple[str | None, str | None]
    ConnectsBy = Literal["dsn", "connect"]
    Items = Stream[Notification[str] | Gap]

E_co = TypeVar("E_co", bound=ConnectionEvent, covariant=True)

SHORT_BACKOFF = ExponentialBackoff(initial=0.01, cap=0.1)
# Cancelled just when its socket is open, asyncpg.connect() leaves a future with this behind.
FORGOTTEN_BY_ASYNCPG = "unexpected connection_lost() call"
SOON = scaled(1.0)  # seconds until the server must agree, once all is quiet; measured: milliseconds
WAIT_LIMIT = scaled(10.0)  # seconds until a fact that must come has come
OURS = "asyncnotify"
FENCE = "fence"
READY_FOR_QUERY = b"Z\0\0\0\5"
BACKENDS = """
    SELECT coalesce(pg_catalog.array_agg(pid ORDER BY backend_start), '{}')
    FROM pg_catalog.pg_stat_activity
    WHERE datname = pg_catalog.current_database() AND application_name = $1
"""


class Subject:
    """A listener under test, with all that it says of its connection, and when."""

    def __init__(self, database: ProxiedDatabase, options: dict[str, Any]) -> None:
        self._database = database
        self._stream_of_events = asyncio.Queue[ConnectionEvent]()
        self._fences: dict[str, asyncio.Future[None]] = {}
        self.events: list[ConnectionEvent] = []
        self.times: list[float] = []
        self.listener = database.listener(**options, on_event=self._note)

    def _note(self, event: ConnectionEvent) -> None:
        self.events.append(event)
        self.times.append(time.monotonic())
        self._stream_of_events.put_nowait(event)

    async def until(self, kind: type[E_co], timeout: float = WAIT_LIMIT) -> E_co:
        """Wait for the next event of this kind, and return it; others on the way are skipped."""
        async with asyncio.timeout(timeout):
            while True:
                event = await self._stream_of_events.get()
                if isinstance(event, kind):
                    return event

    def count(self, kind: type[ConnectionEvent]) -> int:
        """Return how many events of this kind there have been."""
        return sum(isinstance(event, kind) for event in self.events)

    def time_of(self, kind: type[ConnectionEvent]) -> float:
        """Return when the latest event of this kind came, in `time.monotonic()`'s seconds."""
        return max(t for t, e in zip(self.times, self.events, strict=True) if isinstance(e, kind))

    def check_state(self, state: State) -> None:
        """Check what the listener says that it is doing."""
        assert self.listener.state is state

    @property
    def pid(self) -> int:
        """The backend pid of the latest listening connection."""
        pids = [e.backend_pid for e in self.events if isinstance(e, Connected | Reconnected)]
        return pids[-1]

    async def set_up_fence(self) -> None:
        """Listen on the channel of the fences."""
        await self.listener.listen(FENCE, self._passed)

    def _passed(self, notification: Notification[str]) -> None:
        future = self._fences.pop(notification.payload, None)
        if future is not None and not future.done():
            future.set_result(None)

    async def fence(self, timeout: float = WAIT_LIMIT) -> None:
        """Send a notification and see it arrive: what was sent before it has arrived as well."""
        name = f"fence {next(self._database.numbers)}"
        arrived = self._fences[name] = asyncio.get_running_loop().create_future()
        await self._database.notify(FENCE, name)
        async with asyncio.timeout(timeout):
            await arrived

    async def comes_back(self, timeout: float = WAIT_LIMIT) -> Reconnected:
        """Wait until it has reconnected, and check that it delivers."""
        event = await self.until(Reconnected, timeout)
        await self.fence(timeout)
        return event

    async def terminate_backend(self) -> None:
        """Let the server end the listening session."""
        await self._database.fetchval("SELECT pg_catalog.pg_terminate_backend($1)", self.pid)

    async def flap(self) -> Reconnected:
        """Lose the connection, once, and come back."""
        await self.terminate_backend()
        await self.until(ConnectionLost)
        return await self.until(Reconnected)


class Wire:
    """What goes over the wire while it is entered: every byte of every connection."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        self._bytes: dict[tuple[ProxiedConnection, Direction], bytearray] = {}
        self._news = asyncio.Event()

    def __enter__(self) -> Self:
        self._stop = self._proxy.tap(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _note(self, connection: ProxiedConnection, direction: Direction, data: bytes) -> None:
        self._bytes.setdefault((connection, direction), bytearray()).extend(data)
        self._news.set()

    def count(self, pattern: bytes, direction: Direction = "to_server") -> int:
        """Return how often these bytes have come by."""
        return sum(d.count(pattern) for (_, way), d in self._bytes.items() if way == direction)

    @property
    def round_trips(self) -> int:
        """How many times the server has said that it is ready for the next query."""
        return self.count(READY_FOR_QUERY, "to_client")

    async def until(self, count: int, pattern: bytes, direction: Direction = "to_server") -> None:
        """Wait until these bytes have come by so many times."""
        async with asyncio.timeout(WAIT_LIMIT):
            while self.count(pattern, direction) < count:
                self._news.clear()
                await self._news.wait()


class ProxiedDatabase:
    """A database, a proxy before it, and listeners that go through the proxy."""

    def __init__(self, dsn: str, proxy: FaultProxy, connects_by: ConnectsBy) -> None:
        self.dsn = dsn
        self.proxy = proxy
        self.connects_by = connects_by
        self.login: Callable[[], Login] = lambda: (None, None)  # with connect=
        self.opened: list[Connection] = []  # with connect=
        self.numbers = itertools.count(1)

    @property
    def proxied_dsn(self) -> str:
        """The DSN that leads through the proxy."""
        return self.proxy.proxied_dsn(self.dsn)

    async def connect(self) -> Connection:
        """Open a connection through the proxy, as a caller's ``connect=`` does."""
        user, password = self.login()
        connection = await asyncpg.connect(
            self.proxied_dsn,
            user=user,
            password=password,
            server_settings={"application_name": OURS},
        )
        self.opened.append(connection)
        return connection

    def wire(self) -> Wire:
        """Note what passes through the proxy."""
        return Wire(self.proxy)

    def listener(self, **options: Any) -> Listener:
        """Make a listener that goes through the proxy, as the test says."""
        options = {"backoff": SHORT_BACKOFF, **options}
        if self.connects_by == "dsn":
            return Listener(self.proxied_dsn, **options)
        return Listener(connect=self.connect, **options)

    def subject(self, **options: Any) -> Subject:
        """Make a listener that is not started yet, and watch it."""
        return Subject(self, options)

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncGenerator[Subject]:
        """Run a listener that is watched, with a fence set up."""
        subject = self.subject(**options)
        async with subject.listener:
            await subject.set_up_fence()
            await subject.until(Connected)
            yield subject

    async def fetchval(self, query: str, *args: object) -> Any:
        """Ask the server, on a connection of its own that no fault of the network concerns."""
        connection = await asyncpg.connect(self.dsn, timeout=WAIT_LIMIT)
        try:
            return await connection.fetchval(query, *args, timeout=WAIT_LIMIT)
        finally:
            await connection.close(timeout=WAIT_LIMIT)

    async def notify(self, channel: str, payload: str = "") -> None:
        """Send a notification past the proxy."""
        await self.fetchval("SELECT pg_catalog.pg_notify($1, $2)", channel, payload)

    async def notify_all(self, channels: Iterable[str], payload: str) -> None:
        """Send one payload on each of these channels, past the proxy."""
        query = "SELECT count(pg_catalog.pg_notify(name, $2)) FROM unnest($1::text[]) name"
        await self.fetchval(query, list(channels), payload)

    async def backends(self) -> list[int]:
        """Return the pids of our sessions in the database, the oldest first."""
        pids: list[int] = await self.fetchval(BACKENDS, OURS)
        return pids

    async def until_backends(self, count: int, timeout: float = WAIT_LIMIT) -> None:
        """Wait until the server has no more than so many sessions of ours."""
        async with asyncio.timeout(timeout):
            while len(await self.backends()) > count:
                await self.fetchval("SELECT pg_catalog.pg_sleep(0.01)")

    async def heard(self, subject: Subject, channels: Collection[str]) -> frozenset[str]:
        """
        Return on which of these channels the server sends us notifications.

        What goes over the wire tells, not what the listener believes.
        """
        mark = f"mark {next(self.numbers)}"
        with self.wire() as wire:
            await self.notify_all(channels, mark)
            await subject.fence()
        return frozenset(
            channel
            for channel in channels
            if wire.count(f"{channel}\0{mark}\0".encode(), "to_client")
        )

    async def check_agreement(self, subject: Subject, channels: Collection[str]) -> None:
        """Check that the server comes to agree on the channels soon, and that it delivers."""
        wanted = subject.listener.channels - {FENCE}
        assert wanted <= frozenset(channels)
        deadline = time.monotonic() + SOON
        while (heard := await self.heard(subject, channels)) != wanted:
            assert time.monotonic() < deadline, f"the server listens on {heard}, not {wanted}"


@pytest.fixture
def connects_by() -> ConnectsBy:
    """How the listeners get their connections; tests that try both override it."""
    return "dsn"


@pytest.fixture(scope="session")
def spare_databases(maintenance: Maintenance) -> Iterator[list[str]]:
    """Databases that one test after the other may use: making one takes as long as a test."""
    names: list[str] = []
    yield names
    for name in names:
        maintenance.drop_database(name)


@pytest.fixture
def spare_dsn(
    pg_server: SharedServer, maintenance: Maintenance, spare_databases: list[str]
) -> Iterator[str]:
    """The URL of a database for the time of a test; no session of ours may stay in it."""
    name = spare_databases.pop() if spare_databases else maintenance.create_database()
    yield pg_server.dsn_for(name)
    left = maintenance.left_backends(name)
    if left:
        maintenance.drop_database(name)
    else:
        spare_databases.append(name)
    assert not left, f"sessions of asyncnotify left in the database: {left}"


@pytest_asyncio.fixture
async def database(spare_dsn: str, connects_by: ConnectsBy) -> AsyncIterator[ProxiedDatabase]:
    """The shared server, with a proxy before one of its databases."""
    async with FaultProxy.for_dsn(spare_dsn) as proxy:
        yield ProxiedDatabase(spare_dsn, proxy, connects_by)


@pytest.fixture(scope="session")
def battered_server(template: PostgresServer) -> Iterator[PostgresServer]:
    """A server that tests may restart, freeze and kill, and need not share with others."""
    settings = {"autovacuum": "off"}  # it would take transaction ids of its own
    hba = ["host all alice 127.0.0.1/32 scram-sha-256", "host all mallory 127.0.0.1/32 reject"]
    with PostgresServer(template=template, settings=settings, hba=hba) as server:
        yield server


@pytest_asyncio.fixture
async def own_database(
    battered_server: PostgresServer, connects_by: ConnectsBy
) -> AsyncIterator[ProxiedDatabase]:
    """A server that may be harmed, behind a proxy; no session of ours may stay in it."""
    battered_server.start()
    async with FaultProxy.for_dsn(battered_server.dsn) as proxy:
        database = ProxiedDatabase(battered_server.dsn, proxy, connects_by)
        yield database
        try:
            await database.until_backends(0)
        except BaseException:
            battered_server.close()  # the next test gets a new one
            raise


@pytest_asyncio.fixture(autouse=True)
async def no_loose_ends() -> AsyncIterator[None]:
    """Check after every test that no task failed unseen and no coroutine was forgotten."""
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    yield
    gc.collect()
    loop.set_exception_handler(None)
    ours = [c for c in complaints if str(c.get("exception")) != FORGOTTEN_BY_ASYNCPG]
    assert not ours, ours
