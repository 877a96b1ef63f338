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
    from tests.tracing.trial import Trial

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


async def own_statements(trial: Trial) -> None:
    """Execute statements of the application's own: an agent that notes none would prove nothing."""
    connection = await asyncpg.connect(trial.dsn)
    trial.agent.take()
    with trial.agent.request() as trace:
        await connection.execute("SELECT 41")
        await (await connection.prepare("SELECT 42")).fetch()
    noted = [noted.text for noted in trial.agent.take() if noted.trace == trace]
    assert any("SELECT 41" in text for text in noted), noted
    assert any("SELECT 42" in text for text in noted), noted
    await connection.close()


# -- listening ------------------------------------------------------------------------------------


async def listen(trial: Trial, listener: Listener) -> None:
    """Start in one request, send in another, lose the connection, and stop in a third."""
    gaps: asyncio.Queue[Gap] = asyncio.Queue()
    handled: asyncio.Queue[Notification[str]] = asyncio.Queue()
    with trial.quiet_request():
        await listener.start()
        await listener.listen("handled", handled.put_nowait, resync=gaps.put_nowait)
        stream = await listener.stream("orders").__aenter__()
    await _heartbeats(listener)
    with trial.sending_request():
        await listener.notify("orders", "1")
        await asyncio.gather(*(listener.notify("handled", str(n)) for n in range(3)))
    assert (await anext(stream)).payload == "1"
    assert {(await handled.get()).payload for _ in range(3)} == {"0", "1", "2"}
    trial.look("after a request")
    await _lose(trial, listener)
    await _heartbeats(listener)
    trial.look("after a loss")
    assert [(await gaps.get()).reason for _ in range(2)] == ["start", "reconnect"]
    with trial.quiet_request():
        await listener.health(server=True)
        await stream.aclose()
        await listener.unlisten("handled")
        await listener.aclose()
    trial.look("at the end")


async def _heartbeats(listener: Listener) -> None:
    """Return when two more heartbeats have been answered."""
    for _ in range(2):
        before = listener.stats().last_heartbeat
        while listener.stats().last_heartbeat == before:  # noqa: ASYNC110 - nothing tells of one
            await asyncio.sleep(HEARTBEAT)  # polls: nothing tells of one


async def _lose(trial: Trial, listener: Listener) -> None:
    events = listener.events()
    trial.lose_all()
    async for event in events:
        if isinstance(event, Reconnected):
            return


async def listener_dsn(trial: Trial) -> None:
    """Listen by a DSN."""
    await listen(trial, Listener(trial.dsn, on_event=trial.on_event, **LIVELY))


async def listener_connect(trial: Trial) -> None:
    """Listen by a callable, which makes its connections in nobody's context."""

    async def connect() -> asyncpg.Connection[Any]:
        trial.check_context("connect=")
        settings = {"application_name": "asyncnotify"}
        return await asyncpg.connect(trial.dsn, server_settings=settings)

    await listen(trial, Listener(connect=connect, on_event=trial.on_event, **LIVELY))


async def listener_engine(trial: Trial) -> None:
    """Listen as an engine connects."""
    engine = create_async_engine(trial.dsn.replace("postgresql:", "postgresql+asyncpg:"))
    await listen(trial, Listener.from_sqlalchemy(engine, on_event=trial.on_event, **LIVELY))
    await engine.dispose()


# -- sending --------------------------------------------------------------------------------------


async def send(trial: Trial, sending: Sending, count: int = 20) -> None:
    """Send in requests: by itself, many together, and out of none; all of it arrives."""
    received: list[str] = []
    async with _heard(trial.dsn, received) as arrived:
        for name in ("1", "2"):
            with trial.sending_request():
                await sending(name)
            trial.look("after a request")
        with trial.sending_request():
            await asyncio.gather(*(sending(f"together {n}") for n in range(count)))
        trial.look("after a request")
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


async def notifier_dsn(trial: Trial) -> None:
    """Send on a connection of our own."""
    async with Notifier(trial.dsn) as notifier:
        await send(trial, functools.partial(notifier.notify, "orders"))


async def notifier_unstarted(trial: Trial) -> None:
    """Let the first request open the connection, and a later one open it again."""
    notifier = Notifier(trial.dsn)
    await send(trial, functools.partial(notifier.notify, "orders"))
    trial.lose_all()
    with trial.sending_request():
        await notifier.notify("orders", "after a loss", retry=True)
    await notifier.aclose()


async def notifier_connect(trial: Trial) -> None:
    """Send on connections that a callable makes, in nobody's context."""

    async def connect() -> asyncpg.Connection[Any]:
        trial.check_context("connect=")
        settings = {"application_name": "asyncnotify"}
        return await asyncpg.connect(trial.dsn, server_settings=settings)

    notifier = Notifier(connect=connect)
    await send(trial, functools.partial(notifier.notify, "orders"))
    await notifier.aclose()


async def notifier_engine(trial: Trial) -> None:
    """Send on a connection made as an engine connects."""
    engine = create_async_engine(trial.dsn.replace("postgresql:", "postgresql+asyncpg:"))
    async with Notifier.from_sqlalchemy(engine) as notifier:
        await send(trial, functools.partial(notifier.notify, "orders"))
    await engine.dispose()


async def notifier_pool(trial: Trial) -> None:
    """Send on the connections of a pool."""
    async with asyncpg.create_pool(trial.dsn, min_size=1, max_size=2) as pool:
        trial.agent.take()
        async with Notifier(pool=pool) as notifier:
            await send(trial, functools.partial(notifier.notify, "orders"))


# -- in transactions ------------------------------------------------------------------------------


async def within_asyncpg(trial: Trial) -> None:
    """Send within a transaction of asyncpg's."""
    notifier = Notifier()

    async def sending(payload: str) -> None:
        connection = await asyncpg.connect(trial.dsn)
        async with connection.transaction():
            await notifier.notify("orders", payload, connection=connection)
        await connection.close()

    await send(trial, sending, count=1)


async def within_pool(trial: Trial) -> None:
    """Send within a transaction on a connection of a pool."""
    notifier = Notifier()
    async with asyncpg.create_pool(trial.dsn, min_size=1, max_size=2) as pool:
        trial.agent.take()

        async def sending(payload: str) -> None:
            async with pool.acquire() as connection, connection.transaction():
                await notifier.notify("orders", payload, connection=connection)

        await send(trial, sending)


async def within_sqlalchemy(trial: Trial) -> None:
    """Send within a transaction of SQLAlchemy's, on asyncpg and on psycopg."""
    notifier = Notifier()
    for driver in ("asyncpg", "psycopg"):
        engine = create_async_engine(trial.dsn.replace("postgresql:", f"postgresql+{driver}:"))

        await send(trial, functools.partial(_on_connection, engine, notifier), count=3)
        await send(trial, functools.partial(_in_session, engine, notifier), count=3)
        await engine.dispose()
        trial.agent.take()


async def _on_connection(engine: AsyncEngine, notifier: Notifier, payload: str) -> None:
    async with engine.begin() as connection:
        await notifier.notify("orders", payload, connection=connection)


async def _in_session(engine: AsyncEngine, notifier: Notifier, payload: str) -> None:
    async with AsyncSession(engine) as session, session.begin():
        await notifier.notify("orders", payload, connection=session)


async def within_psycopg(trial: Trial) -> None:
    """Send within a transaction of psycopg's."""
    notifier = Notifier()

    async def sending(payload: str) -> None:
        connection = await psycopg.AsyncConnection.connect(trial.dsn)
        async with connection:
            await notifier.notify("orders", payload, connection=connection)

    await send(trial, sending, count=1)


# -- logs -----------------------------------------------------------------------------------------


async def use_log(trial: Trial, log: Log) -> None:
    """Append in a request, read, consume and handle; between them the log polls."""
    handled: asyncio.Queue[str] = asyncio.Queue()

    @log.on("handler", transactional=True)
    async def handle(event: Event[str], connection: asyncpg.Connection[Any]) -> None:
        trial.check_context("a handler of a log")
        await handled.put(event.payload)

    with trial.quiet_request():
        await log.start()
        stream = log.read(after="start")
        consumer = log.consumer("mailer")
    for payload in "123":
        with trial.sending_request():
            await log.append("orders", payload)
        assert (await anext(stream)).payload == payload
        assert (await anext(consumer)).payload == payload
        assert await handled.get() == payload
        trial.look("after a request")
    with trial.quiet_request():
        await log.aclose()
    trial.look("after the end")


async def log_dsn(trial: Trial) -> None:
    """Use a log on connections of its own."""
    log = Log("by_dsn", trial.dsn, poll=HEARTBEAT)
    await log.install()
    await use_log(trial, log)


async def log_pool(trial: Trial) -> None:
    """Use a log on the connections of a pool."""
    async with asyncpg.create_pool(trial.dsn, min_size=1, max_size=9) as pool:
        trial.agent.take()
        log = Log("by_pool", pool=pool, poll=HEARTBEAT)
        await log.install()
        await use_log(trial, log)
        trial.agent.take()


async def log_within(trial: Trial) -> None:
    """Append to a log within a transaction of asyncpg's: the request's own, and noted as such."""
    log = Log("within", trial.dsn)
    await log.install()
    connection = await asyncpg.connect(trial.dsn)
    trial.agent.take()
    with trial.agent.request() as trace:
        async with connection.transaction():
            await log.append("orders", "1", connection=connection)
    noted = [noted.text for noted in trial.agent.take() if noted.trace == trace]
    assert any("within_append" in text for text in noted), noted
    await connection.close()


# -- in threads -----------------------------------------------------------------------------------


def blocking_listener(trial: Trial) -> None:
    """Start in one request, listen in another, lose the connection."""
    with BlockingListener(trial.dsn, on_event=trial.on_event, **LIVELY) as listener:
        events = listener.events()
        trial.agent.take()
        with trial.quiet_request():
            stream = listener.stream("orders").__enter__()
        with trial.sending_request():
            listener.notify("orders", "1")
        assert stream.get(WAIT_LIMIT).payload == "1"
        trial.look("after a request")
        trial.lose_all()
        for event in events:
            if isinstance(event, Reconnected):
                break
        trial.look("after a loss")
        with trial.sending_request():
            listener.notify("orders", "2", retry=True)
        assert stream.get(WAIT_LIMIT).payload == "2"
        with trial.quiet_request():
            stream.close()
    trial.look("at the end")


def blocking_listener_in_request(trial: Trial) -> None:
    """Start and end in requests."""
    listener = BlockingListener(trial.dsn, on_event=trial.on_event, **LIVELY)
    with trial.quiet_request():
        listener.start()
    with listener.stream("orders") as stream:
        with trial.sending_request():
            listener.notify("orders", "1")
        assert stream.get(WAIT_LIMIT).payload == "1"
    with trial.quiet_request():
        listener.close()
    trial.look("at the end")


def blocking_notifier(trial: Trial) -> None:
    """Send from threads; the first request opens the connection."""
    with BlockingListener(trial.dsn) as listener, listener.stream("orders") as stream:
        notifier = BlockingNotifier(trial.dsn)
        _send_in_turn(trial, stream, functools.partial(notifier.notify, "orders"))
        notifier.close()


def blocking_engine(trial: Trial) -> None:
    """Send on a connection made as an engine connects."""
    engine = create_async_engine(trial.dsn.replace("postgresql:", "postgresql+asyncpg:"))
    with BlockingListener.from_sqlalchemy(engine, **LIVELY) as listener:
        notifier = BlockingNotifier.from_sqlalchemy(engine)
        with listener.stream("orders") as stream:
            _send_in_turn(trial, stream, functools.partial(notifier.notify, "orders"))
        notifier.close()


def blocking_within_sqlalchemy(trial: Trial) -> None:
    """Send within transactions of SQLAlchemy's."""
    engine = sqlalchemy.create_engine(trial.dsn.replace("postgresql:", "postgresql+psycopg:"))
    notifier = BlockingNotifier()

    def on_connection(payload: str) -> None:
        with engine.begin() as connection:
            notifier.notify("orders", payload, connection=connection)

    def in_session(payload: str) -> None:
        with Session(engine) as session, session.begin():
            notifier.notify("orders", payload, connection=session)

    with BlockingListener(trial.dsn) as listener, listener.stream("orders") as stream:
        _send_in_turn(trial, stream, on_connection)
        _send_in_turn(trial, stream, in_session)
    engine.dispose()
    trial.agent.take()


def blocking_within_psycopg(trial: Trial) -> None:
    """Send within transactions of psycopg's."""
    notifier = BlockingNotifier()

    def sending(payload: str) -> None:
        with psycopg.connect(trial.dsn) as connection:
            notifier.notify("orders", payload, connection=connection)

    with BlockingListener(trial.dsn) as listener, listener.stream("orders") as stream:
        _send_in_turn(trial, stream, sending)


def _send_in_turn(
    trial: Trial,
    stream: BlockingStream[Notification[str]],
    sending: Callable[[str], None],
) -> None:
    for payload in ("1", "2"):
        with trial.sending_request():
            sending(payload)
        assert stream.get(WAIT_LIMIT).payload == payload
        trial.look("after a request")


AsyncUse: TypeAlias = "Callable[[Trial], Awaitable[None]]"
Use: TypeAlias = "Callable[[Trial], None]"

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
