"""notify(connection=…) where a pooler pools transactions: within the caller's, and no other."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from asyncnotify import Notifier
from asyncnotify.testing.proxy import FaultProxy
from tests.network.arrivals import CHANNEL
from tests.network.other_programs import settings_of
from tests.network.senders import url_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    import asyncpg

    from asyncnotify.testing.proxy import Direction, ProxiedConnection
    from asyncnotify.testing.server import PostgresServer
    from tests.network.arrivals import Arrivals
    from tests.network.conftest import NewPooler
    from tests.support.pgbouncer import PgBouncer

    Connection = asyncpg.Connection[asyncpg.Record]

SECRET: Final = "a payload that no error tells"
KILL: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE query LIKE '%to be cut%' AND pid <> pg_backend_pid()
"""
PREPARED: Final = """
    SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT pg_catalog.pg_notify%'
"""
on_every_kind = pytest.mark.parametrize("kind", ["connection", "session"])


@pytest.fixture
def pooler(new_pooler: NewPooler) -> PgBouncer:
    """A pooler of transactions, with two sessions that it gives in turns."""
    return new_pooler(pool_mode="transaction", settings=settings_of("transaction"))


@asynccontextmanager
async def engine_of(dsn: str, driver: str, **options: Any) -> AsyncGenerator[AsyncEngine]:
    """Have an engine, whose pool holds one connection."""
    engine = create_async_engine(url_of(dsn, driver), pool_size=1, max_overflow=0, **options)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture(params=["asyncpg", "psycopg"])
async def engine(request: pytest.FixtureRequest, pooler: PgBouncer) -> AsyncIterator[AsyncEngine]:
    """An engine on either driver, through the pooler."""
    async with engine_of(pooler.dsn, request.param) as engine:
        yield engine


def opened(engine: AsyncEngine, kind: str) -> Any:
    """Return SQLAlchemy's connection or session, to be entered."""
    return AsyncSession(engine) if kind == "session" else engine.connect()


@pytest_asyncio.fixture
async def table(server: Connection) -> AsyncIterator[None]:
    """An empty table."""
    await server.execute("CREATE TABLE written (id int)")
    yield
    await server.execute("DROP TABLE written")


@on_every_kind
async def test_r47_the_transaction_is_sqlalchemys(
    engine: AsyncEngine, server: Connection, table: None, arrivals: Arrivals, kind: str
) -> None:
    """Sent first in it or later, it arrives with the rows, or never; savepoints count."""
    notifier = Notifier()
    async with opened(engine, kind) as caller:
        await notifier.notify(CHANNEL, "rolled back", connection=caller)
        await caller.execute(text("INSERT INTO written VALUES (1)"))
        await caller.rollback()
        await notifier.notify(CHANNEL, "first", connection=caller)
        await caller.execute(text("INSERT INTO written VALUES (2)"))
        savepoint = await caller.begin_nested()
        await notifier.notify(CHANNEL, "within a savepoint", connection=caller)
        await savepoint.rollback()
        await notifier.notify(CHANNEL, "last", connection=caller)
        assert await arrivals.complete() == []
        await caller.commit()
        await notifier.notify(CHANNEL, "left behind", connection=caller)
    assert await arrivals.complete() == [(CHANNEL, "first"), (CHANNEL, "last")]
    assert [row["id"] for row in await server.fetch("SELECT id FROM written")] == [2]


@on_every_kind
async def test_r47_errors_are_those_of_sqlalchemy(
    engine: AsyncEngine, arrivals: Arrivals, kind: str
) -> None:
    """In an aborted transaction SQLAlchemy's own error is raised; after a rollback it works."""
    notifier = Notifier()
    async with opened(engine, kind) as caller:
        for _ in range(2):  # the first time the connection is not known yet
            with pytest.raises(DBAPIError):
                await caller.execute(text("SELECT 1 / 0"))
            with pytest.raises(DBAPIError, match="aborted"):
                await notifier.notify(CHANNEL, SECRET, connection=caller)
            await caller.rollback()
            await notifier.notify(CHANNEL, "1", connection=caller)
            await caller.commit()
    assert await arrivals.complete() == [(CHANNEL, "1")] * 2


@pytest.mark.parametrize("when", ["at the first notification", "at a later one"])
async def test_r47_a_connection_that_is_lost_is_replaced(
    pooler: PgBouncer, server: Connection, arrivals: Arrivals, when: str
) -> None:
    """The error says that it is invalid and tells no payload, and the engine connects anew."""
    notifier = Notifier()
    async with engine_of(pooler.dsn, "asyncpg") as engine, engine.connect() as caller:
        if when == "at a later one":
            await notifier.notify(CHANNEL, "rolled back", connection=caller)
        await caller.execute(text("SELECT 'to be cut'"))
        await server.execute(KILL)
        with pytest.raises(DBAPIError) as caught:
            await notifier.notify(CHANNEL, SECRET, connection=caller)
        assert caught.value.connection_invalidated
        assert SECRET not in str(caught.value)
        await caller.rollback()
        await notifier.notify(CHANNEL, "again", connection=caller)
        await caller.commit()
    assert await arrivals.complete() == [(CHANNEL, "again")]


@pytest.mark.parametrize("way", ["direct", "pooled"])
async def test_r47_nothing_is_asked_and_nothing_prepared_for_a_notification(
    pooler: PgBouncer, pooled_server: PostgresServer, way: str
) -> None:
    """Below SQLAlchemy on asyncpg one message more than the transaction is sent: the statement."""
    sent: list[bytes] = []

    def note(_: ProxiedConnection, direction: Direction, data: bytes) -> None:
        if direction == "to_server":
            sent.append(data)

    notifier = Notifier()
    dsn = pooler.dsn if way == "pooled" else pooled_server.dsn
    async with FaultProxy.for_dsn(dsn) as proxy:
        proxy.tap(note)
        async with engine_of(proxy.proxied_dsn(dsn), "asyncpg") as engine:
            for _ in range(2):
                async with engine.begin() as caller:
                    sent.clear()
                    await notifier.notify(CHANNEL, "1", connection=caller)
                    assert [data[:1] for data in sent] == [b"Q", b"Q"]  # BEGIN, and the statement


async def test_r47_psycopg_prepares_nothing_of_ours_and_what_it_is_to_prepare_of_others(
    pooled_server: PostgresServer,
) -> None:
    """Its own setting is as it was, also after an error; alone, and below SQLAlchemy."""
    notifier = Notifier()
    options = {"prepare_threshold": 0}
    async with (
        engine_of(pooled_server.dsn, "psycopg", connect_args=options) as engine,
        engine.connect() as above,
    ):
        connection: Any = (await above.get_raw_connection()).driver_connection
        assert isinstance(connection, psycopg.AsyncConnection)
        for caller in (above, connection):
            await notifier.notify(CHANNEL, "1", connection=caller)
            await notifier.notify(CHANNEL, "1", connection=caller)
            assert (await above.execute(text(PREPARED))).scalar() == 0
            with pytest.raises(DBAPIError):
                await above.execute(text("SELECT 1 / 0"))
            with pytest.raises((DBAPIError, psycopg.Error), match="aborted"):
                await notifier.notify(CHANNEL, "1", connection=caller)
            await above.rollback()
            assert connection.prepare_threshold == 0


async def test_r47_concurrent_calls_on_one_psycopg_connection_leave_its_setting(
    pooled_server: PostgresServer,
) -> None:
    """Calls that overlap restore what was there before the first of them."""
    async with (
        engine_of(pooled_server.dsn, "psycopg", connect_args={"prepare_threshold": 3}) as engine,
        engine.connect() as caller,
    ):
        notifier = Notifier()
        await notifier.notify(CHANNEL, "0", connection=caller)
        await asyncio.gather(
            *(notifier.notify(CHANNEL, str(n), connection=caller) for n in range(5)),
            return_exceptions=True,
        )
        connection: Any = (await caller.get_raw_connection()).driver_connection
        assert connection.prepare_threshold == 3
