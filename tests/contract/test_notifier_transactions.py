"""notify(connection=…): within the transaction of the caller's, on each driver."""

from __future__ import annotations

import functools
import sqlite3
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import psycopg
import pytest
import pytest_asyncio
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from wrapt import ObjectProxy

from asyncnotify import Channel, Listener, Notification, Notifier, PayloadTooLargeError
from asyncnotify.sources import registered
from asyncnotify.testing.fake import FakeServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from asyncnotify.testing.fake import FakeTransaction
    from tests.contract.conftest import Database, Inbox

    Text = Inbox[Notification[str]]
    End = Callable[[], Awaitable[None]]
    Execute = Callable[[str], Awaitable[Any]]
    Opener = Callable[[str], Any]

COUNT: Final = "SELECT count(*) FROM orders"


class Caller:
    """A connection of some driver within a transaction, and how that runs SQL and ends."""

    def __init__(self, connection: Any, execute: Execute, transaction: Any = None) -> None:
        self.connection = connection
        self.execute = execute
        self.commit: End = (transaction or connection).commit
        self.rollback: End = (transaction or connection).rollback

    async def insert(self) -> None:
        """Insert a row."""
        await self.execute("INSERT INTO orders VALUES (1)")

    @asynccontextmanager
    async def withdrawn(self) -> AsyncGenerator[None]:
        """Roll back to a savepoint at the end."""
        await self.execute("SAVEPOINT here")
        yield
        await self.execute("ROLLBACK TO SAVEPOINT here")


class FakeCaller(Caller):
    """A transaction on the server in memory, where there are no rows."""

    def __init__(self, transaction: FakeTransaction) -> None:
        self.connection = transaction
        self.commit = functools.partial(transaction.__aexit__, None, None, None)
        self.rollback = functools.partial(transaction.__aexit__, LookupError, LookupError(), None)

    async def insert(self) -> None:
        """Do nothing."""

    @asynccontextmanager
    async def withdrawn(self) -> AsyncGenerator[None]:
        """Roll back to a savepoint at the end."""
        with suppress(LookupError), self.connection.savepoint():
            yield
            raise LookupError


@asynccontextmanager
async def by_fake(dsn: str) -> AsyncGenerator[Caller]:
    """Have a transaction of the server in memory."""
    fake = registered(dsn)
    assert isinstance(fake, FakeServer)
    yield FakeCaller(await fake.transaction().__aenter__())


async def begun(connection: Any) -> Caller:
    """Begin a transaction on a connection of asyncpg's."""
    transaction = connection.transaction()
    await transaction.start()
    return Caller(connection, connection.execute, transaction)


@asynccontextmanager
async def by_asyncpg(dsn: str) -> AsyncGenerator[Caller]:
    """Have a plain connection."""
    connection = await asyncpg.connect(dsn)
    yield await begun(connection)
    await connection.close()


@asynccontextmanager
async def by_pool(dsn: str) -> AsyncGenerator[Caller]:
    """Have a connection of a pool, which is a proxy."""
    async with (
        asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool,
        pool.acquire() as connection,
    ):
        yield await begun(connection)


@asynccontextmanager
async def by_psycopg(dsn: str) -> AsyncGenerator[Caller]:
    """Have psycopg's connection, which begins by itself."""
    connection = await psycopg.AsyncConnection.connect(dsn)

    async def execute(sql: str) -> None:
        await psycopg.AsyncCursor(connection).execute(sql.encode())

    async with connection:
        yield Caller(connection, execute)


@asynccontextmanager
async def by_psycopg_with_raw_cursors(dsn: str) -> AsyncGenerator[Caller]:
    """Have psycopg's connection whose cursors take PostgreSQL's own placeholders."""
    async with by_psycopg(dsn) as caller:
        caller.connection.cursor_factory = psycopg.AsyncRawCursor
        yield caller


def in_a_proxy(opener: Opener) -> Opener:
    """Return what puts the connection into a proxy, as the drivers' own under tracing agents."""

    @asynccontextmanager
    async def open_it(dsn: str) -> AsyncGenerator[Caller]:
        async with opener(dsn) as caller:
            caller.connection = ObjectProxy(caller.connection)
            yield caller

    return open_it


def by_sqlalchemy(driver: str, kind: type[AsyncSession] | None, *, traced: bool = False) -> Opener:
    """Return what opens SQLAlchemy's connection or session on a driver, or on a proxy of its."""

    @asynccontextmanager
    async def open_it(dsn: str) -> AsyncGenerator[Caller]:
        async def connect(**arguments: Any) -> Any:
            return ObjectProxy(await asyncpg.connect(dsn, **arguments))

        url = dsn.replace("postgresql://", f"postgresql+{driver}://")
        options: dict[str, Any] = {"connect_args": {"async_creator_fn": connect}} if traced else {}
        engine = create_async_engine(url, poolclass=NullPool, **options)
        async with kind(engine) if kind else engine.connect() as connection:

            async def execute(sql: str) -> None:
                await connection.execute(text(sql))

            yield Caller(connection, execute)
        await engine.dispose()

    return open_it


OPENERS: Final[dict[str, Opener]] = {
    "asyncpg": by_asyncpg,
    "pool": by_pool,
    "psycopg": by_psycopg,
    "psycopg raw": by_psycopg_with_raw_cursors,
    "connection on asyncpg": by_sqlalchemy("asyncpg", None),
    "session on asyncpg": by_sqlalchemy("asyncpg", AsyncSession),
    "connection on psycopg": by_sqlalchemy("psycopg", None),
    "session on psycopg": by_sqlalchemy("psycopg", AsyncSession),
    "asyncpg in a proxy": in_a_proxy(by_asyncpg),
    "psycopg in a proxy": in_a_proxy(by_psycopg),
    "connection on asyncpg in a proxy": by_sqlalchemy("asyncpg", None, traced=True),
    "fake": by_fake,
}

CALLERS: Final = {"dsn": [kind for kind in OPENERS if kind != "fake"], "fake": ["fake"]}
"""What a transaction may be on, for each kind of connection."""


@pytest_asyncio.fixture
async def caller(request: pytest.FixtureRequest, dsn: str, table: None) -> AsyncIterator[Caller]:
    """A caller in a transaction, for each kind of connection."""
    async with OPENERS[request.param](dsn) as caller:
        yield caller


@pytest_asyncio.fixture
async def table(connected_by: str, database: Database) -> AsyncIterator[None]:
    """An empty table, where there are any."""
    if connected_by == "fake":
        yield
        return
    await database.connection.execute("CREATE TABLE orders (id int)")
    yield
    await database.connection.execute("DROP TABLE orders")


async def rows(connected_by: str, database: Database) -> int | None:
    """Return how many rows others see; None: there are none to be seen."""
    return None if connected_by == "fake" else await database.connection.fetchval(COUNT)


@pytest_asyncio.fixture
async def listener(dsn: str, inbox: Text) -> AsyncIterator[Listener]:
    """A listener on orders."""
    async with Listener(dsn) as listener:
        await listener.listen("orders", inbox)
        yield listener


@pytest.fixture
def notifier(dsn: str) -> Notifier:
    """A notifier without a connection: it needs none here."""
    return Notifier(dsn)


async def test_it_arrives_on_commit_with_the_row_to_be_seen(
    connected_by: str,
    listener: Listener,
    notifier: Notifier,
    database: Database,
    inbox: Text,
    *,
    caller: Caller,
) -> None:
    """Nothing arrives before the commit; when it arrives, the rows can be read."""
    await caller.insert()
    await notifier.notify("orders", "it's %s :id $1", connection=caller.connection)
    await database.fence(listener)
    assert len(inbox) == 0
    await caller.commit()
    assert (await inbox.next()).payload == "it's %s :id $1"
    assert await rows(connected_by, database) in {1, None}
    assert len(await database.backends()) == 1  # the listener's


async def test_it_is_gone_after_a_rollback(
    connected_by: str,
    listener: Listener,
    notifier: Notifier,
    database: Database,
    inbox: Text,
    *,
    caller: Caller,
) -> None:
    """Neither the row nor the notification has ever been."""
    await caller.insert()
    await notifier.notify("orders", "1", connection=caller.connection)
    await caller.rollback()
    await database.fence(listener)
    assert len(inbox) == 0
    assert await rows(connected_by, database) in {0, None}


async def test_a_savepoint_takes_its_own_with_it(
    listener: Listener, notifier: Notifier, database: Database, inbox: Text, caller: Caller
) -> None:
    """What was sent since a savepoint that is rolled back is gone, what was before is not."""
    await notifier.notify("orders", "before", connection=caller.connection)
    async with caller.withdrawn():
        await notifier.notify("orders", "within", connection=caller.connection)
    await notifier.notify("orders", "after", connection=caller.connection)
    await caller.commit()
    await database.fence(listener)
    assert [n.payload for n in inbox.taken()] == ["before", "after"]


async def test_equal_ones_fold_unless_they_are_unique(
    listener: Listener, notifier: Notifier, caller: Caller
) -> None:
    """PostgreSQL delivers equal ones of a transaction once; a unique channel's are not equal."""
    unique = Channel("unique", str, unique=True)
    async with listener.stream("plain") as plain, listener.stream(unique) as each:
        for _ in range(3):
            await notifier.notify("plain", "same", connection=caller.connection)
            await notifier.notify(unique, "same", connection=caller.connection)
        await notifier.notify("plain", "end", connection=caller.connection)
        await caller.commit()
        assert [(await anext(plain)).payload for _ in range(2)] == ["same", "end"]
        assert [(await anext(each)).payload for _ in range(3)] == ["same"] * 3


async def test_what_cannot_be_sent_does_not_spoil_the_transaction(
    listener: Listener, notifier: Notifier, inbox: Text, caller: Caller
) -> None:
    """A payload that is too large is refused before anything is sent."""
    with pytest.raises(PayloadTooLargeError):
        await notifier.notify("orders", "p" * 8_000, connection=caller.connection)
    await notifier.notify("orders", "p" * 7_999, connection=caller.connection)
    await caller.commit()
    assert len((await inbox.next()).payload) == 7_999


@pytest.mark.needs_server("driver")
async def test_contexts_of_the_drivers_do_as_well(
    listener: Listener, notifier: Notifier, dsn: str, inbox: Text
) -> None:
    """transaction(), begin() and a session's begin() commit what was sent within."""
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    async with (
        asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool,
        pool.acquire() as proxy,
        proxy.transaction(),
    ):
        await notifier.notify("orders", "pool", connection=proxy)
    async with engine.begin() as connection:
        await notifier.notify("orders", "engine", connection=connection)
    async with AsyncSession(engine) as session, session.begin():
        await notifier.notify("orders", "session", connection=session)
    await engine.dispose()
    assert await inbox.payloads(3) == ["pool", "engine", "session"]


@pytest.mark.needs_server("driver")
async def test_without_a_transaction_it_is_sent_at_once(
    listener: Listener, notifier: Notifier, database: Database, inbox: Text
) -> None:
    """A connection that commits each statement by itself sends as one would expect."""
    await notifier.notify("orders", "1", connection=database.connection)
    assert await inbox.payloads(1) == ["1"]


@pytest.mark.needs_server("driver")
async def test_an_aborted_transaction_is_the_drivers_error(
    notifier: Notifier, dsn: str, database: Database
) -> None:
    """What the driver raises is raised as it is."""
    async with by_asyncpg(dsn) as caller:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await caller.execute("SELECT 1 / 0")
        with pytest.raises(asyncpg.InFailedSQLTransactionError):
            await notifier.notify("orders", "1", connection=caller.connection)
    with pytest.raises(asyncpg.InterfaceError):
        await notifier.notify("orders", "1", connection=caller.connection)


@pytest.mark.needs_server("sqlalchemy")
@pytest.mark.parametrize("kind", [None, AsyncSession])
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_r47_errors_below_sqlalchemy_are_sqlalchemys(
    notifier: Notifier, dsn: str, driver: str, kind: type[AsyncSession] | None
) -> None:
    """In an aborted transaction, without the payload; after a rollback the connection is good."""
    async with by_sqlalchemy(driver, kind)(dsn) as caller:
        for _ in range(2):
            with pytest.raises(DBAPIError):
                await caller.execute("SELECT 1 / 0")
            with pytest.raises(DBAPIError, match="aborted") as caught:
                await notifier.notify("orders", "a secret", connection=caller.connection)
            assert not caught.value.connection_invalidated
            assert "a secret" not in str(caught.value)
            await caller.rollback()
            await notifier.notify("orders", "1", connection=caller.connection)
            await caller.rollback()


@pytest.mark.needs_server("sqlalchemy")
@pytest.mark.usefixtures("listener")
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_r47_a_connection_below_sqlalchemy_that_is_lost_is_replaced(
    notifier: Notifier, database: Database, dsn: str, driver: str, inbox: Text
) -> None:
    """The error says that it is invalid; after a rollback the engine connects anew."""
    async with by_sqlalchemy(driver, None)(dsn) as caller:
        await caller.execute("SELECT pg_advisory_lock(47)")
        await caller.commit()
        await database.connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks"
            " WHERE locktype = 'advisory' AND objid = 47"
        )
        await database.connection.execute(  # returns once that one has ended
            "SELECT pg_advisory_lock(47), pg_advisory_unlock(47)"
        )
        with pytest.raises(DBAPIError) as caught:
            await notifier.notify("orders", "lost", connection=caller.connection)
        assert caught.value.connection_invalidated
        await caller.rollback()
        await notifier.notify("orders", "again", connection=caller.connection)
        await caller.commit()
    assert await inbox.payloads(1) == ["again"]


async def test_a_closed_notifier_can_still_send_in_a_transaction(
    listener: Listener, notifier: Notifier, database: Database, inbox: Text
) -> None:
    """It is the caller's connection that sends."""
    await notifier.start()
    await notifier.aclose()
    async with database.transaction() as connection:
        await notifier.notify("orders", "1", connection=connection)
    assert await inbox.payloads(1) == ["1"]


@pytest.mark.needs_server("driver")
async def test_what_is_no_connection_is_refused_before_any_io(
    notifier: Notifier, dsn: str, database: Database
) -> None:
    """Engines, pools, connections that block, and anything else: a TypeError that names them."""
    sync_engine = create_engine("sqlite://")
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    pool = asyncpg.create_pool(dsn)  # connects when it is awaited
    with (
        sync_engine.connect() as sync_connection,
        Session(sync_engine) as session,
        psycopg.connect(dsn) as blocking,
    ):
        wrong: list[object] = [
            engine,
            engine.sync_engine,
            pool,
            sync_connection,
            session,
            blocking,
            sqlite3,
            dsn,
            asyncpg.Connection,
            notifier,
            0,
        ]
        for connection in wrong:
            with pytest.raises(TypeError, match=type(connection).__name__):
                await notifier.notify("orders", "1", connection=connection)
    await engine.dispose()
    sync_engine.dispose()
    with pytest.raises(TypeError, match="retry"):
        await notifier.notify("orders", "1", connection=database.connection, retry=True)
    assert await database.backends() == []
