from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import Closed, ConnectionEvent, ConnectionLost
from asyncnotify._blocking.events import BlockingEventStream, EventRelay
from asyncnotify._blocking.gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT = 20.0
KEPT = 1_000


def lost(number: int) -> ConnectionLost:
    """Return an event that can be told from others."""
    return ConnectionLost(OSError(number), backend_pid=number)


async def end(_: float) -> None:
    """End nothing."""


class Harness:
    """A relay that passes events on to streams and to ``on_event``."""

    def __init__(self, on_event: Callable[[ConnectionEvent], object] | None = None) -> None:
        self.relay = EventRelay(on_event)
        self.gateway = Gateway(end, close_timeout=1.0)

    def stream(self) -> BlockingEventStream:
        """Return a new stream."""
        return self.relay.stream(self.gateway)


def pids(events: list[ConnectionEvent]) -> list[Any]:
    """Return what tells these events from each other."""
    return [getattr(event, "backend_pid", None) for event in events]


def test_a_stream_has_the_events_from_its_making_on() -> None:
    """In order, each stream all of them."""
    harness = Harness()
    harness.relay(lost(1))
    first = harness.stream()
    harness.relay(lost(2))
    second = harness.stream()
    harness.relay(lost(3))
    assert pids([first.get(0), first.get(0)]) == [2, 3]
    assert pids([second.get(0)]) == [3]


def test_iteration_ends_after_closed() -> None:
    """Closed is the last event; get() then raises EOFError, each time."""
    harness = Harness()
    stream = harness.stream()
    for event in (lost(1), Closed(), lost(2)):
        harness.relay(event)
    assert [type(event) for event in stream] == [ConnectionLost, Closed]
    for _ in range(2):
        with pytest.raises(EOFError):
            stream.get(0)


def test_a_timeout_loses_nothing() -> None:
    """The next call gets the event that comes later."""
    harness = Harness()
    stream = harness.stream()
    for timeout in (0, 0.01):
        with pytest.raises(TimeoutError):
            stream.get(timeout)
    harness.relay(lost(1))
    assert pids([stream.get(0)]) == [1]


def test_a_waiting_thread_is_woken_by_the_event() -> None:
    """Each event goes to one of the threads that wait."""
    harness = Harness()
    stream = harness.stream()
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(stream.get, TIMEOUT) for _ in range(3)]
        for number in range(3):
            harness.relay(lost(number))
        assert sorted(pids([event.result(TIMEOUT) for event in waiting])) == [0, 1, 2]


def test_p7_a_slow_reader_keeps_the_newest_thousand() -> None:
    """A stream that nobody reads takes no more memory than that."""
    harness = Harness()
    stream = harness.stream()
    for number in range(KEPT + 5):
        harness.relay(lost(number))
    harness.relay(Closed())
    assert pids(list(stream))[:1] == [6]


def test_on_event_is_called_after_the_streams_have_the_event() -> None:
    """What it raises is raised by the relay: the announcer logs it."""
    failures: list[ConnectionEvent] = []

    def on_event(event: ConnectionEvent) -> None:
        failures.append(stream.get(0))
        raise LookupError

    harness = Harness(on_event)
    stream = harness.stream()
    with pytest.raises(LookupError):
        harness.relay(lost(1))
    assert pids(failures) == [1]


def test_p12_a_stream_that_nobody_holds_is_gone() -> None:
    """The relay keeps none of them alive."""
    harness = Harness()
    stream = harness.stream()
    del stream
    gc.collect()
    assert not list(harness.relay._streams)  # noqa: SLF001 - what it keeps


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1"])
def test_a_wrong_timeout_is_refused(timeout: Any) -> None:
    """Although an event is there."""
    harness = Harness()
    stream = harness.stream()
    harness.relay(lost(1))
    with pytest.raises(ValueError, match="timeout"):
        stream.get(timeout)
