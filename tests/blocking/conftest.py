"""A listener for threads, and what its handlers keep."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import BlockingListener, BlockingNotifier
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAIT_LIMIT = scaled(20.0)  # seconds until a fact that must come has come
OURS = ("asyncnotify", "AnyIO worker")


class Inbox:
    """A handler that records what it is called with, and can be waited for."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __call__(self, *items: Any) -> None:
        """Keep it."""
        self._items.put(items[0] if len(items) == 1 else items)

    def next(self) -> Any:
        """Return what came next; it has to come soon."""
        return self._items.get(timeout=WAIT_LIMIT)

    def payloads(self, count: int) -> list[Any]:
        """Return the payloads of the next so many notifications."""
        return [self.next().payload for _ in range(count)]


@pytest.fixture
def inbox() -> Inbox:
    """A handler that keeps what it is given."""
    return Inbox()


@pytest.fixture
def new_inbox() -> type[Inbox]:
    """What makes inboxes, where one is not enough."""
    return Inbox


@pytest.fixture(autouse=True)
def _leaves_no_thread() -> Iterator[None]:
    """Check that no thread of ours outlives the test."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith(OURS):
            thread.join(WAIT_LIMIT)
            assert not thread.is_alive(), f"{thread} is left"


@pytest.fixture
def listener(dsn: str) -> Iterator[BlockingListener]:
    """A running listener."""
    with BlockingListener(dsn) as listener:
        yield listener


@pytest.fixture
def notifier(dsn: str) -> Iterator[BlockingNotifier]:
    """A notifier of the same database."""
    with BlockingNotifier(dsn) as notifier:
        yield notifier


@pytest.fixture
def fence(listener: BlockingListener, notifier: BlockingNotifier) -> Callable[[], None]:
    """What returns once all that was committed before has passed through the listener."""

    def pass_through() -> None:
        with listener.stream("fence") as stream:
            notifier.notify("fence")
            stream.get(WAIT_LIMIT)

    return pass_through


@pytest.fixture
def in_threads() -> Iterator[Callable[[int, Callable[[int], object]], list[object]]]:
    """What calls a function with 0, 1, 2, … in so many threads at once; returns the results."""
    with ThreadPoolExecutor(200) as pool:

        def call(count: int, function: Callable[[int], object]) -> list[object]:
            together = threading.Barrier(count)

            def begin(number: int) -> object:
                together.wait(WAIT_LIMIT)
                return function(number)

            return list(pool.map(begin, range(count), timeout=WAIT_LIMIT * 2))

        yield call
