"""The queue of calls: what goes out together, and what waits for too long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asyncnotify._errors import ClosedError, NotifyTimeoutError
from asyncnotify._publishing.waiting import HALVING, WaitingCalls, tell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncnotify._publishing.waiting import Call


def queue(limit: int = 1_000, seconds: float = 4.0, *, counting: bool = True) -> WaitingCalls:
    """Return an empty queue, whose calls may wait for so many seconds."""
    return WaitingCalls(limit, seconds, lambda: counting)


def pairs(calls: Iterable[Call]) -> list[tuple[str, str]]:
    """Return channel and payload of each call."""
    return [call[:2] for call in calls]


async def test_calls_go_out_in_their_order() -> None:
    """All of them at once, as long as they are few."""
    calls = queue()
    for number in range(HALVING):
        calls.add("c", str(number))
    assert pairs(calls.next_batch(0)) == [("c", str(number)) for number in range(HALVING)]
    assert not calls
    calls.stop()


async def test_equal_ones_never_share_a_batch_and_delay_nobody() -> None:
    """Ten equal ones take ten batches; what is beside them goes out in the first."""
    calls = queue()
    for _ in range(10):
        calls.add("c", "same")
    calls.add("c", "other")
    first = pairs(calls.next_batch(0))
    assert first == [("c", "same"), ("c", "other")]
    rounds = 1
    while calls:
        assert pairs(calls.next_batch(0)) == [("c", "same")]
        rounds += 1
    assert rounds == 10
    calls.stop()


async def test_calls_beyond_the_limit_wait_for_room() -> None:
    """In order; those that repeat take their room."""
    calls = queue(limit=2)
    for payload in ("1", "1", "2", "3"):
        calls.add("c", payload)
    assert calls.admit() == 2
    assert pairs(calls.next_batch(0)) == [("c", "1")]
    assert calls.admit() == 2
    assert sorted(pairs(calls.next_batch(0))) == [("c", "1"), ("c", "2")]
    assert calls.admit() == 1
    assert pairs(calls.next_batch(0)) == [("c", "3")]
    calls.stop()


async def test_who_gave_up_is_left_out() -> None:
    """A call that was cancelled is not sent."""
    calls = queue()
    calls.add("c", "gone").cancel()
    calls.add("c", "here")
    assert pairs(calls.next_batch(0)) == [("c", "here")]
    calls.stop()


@pytest.mark.parametrize("counting", [True, False])
async def test_a_call_that_waits_for_too_long_was_not_sent(*, counting: bool) -> None:
    """It fails by itself, between its time and a quarter more; never while time does not count."""
    loop = asyncio.get_running_loop()
    calls, began = queue(seconds=4.0, counting=counting), loop.time()
    sent = calls.add("c", "1")
    await asyncio.wait({sent}, timeout=100)
    if not counting:
        assert not sent.done()
        calls.fail_all(lambda: ClosedError(""))
        assert isinstance(sent.exception(), ClosedError)
    else:
        assert 4.0 <= loop.time() - began <= 5.1
        assert isinstance(sent.exception(), NotifyTimeoutError)
        assert "not sent" in str(sent.exception())
    assert not calls
    calls.stop()


async def test_closed_it_takes_nothing_and_keeps_what_was_accepted() -> None:
    """Those for which there was no room are told so."""
    calls = queue(limit=1)
    accepted, beyond = calls.add("c", "1"), calls.add("c", "2")
    calls.close()
    assert isinstance(beyond.exception(), ClosedError)
    with pytest.raises(ClosedError, match="not sent"):
        calls.add("c", "3")
    batch = calls.next_batch(0)
    tell(batch)
    assert accepted.result() is None
    calls.stop()
