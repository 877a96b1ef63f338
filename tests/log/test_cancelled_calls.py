"""What a cancelled call of a consumer has left at work, and what becomes of it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from asyncnotify.log import Consumer, Event, Log, Position
from asyncnotify.log._consuming.merging import MergedFeed
from tests.log.conftest import append, place, times_taken
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from asyncnotify.log._names import Names
    from tests.log.conftest import Connect, Connection

WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND datname = current_database()
"""
CHANGING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE state = 'active' AND query LIKE '%orders_lock_consumer(%' AND pid <> pg_backend_pid()
        AND datname = current_database()
"""
LOCK = "SELECT FROM asyncnotify.orders_consumers WHERE consumer = 'mailer' FOR UPDATE"
needs_locks = pytest.mark.needs_server("locks of rows")


@pytest_asyncio.fixture
async def log(dsn: str, installed: Names) -> AsyncIterator[Log]:
    """A log whose consumers look only when they are woken."""
    async with Log("orders", dsn, poll=3600) as log:
        yield log


@pytest_asyncio.fixture
async def consumer(log: Log, admin: Connection) -> AsyncIterator[Consumer[Event[str]]]:
    """A consumer of ten events, of which it has got two."""
    await append(admin, *map(str, range(10)))
    async with log.consumer("mailer") as consumer:
        assert await batch(consumer) == ["0", "1"]
        yield consumer


async def batch(consumer: Consumer[Event[str]], count: int = 2) -> list[str]:
    """Return the payloads of the next batch."""
    return [event.payload for event in await consumer.next_batch(count)]


@asynccontextmanager
async def locked_cursor(connect: Connect) -> AsyncGenerator[Connection]:
    """Keep the cursor from being moved; give the connection whose transaction does."""
    async with connect() as connection, connection.transaction():
        await connection.execute(LOCK)
        yield connection


async def cancelled_while_it_commits(consumer: Consumer[Any], admin: Connection) -> None:
    """Ask for a batch, and be cancelled when the server is to move the cursor."""
    asking = asyncio.ensure_future(consumer.next_batch(2))
    while not await admin.fetchval(WAITING):
        pass
    asking.cancel()
    await asyncio.wait({asking})
    assert asking.cancelled()


def _has_events(consumer: Consumer[Any]) -> bool:
    feed: Any = consumer._feed  # noqa: SLF001
    if isinstance(feed, MergedFeed):
        return bool(feed._found)  # noqa: SLF001
    return feed._fetching is not None and feed._fetching.done()  # noqa: SLF001


@pytest.mark.parametrize("buckets", [1, 2])
async def test_events_that_wait_are_not_given_after_a_seek(log: Log, buckets: int) -> None:
    """They came while nobody asked any more; the cursor has been moved since."""
    async with asyncio.timeout(scaled(20)), log.consumer("mailer", buckets=buckets) as consumer:
        await log.append("things", "a", key="key")
        assert (await anext(consumer)).payload == "a"
        asking = asyncio.ensure_future(anext(consumer))
        await asyncio.sleep(0)
        while consumer._done is not None:  # noqa: SLF001, ASYNC110 - nothing else tells
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking})
        await log.append("things", "b", key="key")
        while not _has_events(consumer):  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0)
        await log.seek("mailer", "start")
        assert [(await anext(consumer)).payload for _ in range(2)] == ["a", "b"]


@needs_locks
async def test_what_is_done_stays_done(
    consumer: Consumer[Event[str]], admin: Connection, connect: Connect
) -> None:
    """However often the call that commits it is cancelled: closing commits it."""
    async with asyncio.timeout(scaled(20)):
        async with locked_cursor(connect):
            await cancelled_while_it_commits(consumer, admin)
            await given_without_a_commit(consumer, "2")
            await cancelled_while_it_commits(consumer, admin)
        await consumer.aclose()
        assert await place(admin) == 3
        assert await times_taken(admin) == 1


async def given_without_a_commit(consumer: Consumer[Event[str]], payload: str) -> None:
    """Take an event: the cursor is not committed more than ten times a second."""
    consumer._committed_at = float("inf")  # noqa: SLF001
    assert (await anext(consumer)).payload == payload


@needs_locks
async def test_what_was_read_is_dropped_when_the_cursor_was_moved(
    consumer: Consumer[Event[str]], admin: Connection, connect: Connect
) -> None:
    """The commit of a cancelled call was refused, and the next call heeds that."""
    async with asyncio.timeout(scaled(20)):
        async with locked_cursor(connect) as holder:
            await holder.execute("SELECT asyncnotify.orders_seek_consumer('mailer', 1, 0, 0)")
            await cancelled_while_it_commits(consumer, admin)
        assert await batch(consumer) == ["0", "1"]


@needs_locks
async def test_a_closed_consumer_is_not_served_again(
    log: Log, consumer: Consumer[Event[str]], admin: Connection, connect: Connect
) -> None:
    """By a call that waits for what another has left, and is overtaken by the end."""
    async with asyncio.timeout(scaled(20)):
        async with locked_cursor(connect):
            await cancelled_while_it_commits(consumer, admin)
            await given_without_a_commit(consumer, "2")
            asking = asyncio.ensure_future(consumer.next_batch(100))
            await asyncio.sleep(0)
            closing = asyncio.ensure_future(consumer.aclose())
            await asyncio.sleep(0)
        assert await asking == []
        await closing
        async with log.consumer("mailer") as other:
            assert await batch(other, 10) == [str(n) for n in range(3, 10)]


@needs_locks
@pytest.mark.parametrize("operation", ["seek", "pause", "resume", "drop"])
async def test_an_operation_that_was_cancelled_changes_nothing_later(
    dsn: str, installed: Names, connect: Connect, admin: Connection, operation: str
) -> None:
    """The server does not go on waiting for the consumer on its behalf."""
    async with Log("orders", dsn, operation_timeout=scaled(200)) as log, log.consumer("mailer"):
        await append(admin, "a")
        before = await _state(log)
        places = ("now",) if operation == "seek" else ()
        async with locked_cursor(connect), asyncio.timeout(scaled(20)):
            calling = asyncio.ensure_future(getattr(log, operation)("mailer", *places))
            while not await admin.fetchval(WAITING):
                pass
            calling.cancel()
            await asyncio.wait({calling})
            while await admin.fetchval(CHANGING):
                pass
        assert calling.cancelled()
        assert await _state(log) == before


async def _state(log: Log) -> list[tuple[Position, bool]]:
    return [(one.position, one.is_paused) for one in (await log.status()).consumers]
