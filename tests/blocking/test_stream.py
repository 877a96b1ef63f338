from __future__ import annotations

import gc
import itertools
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from asyncnotify import (
    BlockingListener,
    BlockingNotifier,
    BlockingStream,
    BufferOverflowError,
    ClosedError,
    Gap,
    GapReason,
    Notification,
)
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

    InThreads = Callable[[int, Callable[[int], object]], list[object]]

WAIT_LIMIT = scaled(20.0)


def numbers(count: int, channel: str = "orders") -> list[tuple[str, str]]:
    """Return notifications whose payloads are the numbers from 0."""
    return [(channel, str(i)) for i in range(count)]


def taken(stream: BlockingStream[Notification[str]], count: int) -> list[str]:
    """Return the payloads of the next so many notifications."""
    return [stream.get(WAIT_LIMIT).payload for _ in range(count)]


def until_backlog(stream: BlockingStream[Notification[str]], count: int) -> None:
    """Return when so many wait."""
    deadline = time.monotonic() + WAIT_LIMIT
    while (stats := stream.stats()) is None or stats.backlog < count:
        assert time.monotonic() < deadline


def test_everything_comes_in_order(listener: BlockingListener, notifier: BlockingNotifier) -> None:
    """Far more than one batch comes whole and in order."""
    with listener.stream("orders") as stream:
        notifier.notify_many(numbers(25_000))
        items = itertools.islice(stream, 25_000)
        assert [n.payload for n in items] == [str(i) for i in range(25_000)]
        stats = stream.stats()
        assert stats is not None
        assert (stats.delivered, stats.dropped) == (25_000, 0)


def test_gaps_stand_in_their_place(listener: BlockingListener) -> None:
    """With gaps, the one of the start comes first."""
    with listener.stream("orders", gaps=True) as stream:
        listener.notify("orders", "1")
        first, second = stream.get(WAIT_LIMIT), stream.get(WAIT_LIMIT)
        assert isinstance(first, Gap)
        assert first.reason is GapReason.START
        assert isinstance(second, Notification)


def test_a_timeout_loses_nothing(listener: BlockingListener, notifier: BlockingNotifier) -> None:
    """Waiting in vain, a thousand times, with notifications arriving meanwhile, loses none."""
    with listener.stream("orders") as stream:
        for i in range(200):
            with pytest.raises(TimeoutError):
                stream.get(timeout=0)
            sender = threading.Thread(target=notifier.notify, args=("orders", str(i)))
            sender.start()
            while True:
                try:
                    n = stream.get(timeout=0.0002)
                except TimeoutError:
                    continue
                break
            sender.join()
            assert n.payload == str(i)


def test_what_has_arrived_needs_no_time(
    listener: BlockingListener, notifier: BlockingNotifier
) -> None:
    """get(timeout=0) returns what waits, however long, and raises only when nothing does."""
    with listener.stream("orders") as stream, listener.stream("fence") as fence:
        notifier.notify_many(numbers(3))
        until_backlog(stream, 3)
        with pytest.raises(TimeoutError):
            fence.get(timeout=0.05)  # the turn of the event loop is over in which they came
        assert [stream.get(timeout=0).payload for _ in range(3)] == ["0", "1", "2"]
        with pytest.raises(TimeoutError):
            stream.get(timeout=0)


def test_who_only_looks_sees_the_end(
    listener: BlockingListener, notifier: BlockingNotifier
) -> None:
    """get(timeout=0) raises EOFError, time and again, once the stream has ended."""
    stream = listener.stream("orders").__enter__()
    failing = listener.stream("orders", buffer=1, overflow="fail").__enter__()
    notifier.notify_many(numbers(2))
    until_backlog(stream, 2)
    assert failing.get(timeout=0).payload == "0"
    listener.unlisten("orders")
    for _ in range(2):
        with pytest.raises(BufferOverflowError):
            failing.get(timeout=0)
        with pytest.raises(EOFError):
            stream.get(timeout=0)


def test_each_item_goes_to_one_thread(
    listener: BlockingListener, notifier: BlockingNotifier, in_threads: InThreads
) -> None:
    """Many threads that take from one stream get each item once, some of them with timeouts."""
    with listener.stream("orders") as stream:

        def take(number: int) -> list[str]:
            if number == 0:
                notifier.notify_many(numbers(5_000))
                return []
            items: list[str] = []
            while True:
                try:
                    items.append(stream.get(0.5).payload)
                except TimeoutError:
                    return items

        results = in_threads(21, take)
    payloads = [payload for result in results for payload in result]  # type: ignore[attr-defined] # pyright: ignore[reportGeneralTypeIssues]
    assert sorted(payloads, key=int) == [str(i) for i in range(5_000)]


def test_threads_that_wait_are_let_go(listener: BlockingListener, in_threads: InThreads) -> None:
    """However a stream ends, every thread that waits for it learns of that."""
    ends: list[Callable[[BlockingStream[Notification[str]]], None]] = [
        lambda stream: stream.close(),
        lambda _: listener.unlisten("orders"),
        lambda _: listener.close(),
    ]
    for end in ends:
        stream = listener.stream("orders").__enter__()
        waiting = threading.Semaphore(0)

        def wait(
            number: int,
            stream: BlockingStream[Notification[str]] = stream,
            waiting: threading.Semaphore = waiting,
            end: Callable[[BlockingStream[Notification[str]]], None] = end,
        ) -> list[object]:
            if number == 0:
                for _ in range(10):
                    waiting.acquire(timeout=WAIT_LIMIT)
                end(stream)
                return []
            waiting.release()
            return [*iter(lambda: next(stream, None), None)]

        assert in_threads(11, wait) == [[]] * 11
        with pytest.raises(EOFError):
            stream.get()
        with pytest.raises(ClosedError, match=r"'orders' has .*; make another with"):
            iter(stream)


def test_what_was_buffered_survives_the_listener(dsn: str, notifier: BlockingNotifier) -> None:
    """After close() a stream still hands out all that had arrived, and then ends."""
    listener = BlockingListener(dsn)
    with listener:
        stream = listener.stream("orders").__enter__()
        notifier.notify_many(numbers(3_000))
        until_backlog(stream, 3_000)
        assert stream.get(WAIT_LIMIT).payload == "0"
    assert [n.payload for n in stream] == [str(i) for i in range(1, 3_000)]
    stream.close()


def test_what_was_buffered_survives_a_later_run(dsn: str) -> None:
    """Also where somebody has kept a stream of an earlier run, whose event loop is gone."""
    listener = BlockingListener(dsn)
    with listener:
        earlier = listener.stream("orders").__enter__()
    assert list(earlier) == []
    with listener:
        stream = listener.stream("orders").__enter__()
        listener.notify_many(numbers(3))
        until_backlog(stream, 3)
    assert [n.payload for n in stream] == ["0", "1", "2"]


def test_closing_throws_away(listener: BlockingListener, notifier: BlockingNotifier) -> None:
    """A closed stream hands out nothing of what it had fetched."""
    with listener.stream("orders") as stream:
        notifier.notify_many(numbers(10))
        until_backlog(stream, 10)
        next(stream)
    assert next(stream, None) is None
    assert listener.channels == frozenset()


def test_leaving_the_loop_ends_the_subscription(listener: BlockingListener) -> None:
    """A stream that is broken out of is unlistened as soon as it is collected."""
    sender = threading.Thread(target=send_until_heard, args=(listener,))
    sender.start()
    for _ in listener.stream("orders"):
        break
    sender.join()
    gc.collect()
    deadline = time.monotonic() + WAIT_LIMIT
    while listener.channels:
        assert time.monotonic() < deadline


def send_until_heard(listener: BlockingListener) -> None:
    """Notify once somebody listens."""
    while "orders" not in listener.channels:
        pass
    with listener.stream("orders"):  # the server has confirmed
        listener.notify("orders", "1")


def test_an_overflow_is_told(listener: BlockingListener, notifier: BlockingNotifier) -> None:
    """A full buffer is a gap at its place, or with overflow="fail" the end of the stream."""
    with (
        listener.stream("orders", gaps=True, buffer=10) as lossy,
        listener.stream("orders", buffer=10, overflow="fail") as failing,
    ):
        assert isinstance(lossy.get(WAIT_LIMIT), Gap)
        notifier.notify_many(numbers(100))
        items: list[Notification[str] | Gap] = []
        while [n.payload for n in items[-1:] if isinstance(n, Notification)] != ["99"]:
            items.append(lossy.get(WAIT_LIMIT))
        gaps = [item for item in items if isinstance(item, Gap)]
        assert len(items) - len(gaps) + sum(gap.dropped or 0 for gap in gaps) == 100
        with pytest.raises(BufferOverflowError):
            taken(failing, 100)


def test_an_overflow_is_told_after_the_end(dsn: str, notifier: BlockingNotifier) -> None:
    """A stream that overflowed unseen tells of it, though the listener has been closed."""
    listener = BlockingListener(dsn)
    with listener:
        stream = listener.stream("orders", buffer=10, overflow="fail").__enter__()
        notifier.notify_many(numbers(100))
        with listener.stream("fence") as fence:
            notifier.notify("fence")
            fence.get(WAIT_LIMIT)
    assert taken(stream, 10) == [str(i) for i in range(10)]
    for _ in range(2):
        with pytest.raises(BufferOverflowError):
            stream.get(WAIT_LIMIT)


def test_only_the_newest(listener: BlockingListener, notifier: BlockingNotifier) -> None:
    """With latest, what is taken is the newest at that moment, also after waiting in vain."""
    with listener.stream("orders", "prices", latest=True) as stream:

        def send(channel: str, payload: str) -> None:
            """Return once it has arrived."""
            notifier.notify(channel, payload)
            with listener.stream("fence") as fence:
                notifier.notify("fence")
                fence.get(WAIT_LIMIT)

        for round_ in range(3):
            with pytest.raises(TimeoutError):
                stream.get(timeout=0.01)
            for channel in ("orders", "prices"):
                notifier.notify(channel, "old")
                send(channel, f"new {round_}")
            assert taken(stream, 1) == [f"new {round_}"]
            send("prices", f"newest {round_}")
            assert taken(stream, 1) == [f"newest {round_}"]


def test_a_stream_that_never_began_has_nothing_when_the_listener_is_closed(dsn: str) -> None:
    """It is no stream that has ended: who takes from it is told that the listener is closed."""
    with BlockingListener(dsn) as listener:
        stream = listener.stream("orders")
    with pytest.raises(ClosedError):
        stream.get(WAIT_LIMIT)
    assert stream.stats() is None
    assert repr(stream) == "<BlockingStream of 'orders' not begun>"


def test_end_streams_ends_it_after_what_it_has_buffered(
    listener: BlockingListener, notifier: BlockingNotifier, fence: Callable[[], None]
) -> None:
    """What has been fetched comes, too; then the stream has ended, and a new one begins as ever."""
    with listener.stream("orders") as stream:
        notifier.notify_many(numbers(2_500))
        assert stream.get(WAIT_LIMIT).payload == "0"
        fence()
        listener.end_streams()
        assert [n.payload for n in stream] == [str(i) for i in range(1, 2_500)]
    with listener.stream("orders") as stream:
        notifier.notify("orders", "later")
        assert taken(stream, 1) == ["later"]


def test_end_streams_in_a_signal_handler_ends_who_waits(listener: BlockingListener) -> None:
    """The handler runs in the main thread, which is in the middle of waiting."""

    def end(*_: object) -> None:
        listener.end_streams(also_new=True)

    previous = signal.signal(signal.SIGUSR1, end)
    main = threading.main_thread().ident or 0
    try:
        ringing = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGUSR1))
        ringing.start()
        assert list(listener.stream("orders")) == []
        ringing.join()
        assert list(listener.stream("orders")) == []
    finally:
        signal.signal(signal.SIGUSR1, previous)
