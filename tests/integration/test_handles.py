"""notify(connection=…) within the transaction of a session or an ORM's handle, as users have it."""

from __future__ import annotations

import asyncio
import importlib
import warnings
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from asyncnotify import BlockingNotifier, Listener, Notification, Notifier
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from asyncnotify import Stream

    Handle = Callable[[str], AbstractAsyncContextManager[Any]]
    BlockingHandle = Callable[[str], AbstractContextManager[Any]]

DEADLINE: Final = scaled(20.0)


class Rollback(Exception):  # noqa: N818 - a signal, and no error
    """Ends a transaction."""


# -- handles, each in a transaction ---------------------------------------------------------------


def url_of(dsn: str, driver: str) -> str:
    """Return SQLAlchemy's URL."""
    return dsn.replace("postgresql://", f"postgresql+{driver}://")


def session_of(driver: str, module: str, name: str) -> Handle:
    """Return what makes an async session of a library on a driver."""

    @asynccontextmanager
    async def open_session(dsn: str) -> AsyncGenerator[Any]:
        kind = getattr(pytest.importorskip(module), name)
        engine = create_async_engine(url_of(dsn, driver), poolclass=NullPool)
        async with kind(engine) as session, session.begin():
            yield session

    return open_session


@asynccontextmanager
async def scoped(dsn: str) -> AsyncGenerator[Any]:
    """Have a registry of sessions, one for each task."""
    engine = create_async_engine(url_of(dsn, "asyncpg"), poolclass=NullPool)
    sessions: async_scoped_session[AsyncSession] = async_scoped_session(
        async_sessionmaker(engine), asyncio.current_task
    )
    try:
        yield sessions
        await sessions.commit()
    finally:
        await sessions.remove()


@asynccontextmanager
async def tortoise_at(url: str) -> AsyncGenerator[Any]:
    """Have Tortoise connect, without models."""
    library = pytest.importorskip("tortoise")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that the module has no models
        await library.Tortoise.init(db_url=url, modules={"models": ["tortoise.models"]})
    try:
        yield library.connections
    finally:
        await library.connections.close_all()


@asynccontextmanager
async def tortoise(dsn: str) -> AsyncGenerator[Any]:
    """Have the connection of a transaction of Tortoise."""
    async with tortoise_at(dsn.replace("postgresql://", "asyncpg://")):
        transactions = importlib.import_module("tortoise.transactions")
        async with transactions.in_transaction() as connection:
            yield connection


@asynccontextmanager
async def databases(dsn: str) -> AsyncGenerator[Any]:
    """Have a Database whose task is in a transaction."""
    library = pytest.importorskip("databases")
    async with library.Database(dsn) as database, database.transaction():
        yield database


HANDLES: Final[dict[str, Handle]] = {
    "async_scoped_session": scoped,
    "databases": databases,
    "SQLAlchemy by asyncpg": session_of("asyncpg", "sqlalchemy.ext.asyncio", "AsyncSession"),
    "SQLModel by asyncpg": session_of("asyncpg", "sqlmodel.ext.asyncio.session", "AsyncSession"),
    "SQLModel by psycopg": session_of("psycopg", "sqlmodel.ext.asyncio.session", "AsyncSession"),
    "Tortoise": tortoise,
}


@pytest.fixture(params=HANDLES)
def handle(request: pytest.FixtureRequest) -> Handle:
    """Each kind of handle."""
    return HANDLES[request.param]


async def payloads(stream: Stream[Notification[str]], count: int) -> list[str]:
    """Return what arrives next."""
    async with asyncio.timeout(DEADLINE):
        return [(await anext(stream)).payload for _ in range(count)]


async def test_it_arrives_on_commit_and_never_after_a_rollback(dsn: str, handle: Handle) -> None:
    """The notifier needs no connection of its own; nothing is warned of, nor left prepared."""
    notifier = Notifier("postgresql://nowhere")
    async with Listener(dsn) as listener, listener.stream("orders") as stream:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with suppress(Rollback):
                async with handle(dsn) as connection:
                    await notifier.notify("orders", "rolled back", connection=connection)
                    raise Rollback
            async with handle(dsn) as connection:
                await notifier.notify("orders", "it's committed", connection=connection)
                await listener.notify("orders", "at once")
        assert await payloads(stream, 2) == ["at once", "it's committed"]


async def test_a_tortoise_client_of_another_database_is_refused() -> None:
    """The TypeError names what was given."""
    async with tortoise_at("sqlite://:memory:") as connections:
        with pytest.raises(TypeError, match=r"not of type aiosqlite\.\w*\.?Connection"):
            await Notifier().notify("orders", "1", connection=connections.get("default"))


# -- for threads ----------------------------------------------------------------------------------


@contextmanager
def blocking_session(dsn: str) -> Generator[Any]:
    """Have a session of SQLAlchemy's."""
    engine = create_engine(url_of(dsn, "psycopg"), poolclass=NullPool)
    with Session(engine) as session, session.begin():
        yield session


@contextmanager
def blocking_scoped_session(dsn: str) -> Generator[Any]:
    """Have a registry of sessions, as Flask-SQLAlchemy has."""
    engine = create_engine(url_of(dsn, "psycopg"), poolclass=NullPool)
    sessions = scoped_session(sessionmaker(engine))
    try:
        yield sessions
        sessions.commit()
    finally:
        sessions.remove()


@contextmanager
def blocking_sqlmodel(dsn: str) -> Generator[Any]:
    """Have a session of SQLModel's."""
    library = pytest.importorskip("sqlmodel")
    engine = create_engine(url_of(dsn, "psycopg"), poolclass=NullPool)
    with library.Session(engine) as session, session.begin():
        yield session


@pytest.mark.parametrize(
    "handle",
    [blocking_session, blocking_scoped_session, blocking_sqlmodel],
    ids=lambda f: f.__name__,
)
async def test_threads_send_within_their_transactions(dsn: str, handle: BlockingHandle) -> None:
    """On commit, and never after a rollback; nothing is warned of."""
    notifier = BlockingNotifier("postgresql://nowhere")

    def send() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with suppress(Rollback), handle(dsn) as connection:
                notifier.notify("orders", "rolled back", connection=connection)
                raise Rollback
            with handle(dsn) as connection:
                notifier.notify("orders", "committed", connection=connection)

    async with Listener(dsn) as listener, listener.stream("orders") as stream:
        await asyncio.to_thread(send)
        assert await payloads(stream, 1) == ["committed"]


# -- what is none of them -------------------------------------------------------------------------


async def test_what_is_no_connection_is_refused_with_a_remedy(dsn: str) -> None:
    """The TypeError names the type and its library, and what to give instead."""
    engine = create_async_engine(url_of(dsn, "asyncpg"))
    of_threads = create_engine(url_of(dsn, "psycopg"), poolclass=NullPool)
    async with (
        asyncpg.create_pool(dsn, min_size=0) as pool,
        await psycopg.AsyncConnection.connect(dsn) as awaited,
        AsyncSession(engine) as session,
    ):
        with psycopg.connect(dsn) as blocking, Session(of_threads) as blocking_session_:
            for given, text in {
                engine: r"sqlalchemy\.AsyncEngine: use `async with engine\.begin\(\)",
                async_sessionmaker(engine): r"sqlalchemy\.async_sessionmaker: use `async with",
                pool: r"asyncpg\.Pool: use `async with pool\.acquire\(\)",
                blocking: r"psycopg\.Connection: it blocks: .* Blocking in its name",
                blocking_session_: r"sqlalchemy\.Session: it blocks: .* Blocking in its name",
                of_threads: r"sqlalchemy\.Engine: use",
                object(): r"not of type object$",
            }.items():
                with pytest.raises(TypeError, match=text):
                    await Notifier(dsn).notify("orders", connection=given)
        for given, text in {
            of_threads: r"sqlalchemy\.Engine: use `with engine\.begin\(\)",
            awaited: r"psycopg\.AsyncConnection: it has to be awaited: .* without Blocking",
            session: r"sqlalchemy\.AsyncSession: it has to be awaited: .* without Blocking",
        }.items():
            with pytest.raises(TypeError, match=text):
                BlockingNotifier(dsn).notify("orders", connection=given)
    await engine.dispose()


def test_what_connects_by_itself_is_no_dsn() -> None:
    """Nor what is connected already: the TypeError says what to do with it."""
    engine: Any = create_async_engine("postgresql+asyncpg://127.0.0.1:1/nowhere")
    with pytest.raises(TypeError, match=r"sqlalchemy\.AsyncEngine: use from_sqlalchemy\(engine\)"):
        Listener(engine)
    with pytest.raises(TypeError, match=r"sqlalchemy\.AsyncSession: .*connect="):
        Notifier(AsyncSession(engine))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
