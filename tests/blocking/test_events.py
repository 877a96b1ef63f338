from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from asyncnotify import (
    BlockingEventStream,
    BlockingListener,
    Closed,
    Connected,
    ConnectionEvent,
    RetryScheduled,
    WrongLoopError,
)
from asyncnotify._blocking.events import EventRelay
from asyncnotify._blocking.gateway import Gateway
from tests.support.machine import scaled

WAIT_LIMIT = scaled(20.0)


@pytest.fixture
def relay() -> EventRelay:
    """A relay without a listener."""
    return EventRelay(None)


@pytest.fixture
def stream(relay: EventRelay) -> BlockingEventStream:
    """A stream of the relay's events."""
    return relay.stream(Gateway(nothing, 1.0))


async def nothing(seconds: float) -> None:
    """End nothing."""


def test_events_arrive_from_before_the_start_to_the_end(dsn: str) -> None:
    """Each stream gets every event since it was made, and ends after Closed; so does on_event."""
    called: list[ConnectionEvent] = []
    listener = BlockingListener(dsn, on_event=called.append)
    first = listener.events()
    with listener:
        connected = first.get(WAIT_LIMIT)
        assert isinstance(connected, Connected)
        second = listener.events()
    assert list(first) == list(second) == [Closed()]
    assert called == [connected, Closed()]
    with pytest.raises(EOFError):
        first.get()


def test_a_thread_that_waits_is_woken(dsn: str) -> None:
    """By each event, and by the end."""
    listener = BlockingListener(dsn)
    events = listener.events()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(list, events)
        with listener:
            pass
        read: list[ConnectionEvent] = reading.result(WAIT_LIMIT)
    assert [type(event) for event in read] == [Connected, Closed]


def test_a_timeout_loses_nothing(relay: EventRelay, stream: BlockingEventStream) -> None:
    """What comes after it is there for the next call."""
    for timeout in (0, 0.001):
        with pytest.raises(TimeoutError):
            stream.get(timeout)
    relay(Connected(1, 7))
    assert stream.get(0) == Connected(1, 7)


def test_threads_share_a_stream(relay: EventRelay, stream: BlockingEventStream) -> None:
    """Each event goes to one of them, and the end to all."""
    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(list, stream) for _ in range(8)]
        sent: list[ConnectionEvent] = [Connected(n, 7) for n in range(500)]
        for event in sent:
            relay(event)
        relay(Closed())
        read = [event for reader in readers for event in reader.result(WAIT_LIMIT)]
    assert sorted(e.channels for e in read if isinstance(e, Connected)) == list(range(500))
    assert read.count(Closed()) == 1


def test_a_slow_reader_finds_the_newest_thousand(
    relay: EventRelay, stream: BlockingEventStream
) -> None:
    """What a reader does not fetch is bounded; what is lost is the oldest, never Closed."""
    for attempt in range(5_000):
        relay(RetryScheduled(attempt, 1.0, TimeoutError()))
    relay(Closed())
    events = list(stream)
    assert len(events) == 1_000
    assert isinstance(events[0], RetryScheduled)
    assert events[0].attempt == 4_001
    assert events[-1] == Closed()


def test_nothing_is_kept_for_a_stream_that_is_gone(
    relay: EventRelay, stream: BlockingEventStream
) -> None:
    """A stream needs no end: it is forgotten with its last reference."""
    other = relay.stream(Gateway(nothing, 1.0))
    assert len(list(relay._streams)) == 2  # noqa: SLF001 - nothing is left
    del other
    assert len(list(relay._streams)) == 1  # noqa: SLF001 - nothing is left


def test_the_event_loops_own_thread_cannot_wait_for_events(dsn: str) -> None:
    """A call from on_event, which nothing would ever wake, raises."""
    raised: list[BaseException] = []
    done = threading.Event()

    def on_event(event: ConnectionEvent) -> None:
        if isinstance(event, Connected):
            with pytest.raises(WrongLoopError) as caught:
                events.get()
            raised.append(caught.value)
            done.set()

    listener = BlockingListener(dsn, on_event=on_event)
    events = listener.events()
    with listener:
        assert done.wait(WAIT_LIMIT)
    assert len(raised) == 1


@pytest.mark.parametrize("on_event", [5, lambda: None, nothing, BlockingListener])
def test_on_event_is_checked_before_it_is_wrapped(on_event: Any) -> None:
    """What the listener calls is its own; what the caller has given is checked all the same."""
    with pytest.raises(TypeError, match=r"^on_event "):
        BlockingListener(on_event=on_event)


def test_what_on_event_raises_keeps_no_stream_from_its_events() -> None:
    """The streams come first, and the listener logs the error."""

    def on_event(event: ConnectionEvent) -> None:
        raise LookupError

    relay = EventRelay(on_event)
    stream = relay.stream(Gateway(nothing, 1.0))
    with pytest.raises(LookupError):
        relay(Connected(1, 7))
    assert stream.get(0) == Connected(1, 7)
