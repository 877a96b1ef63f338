"""Every way in which a notification is sent, each opened through a pooler."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg
import psycopg
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from asyncnotify import BlockingNotifier, Listener, Notifier
from tests.network.arrivals import CHANNEL

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    Send: TypeAlias = Callable[[str], Awaitable[None]]
    Sender: TypeAlias = Callable[[str, str], AbstractAsyncContextManager[Send]]


def sending_by(notifier: Notifier | Listener) -> Send:
    """Return what sends a payload by itself."""

    async def send(payload: str) -> None:
        await notifier.notify(CHANNEL, payload)

    return send


def sending_within(connection: Any) -> Send:
    """Return what sends a payload on a connection of the caller's."""
    notifier = Notifier()

    async def send(payload: str) -> None:
        await notifier.notify(CHANNEL, payload, connection=connection)

    return send


# -- connections of asyncnotify's -----------------------------------------------------------------


@asynccontextmanager
async def by_dsn(pooler: str, server: str) -> AsyncGenerator[Send]:
    """Connect by a DSN."""
    async with Notifier(pooler) as notifier:
        yield sending_by(notifier)


@asynccontextmanager
async def by_connect(pooler: str, server: str) -> AsyncGenerator[Send]:
    """Connect by a callable."""
    async with Notifier(connect=lambda: asyncpg.connect(pooler)) as notifier:
        yield sending_by(notifier)


@asynccontextmanager
async def by_engine(pooler: str, server: str) -> AsyncGenerator[Send]:
    """Connect as an engine does."""
    engine = create_async_engine(url_of(pooler, "asyncpg"))
    async with Notifier.from_sqlalchemy(engine) as notifier:
        yield sending_by(notifier)
    await engine.dispose()


@asynccontextmanager
async def by_listener(pooler: str, server: str) -> AsyncGenerator[Send]:
    """Listen at the server itself, and send through the pooler."""
    places = [server]

    async def connect() -> asyncpg.Connection[Any]:
        return await asyncpg.connect(places.pop() if places else pooler)

    async with Listener(connect=connect) as listener:
        yield sending_by(listener)


@asynccontextmanager
async def from_threads(pooler: str, server: str) -> AsyncGenerator[Send]:
    """Send from a thread."""
    notifier = BlockingNotifier(pooler)

    async def send(payload: str) -> None:
        await asyncio.to_thread(notifier.notify, CHANNEL, payload)

    await asyncio.to_thread(notifier.start)
    yield send
    await asyncio.to_thread(notifier.close)


@asynccontextmanager
async def by_pool(pooler: str, server: str) -> AsyncGenerator[Send]:
    """Borrow from a pool."""
    async with asyncpg.create_pool(pooler, min_size=1, max_size=2) as pool:
        notifier = Notifier(pool=pool)
        yield sending_by(notifier)
        await notifier.aclose()


# -- connections of the caller's ------------------------------------------------------------------


@asynccontextmanager
async def on_asyncpg(pooler: str, server: str) -> AsyncGenerator[Send]:
    """Send on a connection that is in no transaction."""
    connection = await asyncpg.connect(pooler)
    yield sending_within(connection)
    connection.terminate()


@asynccontextmanager
async def on_asyncpg_in_a_transaction(pooler: str, server: str) -> AsyncGenerator[Send]:
    """Send in a transaction on a connection acquired from a pool."""
    async with asyncpg.create_pool(pooler, min_size=1, max_size=1) as pool:

        async def send(payload: str) -> None:
            async with pool.acquire() as connection, connection.transaction():
                await sending_within(connection)(payload)

        yield send


@asynccontextmanager
async def on_psycopg(pooler: str, server: str) -> AsyncGenerator[Send]:
    """Send on a connection that commits by itself, and prepares at the first repetition."""
    connection = await psycopg.AsyncConnection.connect(pooler, autocommit=True, prepare_threshold=0)
    async with connection:
        yield sending_within(connection)


@asynccontextmanager
async def on_psycopg_in_a_transaction(pooler: str, server: str) -> AsyncGenerator[Send]:
    """Send in a transaction."""
    connection = await psycopg.AsyncConnection.connect(pooler)
    async with connection:

        async def send(payload: str) -> None:
            async with connection.transaction():
                await sending_within(connection)(payload)

        yield send


def url_of(dsn: str, driver: str) -> str:
    """Return SQLAlchemy's URL."""
    return dsn.replace("postgresql://", f"postgresql+{driver}://")


def on_sqlalchemy(driver: str, kind: type[AsyncSession] | None, isolation: str | None) -> Sender:
    """Send on SQLAlchemy's connection or session, of an engine whose pool holds one."""

    @asynccontextmanager
    async def sender(pooler: str, server: str) -> AsyncGenerator[Send]:
        options: dict[str, Any] = {"pool_size": 1, "max_overflow": 0}
        if isolation:
            options["isolation_level"] = isolation
        if driver == "psycopg":
            options["connect_args"] = {"prepare_threshold": 1}
        engine = create_async_engine(url_of(pooler, driver), **options)
        async with engine.connect():
            pass  # its first connection asks the server, and prepares to do so

        async def send(payload: str) -> None:
            async with kind(engine) if kind else engine.connect() as connection:
                await sending_within(connection)(payload)
                await connection.commit()

        yield send
        with contextlib.suppress(asyncpg.PostgresError):
            await engine.dispose()

    return sender


STATEMENTS: Final[dict[str, Sender]] = {
    "dsn": by_dsn,
    "connect": by_connect,
    "engine": by_engine,
    "listener": by_listener,
    "threads": from_threads,
    "pool": by_pool,
    "asyncpg": on_asyncpg,
    "psycopg": on_psycopg,
    "connection on asyncpg, autocommit": on_sqlalchemy("asyncpg", None, "AUTOCOMMIT"),
    "session on asyncpg, autocommit": on_sqlalchemy("asyncpg", AsyncSession, "AUTOCOMMIT"),
}
"""Those on which nobody needs a transaction of several statements."""

TRANSACTIONS: Final[dict[str, Sender]] = {
    "asyncpg in a transaction": on_asyncpg_in_a_transaction,
    "psycopg in a transaction": on_psycopg_in_a_transaction,
    "connection on asyncpg": on_sqlalchemy("asyncpg", None, None),
    "session on asyncpg": on_sqlalchemy("asyncpg", AsyncSession, None),
    "connection on psycopg": on_sqlalchemy("psycopg", None, None),
    "session on psycopg": on_sqlalchemy("psycopg", AsyncSession, None),
    # SQLAlchemy makes the first connection of an engine in a transaction, also of these
    "connection on psycopg, autocommit": on_sqlalchemy("psycopg", None, "AUTOCOMMIT"),
    "session on psycopg, autocommit": on_sqlalchemy("psycopg", AsyncSession, "AUTOCOMMIT"),
}
"""Those on which the caller, or the driver, begins one: a pool of statements refuses that."""

SENDERS: Final = {**STATEMENTS, **TRANSACTIONS}
