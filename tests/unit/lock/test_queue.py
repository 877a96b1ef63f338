from __future__ import annotations

import asyncio
import math

import pytest

from asyncnotify.lock import LockTimeoutError, TooManyLocksError
from asyncnotify.lock._queue import Entry, Queue, Waiter


def waiting(entry: Entry, *, once: bool = False) -> Waiter:
    """Add a call that waits."""
    waiter = Waiter(asyncio.get_running_loop().create_future(), once)
    entry.waiters.append(waiter)
    return waiter


async def test_who_was_cancelled_is_passed_over() -> None:
    """The lock goes to the first call that still waits."""
    entry = Entry("x", is_taken=True)
    gone, present = waiting(entry), waiting(entry)
    gone.done.cancel()
    entry.hand_over(7)
    assert present.done.result().token == 7
    assert entry.holding is present.done.result()


async def test_what_nobody_wants_any_more_is_released() -> None:
    """A lock that was taken for a call that was cancelled, and one that was let go; no other."""
    queue = Queue(10)
    unwanted, wanted, held, let_go = (queue.entry(name) for name in "abcd")
    for entry in queue:
        entry.is_taken = True
        waiting(entry)
    unwanted.waiters[0].done.cancel()
    held.hand_over(1)
    let_go.hand_over(1)
    let_go.released = asyncio.get_running_loop().create_future()
    assert queue.to_release() == [unwanted, let_go]
    assert queue.unnumbered(math.inf) == [wanted]


async def test_what_is_asked_of_the_server_is_not_forgotten() -> None:
    """Though the call was cancelled: the answer may be that the lock is taken."""
    queue = Queue(10)
    entry = queue.entry("x")
    waiting(entry).done.cancel()
    entry.in_flight = True
    queue.forget_unused()
    assert list(queue) == [entry]
    entry.in_flight = False
    queue.forget_unused()
    assert not queue


async def test_one_attempt_and_no_more() -> None:
    """Who asked for one is told that the lock is not free; others go on waiting."""
    entry = Entry("x")
    once, patient = waiting(entry, once=True), waiting(entry)
    entry.busy()
    assert isinstance(once.done.exception(), LockTimeoutError)
    assert not patient.done.done()
    assert entry.waits


async def test_the_limit_counts_names_that_are_used() -> None:
    """Those whose calls were cancelled make room."""
    queue = Queue(2)
    waiting(queue.entry("a"))
    cancelled = waiting(queue.entry("b"))
    waiting(queue.entry("a"))
    with pytest.raises(TooManyLocksError):
        queue.entry("c")
    cancelled.done.cancel()
    waiting(queue.entry("c"))


async def test_a_row_that_is_locked_is_looked_at_less_and_less_often() -> None:
    """By a transaction that the last holder has checked: at first after 2 ms, then up to 0.1 s."""
    entry = Entry("x")
    delays: list[float] = []
    for _ in range(10):
        entry.put_off(0.0)
        delays.append(entry.due)
    assert delays[0] == 0.002
    assert delays[-1] == 0.1
    assert delays == sorted(delays)
