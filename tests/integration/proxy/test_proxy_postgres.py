from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import asyncpg
import psycopg
import pytest
import pytest_asyncio

from asyncnotify.testing.proxy import FaultProxy
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpg.pool import PoolConnectionProxy

    Ssl = Literal["disable", "prefer"]
    Connection = asyncpg.Connection[asyncpg.Record]

LOST = (OSError, asyncpg.PostgresConnectionError)


class Inbox:
    """The notifications of one connection, in a queue."""

    def __init__(self) -> None:
        self._payloads: asyncio.Queue[object] = asyncio.Queue()

    def __call__(
        self,
        connection: Connection | PoolConnectionProxy[asyncpg.Record],
        pid: int,
        channel: str,
        payload: object,
    ) -> None:
        """Take one in, as asyncpg calls it."""
        self._payloads.put_nowait(payload)

    async def next(self) -> object:
        """Return the next payload."""
        async with asyncio.timeout(scaled(5)):
            return await self._payloads.get()


@pytest_asyncio.fixture
async def proxy(dsn: str) -> AsyncIterator[FaultProxy]:
    """A proxy before the test's database."""
    async with FaultProxy.for_dsn(dsn) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def connection(proxy: FaultProxy, dsn: str) -> AsyncIterator[Connection]:
    """A connection through the proxy."""
    connection = await asyncpg.connect(proxy.proxied_dsn(dsn), timeout=10)
    yield connection
    connection.terminate()


async def dial(proxy: FaultProxy, dsn: str, ssl: Ssl = "prefer", *, timeout: float = 5.0) -> None:
    """Connect through the proxy and hang up."""
    connection = await asyncpg.connect(proxy.proxied_dsn(dsn), timeout=timeout, ssl=ssl)
    connection.terminate()


async def test_notifications_pass(connection: Connection, admin: Connection) -> None:
    """Without a fault, listening works through the proxy as without it."""
    inbox = Inbox()
    await connection.add_listener("orders", inbox)
    await admin.execute("NOTIFY orders, 'hello'")
    assert await inbox.next() == "hello"


@pytest.mark.parametrize(
    "query",
    [
        "options=-c%20search_path%3Dx%20-c%20work_mem%3D64kB&application_name=my%20app",
        "application_name=a%2Bb+c",
    ],
)
async def test_a_session_through_the_proxy_begins_as_without_it(
    proxy: FaultProxy, dsn: str, query: str
) -> None:
    """With the same settings, by libpq's reading of the DSN."""
    direct = f"{dsn}?{query}"
    settings = [settings_of(one) for one in (direct, proxy.proxied_dsn(direct))]
    there, here = await asyncio.gather(*settings)
    assert here == there


async def settings_of(dsn: str) -> tuple[object, ...] | None:
    """Return what a session of libpq's begins with."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        names = ("application_name", "search_path", "work_mem")
        query = "SELECT " + ", ".join(f"current_setting('{name}')" for name in names)
        return await (await connection.execute(query)).fetchone()


async def test_a_slow_network_is_slow_and_nothing_else(proxy: FaultProxy, dsn: str) -> None:
    """Connecting and querying work byte by byte and with latency."""
    proxy.trickle(1)
    proxy.delay(to_server=0.01, to_client=0.01)
    connection = await asyncpg.connect(proxy.proxied_dsn(dsn), timeout=30)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close(timeout=5)


async def test_a_notify_cut_before_the_server_has_it_is_not_sent(
    proxy: FaultProxy, connection: Connection, admin: Connection
) -> None:
    """The sender gets an error, and no listener receives the notification."""
    inbox = Inbox()
    await admin.add_listener("orders", inbox)
    proxy.cut_on(b"NOTIFY orders")
    with pytest.raises(LOST):
        await connection.execute("NOTIFY orders, 'in flight'")
    await admin.execute("NOTIFY orders, 'fence'")
    assert await inbox.next() == "fence"


async def test_a_notify_whose_answer_is_cut_is_sent(
    proxy: FaultProxy, connection: Connection, admin: Connection
) -> None:
    """The sender gets the same error, but the server has committed: listeners receive it."""
    inbox = Inbox()
    await admin.add_listener("orders", inbox)
    proxy.cut_on(b"NOTIFY orders", answer=b"NOTIFY")
    with pytest.raises(LOST):
        await connection.execute("NOTIFY orders, 'in flight'")
    assert await inbox.next() == "in flight"


async def test_a_black_hole_is_not_noticed(proxy: FaultProxy, connection: Connection) -> None:
    """A query hangs until its own timeout, and the connection does not count as closed."""
    proxy.black_hole()
    with pytest.raises(TimeoutError):
        await connection.execute("SELECT 1", timeout=0.1)
    assert not connection.is_closed()


async def test_fatal_without_fin(
    proxy: FaultProxy, connection: Connection, admin: Connection
) -> None:
    """The server's last words arrive, EOF does not: the driver takes the connection for open."""
    proxy.hold_fin()
    words = proxy.detect(b"57P01", "to_client")
    await admin.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
    await words.wait()
    await admin.execute("SELECT 1")
    assert not connection.is_closed()
    with pytest.raises((asyncpg.InternalClientError, *LOST)):
        await connection.execute("SELECT 1", timeout=1)


@pytest.mark.parametrize("verb", ["reset", "fin", "half_close"])
async def test_an_end_is_noticed_at_once(
    proxy: FaultProxy, connection: Connection, verb: str
) -> None:
    """The driver's termination callback comes."""
    terminated = asyncio.Event()
    connection.add_termination_listener(lambda _: terminated.set())
    getattr(proxy, verb)()
    async with asyncio.timeout(scaled(5)):
        await terminated.wait()


@pytest.mark.parametrize("ssl", ["prefer", "disable"])
@pytest.mark.parametrize("verb", ["refuse", "drop_new", "garbage"])
async def test_connecting_fails_at_once(proxy: FaultProxy, dsn: str, verb: str, ssl: Ssl) -> None:
    """Refused, dropped, or greeted in the wrong language: an error, without a timeout."""
    getattr(proxy, verb)()
    with pytest.raises(LOST) as caught:
        await dial(proxy, dsn, ssl)
    assert not isinstance(caught.value, TimeoutError)
    proxy.accept()
    await dial(proxy, dsn)


@pytest.mark.parametrize("verb", ["silent", "black_hole"])
async def test_connecting_hangs(proxy: FaultProxy, dsn: str, verb: str) -> None:
    """Accepted and never answered: the driver waits for its timeout."""
    getattr(proxy, verb)()
    with pytest.raises(TimeoutError):
        await dial(proxy, dsn, timeout=0.1)
    await proxy.wait_idle()


async def test_cut_anywhere_in_the_handshake(proxy: FaultProxy, dsn: str) -> None:
    """Connecting fails at whatever byte of the server's it is cut, and succeeds the next time."""
    await dial(proxy, dsn)
    whole = proxy.bytes_to_client
    for size in range(0, whole, 17):
        before = proxy.bytes_to_client
        proxy.cut_after(size, "to_client")
        with pytest.raises(LOST):
            await dial(proxy, dsn)
        assert proxy.bytes_to_client == before + size
    await dial(proxy, dsn)
