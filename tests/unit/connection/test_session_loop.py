"""While a session lasts: when the server is asked whether it is there, and how it all ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest

from asyncnotify._errors import ConfigurationError, ConnectionLostError
from asyncnotify._events import ConnectionLost, Reconnected, RetryScheduled
from asyncnotify._model import State
from tests.unit.fake_server import asked, at, seen

if TYPE_CHECKING:
    from asyncnotify._connection.ports import ListeningSession
    from tests.unit.fake_server import SupervisorHarness


# -- heartbeat ------------------------------------------------------------------------------------


async def test_an_idle_server_is_asked_at_each_interval(harness: SupervisorHarness) -> None:
    """Counted from its last answer, and no more often."""
    harness.server.answer_time = 1.0
    harness.supervise("a")
    await asyncio.sleep(40)
    assert asked(harness) == [
        (0.0, "LISTEN a"),
        (11.0, "heartbeat"),
        (22.0, "heartbeat"),
        (33.0, "heartbeat"),
    ]
    heartbeat = harness.session_loop.last_heartbeat
    assert heartbeat.at == at(34)
    assert heartbeat.round_trip == pytest.approx(1.0)


async def test_a_server_that_sends_is_not_asked_but_for_the_audit(
    harness: SupervisorHarness,
) -> None:
    """Notifications prove that it is there; that it listens on all is asked after 5 intervals."""
    supervisor = harness.supervise("a")
    await supervisor.started
    for _ in range(120):
        await asyncio.sleep(1)
        harness.server.session.notify(7, "a", "")
    assert asked(harness, since=1) == [(50.0, "heartbeat"), (100.0, "heartbeat")]


async def test_without_a_heartbeat_an_idle_server_is_never_asked(
    harness: SupervisorHarness,
) -> None:
    """heartbeat=None switches it off."""
    harness.supervise("a", heartbeat=None)
    await asyncio.sleep(1_000)
    assert asked(harness) == [(0.0, "LISTEN a")]


async def test_r02_a_silent_server_is_found_out_by_the_heartbeat(
    harness: SupervisorHarness,
) -> None:
    """Within the interval and the timeout: the session is dropped, a new one is dialled."""
    supervisor = harness.supervise("a")
    await supervisor.started
    harness.server.silent = True
    first, states = harness.server.session, list[State]()
    for seconds in (14.9, 0.2):
        await asyncio.sleep(seconds)
        states.append(supervisor.state)
    assert states == [State.CONNECTED, State.RECONNECTING]
    assert first.terminated
    harness.server.silent = False
    lost = await harness.until(ConnectionLost)
    assert isinstance(lost.cause, TimeoutError)
    await harness.until(Reconnected)


async def test_the_first_heartbeat_comes_an_interval_after_listen(
    harness: SupervisorHarness,
) -> None:
    """On every session, whatever its predecessor has heard."""
    supervisor = harness.supervise("a")
    await supervisor.started
    await asyncio.sleep(5)
    harness.server.session.die()
    await harness.until(Reconnected)
    began = harness.server.now
    await asyncio.sleep(12)
    ((seconds, command),) = asked(harness, since=began + 1)
    assert command == "heartbeat"
    assert seconds == pytest.approx(began + 10)


async def test_the_session_is_told_when_the_server_was_last_heard(
    harness: SupervisorHarness,
) -> None:
    """So that a server that sends is given more time to answer."""
    supervisor = harness.supervise("a")
    await supervisor.started
    await asyncio.sleep(5)
    harness.server.session.notify(7, "a", "")
    await asyncio.sleep(1)
    assert harness.server.session.last_contact() == harness.router.last_contact
    assert harness.server.now - 1 == pytest.approx(harness.router.last_contact - 100_000)


async def test_an_error_ends_the_session(harness: SupervisorHarness) -> None:
    """Any that is no answer to the command: it is the cause of the loss."""
    supervisor = harness.supervise("a")
    await supervisor.started
    harness.server.faults = [asyncpg.InternalClientError("got result for unknown protocol state 3")]
    harness.subscribe("b")
    lost = await harness.until(ConnectionLost)
    assert isinstance(lost.cause, asyncpg.InternalClientError)
    assert lost.cause.__traceback__ is None  # whose frames would keep the session
    assert [name for _, name in asked(harness)] == ["LISTEN a", "LISTEN b"]


async def test_a_question_that_nobody_waits_for_is_not_asked(harness: SupervisorHarness) -> None:
    """Its caller was cancelled while the server was busy with something else."""
    supervisor = harness.supervise("a")
    await supervisor.started
    harness.server.answer_time = 3.0
    harness.subscribe("b")
    await asyncio.sleep(1)
    questions: list[ListeningSession] = []

    async def question(session: ListeningSession) -> None:
        questions.append(session)

    asking = [
        asyncio.ensure_future(harness.session_loop.ask(question, timeout=60)) for _ in range(2)
    ]
    await asyncio.sleep(1)
    asking[0].cancel()
    await asyncio.wait(asking)
    assert len(questions) == 1


async def test_r54_a_server_that_does_not_listen_is_refused_at_the_start(
    harness: SupervisorHarness,
) -> None:
    """At the first attempt, with the reason; no retry would help."""
    error = ConfigurationError("the server does not support LISTEN")
    harness.server.refused["a"] = error
    supervisor = harness.supervise("a")
    with pytest.raises(ConfigurationError, match="does not support LISTEN"):
        await supervisor.started
    assert len(harness.server.sessions) == 1
    assert harness.server.session.terminated


async def test_a_channel_that_the_server_refuses_ends_its_subscription_alone(
    harness: SupervisorHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """One that shares the statement begins; the refused one has ended, with the error."""
    error = asyncpg.UntranslatableCharacterError("no such character")
    harness.server.refused["b"] = error
    supervisor = harness.supervise("a")
    refused = harness.subscribe("b")
    other = harness.subscribe("c")
    await supervisor.started
    assert (refused.refusal, refused.mailbox.is_open) == (error, False)
    assert other.in_force
    assert harness.registry.desired == harness.registry.confirmed == {"a", "c"}
    assert "the subscriptions of channel 'b' have ended" in caplog.text
    await asyncio.sleep(20)
    assert len(harness.server.sessions) == 1


# -- questions ------------------------------------------------------------------------------------


async def usage(session: ListeningSession) -> str:
    """Ask something that takes a second."""
    await asyncio.sleep(1)
    return f"of {session.pid}"


async def test_a_question_is_answered_between_two_commands(harness: SupervisorHarness) -> None:
    """One at a time, by the task that gives all the commands."""
    supervisor = harness.supervise("a")
    await supervisor.started
    answers = [harness.session_loop.ask(usage, timeout=5) for _ in range(2)]
    assert await asyncio.gather(*answers) == ["of 100", "of 100"]
    assert harness.server.now == 2.0


async def test_a_question_without_a_connection_is_refused(harness: SupervisorHarness) -> None:
    """At once while there is none, and when the one there was is lost."""
    harness.server.refusal = OSError()
    supervisor = harness.supervise("a")
    await asyncio.sleep(1)
    with pytest.raises(ConnectionLostError):
        await harness.session_loop.ask(usage, timeout=5)
    harness.server.refusal = None
    await supervisor.started
    harness.server.silent = True
    harness.subscribe("b")  # no answer comes, for five seconds
    with pytest.raises(ConnectionLostError):
        await harness.session_loop.ask(usage, timeout=50)


async def test_a_question_that_takes_too_long_is_given_up(harness: SupervisorHarness) -> None:
    """The caller gets the error; the session goes on."""
    supervisor = harness.supervise("a")
    await supervisor.started
    with pytest.raises(TimeoutError):
        await harness.session_loop.ask(usage, timeout=0.5)
    await asyncio.sleep(20)
    assert len(harness.server.sessions) == 1


@pytest.mark.parametrize(
    ("error", "sessions"),
    [(asyncpg.InsufficientPrivilegeError("denied"), 1), (OSError("reset"), 2)],
)
async def test_a_question_that_fails_ends_the_session_if_that_is_no_answer(
    harness: SupervisorHarness, error: Exception, sessions: int
) -> None:
    """The caller gets the error; a refusal is an answer, and leaves the session usable."""

    async def fail(_session: ListeningSession) -> None:
        raise error

    supervisor = harness.supervise("a")
    await supervisor.started
    with pytest.raises(type(error)):
        await harness.session_loop.ask(fail, timeout=5)
    await asyncio.sleep(5)
    assert len(harness.server.sessions) == sessions


async def test_a_question_that_was_given_up_is_not_asked(harness: SupervisorHarness) -> None:
    """Another had its turn: by the time of its own nobody wants to know any more."""
    supervisor = harness.supervise("a")
    await supervisor.started
    begun: list[str] = []

    async def slow(_session: ListeningSession) -> None:
        begun.append("slow")
        await asyncio.sleep(2)

    async def late(_session: ListeningSession) -> None:
        begun.append("late")

    first = asyncio.create_task(harness.session_loop.ask(slow, timeout=5))
    await asyncio.sleep(0.5)
    with pytest.raises(TimeoutError):
        await harness.session_loop.ask(late, timeout=1)
    await first
    await asyncio.sleep(5)
    assert begun == ["slow"]


async def test_a_question_whose_asker_has_gone_may_fail_unnoticed(
    harness: SupervisorHarness,
) -> None:
    """A refusal that comes too late is nobody's error, and the session goes on."""
    supervisor = harness.supervise("a")
    await supervisor.started

    async def refuse(_session: ListeningSession) -> None:
        await asyncio.sleep(2)
        raise asyncpg.InsufficientPrivilegeError

    with pytest.raises(TimeoutError):
        await harness.session_loop.ask(refuse, timeout=1)
    await asyncio.sleep(20)
    assert len(harness.server.sessions) == 1
    assert supervisor.state is State.CONNECTED


async def test_a_question_under_way_when_all_ends_is_answered_by_an_error(
    harness: SupervisorHarness,
) -> None:
    """The caller does not wait until its own timeout."""
    supervisor = harness.supervise("a")
    await supervisor.started
    question = asyncio.create_task(harness.session_loop.ask(usage, timeout=50))
    await asyncio.sleep(0.5)
    await harness.stop()
    with pytest.raises(ConnectionLostError):
        await question
    assert harness.server.now == 0.5


# -- agreement ------------------------------------------------------------------------------------


async def test_who_gives_up_waiting_for_agreement_holds_up_nobody(
    harness: SupervisorHarness,
) -> None:
    """The others who wait for the same commands are woken, and the session goes on."""
    supervisor = harness.supervise("a")
    await supervisor.started
    harness.server.answer_time = 1.0
    harness.subscribe("b")
    impatient, patient = (asyncio.create_task(harness.session_loop.settled()) for _ in range(2))
    await asyncio.sleep(0.5)
    impatient.cancel()
    await patient
    assert harness.server.session.listening == {"a", "b"}
    await asyncio.sleep(20)
    assert len(harness.server.sessions) == 1


async def test_a_session_that_ends_while_it_answers_has_not_begun(
    harness: SupervisorHarness,
) -> None:
    """The attempt has failed, for the reason that the server gave; no Gap says that it listened."""
    harness.server.answer_time = 1.0
    harness.supervise("a")
    subscriber = harness.subscribe("b")
    await asyncio.sleep(0.5)
    harness.server.session.die("the server is shutting down")
    retry = await harness.until(RetryScheduled)
    assert isinstance(retry.cause, ConnectionLostError)
    assert "the server is shutting down" in str(retry.cause)
    assert seen(subscriber) == []


@pytest.mark.parametrize(
    ("error", "has_frames"), [(OSError("reset"), False), (ZeroDivisionError(), True)]
)
async def test_the_cause_of_a_loss_keeps_its_frames_where_it_is_a_defect(
    harness: SupervisorHarness, error: Exception, *, has_frames: bool
) -> None:
    """They show where it is; of what every network does they would only hold the session."""
    supervisor = harness.supervise("a")
    await supervisor.started
    harness.server.faults = [error]  # of the next heartbeat
    lost = await harness.until(ConnectionLost)
    assert lost.cause is error
    assert (error.__traceback__ is not None) is has_frames


async def test_r59_another_connection_with_the_same_backend_is_suspicious(
    harness: SupervisorHarness,
) -> None:
    """Any other backend is as it should be, and so is one of a session that is gone."""
    supervisor = harness.supervise("a")
    await supervisor.started
    session, suspects = harness.server.session, list[bool]()
    harness.session_loop.note_other(session.pid + 1)
    suspects.append(harness.session_loop.delivery.suspects)
    session.lost = True
    harness.session_loop.note_other(session.pid)
    suspects.append(harness.session_loop.delivery.suspects)
    session.lost = False
    harness.session_loop.note_other(session.pid)
    suspects.append(harness.session_loop.delivery.suspects)
    assert suspects == [False, False, True]


# -- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("goodbye", [None, 2.5])
async def test_a_session_is_closed_in_good_order_if_there_is_time(
    harness: SupervisorHarness, goodbye: float | None
) -> None:
    """Else it is dropped, as whatever may be dead."""
    supervisor = harness.supervise("a")
    await supervisor.started
    if goodbye is not None:
        supervisor.close_when_cancelled(goodbye)
    await harness.stop()
    assert harness.server.session.closed_within == goodbye
    assert harness.server.session.terminated
    assert harness.registry.confirmed == frozenset()


@pytest.mark.parametrize("moment", ["dial", "LISTEN", "heartbeat", "pause"])
async def test_r31_it_may_be_cancelled_at_every_moment(
    harness: SupervisorHarness, moment: str
) -> None:
    """In a dial, a command, a pause: it ends at once, and no session is left open."""
    harness.server.dial_time = harness.server.answer_time = 1.0
    harness.supervise("a")
    await asyncio.sleep({"dial": 0.5, "LISTEN": 1.5, "heartbeat": 12.5, "pause": 5}[moment])
    if moment == "pause":
        harness.server.refusal = asyncpg.InvalidPasswordError("")
        harness.server.session.die()
        await asyncio.sleep(2)
    before = harness.server.now
    await harness.stop()
    assert harness.tasks[0].cancelled()
    assert harness.server.now == before
    assert harness.server.dialling == 0
    assert all(session.terminated for session in harness.server.sessions)
    assert harness.session_loop.session is None
