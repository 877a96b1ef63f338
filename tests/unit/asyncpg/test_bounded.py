"""Commands have deadlines, and what does not meet its deadline is given up."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify._channels.checksum import Checksum
from asyncnotify._errors import ConnectionLostError
from asyncnotify.testing.clock import VirtualTimeLoop
from tests.unit.session_harness import SessionHarness


@pytest_asyncio.fixture
async def harness() -> SessionHarness:
    """A fresh session."""
    return SessionHarness()


async def test_a_command_that_is_not_answered_ends_the_connection(harness: SessionHarness) -> None:
    """At its deadline: TimeoutError, and the connection is terminated, not closed."""
    harness.connection.answer_time = None
    with pytest.raises(TimeoutError, match=r"did not answer within 5\b"):
        await harness.session.listen(["a"])
    assert harness.now == pytest.approx(5, abs=0.1)
    assert harness.connection.terminated
    assert harness.session.lost
    assert harness.connection.statements == ['LISTEN "a"']


async def test_r03_an_answer_that_lies_in_the_socket_when_the_loop_was_blocked_counts(
    harness: SessionHarness,
) -> None:
    """The timer and the answer are due together, because nobody could read: no false alarm."""
    assert isinstance(harness.loop, VirtualTimeLoop)
    harness.connection.answer_time = 1.0
    harness.loop.call_later(0.5, harness.loop.spend, 20.0)
    assert await harness.session.is_listening(Checksum.of(()), timeout=5.0)
    assert not harness.session.lost


async def test_a_server_that_is_heard_has_more_time(harness: SessionHarness) -> None:
    """While notifications arrive it is alive, and the answer stands behind them."""
    harness.connection.answer_time = 20.0
    for seconds in range(1, 20):
        harness.loop.call_later(seconds, harness.set_last_contact)
    await harness.session.listen(["a"])
    assert harness.now == pytest.approx(20)
    assert not harness.session.lost


async def test_a_server_that_is_heard_but_never_answers_is_given_up(
    harness: SessionHarness,
) -> None:
    """After six times the deadline; and a deadline after it was heard last."""
    harness.connection.answer_time = None
    for seconds in range(1, 100):
        harness.loop.call_later(seconds, harness.set_last_contact)
    with pytest.raises(TimeoutError):
        await harness.session.listen(["a"])
    assert harness.now == pytest.approx(30, abs=0.1)


async def test_a_command_that_is_cancelled_ends_the_connection(harness: SessionHarness) -> None:
    """Nobody could say what the server has made of it."""
    harness.connection.answer_time = None
    command = asyncio.ensure_future(harness.session.listen(["a"]))
    await asyncio.sleep(1)
    command.cancel()
    await asyncio.wait({command})
    assert command.cancelled()
    assert harness.connection.terminated
    assert harness.now == pytest.approx(1, abs=0.1)


async def test_a_command_that_the_driver_cancels_is_a_lost_connection(
    harness: SessionHarness,
) -> None:
    """asyncpg does so when its protocol is aborted; it is not our cancellation."""
    harness.connection.answer = asyncio.CancelledError()
    with pytest.raises(ConnectionLostError):
        await harness.session.listen(["a"])


async def test_a_refusal_leaves_the_connection_as_it_is(harness: SessionHarness) -> None:
    """An error is an answer."""
    harness.connection.answer = asyncpg.InsufficientPrivilegeError("denied")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await harness.session.listen(["a"])
    assert not harness.session.lost


@pytest.mark.parametrize("answer_time", [1.0, None])
async def test_r31_closing_takes_no_longer_than_it_is_given(
    harness: SessionHarness, answer_time: float | None
) -> None:
    """A goodbye that is not answered is cut short; in any case the connection is dropped."""
    harness.connection.answer_time = answer_time
    await harness.session.close(2.0)
    assert harness.now == pytest.approx(2.0 if answer_time is None else 1.0, abs=0.1)
    assert harness.connection.terminated
    await harness.session.close(2.0)
    assert harness.connection.statements == ["close"]


async def test_what_a_pooler_may_give_to_others_is_set_and_reset(harness: SessionHarness) -> None:
    """Both once: behind a pooler the settings are the session's, which goes back to others."""
    harness.session.may_wait = True
    for _ in range(2):
        await harness.session.set_own_defaults()
    await harness.session.reset_defaults()
    assert [s.split(" ")[0] for s in harness.connection.statements] == ["SET", "RESET"]
    set_, reset = (
        {part.split()[1] for part in s.split(";")} for s in harness.connection.statements
    )
    assert set_ == reset != set()


async def test_what_was_not_set_is_not_reset(harness: SessionHarness) -> None:
    """It would undo what somebody else has set for the session."""
    harness.session.may_wait = False
    await harness.session.set_own_defaults()
    await harness.session.reset_defaults()
    assert harness.connection.statements == []


async def test_r13_a_server_that_does_not_tell_which_one_it_is_stays_unknown(
    harness: SessionHarness,
) -> None:
    """A refusal is no loss; every other error is one."""
    harness.connection.errors = [asyncpg.InsufficientPrivilegeError("denied")]
    assert await harness.session.find_server() is None
    assert not harness.session.lost
    harness.connection.answer = [["one"]]
    assert await harness.session.find_server() == "one"
    harness.connection.errors = [asyncpg.ConnectionDoesNotExistError("gone")]
    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await harness.session.find_server()
