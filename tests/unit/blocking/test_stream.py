from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self, cast

import pytest

from asyncnotify import BufferOverflowError, ClosedError, Notification, NotStartedError
from asyncnotify._blocking.gateway import Gateway, awaitable
from asyncnotify._blocking.stream import BlockingStream, fetch_the_rest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

TIMEOUT = 20.0
LIMIT = 3
FEWEST_STEPS = 30
"""Lines that a thread runs which waits in vain: if there are fewer, the test has not seen them."""


class FakeStream:
    """The stream in the loop: batches come from a list, then it waits, or ends."""

    def __init__(self) -> None:
        self.waiting: list[Notification[str]] = []
        self.end: BaseException | None = None
        self.entered = self.closed = False
        self.turn = asyncio.Event()  # cleared while other consumers of the loop run
        self.turn.set()
        self.asked = threading.Event()
        self._news = asyncio.Event()

    def __repr__(self) -> str:
        return "<Stream of 'orders'>"

    async def __aenter__(self) -> Self:
        self.entered = True
        return self

    async def aclose(self) -> None:
        """End, and discard what waits."""
        self.closed = True
        self.waiting.clear()
        self.finish(StopAsyncIteration())

    def batches(self, limit: int) -> FakeStream:
        """Return the iterator of lists."""
        assert limit == LIMIT
        return self

    def __aiter__(self) -> Self:
        return self

    def _at_hand(self, limit: int) -> list[Notification[str]]:
        """Return what waits, for at_hand()."""
        batch, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return batch

    async def __anext__(self) -> list[Notification[str]]:
        self.asked.set()
        await self.turn.wait()
        while not self.waiting:
            if self.end is not None:
                raise self.end
            self._news.clear()
            await self._news.wait()
        batch, self.waiting = self.waiting[:LIMIT], self.waiting[LIMIT:]
        return batch

    def put(self, *payloads: str) -> None:
        """Let notifications arrive."""
        self.waiting += [Notification("orders", payload, 7) for payload in payloads]
        self._news.set()

    def finish(self, error: BaseException) -> None:
        """Let it end in this way, after what waits."""
        self.end = error
        self._news.set()


class Harness:
    """A stream for threads on an open loop, and the stream behind it."""

    def __init__(self) -> None:
        self.gateway = Gateway(self._end, close_timeout=1.0)
        self.gateway.open()
        self.behind = FakeStream()
        self.stream: BlockingStream[Notification[str]] = BlockingStream(
            self.gateway, cast("Any", self.behind), LIMIT
        )

    async def _end(self, _: float) -> None:
        await fetch_the_rest(self.stream)

    def put(self, *payloads: str) -> None:
        """Let notifications arrive in the loop."""
        self.gateway.call(awaitable(lambda: self.behind.put(*payloads)))

    def finish(self, error: BaseException) -> None:
        """Let the stream end in this way."""
        self.gateway.call(awaitable(lambda: self.behind.finish(error)))

    def taken(self, count: int) -> list[str]:
        """Return the payloads of the next so many items."""
        return [self.stream.get(TIMEOUT).payload for _ in range(count)]


@pytest.fixture
def harness() -> Iterator[Harness]:
    """A stream whose loop has ended when the test has."""
    made = Harness()
    yield made
    made.behind.end = StopAsyncIteration()
    made.gateway.close(0)


def test_items_come_in_order_over_many_batches(harness: Harness) -> None:
    """By get() and by iteration alike."""
    harness.put(*"abcdefg")
    assert harness.taken(4) == list("abcd")
    assert [next(harness.stream).payload for _ in range(3)] == list("efg")


def test_entering_begins_and_leaving_closes(harness: Harness) -> None:
    """Also after an exception; what was buffered is discarded."""
    harness.put("a", "b")
    with pytest.raises(KeyError), harness.stream:
        raise KeyError(*harness.taken(1))
    assert harness.behind.entered
    assert harness.behind.closed
    with pytest.raises(EOFError):
        harness.stream.get(TIMEOUT)


def test_a_timeout_loses_nothing(harness: Harness) -> None:
    """The next call gets what comes later; 0 takes what is there."""
    with pytest.raises(TimeoutError):
        harness.stream.get(0)
    with pytest.raises(TimeoutError):
        harness.stream.get(0.01)
    harness.put("a")
    assert harness.stream.get(0).payload == "a"


@pytest.mark.parametrize("timeout", [0, 0.001])
def test_what_waits_is_returned_whoever_else_runs_in_the_loop(
    harness: Harness, timeout: float
) -> None:
    """Fetching waits for its turn there; who waits no longer takes what there is."""
    harness.gateway.call(awaitable(harness.behind.turn.clear))
    harness.put(*"abcd")
    assert [harness.stream.get(timeout).payload for _ in range(4)] == list("abcd")
    with pytest.raises(TimeoutError):
        harness.stream.get(timeout)
    harness.gateway.call(awaitable(harness.behind.turn.set))


def test_after_a_timeout_nothing_is_fetched_until_the_next_call(harness: Harness) -> None:
    """What comes meanwhile waits in the mailbox, which has a limit."""
    with pytest.raises(TimeoutError):
        harness.stream.get(0.01)
    harness.put("a")
    harness.put()
    assert harness.gateway.look(lambda: len(harness.behind.waiting)) == 1
    assert harness.taken(1) == ["a"]


@pytest.mark.parametrize("iterated", [True, False])
def test_the_end_comes_after_what_was_buffered(harness: Harness, *, iterated: bool) -> None:
    """A loop ends; get() raises EOFError, each time."""
    harness.put(*"abcd")
    harness.finish(StopAsyncIteration())
    if iterated:
        assert [item.payload for item in harness.stream] == list("abcd")
    else:
        assert harness.taken(4) == list("abcd")
    for _ in range(2):
        with pytest.raises(EOFError):
            harness.stream.get(TIMEOUT)


def test_what_the_stream_raises_is_raised_by_get(harness: Harness) -> None:
    """Not by a timeout later, and not in another thread."""
    harness.finish(BufferOverflowError(10, 1))
    with pytest.raises(BufferOverflowError):
        harness.stream.get(TIMEOUT)


def test_each_item_goes_to_one_of_the_threads(harness: Harness) -> None:
    """Every waiting thread gets an item, whichever thread began to fetch."""
    with ThreadPoolExecutor(5) as threads:
        waiting = [threads.submit(harness.stream.get, TIMEOUT) for _ in range(5)]
        harness.behind.asked.wait(TIMEOUT)
        harness.put(*"abcde")
        assert sorted(item.result(TIMEOUT).payload for item in waiting) == list("abcde")


def test_close_lets_waiting_threads_go(harness: Harness) -> None:
    """With EOFError."""
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(harness.stream.get) for _ in range(3)]
        harness.behind.asked.wait(TIMEOUT)
        harness.stream.close()
        for item in waiting:
            with pytest.raises(EOFError):
                item.result(TIMEOUT)


def test_what_is_buffered_survives_the_close_of_the_listener(harness: Harness) -> None:
    """It is fetched before the loop ends; then the stream ends."""
    harness.put(*"abcd")
    harness.taken(1)
    harness.finish(StopAsyncIteration())
    harness.gateway.close(TIMEOUT)
    assert harness.taken(3) == list("bcd")
    with pytest.raises(EOFError):
        harness.stream.get(0)


class AtStep:
    """Calls a function before one of the lines of the stream's module that this thread runs."""

    def __init__(self, number: int, function: Callable[[], object]) -> None:
        self._left = number
        self._function = function
        self._tracer: Any = None

    @property
    def has_called(self) -> bool:
        """Whether there was a line of this number."""
        return self._left < 0

    def __enter__(self) -> Self:
        self._tracer = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._tracer)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_globals.get("__name__") != fetch_the_rest.__module__:
            return None
        if event == "line":
            self._left -= 1
            if self._left == -1:
                self._function()  # it is not traced
        return self._trace


@pytest.mark.parametrize("payloads", ["", "a", "abcd"])
def test_wherever_the_listener_is_closed_the_stream_brings_all_and_ends(payloads: str) -> None:
    """Closed by another thread at any step of the consumer's, it is no error, and loses nothing."""
    numbers = itertools.count()
    while (taken := _taken_when_closed_at(next(numbers), payloads)) is not None:
        assert taken == [*payloads]
    assert next(numbers) > FEWEST_STEPS


def _taken_when_closed_at(number: int, payloads: str) -> list[str] | None:
    """Return what a consumer got, or None if it waited in vain and there was no such step."""
    harness = Harness()

    def close() -> None:
        harness.put(*payloads)
        harness.finish(StopAsyncIteration())
        harness.gateway.close(TIMEOUT)

    taken: list[str] = []
    with AtStep(number, close) as at_step:
        while True:
            try:
                taken.append(harness.stream.get(0.001).payload)
            except TimeoutError:
                if not at_step.has_called:
                    break
            except EOFError:
                return taken
    close()
    return None


def test_without_a_loop_it_says_why() -> None:
    """Not started, or closed."""

    async def end(_: float) -> None:
        pass

    gateway = Gateway(end, close_timeout=1.0)
    stream: BlockingStream[Any] = BlockingStream(gateway, cast("Any", FakeStream()), LIMIT)
    with pytest.raises(NotStartedError):
        stream.get(0)
    gateway.open()
    gateway.close()
    with pytest.raises(ClosedError):
        stream.get(0)


def test_the_repr_says_that_it_is_for_threads(harness: Harness) -> None:
    """And of which channels it is."""
    assert repr(harness.stream) == "<BlockingStream of 'orders'>"
