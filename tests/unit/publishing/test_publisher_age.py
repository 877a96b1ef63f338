"""A connection that has its age: it is closed when it is not in use, and another is opened."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.unit.fake_publishing import ANSWER_TIME, FakePublishingServer, outcomes, turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AGE = 100.0


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakePublishingServer]:
    """Whose publisher has ended, and whose callers have all been told, when the test is over."""
    made = FakePublishingServer()
    yield made
    await made.end()


async def test_an_idle_connection_is_closed_at_its_age(server: FakePublishingServer) -> None:
    """The next call opens another; that one has an age of its own."""
    await server.start_with_session(max_age=AGE)
    for number in range(1, 4):
        await server.call(str(number))
        assert len(server.sessions) == number
        await asyncio.sleep(AGE + 1)
        assert [session for session, _ in server.closed] == server.sessions[:number]
        assert server.terminated == []


async def test_p6_calls_without_a_pause_do_not_keep_it(server: FakePublishingServer) -> None:
    """What waits is sent on the next one, and each call succeeds."""
    await server.start_with_session(max_age=3 * ANSWER_TIME)
    for _ in range(4):
        assert await outcomes(server.call_each(map(str, range(2_000)))) == [None] * 2_000
    assert len(server.sessions) > 1
    assert server.terminated == []
    assert len(server.payloads) == 8_000


async def test_a_call_that_is_in_flight_is_not_disturbed(server: FakePublishingServer) -> None:
    """The connection is closed behind it."""
    await server.start_with_session(max_age=AGE)
    server.answer_time = 4.0
    await asyncio.sleep(AGE * 0.9 - 1)
    for _ in range(4):
        await server.call("alone")
    await turns()
    assert len(server.closed) >= 1
    assert server.payloads == ["alone"] * 4


@pytest.mark.parametrize("moment", [0, AGE + 1])
async def test_ending_leaves_no_timer(server: FakePublishingServer, moment: float) -> None:
    """Nor a connection, whether it had its age or not."""
    await server.start_with_session(max_age=AGE)
    await asyncio.sleep(moment)
    await server.end()
    await asyncio.sleep(AGE + 1)
    assert len(server.sessions) == len(server.closed) + len(server.terminated) == 1
