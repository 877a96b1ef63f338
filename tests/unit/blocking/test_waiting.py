from __future__ import annotations

import dis
import gc
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from asyncnotify._blocking.events import BlockingEventStream
from asyncnotify._blocking.stream import BlockingStream
from asyncnotify._blocking.waiting import Instances, News, Outcome, deadline_after, taking_from

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT = 20.0
TAKERS = [BlockingStream.__next__, BlockingStream.get, BlockingEventStream.get]


class Thing:
    """What can be listed."""


def test_taking_removes_from_the_left() -> None:
    """What is added later can be taken after the end was reached."""
    items = deque([1, 2])
    taking = taking_from(items)
    assert [next(taking), next(taking)] == [1, 2]
    with pytest.raises(IndexError):
        next(taking)
    items.append(3)
    assert next(taking) == 3


@pytest.mark.parametrize("function", TAKERS)
def test_r56_no_call_stands_between_taking_and_returning(function: Callable[..., object]) -> None:
    """Signal handlers run after calls and at jumps back: there is none of them."""
    names = [instruction.opname for instruction in dis.get_instructions(function)]
    taken = names.index("FOR_ITER")
    between = names[taken + 1 : names.index("RETURN_VALUE", taken)]
    assert not [n for n in between if n.startswith(("CALL", "PRECALL", "JUMP_BACKWARD", "RESUME"))]


def test_waiting_ends_when_it_becomes_true() -> None:
    """All threads that wait are woken, and look."""
    news, facts = News(), list[str]()
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(news.wait, lambda: bool(facts)) for _ in range(3)]
        news.wake()
        facts.append("true")
        news.wake()
        assert all(ended.result(TIMEOUT) for ended in waiting)


def test_waiting_ends_at_its_deadline() -> None:
    """It says what is true then, and leaves nothing behind."""
    news = News()
    assert not news.wait(lambda: False, deadline_after(0))
    assert not news.wait(lambda: False, deadline_after(0.01))
    assert news.wait(lambda: True, deadline_after(0))
    assert news._waiters == {}  # noqa: SLF001 - what it keeps


@pytest.mark.parametrize("seconds", [0.0, 1e300])
def test_a_deadline_may_be_as_far_as_a_float_goes(seconds: float) -> None:
    """A lock takes fewer seconds than that."""
    news, true = News(), threading.Event()

    def come_true() -> None:
        true.set()
        news.wake()

    thread = threading.Thread(target=come_true)
    deadline = deadline_after(seconds)
    assert deadline is not None
    assert deadline >= time.monotonic() - TIMEOUT
    thread.start()
    news.wait(true.is_set, deadline)
    thread.join(TIMEOUT)
    assert news.wait(true.is_set, deadline)


def test_an_outcome_is_a_result_or_an_exception() -> None:
    """As often as it is asked; the callback is called once."""
    told: list[Outcome[int]] = []
    outcome: Outcome[int] = Outcome()
    outcome.add_done_callback(told.append)
    assert not outcome.done()
    with pytest.raises(TimeoutError):
        outcome.result(0)
    outcome.set_result(7)
    assert [outcome.result(0), outcome.result(), outcome.exception()] == [7, 7, None]
    assert told == [outcome]
    failed: Outcome[int] = Outcome()
    failed.set_exception(KeyError("a"))
    with pytest.raises(KeyError):
        failed.result()
    assert isinstance(failed.exception(), KeyError)


def test_instances_are_listed_as_long_as_they_live() -> None:
    """Others may be added while they are listed."""
    things: Instances[Thing] = Instances()
    kept = [Thing(), Thing()]
    for thing in kept:
        things.add(thing)
    things.add(Thing())
    gc.collect()
    listed: list[Thing] = []
    for thing in things:
        listed.append(thing)
        things.add(Thing())
    assert listed == kept
