"""A publisher that is closed, cancelled or left alone at the worst of moments."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify._errors import ClosedError, ConnectionLostError
from tests.unit.fake_publishing import ANSWER_TIME, FakePublishingServer, outcomes, turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REFUSAL = asyncpg.ProgramLimitExceededError("too many notifications in the NOTIFY queue")
CLOSE_WITHIN = 7.0


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakePublishingServer]:
    """Whose publisher has ended, and whose callers have all been told, when the test is over."""
    made = FakePublishingServer()
    yield made
    await made.end()


# -- closing --------------------------------------------------------------------------------------


async def test_closing_a_publisher_that_rests_parts_with_its_session(
    server: FakePublishingServer,
) -> None:
    """It says goodbye, with the time it was given, and ends."""
    publisher = await server.start_with_session()
    publisher.close(CLOSE_WITHIN)
    await server.running
    assert server.closed == [(server.sessions[0], CLOSE_WITHIN)]
    assert server.sessions[0].lost


async def test_closing_before_anything_was_sent_opens_nothing(server: FakePublishingServer) -> None:
    """A publisher without work has no session to part with."""
    server.begin().close(CLOSE_WITHIN)
    await server.running
    assert (server.sessions, server.closed) == ([], [])


async def test_closing_waits_for_a_lone_call(server: FakePublishingServer) -> None:
    """A call that sends by itself is committed and told before the session goes."""
    publisher = await server.start_with_session()
    call = server.call("alone")
    await asyncio.sleep(ANSWER_TIME / 2)
    publisher.close(CLOSE_WITHIN)
    await turns()
    assert not server.closed
    await call
    await server.running
    assert server.payloads == ["alone"]
    assert len(server.closed) == 1


async def test_what_was_accepted_is_sent_and_what_waited_for_room_is_not(
    server: FakePublishingServer,
) -> None:
    """Calls in the queue are flushed; those beyond, and those that come later, are refused."""
    publisher = await server.start_with_session(queue=3)
    calls = server.call_each(["alone", "1", "2", "3", "4", "5"])
    await turns()
    many = publisher.publish_all(["c"], ["many"])
    publisher.close(CLOSE_WITHIN)
    with pytest.raises(ClosedError):
        await publisher.publish("c", "late")
    with pytest.raises(ClosedError):
        publisher.publish_all(["c"], ["late"])
    found = await outcomes([*calls, many])
    assert [type(error) for error in found[4:6]] == [ClosedError] * 2
    assert found[:4] + found[6:] == [None] * 5
    await server.running
    assert server.payloads == ["alone", "1", "2", "3", "many"]


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "cancelled"])
async def test_closing_goes_on_after_a_lone_call_that_fails(
    server: FakePublishingServer, *, lost: bool
) -> None:
    """What had gathered behind it is flushed on a connection made for that."""
    publisher = await server.start_with_session()
    call, other = server.call_each(["alone", "other"])
    await asyncio.sleep(ANSWER_TIME / 2)
    publisher.close(CLOSE_WITHIN)
    if lost:
        server.sessions[0].terminate()
    else:
        call.cancel()
    [error, none] = await outcomes([call, other])
    assert isinstance(error, ConnectionLostError if lost else asyncio.CancelledError)
    assert none is None
    await server.running
    assert server.payloads == ["other"]
    assert server.closed == [(server.sessions[1], CLOSE_WITHIN)]


async def test_closing_twice_is_closing_once(server: FakePublishingServer) -> None:
    """A second close() changes nothing, before the end and after it."""
    publisher = await server.start_with_session()
    server.close_time = 2
    publisher.close(CLOSE_WITHIN)
    await turns()
    publisher.close(1)
    await server.running
    publisher.close(1)
    assert len(server.closed) == 1


# -- being cancelled ------------------------------------------------------------------------------


async def test_cancelled_it_tells_every_caller(server: FakePublishingServer) -> None:
    """What was in flight is in doubt, what waited was not sent, and the session is dropped."""
    publisher = await server.start_with_session(queue=2)
    server.answer_time = 100
    publisher.publish_all((), ())
    calls = server.call_each("abcd")
    await asyncio.sleep(1)
    server.running.cancel()
    found = await outcomes(calls)
    assert [type(error) for error in found] == [ConnectionLostError] * 2 + [ClosedError] * 2
    assert server.sessions[0].lost


async def test_cancelled_with_a_lone_call_in_flight_tells_it(server: FakePublishingServer) -> None:
    """The call that sends by itself learns that its connection is gone."""
    await server.start_with_session()
    server.answer_time = 100
    call, other = server.call_each("ab")
    await asyncio.sleep(1)
    server.running.cancel()
    found = await outcomes([call, other])
    assert [type(error) for error in found] == [ConnectionLostError, ClosedError]


async def test_cancelled_it_tells_what_was_committed(server: FakePublishingServer) -> None:
    """Calls that were committed, and not told yet, are told that when many are in flight."""
    publisher = await server.start_with_session()
    alone = server.call("alone")
    await turns()
    calls = server.call_each(map(str, range(100)))
    await turns()
    many = publisher.publish_all(["c"], ["many"])
    await alone
    await asyncio.sleep(1.5 * ANSWER_TIME)
    assert server.statements[-1] == [("c", "many")]
    committed = set(server.payloads) - {"alone"}
    server.running.cancel()
    await turns()
    untold = [call for call in calls if not call.done()]
    for call in untold:
        call.cancel()
    assert not untold
    found = await outcomes([*calls, many])
    for n, error in enumerate(found[:-1]):
        assert error is None if str(n) in committed else isinstance(error, ClosedError)
    assert isinstance(found[-1], ConnectionLostError)


async def test_cancelled_while_it_sends_again_it_tells_all(server: FakePublishingServer) -> None:
    """Of a refused statement some are sent again; the rest is told that it was not."""
    server.refused["bad"] = REFUSAL
    await server.start_with_session()
    calls = server.call_each(["alone", "a", "bad", "b", "c"])
    await asyncio.sleep(4.5 * ANSWER_TIME)  # alone, all four, a, bad
    server.running.cancel()
    found = await outcomes(calls)
    assert found[:3] == [None, None, REFUSAL]
    assert isinstance(found[3], ConnectionLostError)
    assert isinstance(found[4], ClosedError)


@pytest.mark.parametrize("moment", [0.0, 1.0])
async def test_cancelled_while_it_connects_it_tells_all(
    server: FakePublishingServer, moment: float
) -> None:
    """Nothing was sent, and nothing is left."""
    server.open_time = 5
    server.begin()
    calls = server.call_each("abc")
    await asyncio.sleep(moment)
    await turns()
    server.running.cancel()
    assert {type(error) for error in await outcomes(calls)} == {ClosedError}
    assert server.sessions == []


async def test_a_lone_call_that_is_cancelled_costs_the_session_only(
    server: FakePublishingServer,
) -> None:
    """What gathered behind it goes out on the next one, and a later call is alone again."""
    await server.start_with_session()
    call, other = server.call_each("ab")
    await asyncio.sleep(ANSWER_TIME / 2)
    call.cancel()
    assert [type(e) for e in await outcomes([call])] == [asyncio.CancelledError]
    await other
    await server.call("c")
    assert server.payloads == ["b", "c"]
    assert (len(server.sessions), server.single_statements) == (2, 2)


async def test_a_lone_call_that_is_cancelled_before_it_begins_costs_nothing(
    server: FakePublishingServer,
) -> None:
    """Cancelled before its first step, it has touched nothing."""
    await server.start_with_session()
    if asyncio.get_running_loop().get_task_factory() is not None:
        pytest.skip("an eager task has begun when it is there to be cancelled")
    call = server.call("a")
    call.cancel()
    await outcomes([call])
    await server.call("b")
    assert (server.payloads, len(server.sessions)) == (["b"], 1)


# -- sessions that are given back -----------------------------------------------------------------


@pytest_asyncio.fixture
async def borrower(server: FakePublishingServer) -> FakePublishingServer:
    """Where every session that rests is taken back, which takes time."""
    server.keeps, server.rest_time = False, 0.5
    await server.start_with_session()
    await asyncio.sleep(1)
    return server


@pytest.mark.parametrize("moment", [0.0, 0.25, 0.5, 0.75])
async def test_a_call_that_comes_while_a_session_is_given_back_is_served(
    borrower: FakePublishingServer, moment: float
) -> None:
    """It waits for another one, and needs no later call to wake the publisher."""
    await borrower.call("first")
    await asyncio.sleep(moment)
    await borrower.call("next")
    many = borrower.publisher.publish_all(["c"], ["many"])
    assert await outcomes([many]) == [None]
    assert borrower.payloads == ["first", "next", "many"]


async def test_many_that_come_while_a_session_is_given_back_are_served(
    borrower: FakePublishingServer,
) -> None:
    """As with calls."""
    await borrower.call("first")
    await asyncio.sleep(0.25)
    assert await outcomes([borrower.publisher.publish_all(["c"], ["many"])]) == [None]


@pytest.mark.parametrize("moment", [0.0, 0.25, 0.5, 0.75])
async def test_closing_while_a_session_is_given_back_ends_it(
    borrower: FakePublishingServer, moment: float
) -> None:
    """There is nothing left to part with."""
    await borrower.call("first")
    await asyncio.sleep(moment)
    borrower.publisher.close(CLOSE_WITHIN)
    await borrower.running
    assert len(borrower.closed) <= 1


async def test_nothing_is_held_while_it_rests(borrower: FakePublishingServer) -> None:
    """A session is opened for each series of calls, and no call is alone on one."""
    for n in range(3):
        await borrower.call(str(n))
        await asyncio.sleep(1)
    assert (len(borrower.sessions), borrower.single_statements) == (4, 0)
