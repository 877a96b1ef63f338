"""Transactions of the drivers that ``notify(connection=…)`` takes."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tests.chaos.sender import LOST

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

__all__ = ["FAILURES", "KINDS_OF_TRANSACTION", "Transaction"]

FAILURES: Final = (*LOST, DBAPIError, psycopg.Error)
"""What drivers raise when the server or the pooler has gone, or refuses a transaction."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One that has begun, or begins with its first statement."""

    library: str
    connection: Any
    commit: Callable[[], Awaitable[object]]
    rollback: Callable[[], Awaitable[object]]


class _ClosesInTime(asyncpg.Connection):
    """
    Keeps to ``close(timeout=)``, on which SQLAlchemy relies when it drops a connection.

    Before 0.32 asyncpg first waits without one for the answer to a command cancelled earlier, for
    ever if the connection has been lost since.
    """

    async def close(self, *, timeout: float | None = None) -> None:
        """Close, or raise TimeoutError after so many seconds."""
        async with asyncio.timeout(timeout):
            await super().close(timeout=timeout)


@asynccontextmanager
async def _of_asyncpg(dsn: str) -> AsyncGenerator[Transaction]:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("BEGIN")
        yield Transaction(
            "asyncpg",
            connection,
            commit=lambda: connection.execute("COMMIT"),
            rollback=lambda: connection.execute("ROLLBACK"),
        )
    finally:
        connection.terminate()


@asynccontextmanager
async def _of_sqlalchemy(dsn: str) -> AsyncGenerator[Transaction]:
    arguments = {
        # As SQLAlchemy's documentation advises for a pooler
        "prepared_statement_name_func": lambda: f"sqlalchemy_{uuid.uuid4().hex}",
        "connection_class": _ClosesInTime,
    }
    url = dsn.replace("postgresql:", "postgresql+asyncpg:", 1)
    engine = create_async_engine(url, poolclass=NullPool, connect_args=arguments)
    async with engine.connect() as connection:
        yield Transaction("sqlalchemy", connection, connection.commit, connection.rollback)


@asynccontextmanager
async def _of_psycopg(dsn: str) -> AsyncGenerator[Transaction]:
    connection = await psycopg.AsyncConnection.connect(dsn)
    try:
        yield Transaction("psycopg", connection, connection.commit, connection.rollback)
    finally:
        await connection.close()


KINDS_OF_TRANSACTION: Final[
    tuple[Callable[[str], AbstractAsyncContextManager[Transaction]], ...]
] = (*(_of_asyncpg, _of_sqlalchemy, _of_psycopg),)
"""Each opens a connection of its own, and ends it."""
