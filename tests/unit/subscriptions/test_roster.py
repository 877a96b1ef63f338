from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from asyncnotify._errors import (
    ChannelNameError,
    ClosedError,
    ListenTimeoutError,
    WrongLoopError,
)
from asyncnotify._model import Gap, GapReason, Notification, State, SubscriptionStats
from asyncnotify._subscriptions.roster import Totals
from tests.unit.subscription_harness import RosterHarness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SUBSCRIPTION = SubscriptionStats(
    channels=("orders",),
    backlog=1_000_000,
    delivered=1,
    dropped=2,
    conflated=1_000_000,
    handler_errors=3,
    resync_errors=10,
    decode_errors=4,
    gaps=5,
    rereads=6,
)


def test_a_subscription_is_counted_in() -> None:
    """Every counter goes to its own; errors of handlers and of resync are one."""
    totals = Totals()
    totals.add(SUBSCRIPTION)
    totals.add(SUBSCRIPTION)
    assert totals == Totals(2, 4, 26, 8, 10, 12)


def test_a_snapshot_leaves_the_totals_as_they_are() -> None:
    """Counting open subscriptions in for one look does not count them for good."""
    past = Totals(10, 20, 30, 40, 50, 60)
    assert past.plus([SUBSCRIPTION, SUBSCRIPTION]) == Totals(12, 24, 56, 48, 60, 72)
    assert past.plus([]) == past == Totals(10, 20, 30, 40, 50, 60)


@pytest_asyncio.fixture
async def harness() -> AsyncIterator[RosterHarness]:
    """A roster that is open, and a server that confirms at once."""
    made = RosterHarness()
    async with made.running():
        yield made


# -- where subscriptions begin --------------------------------------------------------------------


async def test_p3_serve_returns_once_the_server_has_confirmed(harness: RosterHarness) -> None:
    """Not before; and what is sent after that reaches the handler."""
    harness.confirms = False
    serving = asyncio.create_task(harness.roster.serve(harness.worker("orders"), None))
    await asyncio.sleep(100)
    assert not serving.done()
    harness.confirm()
    await serving
    harness.send("orders", "1")
    await asyncio.sleep(1)
    assert harness.handled == ["1"]


async def test_a_timeout_withdraws_the_subscription(harness: RosterHarness) -> None:
    """The error names channel, time, state and the last cause; nothing is desired any more."""
    harness.confirms = False
    harness.status.state = State.DEGRADED
    harness.status.last_error = ConnectionRefusedError("no server")
    with pytest.raises(ListenTimeoutError) as raised:
        await harness.roster.serve(harness.worker("orders"), 2.0)
    assert raised.value.__cause__ is harness.status.last_error
    assert harness.roster.channels == frozenset()
    harness.confirm()
    await asyncio.sleep(1)
    assert harness.roster.tasks == set()


async def test_a_cancelled_serve_withdraws_the_subscription(harness: RosterHarness) -> None:
    """Nothing of it runs later."""
    harness.confirms = False
    serving = asyncio.create_task(harness.roster.serve(harness.worker("orders"), None))
    await asyncio.sleep(1)
    serving.cancel()
    await asyncio.wait({serving})
    assert harness.roster.channels == frozenset()
    await asyncio.sleep(1)
    assert harness.roster.tasks == set()


async def test_r53_who_is_refused_gets_an_error_of_his_own(harness: RosterHarness) -> None:
    """Like that of the session, with its cause, and not the same object."""
    refusal = ChannelNameError("orders", "is refused by the server")
    refusal.__cause__ = ValueError("the encoding has no such character")
    harness.refused = {"orders": refusal}
    with pytest.raises(ChannelNameError, match="is refused by the server") as raised:
        await harness.roster.serve(harness.worker("orders"), None)
    assert raised.value is not refusal
    assert raised.value.__cause__ is refusal.__cause__
    assert harness.roster.channels == frozenset()


async def test_workers_that_come_before_the_group_are_served_by_it() -> None:
    """What was registered before the start runs from the start on."""
    harness = RosterHarness()
    harness.roster.serve_soon(harness.worker("orders"))
    assert harness.roster.tasks == set()
    async with harness.running():
        assert len(harness.roster.tasks) == 1
        await harness.roster.settled()
        harness.send("orders", "1")
        await asyncio.sleep(1)
        assert harness.handled == ["1"]


# -- where they end -------------------------------------------------------------------------------


async def test_unlisten_ends_every_subscription_of_the_channel(harness: RosterHarness) -> None:
    """Handlers and streams; when it returns, the server listens no more."""
    await harness.roster.serve(harness.worker("orders"), None)
    stream = harness.subscriber("orders")
    await harness.roster.attach(stream, None)
    await harness.roster.serve(harness.worker("other"), None)
    await harness.roster.unlisten("orders")
    assert not stream.mailbox.is_open
    assert harness.listening == {"other"}
    assert harness.roster.channels == frozenset({"other"})


async def test_detach_discards_what_waits(harness: RosterHarness) -> None:
    """A second time it does nothing."""
    stream = harness.subscriber("orders")
    await harness.roster.attach(stream, None)
    harness.send("orders", "1")
    harness.roster.detach(stream)
    harness.roster.detach(stream)
    assert stream.stats().backlog == 0
    await harness.roster.settled()
    assert harness.listening == set()


async def test_r25_a_handler_that_cancels_its_own_task_is_served_on(
    harness: RosterHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """By a new task: the next notification is handled; one line says what happened."""
    handled: list[str] = []

    async def handle(notification: Notification[str]) -> None:
        handled.append(notification.payload)
        if notification.payload == "cancel":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(1)

    await harness.roster.serve(harness.worker("orders", handle), None)
    harness.send("orders", "cancel")
    await asyncio.sleep(10)
    harness.send("orders", "next")
    await asyncio.sleep(1)
    assert handled == ["cancel", "next"]
    (record,) = caplog.records
    assert "cancelled its own task" in record.getMessage()


async def test_close_lets_workers_finish_what_is_buffered(harness: RosterHarness) -> None:
    """Unless it is to be discarded; new subscriptions are refused in both cases."""
    await harness.roster.serve(harness.worker("orders"), None)
    harness.send("orders", "1")
    harness.roster.close(discard=False)
    tasks = harness.roster.tasks
    await asyncio.wait(tasks)
    assert harness.handled == ["1"]
    with pytest.raises(ClosedError):
        await harness.roster.serve(harness.worker("orders"), None)
    with pytest.raises(ClosedError):
        harness.roster.serve_soon(harness.worker("orders"))


async def test_close_with_discard_calls_no_handler_any_more(harness: RosterHarness) -> None:
    """What waits in mailboxes is thrown away."""
    await harness.roster.serve(harness.worker("orders"), None)
    harness.send("orders", "1")
    harness.roster.close(discard=True)
    await asyncio.sleep(1)
    assert harness.handled == []
    assert harness.roster.tasks == set()


async def test_a_caller_that_waits_for_the_server_learns_of_the_close(
    harness: RosterHarness,
) -> None:
    """ClosedError, at once, not at its timeout."""
    harness.confirms = False
    serving = asyncio.create_task(harness.roster.serve(harness.worker("orders"), None))
    await asyncio.sleep(1)
    harness.roster.close(discard=True)
    with pytest.raises(ClosedError):
        await serving


# -- who calls ------------------------------------------------------------------------------------


async def test_calling_task_is_that_of_the_handler_that_calls(harness: RosterHarness) -> None:
    """Also from a task that the handler started; None for everybody else."""
    found: list[asyncio.Task[None] | None] = []

    async def look() -> None:
        found.append(harness.roster.calling_task)

    async def handle(_: Notification[str]) -> None:
        await look()
        await asyncio.create_task(look())

    await harness.roster.serve(harness.worker("orders", handle), None)
    assert harness.roster.calling_task is None
    (task,) = harness.roster.tasks
    harness.send("orders", "1")
    await asyncio.sleep(1)
    assert found == [task, task]


async def test_p12_what_a_collector_forgets_is_forgotten_in_the_loop(
    harness: RosterHarness,
) -> None:
    """forget_soon() may be called in any thread; the loop then ends the subscription."""
    stream = harness.subscriber("orders")
    await harness.roster.attach(stream, None)
    thread = threading.Thread(target=harness.roster.forget_soon, args=[stream])
    thread.start()
    thread.join()
    assert harness.registry.has(stream)
    await asyncio.sleep(0)
    assert not harness.registry.has(stream)


@pytest.mark.parametrize("by", ["unlisten()", "the server"])
async def test_stats_keep_what_ended_subscriptions_have_delivered(
    harness: RosterHarness, by: str
) -> None:
    """The totals never go down; the list holds the open subscriptions only."""
    stream = harness.subscriber("orders")
    await harness.roster.attach(stream, None)
    await harness.roster.serve(harness.worker("orders"), None)
    await harness.roster.serve(harness.worker("other"), None)
    harness.send("orders", "1")
    harness.send("other", "2")
    await asyncio.sleep(1)
    assert [stream.mailbox.take(), stream.mailbox.take()][0] == Gap("orders", GapReason.START)
    stream.gaps_taken += 1
    if by == "the server":
        harness.registry.refuse("orders", ChannelNameError("orders", "is refused"))
    else:
        await harness.roster.unlisten("orders")
    await asyncio.sleep(1)
    subscriptions, totals = harness.roster.stats()
    assert [stats.channels for stats in subscriptions] == [("other",)]
    assert totals.delivered == 3


async def test_calls_from_another_loop_are_refused(harness: RosterHarness) -> None:
    """attach(), detach() and unlisten() change nothing there."""
    errors: list[type[BaseException]] = []

    def call() -> None:
        try:
            harness.roster.detach(harness.subscriber("orders"))
        except WrongLoopError as error:
            errors.append(type(error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert errors == [WrongLoopError]


# -- the end of all streams -----------------------------------------------------------------------


async def test_a_stream_that_waits_for_the_server_ends_with_the_others(
    harness: RosterHarness,
) -> None:
    """Whoever waits for the confirmation returns, and finds it ended."""
    harness.confirms = False
    stream = harness.subscriber("orders")
    attaching = asyncio.create_task(harness.roster.attach(stream, None))
    await asyncio.sleep(1)
    harness.roster.end_streams(also_new=False)
    await attaching
    assert not stream.mailbox.is_open
    assert harness.roster.channels == frozenset()


async def test_handlers_that_no_task_serves_yet_are_no_streams() -> None:
    """They were registered before the start."""
    harness = RosterHarness()
    harness.roster.serve_soon(harness.worker("orders"))
    harness.roster.end_streams(also_new=False)
    await asyncio.sleep(0)
    assert harness.roster.channels == {"orders"}


async def test_streams_that_begin_later_end_too_where_asked_for(harness: RosterHarness) -> None:
    """Also where the server does not answer: none waits for it."""
    harness.confirms = False
    harness.roster.end_streams(also_new=True)
    stream = harness.subscriber("orders")
    harness.roster.enlist_stream(stream)
    await harness.roster.confirmed(stream, None)
    assert not stream.mailbox.is_open
    assert harness.roster.channels == frozenset()


def test_the_end_of_streams_whose_loop_is_closed_is_no_error() -> None:
    """A signal may come that late."""

    async def made() -> RosterHarness:
        return RosterHarness()

    asyncio.run(made()).roster.end_streams(also_new=False)
