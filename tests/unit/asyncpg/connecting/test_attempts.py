"""What a dial may take, and what becomes of a connection that comes too late."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from asyncnotify._asyncpg._connecting.attempts import within
from asyncnotify._errors import ConnectError
from tests.unit.fake_connection import FakeConnection

if TYPE_CHECKING:
    from collections.abc import Callable


def in_seconds(seconds: float) -> Callable[[], float]:
    """Return a deadline so many seconds from now."""
    ends = asyncio.get_running_loop().time() + seconds
    return lambda: ends


async def dialled(connection: FakeConnection, seconds: float) -> FakeConnection:
    """Return a connection after a while, also when that is not wanted any more."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(seconds)
    return connection


async def test_what_comes_in_time_is_returned() -> None:
    """Up to the deadline."""
    connection = FakeConnection()
    assert await within(lambda: dialled(connection, 4), in_seconds(5), 5) is connection
    assert not connection.terminated


async def test_r53_what_comes_too_late_is_not_left_open() -> None:
    """TimeoutError says how long it was; the connection that was made even so is terminated."""
    connection = FakeConnection()
    with pytest.raises(TimeoutError, match="no connection within 5 s"):
        await within(lambda: dialled(connection, 6), in_seconds(5), 5)
    assert connection.terminated


async def test_a_deadline_that_moves_is_followed() -> None:
    """Another address has begun meanwhile: that one has its own time."""
    ends = [asyncio.get_running_loop().time() + 5]
    asyncio.get_running_loop().call_later(4, ends.append, ends[0] + 5)
    connection = FakeConnection()
    assert await within(lambda: dialled(connection, 8), lambda: ends[-1], 5) is connection


async def test_r53_cancelled_it_leaves_no_connection() -> None:
    """The one that was about to be made is terminated."""
    connection = FakeConnection()
    dialling = asyncio.create_task(within(lambda: dialled(connection, 6), in_seconds(50), 50))
    await asyncio.sleep(5)
    dialling.cancel()
    await asyncio.wait({dialling})
    await asyncio.sleep(0)
    assert dialling.cancelled()
    assert connection.terminated


async def test_a_dial_that_cancels_itself_is_an_error() -> None:
    """It is not our cancellation."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(ConnectError, match="cancelled itself"):
        await within(cancelled, in_seconds(5), 5)
