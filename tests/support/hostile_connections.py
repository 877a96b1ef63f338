"""Connections of callers who have changed how values are coded, and more, on each driver."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import psycopg
from psycopg.adapt import Dumper, Loader
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from tests.support.codecs import TYPES, CustomRecord, refuse, set_codecs
from tests.support.driver_features import READS_CATALOGS_PLAINLY

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from psycopg.abc import AdaptContext, Buffer

    Opener = Callable[[str], AbstractAsyncContextManager[Any]]
    BlockingOpener = Callable[[str], AbstractContextManager[Any]]

RECORDS: Final[dict[str, Any]] = {"record_class": CustomRecord} if READS_CATALOGS_PLAINLY else {}


class Refusing(Dumper):
    """Sends nothing."""

    def dump(self, obj: Any) -> Buffer | None:
        """Refuse a value."""
        raise refuse(obj)


class Unreadable(Loader):
    """Reads nothing."""

    def load(self, data: Buffer) -> Any:
        """Refuse a value."""
        raise refuse(bytes(data))


def refuse_rows(_: object) -> Any:
    """Make no rows."""
    return refuse


def change(connection: Any) -> None:
    """Have a connection of psycopg's code nothing at all."""
    context: AdaptContext = connection
    for kind in (str, list, int, bool, bytes, type(None)):
        context.adapters.register_dumper(kind, Refusing)
    for name in TYPES:
        if (info := context.adapters.types.get(name)) is not None:
            context.adapters.register_loader(info.oid, Unreadable)
    connection.row_factory = refuse_rows
    connection.prepare_threshold = 0


# -- that are awaited -----------------------------------------------------------------------------


@asynccontextmanager
async def by_asyncpg(dsn: str) -> AsyncGenerator[Any]:
    """A connection of asyncpg's, in a transaction."""
    connection = await asyncpg.connect(dsn, **RECORDS)
    try:
        await set_codecs(connection)
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def by_pool(dsn: str) -> AsyncGenerator[Any]:
    """A connection of a pool, in a transaction."""
    options: dict[str, Any] = {"min_size": 1, "max_size": 1, "init": set_codecs}
    async with (
        asyncpg.create_pool(dsn, **options, **RECORDS) as pool,
        pool.acquire() as connection,
        connection.transaction(),
    ):
        yield connection


def by_psycopg(**options: Any) -> Opener:
    """Return what opens a connection of psycopg's, which begins by itself."""

    @asynccontextmanager
    async def opener(dsn: str) -> AsyncGenerator[Any]:
        connection = await psycopg.AsyncConnection.connect(dsn, **options)
        async with connection:
            change(connection)
            yield connection

    return opener


@asynccontextmanager
async def by_psycopg_in_a_pipeline(dsn: str) -> AsyncGenerator[Any]:
    """A connection of psycopg's that waits for no answer."""
    async with by_psycopg()(dsn) as connection, connection.pipeline(), connection.transaction():
        yield connection


def by_sqlalchemy(driver: str, kind: type[AsyncSession] | None = None) -> Opener:
    """Return what opens SQLAlchemy's connection or session."""

    @asynccontextmanager
    async def opener(dsn: str) -> AsyncGenerator[Any]:
        url = dsn.replace("postgresql:", f"postgresql+{driver}:")
        engine = create_async_engine(url, poolclass=NullPool)
        async with engine.connect() as connection:
            lent = await connection.get_raw_connection()
            used: Any = lent.driver_connection
            await connection.rollback()
            await set_codecs(used) if driver == "asyncpg" else change(used)
            if kind is None:
                async with connection.begin():
                    yield connection
            else:
                async with kind(connection) as session, session.begin():
                    yield session
        await engine.dispose()

    return opener


OPENERS: Final[dict[str, Opener]] = {
    "asyncpg": by_asyncpg,
    "pool": by_pool,
    "psycopg": by_psycopg(),
    "psycopg raw": by_psycopg(cursor_factory=psycopg.AsyncRawCursor),
    "psycopg client": by_psycopg(cursor_factory=psycopg.AsyncClientCursor),
    "psycopg autocommit": by_psycopg(autocommit=True),
    "psycopg pipeline": by_psycopg_in_a_pipeline,
    "SQLAlchemy connection on asyncpg": by_sqlalchemy("asyncpg"),
    "SQLAlchemy session on asyncpg": by_sqlalchemy("asyncpg", AsyncSession),
    "SQLAlchemy connection on psycopg": by_sqlalchemy("psycopg"),
    "SQLAlchemy session on psycopg": by_sqlalchemy("psycopg", AsyncSession),
}


# -- that block -----------------------------------------------------------------------------------


def blocking_by_psycopg(**options: Any) -> BlockingOpener:
    """Return what opens a connection of psycopg's, which begins by itself."""

    @contextmanager
    def opener(dsn: str) -> Generator[Any]:
        with psycopg.connect(dsn, **options) as connection:
            change(connection)
            yield connection

    return opener


@contextmanager
def blocking_by_psycopg_in_a_pipeline(dsn: str) -> Generator[Any]:
    """A connection of psycopg's that waits for no answer."""
    with blocking_by_psycopg()(dsn) as connection, connection.pipeline(), connection.transaction():
        yield connection


def blocking_by_sqlalchemy(kind: type[Session] | None = None) -> BlockingOpener:
    """Return what opens SQLAlchemy's connection or session."""

    @contextmanager
    def opener(dsn: str) -> Generator[Any]:
        url = dsn.replace("postgresql:", "postgresql+psycopg:")
        engine = create_engine(url, poolclass=NullPool)
        with engine.connect() as connection:
            change(connection.connection.driver_connection)
            if kind is None:
                with connection.begin():
                    yield connection
            else:
                with kind(connection) as session, session.begin():
                    yield session
        engine.dispose()

    return opener


BLOCKING_OPENERS: Final[dict[str, BlockingOpener]] = {
    "psycopg": blocking_by_psycopg(),
    "psycopg raw": blocking_by_psycopg(cursor_factory=psycopg.RawCursor),
    "psycopg client": blocking_by_psycopg(cursor_factory=psycopg.ClientCursor),
    "psycopg autocommit": blocking_by_psycopg(autocommit=True),
    "psycopg pipeline": blocking_by_psycopg_in_a_pipeline,
    "SQLAlchemy connection": blocking_by_sqlalchemy(),
    "SQLAlchemy session": blocking_by_sqlalchemy(Session),
}
