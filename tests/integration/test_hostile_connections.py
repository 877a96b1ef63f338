"""Whatever a caller has set on a connection changes nothing of what asyncnotify sends on it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from asyncnotify import BlockingNotifier, Listener, Notifier
from asyncnotify.lock import Lock, Locks
from asyncnotify.log import BlockingLog, Log
from asyncnotify.triggers import BlockingTable, Table
from tests.support.codecs import set_codecs
from tests.support.hostile_connections import BLOCKING_OPENERS, OPENERS
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    Road = Callable[[str, Any], Awaitable[None]]
    BlockingRoad = Callable[[str, Any], None]

PAYLOADS: Final = ("plain", "it's \\ %s :id $1 é\x7f", "")
"""One that is quoted as it is, one that is not, and none."""

EVENTS: Final = [("things", text, "key" if text else None, {"a": text}) for text in PAYLOADS]

TABLE: Final = Table("orders", key="id", payload="50%:x", channel="it's %s :id")


def notify_blocking(dsn: str, connection: Any) -> None:
    """Send."""
    notifier = BlockingNotifier(dsn)
    for payload in PAYLOADS:
        notifier.notify("things", payload, connection=connection)


async def notify(dsn: str, connection: Any) -> None:
    """Send."""
    notifier = Notifier(dsn)
    for payload in PAYLOADS:
        await notifier.notify("things", payload, connection=connection)


def append_blocking(dsn: str, connection: Any) -> None:
    """Append one by one, and all together."""
    log = BlockingLog("orders", dsn)
    for channel, payload, key, headers in EVENTS:
        log.append(channel, payload, key=key, headers=headers, connection=connection)
    log.append_many(EVENTS, connection=connection)


async def append(dsn: str, connection: Any) -> None:
    """Append one by one, and all together."""
    log = Log("orders", dsn)
    for channel, payload, key, headers in EVENTS:
        await log.append(channel, payload, key=key, headers=headers, connection=connection)
    await log.append_many(EVENTS, connection=connection)


def install_blocking(_: str, connection: Any) -> None:
    """Install triggers, twice, and look at them."""
    table = BlockingTable(TABLE)
    table.install(connection)
    table.install(connection)
    assert table.status(connection).is_fine
    table.upgrade(connection)


async def install(_: str, connection: Any) -> None:
    """Install triggers, twice, and look at them."""
    await TABLE.install(connection)
    await TABLE.install(connection)
    assert (await TABLE.status(connection)).is_fine
    await TABLE.upgrade(connection)


async def check_lock(dsn: str, connection: Any) -> None:
    """Check a lock that is held."""
    async with Locks(dsn) as locks:
        await locks.install()
        async with Lock(locks, "it's %s") as held:
            if getattr(connection, "autocommit", False) is True:
                with pytest.raises(ValueError, match="no transaction"):
                    await held.check(connection)
            else:
                await held.check(connection)


@contextlib.asynccontextmanager
async def notified(dsn: str) -> AsyncGenerator[None]:
    """Have what is sent in the block arrive, unchanged."""
    async with Listener(dsn) as listener, listener.stream("things") as stream:
        yield
        async with asyncio.timeout(scaled(20)):
            assert [(await anext(stream)).payload for _ in PAYLOADS] == list(PAYLOADS)


@contextlib.asynccontextmanager
async def appended(dsn: str) -> AsyncGenerator[None]:
    """Have what is appended in the block be in the log, unchanged."""
    async with Log("orders", dsn) as log:
        await log.install()
        yield
        async with log.read(after="start") as stream, asyncio.timeout(scaled(20)):
            events = [await anext(stream) for _ in EVENTS * 2]
        read = [(event.channel, event.payload, event.key, event.headers) for event in events]
        assert read == EVENTS * 2


@contextlib.asynccontextmanager
async def installed(dsn: str) -> AsyncGenerator[None]:
    """Have what is installed in the block be as it should be."""
    connection = await asyncpg.connect(dsn)
    await connection.execute('CREATE TABLE orders (id int PRIMARY KEY, "50%:x" text)')
    yield
    assert (await TABLE.status(connection)).is_fine
    await connection.close()


@contextlib.asynccontextmanager
async def nothing(_: str) -> AsyncGenerator[None]:
    """Look at nothing."""
    yield


ROADS: Final[dict[str, tuple[Road, Any]]] = {
    "notify": (notify, notified),
    "append": (append, appended),
    "install": (install, installed),
    "check": (check_lock, nothing),
}
BLOCKING_ROADS: Final[dict[str, tuple[BlockingRoad, Any]]] = {
    "notify": (notify_blocking, notified),
    "append": (append_blocking, appended),
    "install": (install_blocking, installed),
}


class Logged(asyncpg.Connection):
    """A connection each of whose statements the caller sees."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_query_logger(lambda _: None)


@pytest.mark.parametrize("kind", [asyncpg.Connection, Logged])
async def test_nor_what_is_set_on_connections_that_a_caller_makes_or_lends(
    dsn: str, kind: type[asyncpg.Connection[Any]]
) -> None:
    """On which asyncnotify listens, sends and holds locks: all by ``connect=``, some of a pool."""

    async def connect() -> asyncpg.Connection[Any]:
        connection = await asyncpg.connect(dsn, connection_class=kind)
        await set_codecs(connection)
        return connection

    pools = asyncpg.create_pool(dsn, min_size=1, init=set_codecs, connection_class=kind)
    async with (
        Listener(connect=connect) as listener,
        listener.stream("things") as stream,
        pools as pool,
        Notifier(pool=pool) as borrowing,
        Notifier(connect=connect) as owning,
    ):
        for notifier in (borrowing, owning):
            await asyncio.gather(*(notifier.notify("things", text) for text in PAYLOADS))
            arrived = [(await anext(stream)).payload for _ in PAYLOADS]
            assert sorted(arrived) == sorted(PAYLOADS)
        assert (await listener.health())["queue_usage"] is not None
    async with Locks(connect=connect) as locks, asyncio.timeout(scaled(20)):
        await locks.install()
        for _ in range(2):
            async with Lock(locks, "it's %s") as held:
                assert held.token > 0


@pytest.mark.parametrize("opener", OPENERS)
async def test_what_a_caller_sets_on_a_connection_changes_nothing_of_ours(
    dsn: str, opener: str
) -> None:
    """Codecs, dumpers, loaders, rows, cursors, modes: on every driver, for all that is sent."""
    for take, checked in ROADS.values():
        async with checked(dsn), OPENERS[opener](dsn) as connection:
            await take(dsn, connection)


@pytest.mark.parametrize("opener", BLOCKING_OPENERS)
async def test_nor_does_what_is_set_on_one_that_blocks(dsn: str, opener: str) -> None:
    """The same in threads."""

    def take_in_thread(take: BlockingRoad) -> None:
        with BLOCKING_OPENERS[opener](dsn) as connection:
            take(dsn, connection)

    for take, checked in BLOCKING_ROADS.values():
        async with checked(dsn):
            await asyncio.to_thread(take_in_thread, take)
