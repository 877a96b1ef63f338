"""Every way in which an application listens and sends, tried under a tracing agent."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg
import psycopg
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from asyncnotify import BlockingListener, BlockingNotifier, Gap, Listener, Notifier, Reconnected
from asyncnotify.log import Log
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from asyncnotify import BlockingStream, Notification
    from asyncnotify.log import Event
    from tests.tracing.traced_use import TracedUse

    Sending: TypeAlias = Callable[[str], Awaitable[None]]

WAIT_LIMIT: Final = scaled(20.0)
"""Seconds until a fact that must come has come, on however slow a machine."""

HEARTBEAT: Final = 0.02
"""Seconds: many heartbeats pass while a use is tried."""

LIVELY: Final[dict[str, Any]] = {
    "heartbeat": HEARTBEAT,
    "heartbeat_timeout": scaled(5.0),
    "backoff": lambda: iter(lambda: 0.0, 1.0),
}


async def own_statements(traced: TracedUse) -> None:
    """Execute statements of the application's own: an agent that notes none would prove nothing."""
    connection = await asyncpg.connect(traced.dsn)
    traced.agent.take()
    with traced.agent.request() as trace:
        await connection.execute("SELECT 41")
        await (await connection.prepare("SELECT 42")).fetch()
    noted = [noted.text for noted in traced.agent.take() if noted.trace == trace]
    assert any("SELECT 41" in text for text in noted), noted
    assert any("SELECT 42" in text for text in noted), noted
    await connection.close()


# -- listening ------------------------------------------------------------------------------------


async def listen(traced: TracedUse, listener: Listener) -> None:
    """Start in one request, send in another, lose the connection, and stop in a third."""
    gaps: asyncio.Queue[Gap] = asyncio.Queue()
    handled: asyncio.Queue[Notification[str]] = asyncio.Queue()
    with traced.quiet_request():
        await listener.start()
        await listener.listen("handled", handled.put_nowait, resync=gaps.put_nowait)
        stream = await listener.stream("orders").__aenter__()
    await _heartbeats(listener)
    with traced.sending_request():
        await listener.notify("orders", "1")
        await asyncio.gather(*(listener.notify("handled", str(n)) for n in range(3)))
    assert (await anext(stream)).payload == "1"
    assert {(await handled.get()).payload for _ in range(3)} == {"0", "1", "2"}
    traced.look("after a request")
    await _lose(traced, listener)
    await _heartbeats(listener)
    traced.look("after a loss")
    assert [(await gaps.get()).reason for _ in range(2)] == ["start", "reconnect"]
    with traced.quiet_request():
        await listener.health(server=True)
        await stream.aclose()
        await listener.unlisten("handled")
        await listener.aclose()
    traced.look("at the end")


async def _heartbeats(listener: Listener) -> None:
    """Return when two more heartbeats have been answered."""
    for _ in range(2):
        before = listener.stats().last_heartbeat
        while listener.stats().last_heartbeat == before:  # noqa: ASYNC110 - nothing tells of one
            await asyncio.sleep(HEARTBEAT)  # polls: nothing tells of one


async def _lose(traced: TracedUse, listener: Listener) -> None:
    events = listener.events()
    traced.lose_all()
    async for event in events:
        if isinstance(event, Reconnected):
            return


async def listener_dsn(traced: TracedUse) -> None:
    """Listen by a DSN."""
    await listen(traced, Listener(traced.dsn, on_event=traced.on_event, **LIVELY))


async def listener_connect(traced: TracedUse) -> None:
    """Listen by a callable, which makes its connections in nobody's context."""

    async def connect() -> asyncpg.Connection[Any]:
        traced.check_context("connect=")
        settings = {"application_name": "asyncnotify"}
        return await asyncpg.connect(traced.dsn, server_settings=settings)

    await listen(traced, Listener(connect=connect, on_event=traced.on_event, **LIVELY))


async def listener_engine(traced: TracedUse) -> None:
    """Listen as an engine connects."""
    engine = create_async_engine(traced.dsn.replace("postgresql:", "postgresql+asyncpg:"))
    await listen(traced, Listener.from_sqlalchemy(engine, on_event=traced.on_event, **LIVELY))
    await engine.dispose()


# -- sending --------------------------------------------------------------------------------------


async def send(traced: TracedUse, sending: Sending, count: int = 20) -> None:
    """Send in requests: by itself, many together, and out of none; all of it arrives."""
    received: list[str] = []
    async with _heard(traced.dsn, received) as arrived:
        for name in ("1", "2"):
            with traced.sending_request():
                await sending(name)
            traced.look("after a request")
        with traced.sending_request():
            await asyncio.gather(*(sending(f"together {n}") for n in range(count)))
        traced.look("after a request")
        while len(received) < count + 2:
            await arrived.wait()
            arrived.clear()


@contextlib.asynccontextmanager
async def _heard(dsn: str, received: list[str]) -> AsyncGenerator[asyncio.Event]:
    """Listen, and keep the payloads."""
    news = asyncio.Event()

    def keep(notification: Notification[str]) -> None:
        received.append(notification.payload)
        news.set()

    async with Listener(dsn) as listener:
        await listener.listen("orders", keep)
        yield news


async def notifier_dsn(traced: TracedUse) -> None:
    """Send on a connection of our own."""
    async with Notifier(traced.dsn) as notifier:
        await send(traced, functools.partial(notifier.notify, "orders"))


async def notifier_unstarted(traced: TracedUse) -> None:
    """Let the first request open the connection, and a later one open it again."""
    notifier = Notifier(traced.dsn)
    await send(traced, functools.partial(notifier.notify, "orders"))
    traced.lose_all()
    with traced.sending_request():
        await notifier.notify("orders", "after a loss", retry=True)
    await notifier.aclose()


async def notifier_connect(traced: TracedUse) -> None:
    """Send on connections that a callable makes, in nobody's context."""

    async def connect() -> asyncpg.Connection[Any]:
        traced.check_context("connect=")
        settings = {"application_name": "asyncnotify"}
        return await asyncpg.connect(traced.dsn, server_settings=settings)

    notifier = Notifier(connect=connect)
    await send(traced, functools.partial(notifier.notify, "orders"))
    await notifier.aclose()


async def notifier_engine(traced: TracedUse) -> None:
    """Send on a connection made as an engine connects."""
    engine = create_async_engine(traced.dsn.replace("postgresql:", "postgresql+asyncpg:"))
    async with Notifier.from_sqlalchemy(engine) as notifier:
        await send(traced, functools.partial(notifier.notify, "orders"))
    await engine.dispose()


async def notifier_pool(traced: TracedUse) -> None:
    """Send on the connections of a pool."""
    async with asyncpg.create_pool(traced.dsn, min_size=1, max_size=2) as pool:
        traced.agent.take()
        async with Notifier(pool=pool) as notifier:
            await send(traced, functools.partial(notifier.notify, "orders"))


# -- in transactions ------------------------------------------------------------------------------


async def within_asyncpg(traced: TracedUse) -> None:
    """Send within a transaction of asyncpg's."""
    notifier = Notifier()

    async def sending(payload: str) -> None:
        connection = await asyncpg.connect(traced.dsn)
        async with connection.transaction():
            await notifier.notify("orders", payload, connection=connection)
        await connection.close()

    await send(traced, sending, count=1)


async def within_pool(traced: TracedUse) -> None:
    """Send within a transaction on a connection of a pool."""
    notifier = Notifier()
    async with asyncpg.create_pool(traced.dsn, min_size=1, max_size=2) as pool:
        traced.agent.take()

        async def sending(payload: str) -> None:
            async with pool.acquire() as connection, connection.transaction():
                await notifier.notify("orders", payload, connection=connection)

        await send(traced, sending)


async def within_sqlalchemy(traced: TracedUse) -> None:
    """Send within a transaction of SQLAlchemy's, on asyncpg and on psycopg."""
    notifier = Notifier()
    for driver in ("asyncpg", "psycopg"):
        engine = create_async_engine(traced.dsn.replace("postgresql:", f"postgresql+{driver}:"))

        await send(traced, functools.partial(_on_connection, engine, notifier), count=3)
        await send(traced, functools.partial(_in_session, engine, notifier), count=3)
        await engine.dispose()
        traced.agent.take()


async def _on_connection(engine: AsyncEngine, notifier: Notifier, payload: str) -> None:
    async with engine.begin() as connection:
        await notifier.notify("orders", payload, connection=connection)


async def _in_session(engine: AsyncEngine, notifier: Notifier, payload: str) -> None:
    async with AsyncSession(engine) as session, session.begin():
        await notifier.notify("orders", payload, connection=session)


async def within_psycopg(traced: TracedUse) -> None:
    """Send within a transaction of psycopg's."""
    notifier = Notifier()

    async def sending(payload: str) -> None:
        connection = await psycopg.AsyncConnection.connect(traced.dsn)
        async with connection:
            await notifier.notify("orders", payload, connection=connection)

    await send(traced, sending, count=1)


# -- logs -----------------------------------------------------------------------------------------


async def use_log(traced: TracedUse, log: Log) -> None:
    """Append in a request, read, consume and handle; between them the log polls."""
    handled: asyncio.Queue[str] = asyncio.Queue()

    @log.on("handler", transactional=True)
    async def handle(event: Event[str], connection: asyncpg.Connection[Any]) -> None:
        traced.check_context("a handler of a log")
        await handled.put(event.payload)

    with traced.quiet_request():
        await log.start()
        stream = log.read(after="start")
        consumer = log.consumer("mailer")
    for payload in "123":
        with traced.sending_request():
            await log.append("orders", payload)
        assert (await anext(stream)).payload == payload
        assert (await anext(consumer)).payload == payload
        assert await handled.get() == payload
        traced.look("after a request")
    with traced.quiet_request():
        await log.aclose()
    traced.look("after the end")


async def log_dsn(traced: TracedUse) -> None:
    """Use a log on connections of its own."""
    log = Log("by_dsn", traced.dsn, poll=HEARTBEAT)
    await log.install()
    await use_log(traced, log)


async def log_pool(traced: TracedUse) -> None:
    """Use a log on the connections of a pool."""
    async with asyncpg.create_pool(traced.dsn, min_size=1, max_size=9) as pool:
        traced.agent.take()
        log = Log("by_pool", pool=pool, poll=HEARTBEAT)
        await log.install()
        await use_log(traced, log)
        traced.agent.take()


async def log_within(traced: TracedUse) -> None:
    """Append to a log within a transaction of asyncpg's: the request's own, and noted as such."""
    log = Log("within", traced.dsn)
    await log.install()
    connection = await asyncpg.connect(traced.dsn)
    traced.agent.take()
    with traced.agent.request() as trace:
        async with connection.transaction():
            await log.append("orders", "1", connection=connection)
    noted = [noted.text for noted in traced.agent.take() if noted.trace == trace]
    assert any("within_append" in text for text in noted), noted
    await connection.close()


# -- in threads -----------------------------------------------------------------------------------


def blocking_listener(traced: TracedUse) -> None:
    """Start in one request, listen in another, lose the connection."""
    with BlockingListener(traced.dsn, on_event=traced.on_event, **LIVELY) as listener:
        events = listener.events()
        traced.agent.take()
        with traced.quiet_request():
            stream = listener.stream("orders").__enter__()
        with traced.sending_request():
            listener.notify("orders", "1")
        assert stream.get(WAIT_LIMIT).payload == "1"
        traced.look("after a request")
        traced.lose_all()
        for event in events:
            if isinstance(event, Reconnected):
                break
        traced.look("after a loss")
        with traced.sending_request():
            listener.notify("orders", "2", retry=True)
        assert stream.get(WAIT_LIMIT).payload == "2"
        with traced.quiet_request():
            stream.close()
    traced.look("at the end")


def blocking_listener_in_request(traced: TracedUse) -> None:
    """Start and end in requests."""
    listener = BlockingListener(traced.dsn, on_event=traced.on_event, **LIVELY)
    with traced.quiet_request():
        listener.start()
    with listener.stream("orders") as stream:
        with traced.sending_request():
            listener.notify("orders", "1")
        assert stream.get(WAIT_LIMIT).payload == "1"
    with traced.quiet_request():
        listener.close()
    traced.look("at the end")


def blocking_notifier(traced: TracedUse) -> None:
    """Send from threads; the first request opens the connection."""
    with BlockingListener(traced.dsn) as listener, listener.stream("orders") as stream:
        notifier = BlockingNotifier(traced.dsn)
        _send_in_turn(traced, stream, functools.partial(notifier.notify, "orders"))
        notifier.close()


def blocking_engine(traced: TracedUse) -> None:
    """Send on a connection made as an engine connects."""
    engine = create_async_engine(traced.dsn.replace("postgresql:", "postgresql+asyncpg:"))
    with BlockingListener.from_sqlalchemy(engine, **LIVELY) as listener:
        notifier = BlockingNotifier.from_sqlalchemy(engine)
        with listener.stream("orders") as stream:
            _send_in_turn(traced, stream, functools.partial(notifier.notify, "orders"))
        notifier.close()


def blocking_within_sqlalchemy(traced: TracedUse) -> None:
    """Send within transactions of SQLAlchemy's."""
    engine = sqlalchemy.create_engine(traced.dsn.replace("postgresql:", "postgresql+psycopg:"))
    notifier = BlockingNotifier()

    def on_connection(payload: str) -> None:
        with engine.begin() as connection:
            notifier.notify("orders", payload, connection=connection)

    def in_session(payload: str) -> None:
        with Session(engine) as session, session.begin():
            notifier.notify("orders", payload, connection=session)

    with BlockingListener(traced.dsn) as listener, listener.stream("orders") as stream:
        _send_in_turn(traced, stream, on_connection)
        _send_in_turn(traced, stream, in_session)
    engine.dispose()
    traced.agent.take()


def blocking_within_psycopg(traced: TracedUse) -> None:
    """Send within transactions of psycopg's."""
    notifier = BlockingNotifier()

    def sending(payload: str) -> None:
        with psycopg.connect(traced.dsn) as connection:
            notifier.notify("orders", payload, connection=connection)

    with BlockingListener(traced.dsn) as listener, listener.stream("orders") as stream:
        _send_in_turn(traced, stream, sending)


def _send_in_turn(
    traced: TracedUse,
    stream: BlockingStream[Notification[str]],
    sending: Callable[[str], None],
) -> None:
    for payload in ("1", "2"):
        with traced.sending_request():
            sending(payload)
        assert stream.get(WAIT_LIMIT).payload == payload
        traced.look("after a request")


AsyncUse: TypeAlias = "Callable[[TracedUse], Awaitable[None]]"
Use: TypeAlias = "Callable[[TracedUse], None]"

USES: Final[dict[str, AsyncUse | Use]] = {
    use.__name__: use
    for use in (
        own_statements,
        listener_dsn,
        listener_connect,
        listener_engine,
        notifier_dsn,
        notifier_unstarted,
        notifier_connect,
        notifier_engine,
        notifier_pool,
        within_asyncpg,
        within_pool,
        within_sqlalchemy,
        within_psycopg,
        log_dsn,
        log_pool,
        log_within,
        blocking_listener,
        blocking_listener_in_request,
        blocking_notifier,
        blocking_engine,
        blocking_within_sqlalchemy,
        blocking_within_psycopg,
    )
}
