"""Listener.from_sqlalchemy(): it connects as the engine does, and leaves the engine alone."""

from __future__ import annotations

import asyncio
import gc
import itertools
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import NullPool, create_engine, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.util import await_only

from asyncnotify import (
    AsyncNotifyError,
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    Gap,
    GapReason,
    Listener,
    Notification,
    Notifier,
    State,
)
from asyncnotify._asyncpg._parameters.settings import Given
from asyncnotify._asyncpg.connection import RegisteredCallback
from asyncnotify._asyncpg.sqlalchemy import EngineConnect
from asyncnotify.testing.server import PostgresServer
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from sqlalchemy import Dialect
    from sqlalchemy.ext.asyncio import AsyncEngine

    from tests.contract.conftest import Database

pytestmark = pytest.mark.needs_server("sqlalchemy")

RACY: Final = 10  # connections that are made at once


def url_of(dsn: str, **parts: Any) -> str:
    """Return a DSN as SQLAlchemy writes it."""
    url = make_url(dsn).set(drivername="postgresql+asyncpg", **parts)
    return url.render_as_string(hide_password=False)


@pytest_asyncio.fixture
async def engine(dsn: str) -> AsyncIterator[AsyncEngine]:
    """An application's engine, whose only connection is quickly gone."""
    engine = create_async_engine(url_of(dsn), pool_size=1, max_overflow=0, pool_timeout=5)
    yield engine
    await engine.dispose()


@pytest.fixture
def guarded(template: PostgresServer) -> Iterator[PostgresServer]:
    """A server that asks the role ``guest`` for a password, which is ``first``."""
    hba = ["host all guest 127.0.0.1/32 scram-sha-256"]
    with PostgresServer(template=template, hba=hba) as server:
        asyncio.run(run(server, "CREATE ROLE guest LOGIN PASSWORD 'first'"))
        yield server


async def run(server: PostgresServer, sql: str) -> None:
    """Run a statement as the superuser."""
    connection = await asyncpg.connect(server.dsn)
    await connection.execute(sql)
    await connection.close()


def noting(names: list[str], name: str) -> Callable[..., None]:
    """Return a function that notes that it was called."""

    def note(*_: object) -> None:
        names.append(name)

    return note


async def works(listener: Listener) -> bool:
    """Return whether a notification goes round."""
    async with listener, listener.stream("orders") as stream:
        await listener.notify("orders", "1")
        return (await anext(stream)).payload == "1"


async def serves(engine: AsyncEngine) -> bool:
    """Return whether a listener soon works with what the engine says; leave no garbage."""
    try:
        return await works(Listener.from_sqlalchemy(engine, start_timeout=scaled(5.0)))
    except ConnectTimeoutError:
        return False
    finally:
        gc.collect()


async def works_in(engine: AsyncEngine) -> bool:
    """Return whether the engine itself can work."""
    async with engine.connect() as connection:
        return (await connection.execute(text("SELECT 1"))).scalar() == 1


# -- where to, and how ----------------------------------------------------------------------------


async def test_it_connects_where_the_engine_does(
    engine: AsyncEngine, dsn: str, database: Database
) -> None:
    """What the application notifies in its transactions arrives; the repr tells where from."""
    parts = urlsplit(dsn)
    listener = Listener.from_sqlalchemy(engine, heartbeat=3.0)
    assert f"{parts.hostname}:{parts.port}{parts.path}" in repr(listener)
    async with listener, listener.stream("orders") as stream, engine.begin() as connection:
        await listener.notify("orders", "1")
        assert (await anext(stream)).payload == "1"
        await connection.execute(text("SELECT pg_notify('orders', '2')"))
        await connection.commit()
        assert (await anext(stream)).payload == "2"
        assert len(await database.backends()) == 2


async def test_its_connections_call_the_fast_hook(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hand notifications over without a callback that is registered with the driver."""
    registered: list[object] = []
    monkeypatch.setattr(RegisteredCallback, "add", registered.append)
    assert await works(Listener.from_sqlalchemy(engine))
    assert registered == []


async def test_connect_args_are_honoured(dsn: str, database: Database) -> None:
    """What the engine gives the driver the listener gives it too; the dialect's own is left out."""
    engine = create_async_engine(
        url_of(dsn, query={"prepared_statement_cache_size": "7"}),
        connect_args={
            "prepared_statement_name_func": lambda: "",
            "statement_cache_size": 0,
            "server_settings": {"application_name": "asyncnotify", "work_mem": "3MB"},
        },
    )
    async with Listener.from_sqlalchemy(engine) as listener:
        assert listener.is_connected
        (backend,) = await database.backends()
        settings = await database.connection.fetchval(
            "SELECT application_name FROM pg_stat_activity WHERE pid = $1", backend["pid"]
        )
        assert settings == "asyncnotify"
    named = create_async_engine(
        url_of(dsn), connect_args={"server_settings": {"application_name": "shop"}}
    )
    async with Listener.from_sqlalchemy(named):
        assert await database.until_backends(0) == []
    await engine.dispose()
    await named.dispose()


async def test_arguments_that_the_driver_refuses_end_the_start(dsn: str) -> None:
    """An argument that asyncpg does not know is a mistake, told in one attempt."""
    engine = create_async_engine(url_of(dsn), connect_args={"sslmood": "x"})
    with pytest.raises(ConfigurationError):
        await Listener.from_sqlalchemy(engine).start()


async def test_several_hosts_are_tried(dsn: str, unused_port: int) -> None:
    """Of an engine's several hosts the one that answers serves."""
    parts = urlsplit(dsn)
    hosts = [f"127.0.0.1:{unused_port}", f"{parts.hostname}:{parts.port}"]
    engine = create_async_engine(url_of(dsn, host=None, port=None, query={"host": hosts}))
    assert await works_in(engine)
    assert await works(Listener.from_sqlalchemy(engine))
    await engine.dispose()


@pytest.fixture
def unused_port(own_server: PostgresServer) -> int:
    """A port on which nobody listens any more."""
    port = own_server.port
    own_server.stop("immediate")
    return port


# -- the engine is left alone ---------------------------------------------------------------------


async def test_nothing_is_taken_from_the_pool(engine: AsyncEngine, database: Database) -> None:
    """While all of the pool is in use, a listener begins, listens, and comes back."""
    pool_events: list[str] = []
    for name in ("connect", "checkout", "checkin", "close", "invalidate"):
        event.listen(engine.sync_engine, name, noting(pool_events, name))
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        assert pool_events == ["connect", "checkout"]
        status = engine.pool.status()
        async with Listener.from_sqlalchemy(engine) as listener:
            async with listener.stream("orders") as stream:
                await database.interrupt(listener)
                await database.notify("orders", "1")
                assert (await anext(stream)).payload == "1"
            assert engine.pool.status() == status
    assert pool_events == ["connect", "checkout", "checkin"]
    assert await works_in(engine)


async def test_the_engines_events_are_as_before(engine: AsyncEngine, database: Database) -> None:
    """However often it connects, it leaves no function of its own with the engine."""
    seen: list[str] = []

    @event.listens_for(engine.sync_engine, "do_connect")
    def watch(dialect: object, record: object, arguments: object, named: dict[str, Any]) -> None:
        seen.append(named["database"])

    functions = list(engine.sync_engine.dialect.dispatch.do_connect)
    async with Listener.from_sqlalchemy(engine) as listener:
        await database.interrupt(listener)
        await database.interrupt(listener)
    assert len(seen) == 3
    assert list(engine.sync_engine.dialect.dispatch.do_connect) == functions
    assert await works_in(engine)
    assert len(seen) == 4


async def test_connecting_at_once_confuses_nobody(dsn: str) -> None:
    """Listeners, notifiers and the engine itself may all connect at the same time."""
    engine = create_async_engine(url_of(dsn), poolclass=NullPool)
    listeners = [Listener.from_sqlalchemy(engine) for _ in range(RACY)]
    results = await asyncio.gather(*map(works, listeners), *(works_in(engine) for _ in range(RACY)))
    assert all(results)
    async with Notifier.from_sqlalchemy(engine) as notifier:
        await notifier.notify("orders", "1")
    await engine.dispose()


async def test_r58_hooks_of_the_application_run_undisturbed(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While listeners and notifiers connect, so does the application, whose hook takes its time."""
    engine = create_async_engine(url_of(dsn), poolclass=NullPool)
    given: list[dict[str, Any]] = []

    @event.listens_for(engine.sync_engine, "do_connect")
    def give(dialect: object, record: object, arguments: object, named: dict[str, Any]) -> None:
        assert "password" not in named or named["password"] != "token"  # a copy, each time
        await_only(asyncio.sleep(0))
        named["password"] = "token"
        given.append(named)

    def refuse(*_: object) -> None:
        message = "the engine's events were changed"
        raise AssertionError(message)

    for name in ("listen", "remove", "listens_for"):
        monkeypatch.setattr(event, name, refuse)
    ours = [kind.from_sqlalchemy(engine) for kind in (Listener, Notifier) for _ in range(4)]

    async def open_and_close(one: Any) -> None:
        async with one:
            await one.notify("orders", "1")

    await asyncio.gather(*map(open_and_close, ours), *(works_in(engine) for _ in range(RACY * 4)))
    assert len(given) >= len(ours) + RACY * 4
    await engine.dispose()


async def test_r58_nothing_of_the_engine_is_changed(engine: AsyncEngine) -> None:
    """Pool, dialect and the functions on their events are the same objects as before."""

    def parts() -> list[object]:
        sync = engine.sync_engine
        events = [list(getattr(sync.pool.dispatch, name)) for name in ("connect", "first_connect")]
        _ = sync.dialect.dispatch  # is kept once it was looked at
        return [sync.pool, vars(sync.dialect).copy(), *events, sync.pool.status()]

    before = parts()
    assert await works(Listener.from_sqlalchemy(engine))
    assert parts() == before
    assert await works_in(engine)


async def test_canary_an_engine_says_how_it_connects(engine: AsyncEngine) -> None:
    """SQLAlchemy keeps the arguments where we look for them: we dial, address by address."""
    assert isinstance(await EngineConnect(engine)(), Given)


# -- coming back ----------------------------------------------------------------------------------


async def test_it_survives_a_killed_backend_with_a_gap(
    engine: AsyncEngine, database: Database
) -> None:
    """As every listener: a Gap at the place of the loss, and what follows it."""
    async with (
        Listener.from_sqlalchemy(engine) as listener,
        listener.stream("orders", gaps=True) as stream,
    ):
        await database.notify("orders", "1")
        await database.fence(listener)
        await database.interrupt(listener)
        await database.notify("orders", "2")
        items = [await anext(stream) for _ in range(4)]
    reasons = [item.reason for item in items if isinstance(item, Gap)]
    assert reasons == [GapReason.START, GapReason.RECONNECT]
    assert [item.payload for item in items if isinstance(item, Notification)] == ["1", "2"]


async def test_a_disposed_engine_still_says_how_to_connect(
    engine: AsyncEngine, database: Database
) -> None:
    """dispose() concerns the pool: the listener goes on, and comes back, once and again."""
    assert await works_in(engine)
    async with Listener.from_sqlalchemy(engine) as listener, listener.stream("orders") as stream:
        await engine.dispose()
        await database.notify("orders", "1")
        assert (await anext(stream)).payload == "1"
        await database.interrupt(listener)
        await engine.dispose(close=False)
        await database.interrupt(listener)
        await database.notify("orders", "2")
        assert (await anext(stream)).payload == "2"
    assert await works_in(engine)


async def test_r12_do_connect_is_asked_at_each_connection(guarded: PostgresServer) -> None:
    """A password that rotates is given by the engine's event; refused meanwhile, it tries on."""
    passwords = ["first"]
    asked: list[str] = []
    engine = create_async_engine(url_of(guarded.dsn_for("postgres", user="guest")))

    @event.listens_for(engine.sync_engine, "do_connect")
    def give(dialect: object, record: object, arguments: object, named: dict[str, Any]) -> None:
        asked.append(passwords[-1])
        named["password"] = passwords[-1]

    listener = Listener.from_sqlalchemy(engine, backoff=lambda: itertools.repeat(0.02))
    async with listener, listener.stream("orders", gaps=True) as stream:
        events = listener.events()
        assert await anext(stream) == Gap("orders", GapReason.START)
        await run(guarded, "ALTER ROLE guest PASSWORD 'second'")
        await run(
            guarded,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'guest'",
        )
        while listener.state is not State.DEGRADED:
            await anext(events)
        passwords.append("second")
        gap = await anext(stream)
        assert isinstance(gap, Gap)
        assert gap.reason is GapReason.RECONNECT
        await listener.notify("orders", "1")
        assert isinstance(await anext(stream), Notification)
    assert asked[0] == "first"
    assert asked[-2:] == ["second", "second"]
    await engine.dispose()


async def test_r43_a_wrong_password_is_refused_at_once_and_not_told(
    guarded: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """start() raises in one attempt; the URL's password is in no message and no log."""
    engine = create_async_engine(
        url_of(guarded.dsn_for("postgres", user="guest"), password="wr0ng")
    )
    listener = Listener.from_sqlalchemy(engine)
    with pytest.raises(ConnectError, match="password") as caught:
        await listener.start()
    assert isinstance(caught.value.__cause__, asyncpg.InvalidPasswordError)
    said = [str(caught.value), repr(caught.value), repr(listener), caplog.text]
    assert not any("wr0ng" in text for text in said)


# -- engines that make their connections in other ways --------------------------------------------


async def test_a_function_that_makes_the_connections_is_called(dsn: str) -> None:
    """``async_creator_fn`` among the connect_args makes the listener's connections, too."""
    made: list[Any] = []

    async def create() -> asyncpg.Connection[Any]:
        settings = {"application_name": "asyncnotify"}
        connection = await asyncpg.connect(dsn, server_settings=settings)
        made.append(connection)
        return connection

    engine = create_async_engine("postgresql+asyncpg://", connect_args={"async_creator_fn": create})
    assert await works(Listener.from_sqlalchemy(engine))
    assert len(made) == 2
    await engine.dispose()


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_an_engine_with_async_creator_serves(dsn: str) -> None:
    """So does the ``async_creator`` of create_async_engine(), where SQLAlchemy documents it."""

    async def create() -> asyncpg.Connection[Any]:
        settings = {"application_name": "asyncnotify"}
        return await asyncpg.connect(dsn, server_settings=settings)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=create)
    assert await works_in(engine)
    await engine.dispose()
    assert await serves(engine)


async def test_do_connect_may_await(dsn: str) -> None:
    """A function on the event that waits for its token, as the engine lets it, does so here."""
    engine = create_async_engine(url_of(dsn))

    async def token() -> str:
        await asyncio.sleep(0)
        return "token"

    @event.listens_for(engine.sync_engine, "do_connect")
    def give(dialect: object, record: object, arguments: object, named: dict[str, Any]) -> None:
        named["password"] = await_only(token())

    assert await works_in(engine)
    await engine.dispose()
    assert await serves(engine)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_a_do_connect_that_connects_itself_serves_or_is_refused(dsn: str) -> None:
    """Where the connection itself cannot be had from the event, the first attempt says so."""
    engine = create_async_engine(url_of(dsn))

    @event.listens_for(engine.sync_engine, "do_connect")
    def connect(
        dialect: Dialect, record: object, arguments: list[Any], named: dict[str, Any]
    ) -> object:
        return dialect.connect(*arguments, **named)

    assert await works_in(engine)
    await engine.dispose()
    try:
        assert await serves(engine)
    except ConfigurationError as error:
        assert "connect=" in str(error.__cause__)  # noqa: PT017 - either will do


# -- what is no engine ----------------------------------------------------------------------------


async def test_what_is_no_async_engine_of_asyncpg_is_refused(engine: AsyncEngine, dsn: str) -> None:
    """At once and by name: other drivers, sync engines, sessions, URLs."""
    others: list[tuple[object, str]] = [
        (create_async_engine(make_url(dsn).set(drivername="postgresql+psycopg")), "psycopg"),
        (create_engine(make_url(dsn).set(drivername="postgresql+psycopg")), "sqlalchemy.Engine"),
        (engine.sync_engine, "sqlalchemy.Engine"),
        (AsyncSession(engine), "AsyncSession"),
        (url_of(dsn), "not of type str"),
        (None, "NoneType"),
    ]
    for other, name in others:
        for kind in (Listener, Notifier):
            with pytest.raises(TypeError, match=name):
                kind.from_sqlalchemy(other)


@pytest.mark.parametrize("what", ["connection", "begun connection", "class"])
async def test_what_resembles_an_engine_is_refused(engine: AsyncEngine, what: str) -> None:
    """An AsyncConnection, whether it has been started or not, and the class of the engine."""
    connection = engine.connect()
    if what == "begun connection":
        await connection.start()
    try:
        with pytest.raises(TypeError, match="an AsyncEngine of SQLAlchemy is needed"):
            Listener.from_sqlalchemy(type(engine) if what == "class" else connection)
    finally:
        if what == "begun connection":
            await connection.close()


@pytest.mark.parametrize(
    "options", [{"dsn": "postgresql://x"}, {"connect": print}, {"user": "x"}, {"colour": "red"}]
)
async def test_options_that_say_where_to_connect_are_refused(
    engine: AsyncEngine, options: dict[str, Any]
) -> None:
    """The engine says it; an unknown option is a mistake as well."""
    with pytest.raises(TypeError):
        Listener.from_sqlalchemy(engine, **options)


async def test_a_subclass_comes_out_as_itself(engine: AsyncEngine) -> None:
    """from_sqlalchemy() of a class of the application's makes one of that class."""

    class Ours(Listener):
        pass

    listener = Ours.from_sqlalchemy(engine)
    assert type(listener) is Ours
    with pytest.raises(AsyncNotifyError):
        await listener.wait_connected()
