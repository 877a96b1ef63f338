"""While a session lasts: the server comes to listen on what is desired, and is found out if not."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from asyncnotify._events import ConnectionLost
from asyncnotify._model import Gap, GapReason
from tests.unit.fake_server import asked, at, seen

if TYPE_CHECKING:
    import pytest

    from tests.unit.fake_server import SupervisorHarness


# -- agreement ------------------------------------------------------------------------------------


async def test_calls_that_meet_are_told_to_the_server_together(harness: SupervisorHarness) -> None:
    """One statement for what came in one turn, or while another command was under way."""
    harness.server.answer_time = 1.0
    supervisor = harness.supervise("a")
    await asyncio.sleep(0.5)
    for channel in ("b", "c", "d"):
        harness.subscribe(channel)
    await supervisor.started
    await asyncio.sleep(5)
    assert [name for _, name in asked(harness)] == ["LISTEN a", "LISTEN b,c,d"]
    assert harness.registry.confirmed == {"a", "b", "c", "d"}


async def test_channels_are_told_in_portions_each_of_which_takes_effect(
    harness: SupervisorHarness,
) -> None:
    """Who waits for the first portion does not wait for the second."""
    harness.server.answer_time, harness.server.batch = 1.0, 2
    supervisor = harness.supervise()
    subscribers = [harness.subscribe(channel) for channel in "abc"]
    await asyncio.sleep(1.5)
    assert sum(subscriber.in_force for subscriber in subscribers) == 2
    assert not supervisor.started.done()
    await asyncio.sleep(1)
    assert sum(subscriber.in_force for subscriber in subscribers) == 3
    assert supervisor.started.done()


async def test_unlisten_goes_out_when_nobody_is_left(harness: SupervisorHarness) -> None:
    """Before LISTEN, if both are due."""
    supervisor = harness.supervise()
    subscriber = harness.subscribe("a")
    await supervisor.started
    harness.unsubscribe(subscriber)
    harness.subscribe("b")
    await asyncio.sleep(1)
    assert [name for _, name in asked(harness)] == ["LISTEN a", "UNLISTEN a", "LISTEN b"]


async def test_settled_returns_when_the_server_agrees(harness: SupervisorHarness) -> None:
    """With what was desired at the time of the call."""
    supervisor = harness.supervise()
    subscriber = harness.subscribe("a")
    await supervisor.started
    harness.server.answer_time = 1.0
    harness.unsubscribe(subscriber)
    await harness.session_loop.settled()
    assert harness.server.session.listening == set()
    assert harness.server.now == 1.0


async def test_settled_returns_when_the_session_is_lost(harness: SupervisorHarness) -> None:
    """In the midst of the command, and at once while there is none: nothing is left to agree on."""
    supervisor = harness.supervise()
    subscriber = harness.subscribe("a")
    await supervisor.started
    harness.server.silent = True
    harness.unsubscribe(subscriber)
    harness.server.refusal = OSError()
    async with asyncio.timeout(6):
        await harness.session_loop.settled()
    await harness.until(ConnectionLost)
    before = harness.server.now
    await harness.session_loop.settled()
    assert harness.server.now == before


async def test_settled_returns_when_the_session_is_lost_in_another_command(
    harness: SupervisorHarness,
) -> None:
    """The heartbeat was under way, and is never answered."""
    supervisor = harness.supervise()
    subscriber = harness.subscribe("a")
    await supervisor.started
    harness.server.silent = True
    await asyncio.sleep(12)
    harness.unsubscribe(subscriber)
    async with asyncio.timeout(5):
        await harness.session_loop.settled()
    assert [name for _, name in asked(harness)] == ["LISTEN a", "heartbeat"]


async def test_who_comes_while_unlisten_is_under_way_sees_nothing_from_before(
    harness: SupervisorHarness,
) -> None:
    """Between the old LISTEN and the new one is a hole, which the gap at the start covers."""
    supervisor = harness.supervise()
    subscriber = harness.subscribe("a")
    await supervisor.started
    harness.server.answer_time = 1.0
    harness.unsubscribe(subscriber)
    await asyncio.sleep(0.5)
    late = harness.subscribe("a")
    harness.server.session.notify(7, "a", "before")
    await asyncio.sleep(1)
    harness.server.session.notify(7, "a", "after")
    await asyncio.sleep(5)
    assert [name for _, name in asked(harness)] == ["LISTEN a", "UNLISTEN a", "LISTEN a"]
    assert seen(late) == [Gap("a", GapReason.START), "after"]


async def test_what_is_wanted_again_meanwhile_is_not_unlistened(harness: SupervisorHarness) -> None:
    """Where each channel takes a command of its own, another had its turn: nothing is lost."""
    harness.server.batch = 1
    supervisor = harness.supervise()
    subscribers = [harness.subscribe(channel) for channel in "abc"]
    await supervisor.started
    harness.server.answer_time = 1.0
    for subscriber in subscribers:
        harness.unsubscribe(subscriber)
    await asyncio.sleep(0.5)
    *_, (_, first) = asked(harness)
    returned = [harness.subscribe(channel) for channel in "abc" if first != f"UNLISTEN {channel}"]
    await asyncio.sleep(5)
    assert asked(harness)[-1] == (0.0, first)
    for subscriber in returned:
        (channel,) = subscriber.channels
        harness.server.session.notify(7, channel, "1")
        assert seen(subscriber) == [Gap(channel, GapReason.START), "1"]


async def test_what_is_no_longer_wanted_meanwhile_is_not_listened_on(
    harness: SupervisorHarness,
) -> None:
    """Cancelled while another channel had its turn: the server hears nothing of it."""
    harness.server.batch = 1
    supervisor = harness.supervise()
    await supervisor.started
    harness.server.answer_time = 1.0
    subscribers = [harness.subscribe(channel) for channel in "abc"]
    await asyncio.sleep(0.5)
    ((_, first),) = asked(harness)
    for subscriber in subscribers:
        if first != f"LISTEN {subscriber.label}":
            harness.unsubscribe(subscriber)
    await asyncio.sleep(5)
    assert asked(harness) == [(0.0, first)]


# -- what the server has forgotten ----------------------------------------------------------------


async def test_r06_what_was_unlistened_behind_our_back_is_repaired_and_told(
    harness: SupervisorHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """At the next heartbeat: LISTEN again, a gap since the last proof, one warning; no new dial."""
    supervisor = harness.supervise()
    stripped, kept = harness.subscribe("a"), harness.subscribe("b")
    await supervisor.started
    await asyncio.sleep(15)
    harness.server.session.listening.remove("a")
    await asyncio.sleep(10)
    assert asked(harness, since=15) == [
        (20.0, "heartbeat"),
        (20.0, "audit"),
        (20.0, "LISTEN a"),
    ]
    assert seen(stripped) == [Gap("a", GapReason.START), Gap("a", GapReason.UNLISTENED, at(10))]
    assert seen(kept) == [Gap("b", GapReason.START)]
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "the server no longer listens on 1 channel" in record.getMessage()
    assert len(harness.server.sessions) == 1
    await asyncio.sleep(10)
    assert asked(harness, since=25) == [(30.0, "heartbeat")]


async def test_foreign_channels_on_our_connection_are_no_trouble(
    harness: SupervisorHarness,
) -> None:
    """Somebody else listens on it: nothing is missing, nobody is told."""
    supervisor = harness.supervise()
    subscriber = harness.subscribe("a")
    await supervisor.started
    harness.server.session.listening.add("foreign")
    await asyncio.sleep(100)
    assert seen(subscriber) == [Gap("a", GapReason.START)]
    assert "LISTEN foreign" not in {name for _, name in asked(harness)}


async def test_r06_the_gap_is_since_the_last_proof_also_if_listen_came_between(
    harness: SupervisorHarness,
) -> None:
    """Nothing committed before ``since`` is missing: LISTEN for another channel is no proof."""
    supervisor = harness.supervise()
    subscriber = harness.subscribe("a")
    await supervisor.started
    await asyncio.sleep(15)  # a heartbeat was answered at 10
    harness.server.session.listening.clear()  # from here on notifications are missed
    await asyncio.sleep(2)
    harness.subscribe("b")
    await asyncio.sleep(60)
    assert seen(subscriber) == [Gap("a", GapReason.START), Gap("a", GapReason.UNLISTENED, at(10))]
