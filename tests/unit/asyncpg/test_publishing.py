"""Connections for sending: what is left of one that cannot be had, or cannot be given back."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify._asyncpg._connecting.dial import Dialer
from asyncnotify._asyncpg.publishing import OwnConnections, PooledConnections
from asyncnotify._keepalive import Keepalive
from tests.unit.fake_connection import FakeConnection

if TYPE_CHECKING:
    from asyncnotify._asyncpg.publishing import PublishingSession

LOST = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


class Pool(asyncpg.Pool):
    """A pool of one connection, which gives it out and takes it back as the test says."""

    def __init__(self) -> None:
        """Have no connections: those of the driver need a server."""
        self.connection = FakeConnection()
        self.given_back: list[Any] = []
        self.error: Exception | None = None
        self.returns = True

    def acquire(self, *, timeout: float | None = None) -> Any:
        """Give out the connection."""
        return self._give_out()

    def is_closing(self) -> bool:
        """Lend for ever."""
        return False

    async def _give_out(self) -> FakeConnection:
        return self.connection

    async def release(self, connection: Any, *, timeout: float | None = None) -> None:
        """Take it back, or fail, or never return."""
        self.given_back.append(connection)
        if self.error is not None:
            raise self.error
        if not self.returns:
            await asyncio.get_running_loop().create_future()


async def borrowed(pool: Pool) -> PublishingSession:
    """Borrow the connection of a pool."""
    return await PooledConnections(pool, connect_timeout=10.0, timeout=5.0).open()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_r32_a_connection_that_cannot_be_introduced_is_dropped(*, cancelled: bool) -> None:
    """It was lost meanwhile, or nobody wants it any more: it is not left open."""
    connection = FakeConnection()
    connection.answer = LOST
    if cancelled:
        connection.answer_time = None

    async def connect() -> FakeConnection:
        return connection

    dialer = Dialer(None, connect, {}, timeout=10.0)
    opening = asyncio.create_task(OwnConnections(dialer, Keepalive(), timeout=5.0).open())
    await asyncio.sleep(1)
    opening.cancel()
    (outcome,) = await asyncio.gather(opening, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError if cancelled else type(LOST))
    assert connection.terminated


async def test_a_connection_is_given_back_once() -> None:
    """When there is nothing to send, and not again when all is closed."""
    pool = Pool()
    session = await borrowed(pool)
    assert not await session.rest()
    await session.close(5.0)
    assert pool.given_back == [pool.connection]
    assert not pool.connection.terminated


async def test_a_pool_that_cannot_take_it_back_is_no_error_of_the_senders(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was to be sent has been: that is said at DEBUG only."""
    caplog.set_level(logging.DEBUG)
    pool = Pool()
    pool.error = LOST
    session = await borrowed(pool)
    await session.rest()
    (record,) = [r for r in caplog.records if r.name.startswith("asyncnotify")]
    assert record.levelno == logging.DEBUG
    assert "a connection of the pool was lost" in record.getMessage()


async def test_r31_giving_back_that_is_cancelled_ends_the_connection() -> None:
    """A pool that never takes it back does not keep a closing notifier waiting."""
    pool = Pool()
    pool.returns = False
    session = await borrowed(pool)
    resting = asyncio.create_task(session.rest())
    await asyncio.sleep(1)
    assert not resting.done()
    resting.cancel()
    await asyncio.wait({resting})
    assert resting.cancelled()
    assert pool.connection.terminated


async def test_a_pool_that_does_not_take_it_back_in_time_loses_the_connection() -> None:
    """Whatever the pool waits for, beyond the timeout that it was given: sending goes on."""
    pool = Pool()
    pool.returns = False
    session = await borrowed(pool)
    began = asyncio.get_running_loop().time()
    await session.rest()
    assert asyncio.get_running_loop().time() - began == pytest.approx(5.0, abs=0.3)
    assert pool.connection.terminated
