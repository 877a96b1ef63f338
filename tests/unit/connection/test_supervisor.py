"""Outages: when the next attempt is made, what it is called, and that there always is one."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING

import asyncpg
import pytest

from asyncnotify._backoff import ExponentialBackoff
from asyncnotify._errors import ConfigurationError, ConnectError, ConnectionLostError
from asyncnotify._events import Connected, ConnectionLost, Reconnected, RetryScheduled
from asyncnotify._listener import Listener
from asyncnotify._model import Gap, GapReason, State
from tests.unit.fake_connection import FakeConnection
from tests.unit.fake_server import at, seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.unit.fake_server import SupervisorHarness

REFUSED = ConnectionRefusedError("refused")
WRONG_PASSWORD = asyncpg.InvalidPasswordError("wrong password")
ENDED = asyncpg.InterfaceError("connection is closed")
DAY = 86_400.0


def doubling() -> Iterator[float]:
    """Return the delays of the default backoff, without jitter and without a cap."""
    return itertools.chain([0.0], (0.1 * 2**n for n in itertools.count()))


def pauses(times: list[float]) -> list[float]:
    """Return how long it was from each to the next."""
    return [round(later - earlier, 3) for earlier, later in itertools.pairwise(times)]


def lines(caplog: pytest.LogCaptureFixture, level: str) -> list[str]:
    """Return what was logged at this level."""
    return [record.getMessage() for record in caplog.records if record.levelname == level]


# -- attempts -------------------------------------------------------------------------------------


async def test_the_first_attempt_is_made_at_once(harness: SupervisorHarness) -> None:
    """And, where it succeeds, is the only one; the first gap says that this is the beginning."""
    supervisor = harness.supervise("a")
    await supervisor.started
    assert harness.server.dials == [0.0]
    assert harness.events == [Connected(1, 100)]
    assert supervisor.state is State.CONNECTED
    await asyncio.sleep(DAY / 24)
    assert harness.server.dials == [0.0]


async def test_r10_attempts_follow_the_backoff(harness: SupervisorHarness) -> None:
    """Between one that failed and the next lies what the backoff gave, and nothing else."""
    harness.server.refusal = REFUSED
    harness.supervise(backoff=doubling)
    await asyncio.sleep(20)
    assert pauses(harness.server.dials) == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4]
    assert [event.delay for event in harness.events if isinstance(event, RetryScheduled)] == (
        pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8])
    )


async def test_r10_a_new_outage_begins_with_an_attempt_at_once(harness: SupervisorHarness) -> None:
    """What an earlier outage has come to is forgotten when the session has proved itself."""
    harness.supervise("a", backoff=doubling)
    await asyncio.sleep(100)
    for _ in range(3):
        before = harness.server.now
        harness.server.refusal = REFUSED
        harness.server.session.die()
        await asyncio.sleep(5)
        harness.server.refusal = None
        await harness.until(Reconnected)
        attempts = [dial for dial in harness.server.dials if dial >= before]
        assert pauses([before, *attempts]) == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2]
        await asyncio.sleep(100)


async def test_r10_never_two_dials_at_once(harness: SupervisorHarness) -> None:
    """However long a dial takes, and whatever else happens meanwhile."""
    harness.server.refusal, harness.server.dial_time = TimeoutError("silent"), 10.0
    harness.supervise("a")
    for number in range(1_000):
        await asyncio.sleep(1)
        harness.subscribe(f"channel {number}")
        harness.session_loop.notice_change()
    assert len(harness.server.dials) > 50
    assert harness.server.most_dialling == 1


async def test_r10_listeners_that_lose_one_server_come_back_apart(
    harness: SupervisorHarness,
) -> None:
    """100 of them after the same outage: they spread over more than half of the last window."""
    harness.server.refusal = REFUSED
    for _ in range(100):
        harness.supervise("a")
    await asyncio.sleep(20)
    harness.server.refusal = None
    await asyncio.sleep(5)
    came = [seconds for seconds, _ in harness.server.asked]
    assert len(came) == 100
    assert max(came) - min(came) > 0.5 * 5.0


async def test_r10_a_server_that_drops_every_session_is_not_hammered(
    harness: SupervisorHarness,
) -> None:
    """Listening for a moment is no success: the pauses grow; at less than a second they vary."""
    harness.server.drops_after_listen = True
    harness.supervise("a", backoff=doubling)
    await asyncio.sleep(60)
    first, later = pauses(harness.server.dials)[:5], pauses(harness.server.dials)[5:]
    assert first == [0.0, 0.1, 0.2, 0.4, 0.8]
    assert max(later) <= 0.8
    assert len(set(later)) > len(later) / 2
    assert 0.2 < sum(later) / len(later) < 0.6


@pytest.mark.parametrize(
    ("lifetime", "heartbeat", "proved"),
    [(9.0, 10.0, False), (11.0, 10.0, True), (29.0, None, False), (31.0, None, True)],
)
async def test_r10_backoff_begins_anew_after_a_heartbeat_or_half_a_minute(
    harness: SupervisorHarness, lifetime: float, heartbeat: float | None, *, proved: bool
) -> None:
    """A session that has been proved makes the next loss a new outage; a shorter one does not."""
    supervisor = harness.supervise("a", heartbeat=heartbeat, backoff=doubling)
    lost: list[float] = []
    await supervisor.started
    for _ in range(4):
        await asyncio.sleep(lifetime)
        lost.append(harness.server.now)
        harness.server.session.die()
        await harness.until(Reconnected)
    delays = [
        round(dial - loss, 3) for dial, loss in zip(harness.server.dials[1:], lost, strict=True)
    ]
    assert delays == ([0.0] * 4 if proved else [0.0, 0.1, 0.2, 0.4])


async def test_r10_a_session_that_delivers_for_a_second_is_no_failure(
    harness: SupervisorHarness,
) -> None:
    """The server ends each session after two seconds: the next attempt is made at once."""
    supervisor = harness.supervise("a", heartbeat=10.0, backoff=doubling)
    await supervisor.started
    for _ in range(5):
        harness.server.session.notify(7, "a", "1")
        await asyncio.sleep(2)
        harness.server.session.die()
        await harness.until(Reconnected)
    assert pauses(harness.server.dials) == [2.0] * 5


async def test_r11_after_a_day_of_refusal_it_still_tries(
    harness: SupervisorHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """24 hours: one line for each attempt, at INFO, one warning for the loss; then it is back."""
    caplog.set_level(logging.DEBUG)
    supervisor = harness.supervise("a", backoff=ExponentialBackoff(cap=300))
    await supervisor.started
    harness.server.session.die()
    harness.server.refusal = REFUSED
    await asyncio.sleep(DAY)
    failed = harness.server.dials[1:]
    assert DAY - failed[-1] < 301
    assert len(failed) > 300
    assert len(lines(caplog, "INFO")) == 1 + len(failed)
    assert len(lines(caplog, "WARNING")) == 1
    assert len(caplog.records) == 2 + len(failed)
    harness.server.refusal = None
    async with asyncio.timeout(301):
        await supervisor.connected.wait()
    assert isinstance(harness.events[-1], Reconnected)
    assert harness.events[-1].attempts == len(failed) + 1


@pytest.mark.parametrize(
    "error",
    [
        OSError("no route"),
        TimeoutError(),
        asyncpg.CannotConnectNowError("starting up"),
        asyncpg.TooManyConnectionsError("full"),
        asyncpg.TargetServerAttributeNotMatched("standby"),
        asyncpg.ConnectionDoesNotExistError("closed"),
        asyncpg.InternalClientError("unexpected"),
        ConnectError("connect= raised RuntimeError"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_r11_whatever_a_dial_raises_is_tried_again(
    harness: SupervisorHarness, error: Exception
) -> None:
    """Before the first success and after it."""
    harness.server.refusal = error
    supervisor = harness.supervise("a")
    for _ in range(2):
        await asyncio.sleep(100)
        assert not supervisor.connected.is_set()
        harness.server.refusal = None
        await supervisor.connected.wait()
        harness.server.refusal = error
        harness.server.session.die()


@pytest.mark.parametrize("error", [AttributeError("idle"), TypeError(), ValueError(), KeyError()])
async def test_r54_a_defect_ends_the_start_and_is_degraded_later(
    harness: SupervisorHarness, error: Exception
) -> None:
    """What no network can cause is not retried in silence; its traceback is kept as the cause."""
    harness.server.refusal = error
    refused = harness.supervise("a")
    with pytest.raises(ConnectError) as caught:
        await refused.started
    assert caught.value.__cause__ is error
    harness.server.refusal = None
    supervisor = harness.supervise("a")
    await supervisor.connected.wait()
    harness.server.refusal = error
    harness.server.session.die()
    await asyncio.sleep(100)
    assert supervisor.state is State.DEGRADED


async def test_on_event_that_raises_cancelled_error_does_not_end_the_retries(
    harness: SupervisorHarness,
) -> None:
    """A callback that asks a cancelled future for its result harms nobody but itself."""

    def ask_cancelled_future(event: object) -> None:
        if isinstance(event, ConnectionLost):
            raise asyncio.CancelledError

    harness.callback = ask_cancelled_future
    supervisor = harness.supervise("a")
    await supervisor.started
    harness.server.session.die()
    async with asyncio.timeout(10):
        await harness.until(Reconnected)


async def test_r14_a_connection_on_which_listen_fails_is_dropped(
    harness: SupervisorHarness,
) -> None:
    """It is terminated and never used again; the next attempt makes another."""
    harness.server.faults = [asyncpg.ReadOnlySQLTransactionError("standby")] * 3
    supervisor = harness.supervise("a", backoff=doubling)
    await supervisor.started
    *failed, last = harness.server.sessions
    assert len(failed) == 3
    assert all(session.terminated for session in failed)
    assert [session.asked for session in harness.server.sessions] == [["LISTEN a"]] * 4
    assert not last.terminated
    assert pauses(harness.server.dials) == [0.1, 0.2, 0.4]


async def test_r15_an_old_connection_does_not_disturb_the_new_one(
    harness: SupervisorHarness,
) -> None:
    """Its callbacks may come late, and often."""
    supervisor = harness.supervise("a")
    await supervisor.started
    old = harness.server.session
    old.die()
    await asyncio.sleep(1)
    for _ in range(1_000):
        old.on_lost()
        await asyncio.sleep(0)
    assert len(harness.server.sessions) == 2
    assert supervisor.state is State.CONNECTED


# -- the first start ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (WRONG_PASSWORD, ConnectError),
        (asyncpg.InvalidCatalogNameError("no such database"), ConnectError),
        (asyncpg.InvalidAuthorizationSpecificationError("no such role"), ConnectError),
        (asyncpg.ClientConfigurationError("ports"), ConfigurationError),
        (ValueError("bad option"), ConfigurationError),
        (TypeError("bad argument"), ConfigurationError),
        (ConfigurationError("bad DSN"), ConfigurationError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
async def test_r12_what_no_retry_can_help_is_raised_by_the_first_attempt(
    harness: SupervisorHarness, error: Exception, kind: type[ConnectError]
) -> None:
    """Once, with the target and the driver's error as its cause; then nothing is tried."""
    harness.server.refusal = error
    supervisor = harness.supervise("a")
    with pytest.raises(kind) as caught:
        await supervisor.started
    assert caught.value is error or caught.value.__cause__ is error
    assert isinstance(error, ConfigurationError) or "joe@db" in str(caught.value)
    await asyncio.sleep(100)
    assert harness.server.dials == [0.0]
    assert harness.tasks[0].done()


async def test_r12_after_the_first_success_nothing_is_fatal(harness: SupervisorHarness) -> None:
    """A password that has changed is tried again at half the cap or more, until it is right."""
    supervisor = harness.supervise("a", backoff=ExponentialBackoff(cap=60))
    await supervisor.started
    harness.server.refusal = WRONG_PASSWORD
    harness.server.session.die()
    await asyncio.sleep(3_600)
    between = pauses(harness.server.dials[1:])
    assert all(30 <= pause <= 60 for pause in between)
    assert len(between) > 50
    assert max(between) - min(between) > 15
    assert supervisor.state is State.DEGRADED
    harness.server.refusal = None
    await supervisor.connected.wait()


async def test_a_refusal_follows_a_backoff_of_ones_own(harness: SupervisorHarness) -> None:
    """Its cap is not known: the delays are those it gives."""
    supervisor = harness.supervise("a", backoff=lambda: itertools.repeat(7.0))
    await supervisor.started
    harness.server.refusal = WRONG_PASSWORD
    harness.server.session.die()
    await asyncio.sleep(100)
    assert set(pauses(harness.server.dials[1:])) == {7.0}


# -- states, events, gaps -------------------------------------------------------------------------


async def test_the_state_says_what_is_going_on(harness: SupervisorHarness) -> None:
    """Connecting, connected, lost, in need of repair, merely refused, and back again."""
    harness.server.refusal = REFUSED
    supervisor = harness.supervise("a")
    states = [supervisor.state]

    async def after(act: Callable[[], object]) -> None:
        act()
        await asyncio.sleep(20)
        states.append(supervisor.state)

    def refuse(error: BaseException | None) -> None:
        harness.server.refusal = error

    await after(lambda: refuse(REFUSED))
    await after(lambda: refuse(None))
    refuse(WRONG_PASSWORD)
    harness.server.session.die()
    states.append(supervisor.state)
    for error in (WRONG_PASSWORD, asyncpg.ObjectNotInPrerequisiteStateError(""), REFUSED, None):
        await after(lambda error=error: refuse(error))  # type: ignore[misc]
    assert states == [
        State.CONNECTING,
        State.CONNECTING,
        State.CONNECTED,
        State.RECONNECTING,
        State.DEGRADED,
        State.DEGRADED,
        State.RECONNECTING,
        State.CONNECTED,
    ]


async def test_events_and_figures_tell_of_an_outage(harness: SupervisorHarness) -> None:
    """What was lost and why, each attempt, how long it took and how many it needed."""
    supervisor = harness.supervise("a", "b", backoff=doubling)
    await supervisor.started
    assert supervisor.status.connected_since == at(0)
    await asyncio.sleep(20)
    harness.server.refusal = REFUSED
    harness.server.session.die("terminating connection due to administrator command")
    await asyncio.sleep(0.25)
    health = supervisor.status
    assert (health.connected_since, health.last_error) == (None, REFUSED)
    harness.server.refusal = None
    await supervisor.connected.wait()
    connected, lost, *retries, reconnected = harness.events
    assert connected == Connected(2, 100)
    assert isinstance(lost, ConnectionLost)
    assert isinstance(lost.cause, ConnectionLostError)
    assert "administrator command" in str(lost.cause)
    assert lost.backend_pid == 100
    assert retries == [RetryScheduled(n + 1, 0.1 * 2**n, REFUSED) for n in range(2)]
    assert isinstance(reconnected, Reconnected)
    assert reconnected.downtime == pytest.approx(0.3)
    assert (reconnected.attempts, reconnected.channels, reconnected.backend_pid) == (3, 2, 101)
    assert (health.connected_since, health.last_error) == (at(20.3), None)
    assert health.generation == 2


async def test_r18_one_gap_for_each_session_after_listen_was_confirmed(
    harness: SupervisorHarness,
) -> None:
    """Attempts that fail make none; what comes with the confirmation comes after the gap."""
    supervisor = harness.supervise(backoff=doubling)
    subscriber = harness.subscribe("a")
    await supervisor.started
    await asyncio.sleep(15)  # a heartbeat was answered at 10
    harness.server.session.notify(7, "a", "1")
    harness.server.faults = [asyncpg.CannotConnectNowError(""), asyncpg.InternalClientError("")]
    harness.server.answer_time = 1.0
    harness.server.session.die()
    await harness.until(RetryScheduled)
    await harness.until(RetryScheduled)
    await asyncio.sleep(0.5)  # LISTEN is under way for the third time
    harness.server.session.notify(7, "a", "2")
    assert seen(subscriber) == [Gap("a", GapReason.START), "1"]
    await supervisor.connected.wait()
    harness.server.session.notify(7, "a", "3")
    assert seen(subscriber) == [Gap("a", GapReason.RECONNECT, at(10)), "2", "3"]


async def test_a_session_that_dies_before_its_first_heartbeat_was_good_from_its_start(
    harness: SupervisorHarness,
) -> None:
    """Each gap is since the last proof, and LISTEN on a new connection is one."""
    supervisor = harness.supervise()
    subscriber = harness.subscribe("a")
    await supervisor.started
    for _ in range(2):
        await asyncio.sleep(5)
        harness.server.session.die()
        await harness.until(Reconnected)
    assert seen(subscriber) == [
        Gap("a", GapReason.START),
        Gap("a", GapReason.RECONNECT, at(0)),
        Gap("a", GapReason.RECONNECT, at(5)),
    ]


async def test_r14_a_connection_that_ends_before_it_is_taken_over_is_dropped() -> None:
    """The driver refuses to register our callbacks: another one is made."""
    made: list[FakeConnection] = []

    class Ended(FakeConnection):
        def add_termination_listener(self, callback: object) -> None:
            raise ENDED

    async def connect() -> FakeConnection:
        made.append(FakeConnection() if made else Ended())
        return made[-1]

    async with Listener(connect=connect) as listener:
        assert listener.state is State.CONNECTED
        assert [connection.terminated for connection in made] == [True, False]
