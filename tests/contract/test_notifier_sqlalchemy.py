"""Notifier.from_sqlalchemy(): connects as the engine does, and leaves its pool alone."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from asyncnotify import ConnectError, ConnectionLostError, Listener, Notification, Notifier
from asyncnotify.testing.proxy import FaultProxy
from asyncnotify.testing.server import PostgresServer
from tests.support.machine import scaled
from tests.support.server_faults import ServerFaults

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from tests.contract.conftest import Database, Inbox

    Text = Inbox[Notification[str]]

pytestmark = pytest.mark.needs_server("sqlalchemy")

NAMES = """
    SELECT application_name FROM pg_stat_activity
    WHERE datname = current_database() AND application_name <> 'tests' ORDER BY backend_start
"""


def url_of(dsn: str, driver: str = "asyncpg") -> str:
    """Return SQLAlchemy's URL."""
    return dsn.replace("postgresql://", f"postgresql+{driver}://")


@contextlib.asynccontextmanager
async def engine_of(dsn: str, **options: Any) -> AsyncGenerator[AsyncEngine]:
    """Have an engine, disposed of in the end, which nobody has used."""
    engine = create_async_engine(url_of(dsn), **options)
    yield engine
    pool: Any = engine.pool  # of the default kind, which counts
    assert (pool.checkedout(), pool.checkedin()) == (0, 0)
    await engine.dispose()


@pytest_asyncio.fixture
async def listener(dsn: str, inbox: Text) -> AsyncIterator[Listener]:
    """A listener on orders."""
    async with Listener(dsn, server_settings={"application_name": "tests"}) as listener:
        await listener.listen("orders", inbox)
        yield listener


async def test_it_sends_to_where_the_engine_leads(
    listener: Listener, dsn: str, database: Database, inbox: Text
) -> None:
    """One connection of its own, under its own name, and none of the engine's."""
    async with (
        engine_of(dsn, pool_size=1, max_overflow=0) as engine,
        Notifier.from_sqlalchemy(engine) as notifier,
    ):
        await notifier.notify("orders", "1")
        assert await inbox.payloads(1) == ["1"]
        rows = await database.connection.fetch(NAMES)
        assert [row[0] for row in rows] == ["asyncnotify"]
        assert "password" not in repr(notifier)
        assert str(engine.url.port) in repr(notifier)


async def test_arguments_for_the_driver_count(
    listener: Listener, dsn: str, database: Database
) -> None:
    """connect_args of the engine are those of the notifier's connection."""
    settings = {"application_name": "the shop", "statement_timeout": "12345"}
    async with (
        engine_of(dsn, connect_args={"server_settings": settings}) as engine,
        Notifier.from_sqlalchemy(engine),
    ):
        rows = await database.connection.fetch(NAMES)
        assert [row[0] for row in rows] == ["the shop"]


async def test_a_creator_of_connections_is_asked(
    listener: Listener, dsn: str, database: Database, inbox: Text
) -> None:
    """async_creator= makes the notifier's connections as well, each time one is needed."""
    made: list[int] = []

    async def create() -> asyncpg.Connection[Any]:
        settings = {"application_name": "asyncnotify"}
        connection = await asyncpg.connect(dsn, server_settings=settings)
        made.append(connection.get_server_pid())
        return connection

    async with (
        engine_of(dsn, async_creator=create) as engine,
        Notifier.from_sqlalchemy(engine, start_timeout=scaled(5.0)) as notifier,
    ):
        await notifier.notify("orders", "1")
        await database.kill_backends()
        await database.until_backends(0)
        await notifier.notify("orders", "2", retry=True)
        assert len(set(made)) == 2
    payloads = await inbox.payloads(2)
    assert payloads == ["1", "2"]


class ChangingPassword:
    """A server whose role has another password by now, and a notifier of an engine to tell it."""

    def __init__(self, faults: ServerFaults, proxy: FaultProxy, notifier: Notifier) -> None:
        self.faults = faults
        self.proxy = proxy
        self.notifier = notifier
        self.told = "one"  # by do_connect

    async def change_and_end(self) -> int:
        """Change the password, and end the notifier's session; return its pid."""
        await self.faults.set_password("alice", "two")
        [pid] = await self.faults.terminate()
        return pid


@contextlib.asynccontextmanager
async def changing_password(template: PostgresServer) -> AsyncGenerator[ChangingPassword]:
    """Run a notifier whose do_connect puts the right password in place of the engine's."""
    hba = ["host all alice 127.0.0.1/32 scram-sha-256"]
    with PostgresServer(template=template, hba=hba) as server:
        admin = await asyncpg.connect(server.dsn)
        await admin.execute("CREATE ROLE alice LOGIN PASSWORD 'one'")
        await admin.close()
        dsn = server.dsn_for("postgres", user="alice", password="old")
        async with (
            ServerFaults(server.dsn) as faults,
            FaultProxy.for_dsn(dsn) as proxy,
            engine_of(proxy.proxied_dsn(dsn)) as engine,
        ):

            def provide(
                _dialect: object, _record: object, _args: object, arguments: dict[str, Any]
            ) -> None:
                arguments["password"] = made.told

            event.listen(engine.sync_engine, "do_connect", provide)
            notifier = Notifier.from_sqlalchemy(engine, retry_timeout=scaled(0.5))
            made = ChangingPassword(faults, proxy, notifier)
            async with notifier:
                await notifier.notify("orders", "the first")
                yield made
                made.told = "two"
                await notifier.notify("orders", "the last")


async def test_a_password_that_changes_is_asked_for_at_each_connection(
    template: PostgresServer,
) -> None:
    """The end of the old one is known: nothing was sent, and that is what is told."""
    async with changing_password(template) as changing:
        pid = await changing.change_and_end()
        await changing.faults.until_gone(pid)
        with pytest.raises(ConnectError) as caught:
            await changing.notifier.notify("orders", "the second", retry=True)
        assert isinstance(caught.value.__cause__, asyncpg.InvalidPasswordError)


async def test_a_password_that_changes_while_a_statement_is_on_its_way_leaves_doubt(
    template: PostgresServer,
) -> None:
    """The end is read after the statement was written: no later attempt says that nothing was."""
    async with changing_password(template) as changing:
        changing.proxy.pause("to_client")
        written = changing.proxy.detect(b"the second")
        await changing.change_and_end()
        calling = asyncio.ensure_future(
            changing.notifier.notify("orders", "the second", retry=True)
        )
        await written.wait()
        changing.proxy.resume()
        with pytest.raises(ConnectionLostError) as caught:
            await calling
        refused = caught.value.__cause__
        assert isinstance(refused, ConnectError)
        assert isinstance(refused.__cause__, asyncpg.InvalidPasswordError)


async def test_an_event_that_connects_by_itself_is_asked(
    listener: Listener, dsn: str, inbox: Text
) -> None:
    """What do_connect returns is the connection."""
    made: list[object] = []

    async with engine_of(dsn) as engine:

        def connect(dialect: Any, _: object, args: Any, arguments: Any) -> object:
            made.append(dialect.connect(*args, **arguments))
            return made[-1]

        event.listen(engine.sync_engine, "do_connect", connect)
        async with Notifier.from_sqlalchemy(engine, start_timeout=scaled(5.0)) as notifier:
            await notifier.notify("orders", "1")
        assert await inbox.payloads(1) == ["1"]
        assert len(made) == 1


async def test_it_sends_in_a_transaction_of_the_engines(
    listener: Listener, dsn: str, inbox: Text
) -> None:
    """The same notifier sends by itself, and in the engine's transactions."""
    engine = create_async_engine(url_of(dsn))
    async with Notifier.from_sqlalchemy(engine) as notifier:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT 1"))
            await notifier.notify("orders", "within", connection=connection)
            await notifier.notify("orders", "at once")
        assert await inbox.payloads(2) == ["at once", "within"]
    await engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "sync", "url"])
def test_another_engine_is_refused(dsn: str, driver: str) -> None:
    """A TypeError says what is needed, before anything is connected."""
    engine: Any = url_of(dsn)
    if driver == "psycopg":
        engine = create_async_engine(url_of(dsn, "psycopg"))
    elif driver == "psycopg2":
        engine = create_engine("sqlite://")
    elif driver == "sync":
        engine = create_engine(url_of(dsn, "psycopg"))
    with pytest.raises(TypeError, match="needed"):
        Notifier.from_sqlalchemy(engine)


async def test_nothing_else_may_say_how_to_connect(dsn: str) -> None:
    """Neither a DSN nor a pool goes with an engine."""
    async with engine_of(dsn) as engine:
        for options in ({"dsn": dsn}, {"pool": object()}, {"password": "p"}):
            with pytest.raises(TypeError):
                Notifier.from_sqlalchemy(engine, **options)
