"""What replaces the driver's methods, as tracing agents do, sees nothing of what is ours."""

from __future__ import annotations

import asyncio
import functools
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar

import asyncpg
import pytest
from asyncpg.prepared_stmt import PreparedStatement

from asyncnotify import Listener, Notifier
from asyncnotify._asyncpg import untraced
from asyncnotify._asyncpg.connection import RegisteredCallback
from tests.contract.conftest import ListenerFactory
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.conftest import Database

pytestmark = pytest.mark.needs_server("driver")

REPLACED: list[tuple[Any, str]] = [
    (asyncpg.Connection, "execute"),
    (asyncpg.Connection, "fetch"),
    (asyncpg.Connection, "fetchval"),
    (asyncpg.Connection, "prepare"),
    (asyncpg.Connection, "_execute"),
    (PreparedStatement, "fetch"),
    (asyncpg.protocol.Protocol, "query"),
    (asyncpg.protocol.Protocol, "bind_execute"),
]
"""By one agent or another."""

BY_TEST: ContextVar[bool] = ContextVar("by_test", default=False)
"""Set where the test itself executes statements."""

SETTINGS = {"application_name": "asyncnotify"}

OPTIONS: dict[str, Any] = {
    "heartbeat": 0.02,
    "heartbeat_timeout": scaled(5.0),
    "backoff": lambda: iter([0.0] * 9),
}


def noting(noted: list[str], name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Return what notes each call of a method."""

    @functools.wraps(method)
    async def call(*args: Any, **kwargs: Any) -> Any:
        if not BY_TEST.get():
            noted.append(f"{name}: {args[1:2]}")
        return await method(*args, **kwargs)

    return call


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a tracing agent would note from here on."""
    noted: list[str] = []
    for owner, name in REPLACED:
        monkeypatch.setattr(owner, name, noting(noted, name, getattr(owner, name)))
    return noted


async def test_r50_listening_leaves_no_trace(
    factory: ListenerFactory, database: Database, noted: list[str]
) -> None:
    """LISTEN, heartbeats, reconnects and UNLISTEN, on connections of either kind."""
    async with (
        factory.listener(**OPTIONS) as listener,
        listener.stream("orders") as stream,
    ):
        await asyncio.create_task(lose_and_find(listener, database))
        assert (await anext(stream)).payload == "1"
        await listener.health(server=True)
    assert noted == []


async def lose_and_find(listener: Listener, database: Database) -> None:
    """Let heartbeats pass, and the connection be lost; then let something arrive."""
    BY_TEST.set(True)
    for _ in range(2):
        before = listener.stats().last_heartbeat
        while listener.stats().last_heartbeat == before:
            await database.connection.fetchval("SELECT 1")
        await database.interrupt(listener)
    await database.notify("orders", "1")


async def test_r50_sending_leaves_no_trace(dsn: str, noted: list[str]) -> None:
    """By itself, in batches, many at once: it belongs to no caller alone."""
    async with (
        Notifier(dsn) as notifier,
        Listener(dsn) as listener,
        listener.stream("orders") as stream,
    ):
        for payload in ("1", "2"):
            await notifier.notify("orders", payload)
        assert await notifier.notify_many([("orders", "3"), ("other", "4"), ("orders", "5")])
        assert [(await anext(stream)).payload for _ in range(4)] == ["1", "2", "3", "5"]
    assert noted == []


async def test_r50_a_pool_is_noted_for_what_it_does_itself(dsn: str, noted: list[str]) -> None:
    """It resets a connection that it gets back; what was sent on that is not noted."""
    async with (
        asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool,
        Notifier(pool=pool) as notifier,
    ):
        await notifier.notify("orders", "1")
    assert all("RESET ALL" in text for text in noted), noted


class Commenting(asyncpg.Connection):
    """A class of the caller's, which adds to each statement where it comes from."""

    executed: ClassVar[list[str]] = []

    async def execute(self, query: str, *args: Any, **kwargs: Any) -> Any:
        """Execute it with the addition."""
        self.executed.append(query)
        return await super().execute(f"{query} /* shop */", *args, **kwargs)


async def test_methods_of_the_callers_own_are_called(dsn: str) -> None:
    """A class of connections may have its own in place of the driver's."""

    async def connect() -> asyncpg.Connection[Any]:
        return await asyncpg.connect(dsn, connection_class=Commenting, server_settings=SETTINGS)

    async with Listener(connect=connect) as listener, listener.stream("orders"):
        assert 'LISTEN "orders"' in Commenting.executed


async def test_a_query_logger_of_the_callers_sees_our_statements(dsn: str) -> None:
    """Whoever adds one to the connection that ``connect=`` returns wants to know."""
    logged: list[str] = []

    async def connect() -> asyncpg.Connection[Any]:
        connection = await asyncpg.connect(dsn, server_settings=SETTINGS)
        connection.add_query_logger(lambda record: logged.append(record.query))
        return connection

    async with Listener(connect=connect) as listener, listener.stream("orders"):
        pass
    assert 'LISTEN "orders"' in logged


def nothing(*_arguments: object) -> None:
    """Stand for what the driver no longer shows."""


async def test_r33_without_what_is_private_to_the_driver_its_public_methods_serve(
    dsn: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On connections of either kind: it listens, reconnects, and listens no more."""
    monkeypatch.setattr(untraced, "_COMPILED", None)
    monkeypatch.setattr(RegisteredCallback, "of", nothing)
    for factory in (ListenerFactory("dsn", dsn), ListenerFactory("connect", dsn)):
        async with factory.listener() as listener:
            async with listener.stream("a", "b") as stream:
                await database.interrupt(listener)
                await listener.notify_many([("a", "1"), ("b", "2")])
                assert [(await anext(stream)).payload for _ in range(2)] == ["1", "2"]
            await database.fence(listener)
            assert await database.server_channels(listener) == set()


async def test_a_callback_of_the_callers_keeps_its_channel(dsn: str, database: Database) -> None:
    """One that ``connect=`` has added to its connection: unlisten() leaves it its LISTEN."""
    arrived: asyncio.Queue[object] = asyncio.Queue()

    def arrive(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        arrived.put_nowait(payload)

    async def connect() -> asyncpg.Connection[Any]:
        connection = await asyncpg.connect(dsn, server_settings=SETTINGS)
        await connection.add_listener("orders", arrive)
        return connection

    async with Listener(connect=connect) as listener:
        async with listener.stream("orders", "other") as stream:
            await database.notify("orders", "1")
            assert (await anext(stream)).payload == "1"
        await database.notify("orders", "2")
        assert [await arrived.get() for _ in range(2)] == ["1", "2"]
        assert await database.server_channels(listener) == {"orders"}
