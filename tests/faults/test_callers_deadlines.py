"""In a transaction of the caller's, the caller's deadlines count, and are heeded at once."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from asyncnotify import Notifier
from asyncnotify.log import Log
from asyncnotify.testing.proxy import FaultProxy
from tests.contract.test_notifier_transactions import Caller, begun
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

DEADLINE: Final = 0.3
SOON: Final = scaled(3.0)
"""Seconds in which a call that has exceeded the caller's deadline has ended."""


@asynccontextmanager
async def by_asyncpg(dsn: str, **options: Any) -> AsyncGenerator[Caller]:
    """Have a plain connection, that is dropped at the end."""
    connection = await asyncpg.connect(dsn, **options)
    yield await begun(connection)
    connection.terminate()


@asynccontextmanager
async def by_engine(dsn: str, **options: Any) -> AsyncGenerator[Caller]:
    """Have SQLAlchemy's connection."""
    url = dsn.replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(url, poolclass=NullPool, connect_args=options)
    async with engine.connect() as connection:
        yield Caller(connection, connection.exec_driver_sql)
    await engine.dispose()


OPENERS: Final = {"asyncpg": by_asyncpg, "engine": by_engine}


@pytest.mark.parametrize("kind", OPENERS)
@pytest.mark.parametrize("of", ["connection", "call"])
async def test_p8_a_server_that_does_not_answer_holds_nobody_longer_than_the_caller_wants(
    dsn: str, kind: str, of: str
) -> None:
    """
    By a deadline of the connection, or of the call: of notify(), and of append() of a log.

    asyncnotify has none of its own there: to keep it, the caller's transaction would have to end.
    """
    options = {"command_timeout": DEADLINE} if of == "connection" else {}
    limit = None if of == "connection" else DEADLINE
    async with FaultProxy.for_dsn(dsn) as proxy:
        for send in (Notifier(dsn).notify, Log("orders", dsn).append):
            async with OPENERS[kind](proxy.proxied_dsn(dsn), **options) as caller:
                await caller.execute("SELECT 1")
                proxy.pause()
                began = asyncio.get_running_loop().time()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(limit):
                        await send("orders", "1", connection=caller.connection)
                assert asyncio.get_running_loop().time() - began < SOON
                proxy.resume()
