from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from asyncnotify._errors import ClosedError, NotifyTimeoutError
from asyncnotify._publishing.batching import BATCH_CHARACTERS, BATCH_COUNT
from asyncnotify._publishing.errors import not_sent_closed
from asyncnotify._publishing.waiting import HALVING, WaitingCalls, fail, tell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from asyncnotify._publishing.waiting import Call, Sent

SECONDS, TICK = 8.0, 2.0


class Harness:
    """Calls that wait, and whether their time counts."""

    def __init__(self, limit: int = 10_000) -> None:
        self.counts = True
        self.calls = WaitingCalls(limit, SECONDS, lambda: self.counts)

    def add(self, *payloads: object, channel: str = "c") -> list[Sent]:
        """Let calls come."""
        return [self.calls.add(channel, str(payload)) for payload in payloads]

    def taken(self, in_flight: int = 0) -> list[str]:
        """Take the next transaction; return its payloads."""
        return payloads(self.calls.next_batch(in_flight))


@pytest_asyncio.fixture
async def harness() -> AsyncIterator[Harness]:
    """Calls whose clock is stopped in the end."""
    made = Harness()
    yield made
    made.calls.stop()


def payloads(calls: Iterable[Call]) -> list[str]:
    """Return what these calls send."""
    return [payload for _, payload, *_ in calls]


# -- what goes out together -----------------------------------------------------------------------


async def test_what_waits_goes_out_in_order(harness: Harness) -> None:
    """Calls that were cancelled are left out."""
    calls = harness.add(1, 2, 3, 4)
    calls[1].cancel()
    assert harness.taken() == ["1", "3", "4"]
    assert not harness.calls


async def test_equal_ones_go_out_in_different_transactions(harness: Harness) -> None:
    """PostgreSQL would deliver one of them only; on another channel it is another one."""
    harness.add("a", "a", "b")
    harness.add("a", channel="other")
    assert harness.taken() == ["a", "b", "a"]
    assert harness.taken() == ["a"]
    assert harness.taken() == []


async def test_a_transaction_is_limited_in_number_and_size(harness: Harness) -> None:
    """A thousand calls, or a million characters and one payload more."""
    harness.add(*range(3 * BATCH_COUNT))
    assert len(harness.taken()) == BATCH_COUNT
    harness.calls.fail_all(not_sent_closed)
    size = BATCH_CHARACTERS // 100
    harness.add(*(str(number).rjust(size, "x") for number in range(500)))
    assert len(harness.taken()) == 101


async def test_of_many_callers_half_go_out_at_once(harness: Harness) -> None:
    """So that one half goes on while the server is at work on the other."""
    harness.add(*range(HALVING))
    assert len(harness.taken()) == HALVING
    harness.add(*range(10 * HALVING))
    assert len(harness.taken()) == 5 * HALVING
    assert len(harness.taken(in_flight=5 * HALVING)) == 5 * HALVING


async def test_many_at_once_are_a_transaction_by_themselves(harness: Harness) -> None:
    """However many single calls wait."""
    harness.add(1)
    harness.calls.add_bulk(["c", "c"], ["2", "3"])
    assert harness.calls.next_bulk()[1] == ["2", "3"]
    assert not harness.calls.has_bulk
    assert harness.taken() == ["1"]


# -- room -----------------------------------------------------------------------------------------


async def test_p7_calls_beyond_the_limit_wait_for_room() -> None:
    """They are admitted in order, as those before them go out."""
    harness = Harness(limit=3)
    harness.add(*range(5))
    assert harness.calls.admit() == 3
    assert harness.taken() == ["0", "1", "2"]
    assert harness.calls.admit() == 2
    assert harness.taken() == ["3", "4"]
    harness.calls.stop()


async def test_equal_ones_that_are_kept_take_up_room() -> None:
    """Until they have gone out as well."""
    harness = Harness(limit=3)
    harness.add("a", "a", "a", "b")
    assert harness.calls.admit() == 3
    assert harness.taken() == ["a"]
    assert harness.calls.admit() == 3
    assert harness.taken() == ["a", "b"]
    assert harness.taken() == ["a"]
    harness.calls.stop()


# -- what is not sent -----------------------------------------------------------------------------


async def test_p8_a_call_that_waits_too_long_fails(harness: Harness) -> None:
    """Between its time and one tick more; it has not been sent."""
    (call,) = harness.add(1)
    await asyncio.sleep(SECONDS)
    assert not call.done()
    await asyncio.sleep(TICK + 0.1)
    with pytest.raises(NotifyTimeoutError, match="not sent"):
        call.result()
    assert harness.taken() == []


async def test_time_does_not_count_while_there_is_no_connection(harness: Harness) -> None:
    """That has a deadline of its own."""
    harness.counts = False
    (call,) = harness.add(1)
    await asyncio.sleep(10 * SECONDS)
    assert not call.done()
    harness.counts = True
    await asyncio.sleep(SECONDS + 2 * TICK)
    assert isinstance(call.exception(), NotifyTimeoutError)


async def test_expired_repeats_give_back_their_room() -> None:
    """Nothing that has failed keeps a place in the queue."""
    harness = Harness(limit=2)
    calls = harness.add("a", "a")
    assert harness.taken() == ["a"]
    await asyncio.sleep(SECONDS + 2 * TICK)
    assert isinstance(calls[1].exception(), NotifyTimeoutError)
    harness.add(1, 2)
    assert harness.taken() == ["1", "2"]
    harness.calls.stop()


async def test_close_fails_what_has_no_room_yet() -> None:
    """What was accepted stays, and what comes later is refused."""
    harness = Harness(limit=2)
    calls = harness.add(1, 2, 3)
    harness.calls.close()
    assert harness.calls.is_closed
    assert [call.done() for call in calls] == [False, False, True]
    assert isinstance(calls[2].exception(), ClosedError)
    with pytest.raises(ClosedError):
        harness.add(4)
    with pytest.raises(ClosedError):
        harness.calls.add_bulk(["c"], ["5"])
    assert harness.taken() == ["1", "2"]
    harness.calls.stop()


async def test_each_caller_has_an_error_of_its_own(harness: Harness) -> None:
    """One object would gather the tracebacks of all; a cancelled call gets none."""
    calls = harness.add("a", "a", "b")
    bulk = harness.calls.add_bulk(["c"], ["d"])
    calls[2].cancel()
    harness.taken()
    harness.calls.fail_all(not_sent_closed)
    errors = [call.exception() for call in (calls[1], bulk)]
    assert errors[0] is not errors[1]
    assert not harness.calls
    assert harness.calls.admit() == 0


async def test_callers_are_told_once(harness: Harness) -> None:
    """A later word changes nothing."""
    calls = harness.add(1, 2)
    batch = harness.calls.next_batch(0)
    calls[0].cancel()
    tell(batch)
    fail(batch, not_sent_closed)
    await asyncio.sleep(0)
    assert calls[0].cancelled()
    assert calls[1].result() is None


async def test_what_is_put_back_comes_first(harness: Harness) -> None:
    """In its order, before what came later; the same for many in one."""
    harness.add("a", "b")
    batch = harness.calls.next_batch(0)
    bulk = harness.calls.add_bulk(["c"], ["1"])
    taken = harness.calls.next_bulk()
    later = harness.calls.add_bulk(["c"], ["2"])
    harness.add("c")
    harness.calls.put_back([*batch, harness.calls.call_of("c", "alone")])
    harness.calls.put_bulk_back(taken)
    assert [harness.calls.next_bulk()[2] for _ in range(2)] == [bulk, later]
    assert harness.taken() == ["a", "b", "alone", "c"]


@pytest.mark.parametrize("is_bulk", [False, True])
async def test_what_is_put_back_expires_though_the_clock_had_stopped(
    harness: Harness, *, is_bulk: bool
) -> None:
    """It was on its way for so long that nothing else waited, and nobody looked any more."""
    if is_bulk:
        sent = harness.calls.add_bulk(["c"], ["1"])
        bulk = harness.calls.next_bulk()
        await asyncio.sleep(10 * SECONDS)
        harness.calls.put_bulk_back(bulk)
    else:
        (sent,) = harness.add(1)
        batch = harness.calls.next_batch(0)
        await asyncio.sleep(10 * SECONDS)
        harness.calls.put_back(batch)
    await asyncio.sleep(SECONDS + 2 * TICK)
    assert isinstance(sent.exception(), NotifyTimeoutError)


async def test_a_repeat_whose_caller_gave_up_gives_back_its_room() -> None:
    """It is not sent, and the next one beyond the limit is accepted."""
    harness = Harness(limit=2)
    _, repeat = harness.add("a", "a")
    assert harness.taken() == ["a"]
    harness.add("b", "c")
    harness.calls.admit()
    repeat.cancel()
    assert harness.taken() == ["b"]
    harness.calls.admit()
    assert harness.taken() == ["c"]
    harness.calls.stop()


async def test_repeats_leave_half_of_a_transaction_to_others(harness: Harness) -> None:
    """Also by their size: the others do not wait until all that are kept have gone out."""
    large = [letter * (BATCH_CHARACTERS // 4) for letter in "abcd"]
    harness.add(*(payload for payload in large for _ in range(2)), "other")
    assert [payload[0] for payload in harness.taken()] == ["a", "b", "c", "d", "o"]
    harness.add("another")
    assert [payload[:2] for payload in harness.taken()] == ["aa", "bb", "cc", "an"]
    assert [payload[0] for payload in harness.taken()] == ["d"]


async def test_what_comes_back_after_the_end_is_told(harness: Harness) -> None:
    """Nobody would send it any more; the same for many in one."""
    calls = harness.add("a")
    batch = harness.calls.next_batch(0)
    bulk = harness.calls.add_bulk(["c"], ["1"])
    taken = harness.calls.next_bulk()
    harness.calls.stop()
    harness.calls.put_back(batch)
    harness.calls.put_bulk_back(taken)
    assert isinstance(calls[0].exception(), ClosedError)
    assert isinstance(bulk.exception(), ClosedError)
    assert not harness.calls
