"""A connection that is refused is given back; a wrapper around one is seen through."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import pytest
import wrapt

from asyncnotify import ConfigurationError, Listener, Notifier
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.needs_server("driver")

SECONDS = scaled(5.0)
SETTINGS = {"application_name": "asyncnotify"}


def as_it_is(thing: object) -> object:
    """Return it."""
    return thing


both_kinds = pytest.mark.parametrize("kind", [Listener, Notifier])
wrapped = pytest.mark.parametrize("wrap", [as_it_is, wrapt.ObjectProxy], ids=["bare", "proxy"])


async def refused(kind: Any, connect: Callable[[], Awaitable[object]]) -> str:
    """Start one whose connections are of no use; return what the error says."""
    async with asyncio.timeout(SECONDS):
        with pytest.raises(ConfigurationError) as caught:
            await kind(connect=connect).start()
    return str(caught.value)


@both_kinds
@wrapped
async def test_r53_a_pool_gets_back_what_was_refused(
    dsn: str,
    kind: Any,
    wrap: Callable[[object], object],
) -> None:
    """It is not one connection short, and closes at once."""
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:

        async def connect() -> object:
            return wrap(await pool.acquire())

        for _ in range(3):
            assert "pool" in await refused(kind, connect)
            assert pool.get_idle_size() == 1
        async with pool.acquire(timeout=SECONDS) as connection:
            assert await connection.fetchval("SELECT 1") == 1
        async with asyncio.timeout(SECONDS):
            await pool.close()


@both_kinds
@pytest.mark.parametrize("fault", ["transaction", "encoding"])
async def test_r53_a_connection_that_would_never_deliver_is_closed(
    dsn: str,
    kind: Any,
    fault: str,
) -> None:
    """Nothing of it is left in the server."""
    made: list[asyncpg.Connection[Any]] = []

    async def connect() -> object:
        settings = SETTINGS | ({"client_encoding": "latin1"} if fault == "encoding" else {})
        made.append(await asyncpg.connect(dsn, server_settings=settings))
        if fault == "transaction":
            await made[0].execute("BEGIN")
        return made[0]

    assert fault in await refused(kind, connect)
    assert made[0].is_closed()


class Foreign:
    """A connection of some other library's."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        """Close it."""
        self.closed = True


class Stubborn(Foreign):
    """One whose closing fails."""

    def close(self) -> None:
        """Fail to close it."""
        super().close()
        raise LookupError


async def test_r53_connections_of_other_libraries_are_closed(dsn: str) -> None:
    """By whatever they have for that, and whatever becomes of it."""
    given: list[Any] = [
        await psycopg.AsyncConnection.connect(dsn),
        Foreign(),
        wrapt.ObjectProxy(Foreign()),
        Stubborn(),
    ]
    for one in given:

        async def connect(one: object = one) -> object:
            return one

        assert type(one).__name__ in await refused(Listener, connect) or one is given[2]
        assert one.closed


async def test_r53_a_pool_that_is_returned_itself_is_left_alone(dsn: str) -> None:
    """Others use it."""
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:

        async def connect() -> object:
            return pool

        assert "Pool" in await refused(Listener, connect)
        assert await pool.fetchval("SELECT 1") == 1


async def test_r53_what_comes_too_late_is_given_back(dsn: str) -> None:
    """The start was cancelled while ``connect=`` was at work: the pool gets its connection."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:

        async def connect() -> Any:
            try:
                begun.set()
                await go_on.wait()
            except asyncio.CancelledError:
                pass
            return await pool.acquire()

        starting = asyncio.create_task(Listener(connect=connect).start())
        await begun.wait()
        starting.cancel()
        await asyncio.wait({starting})
        async with asyncio.timeout(SECONDS):
            async with pool.acquire() as connection:  # waits until it is there
                assert await connection.fetchval("SELECT 1") == 1


async def test_r60_a_connection_within_a_proxy_serves(dsn: str) -> None:
    """As tracing agents return it from their ``connect()``: it is seen through."""

    async def connect() -> Any:
        bare = await asyncpg.connect(dsn, server_settings=SETTINGS)
        return wrapt.ObjectProxy(wrapt.ObjectProxy(bare))

    async with Listener(connect=connect) as listener, listener.stream("orders") as stream:
        await listener.notify("orders", "1")
        assert (await anext(stream)).payload == "1"


async def test_r60_a_driver_whose_connect_is_wrapped_serves(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that replaces ``asyncpg.connect`` does not keep us from connecting by a DSN."""
    real = asyncpg.connect

    async def connect(*args: Any, **kwargs: Any) -> object:
        return wrapt.ObjectProxy(await real(*args, **kwargs))

    monkeypatch.setattr(asyncpg, "connect", connect)
    async with Listener(dsn) as listener, listener.stream("orders") as stream:
        await listener.notify("orders", "1")
        assert (await anext(stream)).payload == "1"
