"""Sessions whose transactions wait for others by default, behind a pooler."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import Listener, Notifier, PoolerError
from tests.network.observed_listener import WAIT_LIMIT, execute
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from asyncnotify.testing.server import PostgresServer
    from tests.network.conftest import NewPooler

DATABASE = "waiting"


@pytest_asyncio.fixture
async def database(pooled_server: PostgresServer) -> AsyncIterator[str]:
    """A DSN of one in which transactions wait for serializable ones by default."""
    await execute(pooled_server.dsn, f"CREATE DATABASE {DATABASE}")
    for name, value in (("isolation", "serializable"), ("read_only", "on"), ("deferrable", "on")):
        await execute(
            pooled_server.dsn,
            f"ALTER DATABASE {DATABASE} SET default_transaction_{name} = {value}",
        )
    yield pooled_server.dsn_for(DATABASE)
    await execute(pooled_server.dsn, f"DROP DATABASE {DATABASE} (FORCE)")


@asynccontextmanager
async def serializable_writer(dsn: str) -> AsyncGenerator[None]:
    """Keep a transaction open for which others wait."""
    writer = await asyncpg.connect(dsn)
    await writer.execute("BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE; CREATE TABLE a (b int)")
    yield
    await writer.close()


async def test_r54_a_session_of_a_pool_does_not_wait(new_pooler: NewPooler, database: str) -> None:
    """The start, delivery and heartbeats, while others would wait."""
    listener = Listener(
        new_pooler().dsn_for(DATABASE), heartbeat=0.1, heartbeat_timeout=scaled(2.0)
    )
    async with (
        asyncio.timeout(WAIT_LIMIT),
        serializable_writer(database),
        listener,
        listener.stream("orders") as stream,
    ):
        while listener.stats().last_heartbeat is None:
            await listener.notify("orders", "1")
            assert (await anext(stream)).payload == "1"
        assert listener.stats().reconnects == 0


async def test_r58_a_pool_of_transactions_that_is_refused_keeps_its_defaults(
    new_pooler: NewPooler, database: str
) -> None:
    """Its sessions serve others as before."""
    pooler = new_pooler(pool_mode="transaction", settings={"default_pool_size": "2"})
    async with asyncio.timeout(WAIT_LIMIT):
        with pytest.raises(PoolerError):
            await Listener(pooler.dsn_for(DATABASE)).start()
        await check_defaults(pooler.dsn_for(DATABASE))


async def check_defaults(dsn: str) -> None:
    """Check that a session has the defaults of its database."""
    connection = await asyncpg.connect(dsn, statement_cache_size=0)
    for name, value in (("isolation", "serializable"), ("deferrable", "on")):
        question = f"SELECT 1 WHERE current_setting('default_transaction_{name}') = '{value}'"
        assert await connection.execute(question) == "SELECT 1"
    await connection.close()


async def test_r47_publishing_does_not_wait_and_leaves_no_setting_behind(
    new_pooler: NewPooler, database: str
) -> None:
    """Each statement through the pool says what its own transaction needs."""
    pooler = new_pooler(pool_mode="transaction", settings={"default_pool_size": "1"})
    dsn = pooler.dsn_for(DATABASE)
    async with (
        asyncio.timeout(WAIT_LIMIT),
        Listener(database) as listener,
        listener.stream("orders") as stream,
    ):
        async with serializable_writer(database), Notifier(dsn) as notifier:
            await asyncio.gather(*(notifier.notify("orders", str(n)) for n in range(3)))
            await notifier.notify_many(("orders", str(n)) for n in range(3, 5))
            assert [(await anext(stream)).payload for _ in range(5)] == list("01234")
        await check_defaults(dsn)
