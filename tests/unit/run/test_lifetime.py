from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify._errors import ClosedError, ConnectError, ConnectTimeoutError
from asyncnotify._events import Closed, Connected, Reconnected
from asyncnotify._model import State
from asyncnotify._run.lifetime import log
from asyncnotify._tasks import CANCEL_GRACE
from tests.unit.lifetime_harness import START_TIMEOUT, LifetimeHarness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncnotify._events import ConnectionEvent
    from asyncnotify._model import Notification
    from asyncnotify._run.lifetime import Lifetime
    from tests.unit.fake_server import FakeSession

BUG = ZeroDivisionError("a bug")


def fail(*_: object, **__: object) -> NoReturn:
    """Fail, as a bug would."""
    raise BUG


@pytest_asyncio.fixture
async def harness() -> AsyncIterator[LifetimeHarness]:
    """A run that is not started yet; no task is left of it."""
    made = LifetimeHarness()
    yield made
    await made.lifetime.end(drain=False, timeout=0)
    await asyncio.sleep(1)
    names = [task.get_name() for task in asyncio.all_tasks()]
    assert [name for name in names if name.startswith("asyncnotify")] == []


# -- start ----------------------------------------------------------------------------------------


async def test_start_returns_once_listen_is_confirmed(harness: LifetimeHarness) -> None:
    """With every handler that was registered before."""
    harness.server.answer_time = 2.0
    lifetime = await harness.start(harness.registration("a"), harness.registration("b"))
    assert harness.now == 2.0
    assert lifetime.state is State.CONNECTED
    assert harness.server.session.listening == {"a", "b"}


async def test_start_retries_until_its_timeout(harness: LifetimeHarness) -> None:
    """The error holds the target, the time and the last cause; then the run has ended."""
    harness.server.refusal = ConnectionRefusedError("no server")
    with pytest.raises(ConnectTimeoutError, match=r"joe@db within 30 s: .*no server") as raised:
        await harness.start()
    assert raised.value.__cause__ is harness.server.refusal
    assert harness.now == pytest.approx(START_TIMEOUT)
    assert harness.lifetime.state is State.CLOSED


async def test_start_without_a_timeout_retries_for_ever() -> None:
    """A server that comes up after a day is found by the next attempt."""
    harness = LifetimeHarness(start_timeout=None, longest_delay=600.0)
    harness.server.refusal = ConnectionRefusedError("no server")
    starting = asyncio.create_task(harness.start())
    await asyncio.sleep(80_000)
    assert not starting.done()
    harness.server.refusal = None
    lifetime = await starting
    assert lifetime.state is State.CONNECTED
    await lifetime.end(drain=False, timeout=0)


async def test_start_does_not_retry_what_is_permanent(harness: LifetimeHarness) -> None:
    """A wrong password is raised at once, to each caller as an error of its own."""
    harness.server.refusal = asyncpg.InvalidPasswordError("wrong password")
    with pytest.raises(ConnectError, match="wrong password"):
        await harness.start()
    assert harness.now == 0.0


async def test_a_start_that_is_cancelled_leaves_nothing_running(harness: LifetimeHarness) -> None:
    """Neither a task nor a session."""
    harness.server.dial_time = 10.0
    starting = asyncio.create_task(harness.start())
    await asyncio.sleep(1)
    starting.cancel()
    await asyncio.wait({starting})
    assert starting.cancelled()
    assert harness.lifetime.has_ended


async def test_a_start_that_gives_up_affects_no_other(harness: LifetimeHarness) -> None:
    """Each call has its own ``start_timeout``; the last one that gives up ends the run."""
    harness.server.refusal = ConnectionRefusedError("no server")
    first = asyncio.create_task(harness.start())
    await asyncio.sleep(10)
    second = asyncio.create_task(harness.lifetime.wait_started())
    await asyncio.sleep(10)
    third = asyncio.create_task(harness.lifetime.wait_started())
    for starting, gives_up_after in ((first, 30.0), (second, 40.0)):
        with pytest.raises(ConnectTimeoutError):
            await starting
        assert harness.now == pytest.approx(gives_up_after, abs=0.1)
        assert not harness.lifetime.start_has_failed
    harness.server.refusal = None
    await third
    await harness.lifetime.end(drain=True, timeout=5)


async def test_a_start_that_is_cancelled_once_another_has_returned_ends_nothing(
    harness: LifetimeHarness,
) -> None:
    """However late the turn of the cancelled call comes."""
    await harness.start()
    late = asyncio.create_task(harness.lifetime.wait_started())
    await asyncio.sleep(0)
    late.cancel()
    await asyncio.wait({late})
    assert harness.lifetime.state is State.CONNECTED
    await harness.lifetime.end(drain=True, timeout=5)


async def test_a_refused_start_is_told_to_all_who_wait_once_nothing_is_left(
    harness: LifetimeHarness,
) -> None:
    """So each of them may start again at once."""
    harness.server.dial_time = 10.0
    ended: list[bool] = []

    async def start() -> None:
        with pytest.raises(ConnectError):
            await harness.lifetime.wait_started()
        ended.append(harness.lifetime.has_ended)

    first = asyncio.create_task(harness.start())
    await asyncio.sleep(1)
    others = [asyncio.create_task(start()) for _ in range(2)]
    harness.server.refusal = asyncpg.InvalidPasswordError("wrong password")
    with pytest.raises(ConnectError):
        await first
    await asyncio.gather(*others)
    assert ended == [True, True]


async def test_closing_while_it_starts_is_raised_by_start(harness: LifetimeHarness) -> None:
    """ClosedError, at once."""
    harness.server.refusal = ConnectionRefusedError("no server")
    starting = asyncio.create_task(harness.start())
    await asyncio.sleep(1)
    await harness.lifetime.end(drain=True, timeout=5)
    with pytest.raises(ClosedError, match="closed while it was starting"):
        await starting


async def test_a_start_that_fails_before_its_task_begins_ends_the_run() -> None:
    """Nobody waits for it without end: neither another start() nor aclose()."""
    harness = LifetimeHarness(start_timeout=None)
    with pytest.raises(AttributeError):  # a bug, before the task of the run begins
        await harness.start(harness.registration("a"), harness.registration(buffering=None))
    assert harness.lifetime.has_ended
    await harness.lifetime.end(drain=True, timeout=5)
    with pytest.raises(ClosedError):
        await harness.lifetime.wait_started()


@pytest.mark.parametrize("what", ["log.critical", "publishing.abandon", "roster.close"])
async def test_whoever_waits_learns_of_the_end_whatever_fails_then(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter of the program's for its log raises, or a part cannot be ended."""
    told: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context.get("exception")))
    harness = LifetimeHarness(start_timeout=None)
    harness.server.dial_time = 10.0
    starting = asyncio.create_task(harness.start())
    await asyncio.sleep(1)
    run = harness.lifetime
    parts = {"log": log, "publishing": harness.publishing, "roster": run.roster}
    part, name = what.split(".")
    monkeypatch.setattr(parts[part], name, fail)
    monkeypatch.setattr("asyncnotify._connection.supervisor.Supervisor._report_failure", fail)
    harness.server.refusal = ConnectionRefusedError("no server")
    with pytest.raises(ClosedError):
        await starting
    assert run.has_ended
    assert told[-1] is BUG  # the loop's exception handler is told
    assert [type(event) for event in harness.events][-1:] == [Closed]
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("asyncnotify")] == []


# -- while it runs --------------------------------------------------------------------------------


async def test_wait_connected_returns_at_the_next_connection(harness: LifetimeHarness) -> None:
    """Or raises at its timeout, with the reason for the outage."""
    lifetime = await harness.start()
    harness.server.refusal = ConnectionRefusedError("no server")
    harness.server.session.die()
    await asyncio.sleep(0)
    with pytest.raises(ConnectTimeoutError, match="no server"):
        await lifetime.wait_connected(3.0)
    waiting = asyncio.create_task(lifetime.wait_connected(None))
    await asyncio.sleep(10)
    assert not waiting.done()
    harness.server.refusal = None
    await waiting
    assert lifetime.state is State.CONNECTED


def lose(session: FakeSession, first: str) -> None:
    """Let the driver, the supervisor or both know of a loss; who knows later does so in a while."""
    loop = asyncio.get_running_loop()
    if first == "both":
        session.die()
    elif first == "driver":
        session.lost = True
        loop.call_later(0.02, session.on_lost)
    else:
        session.on_lost()
        loop.call_later(0.02, session.die)


async def state_once_connected(lifetime: Lifetime) -> State:
    """Wait, and return what the state is when the call returns."""
    await lifetime.wait_connected(None)
    return lifetime.state


LEARNS_FIRST = pytest.mark.parametrize("first", ["driver", "supervisor", "both"])


@LEARNS_FIRST
@pytest.mark.parametrize("turns", range(8))
async def test_wait_connected_returns_in_the_state_connected(
    harness: LifetimeHarness, first: str, turns: int
) -> None:
    """Whoever learns of a loss first, and also if the next loss comes before the call returns."""
    loop = asyncio.get_running_loop()

    def lose_soon(event: ConnectionEvent, left: int = turns) -> None:
        if not isinstance(event, Reconnected):
            return
        if left:
            loop.call_soon(lose_soon, event, left - 1)
        else:
            harness.on_event = harness.events.append
            lose(harness.server.session, first)

    lifetime = await harness.start()
    harness.on_event = lose_soon
    lose(harness.server.session, first)
    waiting = asyncio.ensure_future(state_once_connected(lifetime))
    assert await waiting is State.CONNECTED
    assert harness.server.session.listening == {"orders"}


@LEARNS_FIRST
async def test_wait_connected_ends_with_the_listener(harness: LifetimeHarness, first: str) -> None:
    """While it waits, and also where the connection comes at the same moment."""
    lifetime = await harness.start()
    harness.server.refusal = ConnectionRefusedError("no server")
    lose(harness.server.session, first)
    waiting = asyncio.ensure_future(lifetime.wait_connected(None))
    other = asyncio.ensure_future(lifetime.wait_connected(None))
    await asyncio.sleep(1)
    other.cancel()
    await asyncio.wait({other})
    assert other.cancelled()
    assert not waiting.done()
    await lifetime.end(drain=False, timeout=1)
    with pytest.raises(ClosedError):
        await waiting


@LEARNS_FIRST
async def test_wait_connected_keeps_to_its_time_over_several_losses(
    harness: LifetimeHarness, first: str
) -> None:
    """A server that drops every session at once never makes it return, and the time counts once."""
    lifetime = await harness.start()
    harness.server.drops_after_listen = True
    lose(harness.server.session, first)
    began = harness.now
    try:
        await lifetime.wait_connected(3.0)
    except ConnectTimeoutError:
        assert harness.now - began == pytest.approx(3.0, abs=0.1)
    else:
        assert lifetime.state is State.CONNECTED


async def test_the_snapshot_tells_of_the_connection(harness: LifetimeHarness) -> None:
    """Its generation counts connections; without one there is no backend pid."""
    lifetime = await harness.start()
    snapshot = lifetime.connection
    assert (snapshot.generation, snapshot.backend_pid) == (1, harness.server.session.pid)
    assert (snapshot.channels_desired, snapshot.channels_confirmed) == (1, 1)
    harness.server.refusal = ConnectionRefusedError("no server")
    harness.server.session.die()
    await asyncio.sleep(1)
    snapshot = lifetime.connection
    assert (snapshot.backend_pid, snapshot.channels_confirmed) == (None, 0)
    assert snapshot.last_error is harness.server.refusal


async def test_stats_count_over_reconnects(harness: LifetimeHarness) -> None:
    """A reconnect takes nothing from the counters of this run."""
    lifetime = await harness.start()
    harness.send("1", "2")
    harness.server.session.die()
    await asyncio.sleep(1)
    harness.send("3")
    await asyncio.sleep(1)
    stats = lifetime.stats()
    assert (stats.received, stats.delivered, stats.reconnects) == (3, 3, 1)


async def test_wait_ended_returns_when_the_run_is_over(harness: LifetimeHarness) -> None:
    """Not before; at its timeout it says what the listener does."""
    lifetime = await harness.start()
    with pytest.raises(TimeoutError, match="the listener is connected after 3 s, and not closed"):
        await lifetime.wait_ended(3.0)
    waiting = asyncio.create_task(lifetime.wait_ended(None))
    harness.handler_time = 2.0
    harness.send("1")
    await asyncio.sleep(1)
    ending = asyncio.create_task(lifetime.end(drain=True, timeout=5))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    await asyncio.wait({waiting, ending})
    assert harness.handled == ["1"]
    await lifetime.wait_ended(0)


async def test_wait_ended_raises_after_a_bug(
    harness: LifetimeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that waits must not take that for an end in good order."""
    lifetime = await harness.start()
    monkeypatch.setattr("asyncnotify._connection.supervisor.Supervisor._drop", fail)
    harness.server.session.die()
    with pytest.raises(ClosedError, match="a bug in asyncnotify") as raised:
        await lifetime.wait_ended(5)
    assert isinstance(raised.value.__cause__, ExceptionGroup)
    assert raised.value.__cause__.exceptions == (BUG,)


# -- the end --------------------------------------------------------------------------------------


async def test_end_lets_handlers_finish_what_is_buffered(harness: LifetimeHarness) -> None:
    """Then the publisher is closed, because a handler may need it; the last event is Closed."""
    lifetime = await harness.start()
    harness.handler_time = 1.0
    harness.send("1", "2", "3")
    await lifetime.end(drain=True, timeout=10)
    assert harness.handled == ["1", "2", "3"]
    assert harness.publishing.timeouts == [pytest.approx(10 - 3)]
    assert [type(event) for event in harness.events] == [Connected, Closed]
    assert harness.server.session.closed_within is not None


async def test_end_without_draining_calls_no_handler_any_more(harness: LifetimeHarness) -> None:
    """It returns at once."""
    lifetime = await harness.start()
    harness.handler_time = 1.0
    harness.send("1", "2", "3")
    await asyncio.sleep(1.5)
    await lifetime.end(drain=False, timeout=5)
    assert harness.handled == ["1"]
    assert harness.now == pytest.approx(1.5)


async def test_p8_end_cancels_what_still_runs_at_its_timeout(harness: LifetimeHarness) -> None:
    """Handlers, then the publisher; what had been buffered is discarded."""
    lifetime = await harness.start()
    harness.handler_time, harness.publishing.close_time = 100.0, 100.0
    harness.send("1", "2")
    began = harness.now
    await lifetime.end(drain=True, timeout=3)
    assert harness.now - began == pytest.approx(3, abs=2 * CANCEL_GRACE)
    assert harness.handled == []


async def test_p8_a_handler_that_ignores_its_cancellation_is_left_behind(
    harness: LifetimeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning names its task; end() returns all the same."""

    async def stubborn(_: Notification[str]) -> None:
        for _attempt in range(2):
            try:
                await asyncio.sleep(20)
            except asyncio.CancelledError:
                continue

    lifetime = await harness.start(harness.registration(handler=stubborn))
    harness.send("1")
    await asyncio.sleep(1)
    await lifetime.end(drain=True, timeout=3)
    assert harness.now == pytest.approx(4, abs=3 * CANCEL_GRACE)
    assert "it is left running" in caplog.text
    await asyncio.sleep(100)


async def test_the_shortest_of_several_timeouts_counts(harness: LifetimeHarness) -> None:
    """A second call may bring the end nearer, and cannot put it off."""
    lifetime = await harness.start()
    harness.handler_time = 100.0
    harness.send("1")
    await asyncio.sleep(1)
    calls = [
        asyncio.create_task(lifetime.end(drain=True, timeout=seconds)) for seconds in (50, 2, 70)
    ]
    await asyncio.wait(calls)
    assert harness.now == pytest.approx(3, abs=2 * CANCEL_GRACE)


async def test_end_may_be_called_by_a_handler(harness: LifetimeHarness) -> None:
    """It does not wait for that handler, which goes on to its end."""
    steps: list[str] = []

    async def close(_: Notification[str]) -> None:
        await harness.lifetime.end(drain=True, timeout=5)
        steps.append("closed")

    await harness.start(harness.registration(handler=close))
    harness.send("1")
    await asyncio.sleep(1)
    assert steps == ["closed"]
    assert harness.lifetime.state is State.CLOSED


async def test_an_end_that_is_cancelled_drains_no_longer(harness: LifetimeHarness) -> None:
    """The run ends at once, though the caller does not wait for it."""
    lifetime = await harness.start()
    harness.handler_time = 100.0
    harness.send("1")
    await asyncio.sleep(1)
    ending = asyncio.create_task(lifetime.end(drain=True, timeout=50))
    await asyncio.sleep(1)
    assert lifetime.state is State.CLOSING
    ending.cancel()
    await asyncio.wait({ending})
    assert lifetime.has_ended
    assert harness.now == pytest.approx(2, abs=3 * CANCEL_GRACE)


async def test_after_the_end_the_publisher_is_abandoned(harness: LifetimeHarness) -> None:
    """Whatever way the run took; and nothing can be waited for any more."""
    lifetime = await harness.start()
    await lifetime.end(drain=True, timeout=5)
    assert harness.publishing.abandoned
    with pytest.raises(ClosedError):
        await lifetime.wait_connected(1.0)
