"""Where one session takes over from another, and what becomes of one that cannot."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from asyncnotify._connection.handover import Switch
from asyncnotify._events import ConnectionLost, Reconnected, Replaced
from asyncnotify._model import Gap, GapReason
from tests.unit.fake_server import SupervisorHarness, at, seen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AGE = 100.0


# -- the place in the stream ----------------------------------------------------------------------


async def play(before: int, behind: int, late: int, turns: list[str], *, finish: bool) -> None:
    """Let both sessions bring their part of one stream, by turns, and check what is delivered."""
    delivered: list[str] = []
    switch = Switch(lambda _pid, _channel, payload: delivered.append(payload))
    stream = [("orders", str(number)) for number in range(before + behind)]
    stream.insert(before, (switch.marker, ""))
    old, new = list(stream), stream[min(late, before) :]  # the new one has begun to listen later
    for turn in turns:
        if turn == "proof":
            switch.old_has_listened()
        if switch.reached.done():
            break
        queue, take = (old, switch.from_old) if turn == "old" else (new, switch.from_new)
        if queue and turn != "proof":
            take(1, *queue.pop(0))
    everything = [payload for channel, payload in stream if channel == "orders"]
    if finish and switch.reached.done():
        switch.finish()
        for item in old:
            switch.from_old(1, *item)  # it may bring more until it is closed
        rest = new
    else:
        switch.undo()
        rest = old
    delivered += [payload for channel, payload in rest if channel == "orders"]
    assert delivered == everything


@given(
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(0, 5),
    st.lists(st.sampled_from(["old", "new", "proof"]), max_size=30),
    st.booleans(),
)
def test_r16_each_notification_is_delivered_once_and_in_order(
    before: int,
    behind: int,
    late: int,
    turns: list[str],
    finish: bool,  # noqa: FBT001 - of a parametrised test
) -> None:
    """However the two sessions are read by turns, and whether the new one takes over or not."""
    asyncio.run(play(before, behind, late, turns, finish=finish))


class Payload(str):
    """A text that can tell whether anybody keeps it."""

    __slots__ = ("__weakref__",)


@pytest.mark.parametrize("finish", [True, False])
async def test_r16_once_it_is_decided_only_one_session_counts(finish: bool) -> None:  # noqa: FBT001
    """What the other one still brings until it is closed is neither delivered nor kept."""
    delivered: list[str] = []
    switch = Switch(lambda _pid, _channel, payload: delivered.append(payload))
    for take in (switch.from_old, switch.from_new):
        take(1, switch.marker, "")
        take(1, "orders", "behind the marker")
    (switch.finish if finish else switch.undo)()
    late = Payload("too late")
    kept = weakref.ref(late)
    for take in (switch.from_old, switch.from_new):
        take(1, "orders", late)
    del late
    assert (delivered, kept()) == (["behind the marker"], None)


async def test_p7_what_is_held_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a marker does not arrive although much else does, the old session goes on."""
    monkeypatch.setattr("asyncnotify._connection.handover._MOST_HELD", 3)
    delivered: list[str] = []
    switch = Switch(lambda _pid, _channel, payload: delivered.append(payload))
    switch.from_old(1, switch.marker, "")
    for number in range(4):
        switch.from_old(1, "orders", str(number))
    with pytest.raises(ConnectionError, match="more than 3 notifications"):
        await switch.reached
    switch.undo()
    assert delivered == ["0", "1", "2", "3"]


# -- sessions on the fake server ------------------------------------------------------------------


@pytest_asyncio.fixture
async def harness(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SupervisorHarness]:
    """A supervisor of sessions that are replaced after a hundred seconds."""
    harness = SupervisorHarness(monkeypatch)
    harness.max_age = AGE
    yield harness
    await harness.stop()


async def test_a_session_is_replaced_when_it_has_its_age(harness: SupervisorHarness) -> None:
    """At most a tenth earlier; the new one listens on the same channels, and there is no Gap."""
    harness.supervise("orders", "users")
    subscriber = harness.subscribe("more")
    replaced = await harness.until(Replaced)
    assert AGE * 0.9 <= harness.server.now <= AGE + 0.1
    old, new = harness.server.sessions
    assert replaced == Replaced(3, new.pid, old.pid)
    assert old.lost
    await asyncio.sleep(1)
    assert new.listening == {"orders", "users", "more"}
    assert [type(item) for item in seen(subscriber)] == [Gap]  # that of the start
    new.notify(1, "more", "from the new one")
    assert seen(subscriber) == ["from the new one"]


async def test_r51_a_handover_proves_delivery_up_to_then(harness: SupervisorHarness) -> None:
    """Also without heartbeats: a later loss is no older than the last handover."""
    harness.supervise("orders", heartbeat=None)
    subscriber = harness.subscribe("more")
    await harness.until(Replaced)
    replaced = harness.server.now
    await asyncio.sleep(10)
    harness.server.session.die()
    await harness.until(Reconnected)
    assert seen(subscriber)[-1] == Gap("more", GapReason.RECONNECT, at(replaced))


async def test_each_session_has_its_age(harness: SupervisorHarness) -> None:
    """The next one is replaced as well, also after a loss."""
    harness.supervise("orders")
    await harness.until(Replaced)
    harness.server.session.die()
    await harness.until(Reconnected)
    began = harness.server.now
    await harness.until(Replaced)
    assert AGE * 0.9 <= harness.server.now - began <= AGE + 0.1


@pytest.mark.parametrize("fault", ["refuses", "refuses a channel", "is deaf", "is silent"])
async def test_r18_a_new_session_that_cannot_serve_is_given_up(
    harness: SupervisorHarness, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The old one goes on as if nothing had been; after a while it is tried again."""
    harness.supervise("orders")
    subscriber = harness.subscribe("more")
    await asyncio.sleep(AGE / 2)
    assert [type(item) for item in seen(subscriber)] == [Gap]
    server = harness.server
    server.refusal = ConnectionRefusedError("no") if fault == "refuses" else None
    server.refused = {"more": PermissionError("no")} if fault == "refuses a channel" else {}
    server.is_deaf = fault == "is deaf"
    server.new_are_silent = fault == "is silent"
    await asyncio.sleep(AGE / 2 + 10)
    old = server.sessions[0]
    assert not old.lost
    assert all(session.terminated for session in server.sessions[1:])
    assert old.listening == {"orders", "more"}
    old.notify(1, "more", "still here")
    assert seen(subscriber) == ["still here"]
    assert "could not be replaced: " in caplog.text
    server.refusal, server.refused = None, {}
    server.is_deaf, server.new_are_silent = False, False
    await harness.until(Replaced)
    assert seen(subscriber) == []


async def test_r13_a_new_session_of_another_server_is_a_loss(harness: SupervisorHarness) -> None:
    """What was sent there is missed: a Gap in each subscription, and the reason in the event."""
    harness.supervise("orders")
    await asyncio.sleep(AGE / 2)
    harness.server.new_name = "two"
    lost = await harness.until(ConnectionLost)
    assert "another server" in str(lost.cause)
    await harness.until(Reconnected)
    assert harness.server.sessions[0].terminated


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sessions be replaced at their age exactly."""
    monkeypatch.setattr("asyncnotify._connection.handover.shortened", float)


@pytest.mark.usefixtures("exact")
async def test_an_old_session_that_dies_meanwhile_is_a_loss(harness: SupervisorHarness) -> None:
    """The new one is given up with it: it has proved nothing yet."""
    harness.server.dial_time = 5.0
    harness.supervise("orders")
    await asyncio.sleep(5 + AGE + 1)
    assert len(harness.server.dials) == 2
    harness.server.session.die()
    await harness.until(Reconnected)
    await asyncio.sleep(10)
    assert [session.lost for session in harness.server.sessions].count(False) == 1


@pytest.mark.usefixtures("exact")
async def test_an_old_session_that_dies_while_it_hands_over_is_a_loss(
    harness: SupervisorHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody knows what it was not sent: each subscription gets a Gap, and no session is left."""
    harness.server.answer_time = 0.5
    harness.supervise("orders")
    subscriber = harness.subscribe("more")
    await asyncio.sleep(AGE + 1)
    assert [type(item) for item in seen(subscriber)] == [Gap]
    old, new = harness.server.sessions
    assert old.asked[-1].startswith("LISTEN asyncnotify_handover_")
    old.die()
    await harness.until(ConnectionLost)
    assert "nothing was missed" not in caplog.text
    assert new.lost
    await harness.until(Reconnected)
    [gap] = seen(subscriber)
    assert isinstance(gap, Gap)
    assert gap.reason is GapReason.RECONNECT
    assert [session.lost for session in harness.server.sessions] == [True, True, False]


@pytest.mark.usefixtures("exact")
async def test_a_new_session_that_dies_while_it_takes_over_is_given_up(
    harness: SupervisorHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """Also after its marker has come: the old one goes on, and nothing is missed."""
    harness.server.answer_time = 0.5
    harness.supervise("orders")
    subscriber = harness.subscribe("more")
    await asyncio.sleep(AGE + 2.2)
    assert [type(item) for item in seen(subscriber)] == [Gap]
    old, new = harness.server.sessions
    assert (old.asked[-1], new.asked[-1][:6]) == ("heartbeat", "NOTIFY")
    new.die()
    old.notify(1, "more", "meanwhile")
    await asyncio.sleep(5)
    assert "could not be replaced: ConnectionLostError: the new connection was lost" in caplog.text
    assert old.listening == {"orders", "more"}
    old.notify(1, "more", "still here")
    assert seen(subscriber) == ["meanwhile", "still here"]


@pytest.mark.usefixtures("exact")
async def test_what_is_unlistened_meanwhile_is_not_listened_on_by_the_new_session(
    harness: SupervisorHarness,
) -> None:
    """It has begun to listen on what was desired then, and ends that before it takes over."""
    harness.server.answer_time = 0.2
    harness.supervise("orders")
    subscriber = harness.subscribe("more")
    await asyncio.sleep(AGE + 0.1)
    assert harness.server.session.asked == ["LISTEN more,orders"]
    harness.unsubscribe(subscriber)
    await harness.until(Replaced)
    await asyncio.sleep(2)
    assert harness.server.session.listening == {"orders"}
    assert harness.server.session.asked[1] == "UNLISTEN more"


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("heartbeat", [30.0, None])
async def test_r6_an_old_session_that_does_not_listen_any_more_does_not_hand_over(
    harness: SupervisorHarness, heartbeat: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    """What it was not sent is missed, and told: nobody would ask for it later."""
    harness.supervise("orders", heartbeat=heartbeat)
    subscriber = harness.subscribe("more")
    await asyncio.sleep(AGE - 5)
    assert [type(item) for item in seen(subscriber)] == [Gap]
    old, stripped = harness.server.session, harness.server.now
    old.listening.discard("more")
    await asyncio.sleep(10)
    [gap] = seen(subscriber)
    assert isinstance(gap, Gap)
    assert gap.reason is GapReason.UNLISTENED
    assert gap.since is not None
    assert gap.since <= at(stripped)
    assert old.listening == {"orders", "more"}
    assert "no longer listens on 1 channel(s)" in caplog.text
    assert "nothing was missed" not in caplog.text
    await harness.until(Replaced)
    assert seen(subscriber) == []


@pytest.mark.usefixtures("exact")
async def test_r32_ending_gives_up_what_is_prepared(harness: SupervisorHarness) -> None:
    """No session is left."""
    harness.server.answer_time = 0.5
    harness.supervise("orders")
    await asyncio.sleep(AGE + 0.1)
    assert len(harness.server.sessions) == 2
    await harness.stop()
    await asyncio.sleep(1)
    assert all(session.lost for session in harness.server.sessions)
