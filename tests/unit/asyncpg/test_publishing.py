"""Connections for sending: what is left of one that cannot be had, or cannot be given back."""

from __future__ import annotations

import asyncio
import logging
import re
import select
import socket
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify._asyncpg import failures
from asyncnotify._asyncpg._connecting.dial import Dialer
from asyncnotify._asyncpg.publishing import (
    OwnConnections,
    PooledConnections,
    PublishingSession,
)
from asyncnotify._errors import describe_error
from asyncnotify._keepalive import Keepalive
from tests.unit.fake_connection import FakeConnection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LOST = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


class Pool(asyncpg.Pool):
    """A pool of one connection, which gives it out and takes it back as the test says."""

    def __init__(self) -> None:
        """Have no connections: those of the driver need a server."""
        self.connection = FakeConnection()
        self.given_back: list[Any] = []
        self.refusal: Exception | None = None
        self.error: Exception | None = None
        self.returns = True

    def acquire(self, *, timeout: float | None = None) -> Any:
        """Give out the connection."""
        return self._give_out()

    def is_closing(self) -> bool:
        """Lend for ever."""
        return False

    async def _give_out(self) -> FakeConnection:
        if self.refusal is not None:
            raise self.refusal
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


# -- sending --------------------------------------------------------------------------------------

SEND: dict[str, Callable[[PublishingSession], Awaitable[None]]] = {
    "one": lambda session: session.notify("orders", "1"),
    "several": lambda session: session.notify_all(["orders", "orders"], ["1", "2"]),
}


class Transport:
    """Shows a socket, and ends when the loop has read so much of it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.closing = False

    def get_extra_info(self, name: str) -> object:
        """Return the socket."""
        return {"socket": self._sock}[name]

    def close(self) -> None:
        """Have read the end."""
        self.closing = True

    def is_closing(self) -> bool:
        """Return whether the end has been read."""
        return self.closing


@pytest.mark.skipif(not hasattr(select, "poll"), reason="the system has no poll()")
@pytest.mark.parametrize("send", SEND)
@pytest.mark.parametrize("is_end", [True, False])
async def test_what_has_arrived_is_read_before_anything_is_sent(send: str, *, is_end: bool) -> None:
    """The end of the session: nothing is sent, and the error says so. Other words do no harm."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = FakeConnection()
        transport = Transport(ours)
        connection._transport = transport  # noqa: SLF001 - as asyncpg
        session = PublishingSession(connection, timeout=5.0)
        theirs.send(b"last words")
        if is_end:
            asyncio.get_running_loop().call_soon(transport.close)
            with pytest.raises(asyncpg.InterfaceError, match="ended while it was idle") as caught:
                await SEND[send](session)
            assert failures.is_unsent(caught.value)
            assert session.lost
        else:
            await SEND[send](session)
        assert bool(connection.statements) is not is_end


FULL = asyncpg.ProgramLimitExceededError("too many notifications in the NOTIFY queue")


@pytest.mark.parametrize("send", SEND)
async def test_a_full_queue_that_may_not_be_emptied_is_the_error(send: str) -> None:
    """Whatever the server says of the attempt to empty it: the queue is what is wrong."""
    connection = FakeConnection()
    full = asyncpg.ProgramLimitExceededError("too many notifications in the NOTIFY queue")
    connection.answers = [full]
    connection.answer = asyncpg.InsufficientPrivilegeError("denied")
    session = PublishingSession(connection, timeout=5.0)
    with pytest.raises(asyncpg.ProgramLimitExceededError) as caught:
        await SEND[send](session)
    assert caught.value is full
    assert caught.value.__notes__ == [
        "emptying the queue was refused: InsufficientPrivilegeError: denied"
    ]
    notify, ask = connection.statements  # each once
    assert "pg_notify(" in notify
    assert "pg_notification_queue_usage()" in ask


@pytest.mark.parametrize("send", SEND)
async def test_a_connection_that_dies_while_the_queue_is_emptied_has_sent_nothing(
    send: str,
) -> None:
    """The notification was refused, and not sent again: it may be, on another connection."""
    connection = FakeConnection()
    connection.errors = [FULL, asyncpg.ConnectionDoesNotExistError("gone")]
    session = PublishingSession(connection, timeout=5.0)
    with pytest.raises(asyncpg.ConnectionDoesNotExistError) as caught:
        await SEND[send](session)
    assert failures.is_unsent(caught.value)
    assert len(connection.statements) == 2


# -- of our own, and of a pool --------------------------------------------------------------------


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


async def test_what_a_function_of_the_pools_raises_is_told_with_its_place() -> None:
    """It is the program's own, such as setup=, and may have no text: the log says where it is."""
    pool = Pool()
    pool.refusal = LookupError()
    with pytest.raises(LookupError) as caught:
        await borrowed(pool)
    assert re.fullmatch(r"LookupError at .*test_publishing\.py:\d+", describe_error(caught.value))


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
