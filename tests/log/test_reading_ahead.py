"""Consumers read the next portion while this one is handled: nothing else may change by that."""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

from asyncnotify.log import Log
from tests.log.conftest import append, kill_sessions, times_taken
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from asyncnotify.log import Event
    from asyncnotify.log._names import Names
    from tests.log.conftest import Connection

PORTION: Final = 1_000
LONG: Final = 1_500
"""Of the events this one has a payload that is not read the quick way."""

ALL: Final = [str(n) if n != LONG else "x" * 5_000 for n in range(3_300)]


@pytest_asyncio.fixture
async def log(dsn: str, installed: Names) -> AsyncIterator[Log]:
    """A log that has been installed; its consumers look only when they are woken."""
    async with Log(installed.log, dsn, poll=3600) as log:
        yield log


async def iterated(log: Log) -> AsyncGenerator[str]:
    """Take event by event."""
    async with log.consumer("mailer") as consumer:
        async for event in consumer:
            yield event.payload


async def in_batches(log: Log) -> AsyncGenerator[str]:
    """Take batches that end in the midst of portions."""
    async with log.consumer("mailer") as consumer:
        async for batch in consumer.batches(700):
            for event in batch:
                yield event.payload


async def in_buckets(log: Log) -> AsyncGenerator[str]:
    """Take the events of several sessions: in any order."""
    async with log.consumer("mailer", buckets=2) as consumer:
        async for event in consumer:
            yield event.payload


@pytest.mark.parametrize("way", [iterated, in_batches, in_buckets])
async def test_each_event_of_many_portions_comes_once(
    log: Log, way: Callable[[Log], AsyncGenerator[str]]
) -> None:
    """In their order, where there is one, and those with long payloads too."""
    await log.append_many([("things", payload) for payload in ALL])
    events = way(log)
    async with asyncio.timeout(scaled(20)):
        found = [await anext(events) for _ in ALL]
    await events.aclose()
    if way is in_buckets:
        found.sort(key=ALL.index)
    assert found == ALL


@pytest.mark.needs_server("SQL in the handler")
async def test_a_transactional_handler_has_the_connection_to_itself(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """What was read ahead is there before its transaction begins."""
    log = Log(installed.log, dsn)
    done = asyncio.Event()
    found: list[str] = []

    @log.on("projection", transactional=True)
    async def project(event: Event[str], connection: Any) -> None:
        found.append(await connection.fetchval("SELECT $1::text", event.payload))
        if len(found) == PORTION + 100:
            done.set()

    payloads = ALL[: PORTION + 100]
    await log.append_many([("things", payload) for payload in payloads])
    async with log, asyncio.timeout(scaled(30)):
        await done.wait()
    assert found == payloads
    assert await times_taken(admin, "projection") == 1


async def seek_to_the_end(log: Log, _: Connection) -> None:
    """Let the consumer go on behind all that is there."""
    await log.seek("mailer", "now")


async def lose_the_session(_: Log, admin: Connection) -> None:
    """End the connection on which the next portion has been read."""
    await kill_sessions(admin)


@pytest.mark.parametrize(
    ("what", "then"),
    [(seek_to_the_end, ["new"]), (lose_the_session, [*ALL, "new"])],
)
async def test_what_was_read_ahead_is_of_no_use_behind_another_cursor(
    log: Log,
    admin: Connection,
    what: Callable[[Log, Connection], Awaitable[None]],
    then: list[str],
) -> None:
    """The next events are those behind the cursor that is in the database."""
    await log.append_many([("things", payload) for payload in ALL])
    async with log.consumer("mailer") as consumer, asyncio.timeout(scaled(20)):
        batches = consumer.batches(PORTION)
        await anext(batches)  # the next one is read ahead meanwhile
        await what(log, admin)
        await append(admin, "new")
        found: list[str] = []
        while len(found) < len(then):
            found += [event.payload for event in await anext(batches)]
        await batches.aclose()
    assert found == then


@pytest.mark.parametrize("turns", range(1, 9))
async def test_closing_while_it_reads_ahead_loses_nothing(log: Log, turns: int) -> None:
    """What is done is committed, and the next consumer begins behind it."""
    await log.append_many([("things", payload) for payload in ALL])
    found: list[list[str]] = []
    for _ in range(2):
        async with log.consumer("mailer") as consumer, asyncio.timeout(scaled(20)):
            batches = consumer.batches(PORTION)
            for _ in range(turns):
                await asyncio.sleep(0)
            found.append([event.payload for event in await anext(batches)])
            asking = asyncio.ensure_future(anext(batches))
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait({asking})
            await batches.aclose()
    first, second = found
    assert first == ALL[:PORTION]
    assert second == ALL[PORTION : PORTION + len(second)]
    assert list(chain(first, second)) == ALL[: len(first) + len(second)]
