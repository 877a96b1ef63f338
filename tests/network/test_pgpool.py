"""Listening and sending through Pgpool-II, which sends what only reads to a standby as well."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import Gap, Listener, Notification, Reconnected
from tests.support.machine import scaled
from tests.support.pgpool import pgpool
from tests.support.server_faults import ServerFaults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncnotify import Stream
    from asyncnotify.testing.server import PostgresServer

WAIT_LIMIT = scaled(20.0)
SESSIONS = 5  # each reads from one of the two servers, by chance


@pytest.fixture(scope="module")
def primary(pooled_server: PostgresServer) -> PostgresServer:
    """The server where sessions listen."""
    return pooled_server


@pytest.fixture(scope="module")
def pooled_dsn(primary: PostgresServer) -> Iterator[str]:
    """The URL of a Pgpool-II before it and a standby."""
    with primary.standby() as standby, pgpool(primary, standby) as dsn:
        yield dsn


async def payloads(stream: Stream[Notification[str]], count: int) -> list[str]:
    """Return the next payloads of a stream."""
    async with asyncio.timeout(WAIT_LIMIT):
        return [(await anext(stream)).payload for _ in range(count)]


async def test_notifications_arrive_through_pgpool(pooled_dsn: str) -> None:
    """All of them, in order; sessions listen on the primary whichever server they read from."""
    async with AsyncExitStack() as stack:
        listeners = [await stack.enter_async_context(Listener(pooled_dsn)) for _ in range(SESSIONS)]
        streams = [
            await stack.enter_async_context(listener.stream("orders")) for listener in listeners
        ]
        sent = [str(number) for number in range(20)]
        for payload in sent:
            await listeners[0].notify("orders", payload)
        for stream in streams:
            assert await payloads(stream, len(sent)) == sent


OFTEN: dict[str, Any] = {"heartbeat": 0.05, "heartbeat_timeout": scaled(5.0)}


async def test_a_heartbeat_asks_the_server_on_which_the_session_listens(
    pooled_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A standby would say that the session listens on nothing: no Gap, no warning, no loss."""
    async with AsyncExitStack() as stack:
        listeners = [
            await stack.enter_async_context(Listener(pooled_dsn, **OFTEN)) for _ in range(SESSIONS)
        ]
        streams = [
            await stack.enter_async_context(listener.stream("orders", gaps=True))
            for listener in listeners
        ]
        for stream in streams:
            assert isinstance(await anext(stream), Gap)
        async with asyncio.timeout(WAIT_LIMIT):
            for listener in listeners:
                while (await listener.health(server=False))["heartbeat_round_trip"] is None:
                    await listener.notify("other")  # until a heartbeat has been answered
        await listeners[0].notify("orders", "news")
        for stream in streams:
            assert isinstance(await anext(stream), Notification)
        assert [listener.stats().reconnects for listener in listeners] == [0] * SESSIONS
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_a_session_that_ends_behind_pgpool_is_replaced(
    pooled_dsn: str, primary: PostgresServer
) -> None:
    """With a Gap, and it delivers again."""
    listener = Listener(pooled_dsn)
    events = listener.events()
    async with (
        listener,
        listener.stream("orders", gaps=True) as stream,
        ServerFaults(primary.dsn) as faults,
    ):
        assert isinstance(await anext(stream), Gap)
        assert await faults.terminate()
        async with asyncio.timeout(WAIT_LIMIT):
            while not isinstance(await anext(events), Reconnected):
                pass
            assert isinstance(await anext(stream), Gap)
            await listener.notify("orders", "news")
            assert isinstance(await anext(stream), Notification)
