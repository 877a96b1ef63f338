"""A Notifier whose idle connection has been ended: what was certainly not sent is sent again."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import pytest
import pytest_asyncio

from asyncnotify import ConnectError, ConnectionLostError, Listener, Notification, Notifier
from tests.faults.conftest import BACKENDS, OURS, WAIT_LIMIT
from tests.support.driver_features import TELLS_LAST_WORDS
from tests.support.machine import scaled
from tests.support.server_features import needs_version

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from asyncnotify import Stream
    from tests.faults.conftest import ProxiedDatabase

    Heard = Stream[Notification[str]]
    Send = Callable[[Notifier, str], Awaitable[object]]

IDLE = {"application_name": OURS, "idle_session_timeout": "300ms"}


@pytest_asyncio.fixture(autouse=True)
async def needs_idle_session_timeout(database: ProxiedDatabase) -> None:
    """Skip where the server does not end sessions that are idle."""
    needs_version(await database.fetchval("SHOW server_version"), 14, "idle_session_timeout")


@pytest_asyncio.fixture
async def heard(database: ProxiedDatabase) -> AsyncIterator[Heard]:
    """What arrives on orders."""
    settings = {"application_name": "tests"}
    listener = Listener(database.dsn, server_settings=settings)
    async with listener, listener.stream("orders") as stream:
        yield stream


async def alone(notifier: Notifier, payload: str) -> None:
    """Send it by a call that is alone."""
    await notifier.notify("orders", payload)


async def together(notifier: Notifier, payload: str) -> None:
    """Send it in the statement of several calls."""
    await asyncio.gather(*(notifier.notify("orders", text) for text in (payload, "x", "y")))


async def many(notifier: Notifier, payload: str) -> None:
    """Send it by notify_many()."""
    await notifier.notify_many([("orders", payload), ("orders", "x"), ("orders", "y")])


ways = pytest.mark.parametrize("send", [alone, together, many])
of_either_kind = pytest.mark.parametrize("pooled", [False, True], ids=["own", "pool"])


@asynccontextmanager
async def notifier_of(dsn: str, *, pooled: bool, **settings: str) -> AsyncGenerator[Notifier]:
    """Run a notifier that has sent something, on a connection of its own or of a pool."""
    options: dict[str, Any] = {"server_settings": {**IDLE, **settings}}
    if not pooled:
        async with Notifier(dsn, operation_timeout=scaled(1.0), **options) as notifier:
            await notifier.notify("orders", "first")
            yield notifier
        return
    async with (
        asyncpg.create_pool(dsn, min_size=1, max_size=1, **options) as pool,
        Notifier(pool=pool) as notifier,
    ):
        await notifier.notify("orders", "first")
        yield notifier


def wait_until_ended(dsn: str) -> None:
    """Return when the server has ended our sessions, and let the event loop read nothing of it."""
    with psycopg.connect(dsn, autocommit=True, application_name="tests") as connection:
        while connection.execute(BACKENDS.replace("$1", "%s"), [OURS]).fetchone() != ([],):
            pass


async def arrived(heard: Heard, payload: str) -> bool:
    """Return whether this comes before what is sent last, and only once."""
    async with asyncio.timeout(WAIT_LIMIT):
        before = list[str]()
        async for notification in heard:
            if notification.payload == "last":
                return before.count(payload) == 1
            before.append(notification.payload)
    return False


@ways
@of_either_kind
async def test_what_is_sent_after_a_goodbye_goes_out_on_a_new_connection(
    database: ProxiedDatabase, heard: Heard, send: Send, *, pooled: bool
) -> None:
    """The goodbye has arrived, and the loop has had no turn to read it: the call just succeeds."""
    async with notifier_of(database.dsn, pooled=pooled) as notifier:
        wait_until_ended(database.dsn)
        await send(notifier, "again")
        await notifier.notify("orders", "last")
        assert await arrived(heard, "again")


@ways
@of_either_kind
async def test_a_goodbye_that_crosses_a_statement_says_that_it_was_not_run(
    database: ProxiedDatabase, heard: Heard, send: Send, *, pooled: bool
) -> None:
    """It is read as the answer: a session that was ended for being idle has run nothing."""
    if not (TELLS_LAST_WORDS or pooled or send is many):
        pytest.skip("this version of asyncpg does not tell what the server has answered")
    async with notifier_of(database.proxied_dsn, pooled=pooled) as notifier:
        database.proxy.pause("to_client")
        wait_until_ended(database.dsn)
        with database.wire() as wire:
            sending = asyncio.ensure_future(send(notifier, "again"))
            await wire.until(1, b"")  # whatever is written first: a statement is prepared once
            database.proxy.resume()
            await sending
        await notifier.notify("orders", "last")
        assert await arrived(heard, "again")


@ways
@of_either_kind
@pytest.mark.parametrize("end", ["fin", "reset"])
async def test_an_end_without_goodbye_is_noticed_before_a_statement(
    database: ProxiedDatabase, heard: Heard, send: Send, end: str, *, pooled: bool
) -> None:
    """A connection that something in between has ended in the same turn is not written to."""
    async with notifier_of(
        database.proxied_dsn, pooled=pooled, idle_session_timeout="0"
    ) as notifier:
        getattr(database.proxy, end)()
        await send(notifier, "again")
        await notifier.notify("orders", "last")
        assert await arrived(heard, "again")


@ways
@of_either_kind
@pytest.mark.parametrize("goodbye", [b"57P05", b"57P01"])
async def test_between_the_goodbye_and_the_end_nothing_is_sent_on_the_old_connection(
    database: ProxiedDatabase, heard: Heard, send: Send, goodbye: bytes, *, pooled: bool
) -> None:
    """The last words have been read, and the end of the connection has not come."""
    seconds = "300ms" if goodbye == b"57P05" else "0"
    async with notifier_of(
        database.proxied_dsn, pooled=pooled, idle_session_timeout=seconds
    ) as notifier:
        database.proxy.hold_fin()
        words = database.proxy.detect(goodbye, "to_client")
        if goodbye == b"57P01":
            [pid] = await database.backends()
            await database.fetchval("SELECT pg_catalog.pg_terminate_backend($1)", pid)
        await words.wait()
        await database.until_backends(0)  # and the loop has had many turns
        await send(notifier, "again")
        database.proxy.heal()
        await notifier.notify("orders", "last")
        assert await arrived(heard, "again")


async def test_without_a_server_it_is_told_that_nothing_was_sent(database: ProxiedDatabase) -> None:
    """The goodbye is heard, and no new connection can be made: ConnectError, not a maybe."""
    async with notifier_of(
        database.proxied_dsn, pooled=False, idle_session_timeout="0"
    ) as notifier:
        database.proxy.refuse()
        database.proxy.fin()
        with pytest.raises(ConnectError):
            await notifier.notify("orders", "x")
        database.proxy.heal()
        await notifier.notify("orders", "y")


async def test_what_was_written_before_the_end_remains_unknown(database: ProxiedDatabase) -> None:
    """A connection that ends without a word while a statement is on its way says nothing."""
    async with notifier_of(
        database.proxied_dsn, pooled=False, idle_session_timeout="0"
    ) as notifier:
        database.proxy.pause("to_client")
        with database.wire() as wire:
            sending = asyncio.ensure_future(notifier.notify("orders", "unknown"))
            await wire.until(1, b"unknown")
            database.proxy.fin()
            with pytest.raises(ConnectionLostError):
                await sending


async def test_what_was_not_even_prepared_was_not_sent(database: ProxiedDatabase) -> None:
    """A server that does not answer what comes before the statement has not seen the payload."""
    async with notifier_of(
        database.proxied_dsn, pooled=False, idle_session_timeout="0"
    ) as notifier:
        database.proxy.black_hole("to_client")
        with pytest.raises(ConnectError, match="not sent"):
            await notifier.notify_many([("orders", "x"), ("orders", "y")])
        database.proxy.resume()
        await notifier.notify("orders", "z")
