"""How a callback and streams are told, here of connection events."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest

from asyncnotify import BlockingListener, Listener
from asyncnotify._blocking.events import EventRelay
from asyncnotify._errors import WrongLoopError
from asyncnotify._events import (
    Announcer,
    Closed,
    Connected,
    ConnectionEvent,
    ConnectionLost,
    OnEvent,
    Reconnected,
    RetryScheduled,
)
from tests.support.interrupter import Alarm, each_point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DSN = "postgresql://nowhere/x"
LOST = ConnectionLost(ConnectionResetError("reset by peer"), 7)
RETRY = RetryScheduled(3, 0.25, OSError("refused"))


# -- who is told ----------------------------------------------------------------------------------


def test_the_callback_gets_every_event_in_order() -> None:
    """on_event sees what happened, as it happened."""
    seen: list[ConnectionEvent] = []
    announcer = Announcer("db", seen.append)
    events: list[ConnectionEvent] = [Connected(1, 7), LOST, RETRY, Reconnected(1.0, 1, 1, 8)]
    for event in events:
        announcer.announce(event)
    assert seen == events


async def test_a_callback_that_raises_is_logged_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What on_event raises is logged with its traceback; streams are told all the same."""

    def fail(event: ConnectionEvent) -> None:
        message = "no good"
        raise ValueError(message)

    announcer = Announcer("db", fail)
    stream = announcer.stream()
    announcer.announce(LOST)
    announcer.announce(Closed())
    assert [event async for event in stream] == [LOST, Closed()]
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    lines = [record.getMessage() for record in errors]
    assert lines == ["on_event raised; the listener goes on"] * 2
    assert "no good" in caplog.text


def generates(event: ConnectionEvent) -> Iterator[ConnectionEvent]:
    """Have a body that a call does not run."""
    yield event


async def awaited(event: ConnectionEvent) -> None:
    """Have a body that a call does not run."""


def unchanged(function: OnEvent) -> OnEvent:
    """Return it."""
    return function


@pytest.mark.parametrize("function", [generates, awaited])
@pytest.mark.parametrize("through", [unchanged, EventRelay])
def test_r48_a_callback_that_returns_what_has_not_run_has_failed(
    caplog: pytest.LogCaptureFixture,
    function: Callable[[ConnectionEvent], object],
    through: Callable[[Callable[[ConnectionEvent], object]], Callable[[ConnectionEvent], object]],
) -> None:
    """Behind a wrapper, where no check at the beginning sees it; also in a BlockingListener."""
    Announcer("db", through(lambda event: function(event))).announce(Closed())  # noqa: PLW0108 - hides what it is
    assert "on_event raised" in caplog.text
    assert "TypeError: on_event returned a" in caplog.text


@pytest.mark.parametrize(("seconds", "count"), [(0.9, 0), (3.2, 1)])
def test_a_callback_that_blocks_the_event_loop_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seconds: float, count: int
) -> None:
    """By a warning, not for each event: nothing else runs meanwhile, the heartbeat included."""
    now = [0.0]

    def block(_: ConnectionEvent) -> None:
        now[0] += seconds

    monkeypatch.setattr("asyncnotify._announcing.monotonic", lambda: now[0])
    announcer = Announcer("db", block)
    for _ in range(3):
        announcer.announce(Connected(1, 7))
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == count
    assert all("on_event blocked the event loop for 3.2 s" in text for text in warnings)


async def test_a_callback_that_raises_cancelled_error_cancels_nobody() -> None:
    """Nobody can cancel us from a plain function: it is an error like another."""

    def ask_cancelled_future(event: ConnectionEvent) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        future.result()

    Announcer("db", ask_cancelled_future).announce(LOST)


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_passes_through_the_callback(fatal: type[BaseException]) -> None:
    """KeyboardInterrupt and SystemExit are not for us to hold up."""

    def interrupt(event: ConnectionEvent) -> None:
        raise fatal

    with pytest.raises(fatal):
        Announcer("db", interrupt).announce(LOST)


async def test_a_stream_that_nobody_holds_is_forgotten() -> None:
    """Event streams that are dropped leave nothing behind."""
    announcer = Announcer("db", None)
    kept = announcer.stream()
    for _ in range(10):
        announcer.stream()
    gc.collect()
    announcer.announce(LOST)
    assert await anext(kept) == LOST
    assert len(announcer._audience._streams) == 1  # noqa: SLF001 - none is left


# -- streams --------------------------------------------------------------------------------------


async def test_a_stream_has_what_follows_it_up_to_closed() -> None:
    """In order, from the first event after the call to Closed; then it has ended, and stays so."""
    announcer = Announcer("db", None)
    announcer.announce(Connected(1, 7))
    stream = announcer.stream()
    events: list[ConnectionEvent] = [LOST, RETRY, Closed(), Connected(1, 9)]
    for event in events:
        announcer.announce(event)
    assert [event async for event in stream] == [LOST, RETRY, Closed()]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_stream_waits_for_the_next_event() -> None:
    """A reader that is early gets the event when it happens."""
    announcer = Announcer("db", None)
    stream = announcer.stream()
    asyncio.get_running_loop().call_later(5, announcer.announce, LOST)
    assert await anext(stream) == LOST


async def test_waiting_for_an_event_may_be_cancelled() -> None:
    """Cancelled before and just as an event arrives: the next call gets it."""
    announcer = Announcer("db", None)
    stream = announcer.stream()
    loop = asyncio.get_running_loop()
    for _ in range(100):
        reader = asyncio.ensure_future(anext(stream))
        loop.call_later(1, announcer.announce, LOST)
        loop.call_later(1, reader.cancel)
        await asyncio.wait({reader})
        assert reader.cancelled()
        assert await anext(stream) == LOST


def test_a_reader_whose_loop_is_closed_harms_nobody() -> None:
    """Its wake-up is dropped; the other readers, the log and the callback are told."""
    told: list[ConnectionEvent] = []
    announcer = Announcer("db", told.append)
    abandoned, stream = announcer.stream(), announcer.stream()

    async def begin_to_read() -> None:
        step.send(None)

    async def lose() -> ConnectionEvent:
        announcer.announce(LOST)
        return await anext(stream)

    step = anext(abandoned)
    asyncio.run(begin_to_read())
    assert asyncio.run(lose()) == LOST
    assert told == [LOST]
    step.close()


async def test_a_reader_in_another_loop_is_refused() -> None:
    """As every other call from there."""

    def refuse() -> None:
        msg = "the listener runs in another event loop"
        raise WrongLoopError(msg)

    announcer = Announcer("db", None)
    announcer.check_owner = refuse
    with pytest.raises(WrongLoopError):
        await anext(announcer.stream())


async def test_a_slow_reader_finds_the_newest_thousand() -> None:
    """What a reader does not fetch is bounded; what is lost is the oldest, never Closed."""
    announcer = Announcer("db", None)
    stream = announcer.stream()
    for attempt in range(5_000):
        announcer.announce(RetryScheduled(attempt, 1.0, TimeoutError()))
    announcer.announce(Closed())
    events = [event async for event in stream]
    assert len(events) == 1_000
    assert isinstance(events[0], RetryScheduled)
    assert events[0].attempt == 4_001
    assert events[-1] == Closed()


async def test_two_readers_of_one_stream_share_its_events() -> None:
    """Each event goes to one of them."""
    announcer = Announcer("db", None)
    stream = announcer.stream()
    readers = [asyncio.ensure_future(anext(stream)) for _ in range(2)]
    loop = asyncio.get_running_loop()
    loop.call_later(1, announcer.announce, LOST)
    loop.call_later(2, announcer.announce, RETRY)
    await asyncio.wait(readers)
    assert [reader.result() for reader in readers] == [LOST, RETRY]


async def test_closed_ends_every_reader_of_a_stream() -> None:
    """Nobody waits for an event of a listener that has closed."""
    announcer = Announcer("db", None)
    stream = announcer.stream()
    ended: list[int] = []

    async def read(number: int) -> None:
        async for _ in stream:
            pass
        ended.append(number)

    readers = [asyncio.ensure_future(read(number)) for number in range(2)]
    asyncio.get_running_loop().call_later(1, announcer.announce, Closed())
    try:
        async with asyncio.timeout(10):
            await asyncio.gather(*readers)
    finally:
        for reader in readers:
            reader.cancel()
    assert sorted(ended) == [0, 1]


def test_r56_an_event_that_was_taken_is_returned_or_stays() -> None:
    """At each point at which a signal handler may raise, one does; each event comes once."""
    events = [Connected(number, 1) for number in range(3)]
    for interrupter in each_point("asyncnotify._announcing"):
        announcer, got = Announcer("joe@db", None), list[object]()
        stream = announcer.stream()
        for event in events:
            announcer.announce(event)
        while got != events:
            try:
                with interrupter:
                    stream.__anext__().send(None)
            except StopIteration as returned:
                got.append(returned.value)
            except Alarm:
                assert interrupter.has_raised


async def test_events_of_a_listener_that_never_runs_end_when_it_is_closed() -> None:
    """Else whoever waits for one would wait for ever."""
    listener = Listener(DSN)
    events = listener.events()
    await listener.aclose()
    assert [event async for event in events] == [Closed()]


def test_so_do_those_of_a_listener_for_threads() -> None:
    """It would keep the program from ending."""
    listener = BlockingListener(DSN)
    events = listener.events()
    listener.close()
    assert list(events) == [Closed()]
