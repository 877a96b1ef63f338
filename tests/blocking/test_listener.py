from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import (
    BlockingListener,
    Channel,
    ChannelNameError,
    Closed,
    ClosedError,
    ConfigurationError,
    Connected,
    ConnectionEvent,
    Gap,
    GapReason,
    Notification,
    NotStartedError,
    State,
    WrongLoopError,
)
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from asyncnotify import BlockingNotifier
    from tests.blocking.conftest import Inbox

    InThreads = Callable[[int, Callable[[int], object]], list[object]]

WAIT_LIMIT = scaled(20.0)
KILL = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'asyncnotify'
"""
ERRORS = (
    ValueError,
    asyncio.CancelledError,
    GeneratorExit,
    StopIteration,
    KeyboardInterrupt,
    SystemExit,
)


async def async_function(*_: object) -> None:
    """Be what only an event loop can call."""


class AsyncCallable:
    """Be what only an event loop can call."""

    async def __call__(self, *_: object) -> None:
        """Do nothing."""


# -- handlers -------------------------------------------------------------------------------------


def test_handlers_are_called_in_worker_threads_in_order(
    listener: BlockingListener, notifier: BlockingNotifier, inbox: Inbox
) -> None:
    """A handler gets all notifications, in order, in threads that are nobody else's."""
    threads: set[int] = set()

    def handle(n: Notification[str]) -> None:
        threads.add(threading.get_ident())
        inbox(n)

    subscription = listener.listen("orders", handle)
    assert (subscription.channel, subscription.active) == ("orders", True)
    assert notifier.notify_many(("orders", str(i)) for i in range(2000)) == 2000
    assert inbox.payloads(2000) == [str(i) for i in range(2000)]
    assert threading.get_ident() not in threads


def test_r26_handlers_that_block_delay_no_other(
    listener: BlockingListener, notifier: BlockingNotifier, inbox: Inbox, in_threads: InThreads
) -> None:
    """While 200 handlers block, each a thread, another subscription is served."""
    blocked, release = threading.Semaphore(0), threading.Event()

    def block(n: Notification[str]) -> None:
        blocked.release()
        release.wait(WAIT_LIMIT)

    in_threads(200, lambda _: listener.listen("slow", block))
    listener.listen("quick", inbox)
    notifier.notify("slow")
    try:
        for _ in range(200):
            assert blocked.acquire(timeout=WAIT_LIMIT)
        notifier.notify("quick", "1")
        assert inbox.payloads(1) == ["1"]
    finally:
        release.set()


def generates(item: Any) -> Iterator[Any]:
    """Have a body that a call does not run."""
    yield item


def test_r48_a_generator_that_a_function_returns_is_an_error(
    listener: BlockingListener, notifier: BlockingNotifier, inbox: Inbox
) -> None:
    """Of a handler and of resync, which has not succeeded then: nothing of their bodies has run."""

    def tell(error: BaseException, item: Notification[str] | Gap) -> None:
        inbox((type(error), type(item)))

    listener.listen("orders", lambda n: generates(n), on_error=tell)  # noqa: PLW0108 - hides what it is
    notifier.notify("orders")
    assert inbox.next() == (TypeError, Notification)
    listener.listen("stock", inbox, resync=lambda gap: generates(gap), on_error=tell)  # noqa: PLW0108 - as above
    assert [inbox.next(), inbox.next()] == [(TypeError, Gap)] * 2


@pytest.mark.parametrize("concurrency", [1, 3])
def test_concurrency_says_how_many_calls_run_at_once(
    listener: BlockingListener, notifier: BlockingNotifier, inbox: Inbox, concurrency: int
) -> None:
    """So many calls of one handler run at once as it says, and never more."""
    running, most = [0], [0]
    lock, together = threading.Lock(), threading.Barrier(concurrency)

    def handle(n: Notification[str]) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        together.wait(WAIT_LIMIT)
        with lock:
            running[0] -= 1
        inbox(n)

    listener.listen("orders", handle, concurrency=concurrency)
    notifier.notify_many(("orders", str(i)) for i in range(30))
    assert len(inbox.payloads(30)) == 30
    assert most == [concurrency]


@pytest.mark.parametrize("error", ERRORS)
def test_r25_what_a_handler_raises_concerns_nobody_else(
    listener: BlockingListener,
    new_inbox: type[Inbox],
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
) -> None:
    """It is logged with its own traceback, counted, handed to on_error; the handler goes on."""
    inbox, told = new_inbox(), new_inbox()

    def fail(n: Notification[str]) -> None:
        if n.payload == "bad":
            raise error
        inbox(n)

    subscription = listener.listen("orders", fail, on_error=told)
    listener.notify("orders", "bad")
    listener.notify("orders", "good")
    assert inbox.payloads(1) == ["good"]
    raised, item = told.next()
    (record,) = (r for r in caplog.records if r.levelno >= logging.ERROR)
    assert record.getMessage() == "the handler of 'orders' raised; the next notification follows"
    assert record.exc_info is not None
    assert record.exc_info[1] is raised
    assert isinstance(raised, BaseException)
    assert isinstance(raised, error) or isinstance(raised.__cause__, error)
    assert "in fail" in "".join(traceback.format_exception(raised))
    assert item.payload == "bad"
    assert subscription.stats().handler_errors == 1


@pytest.mark.parametrize(
    "function",
    [async_function, AsyncCallable(), functools.partial(async_function, 1)],
    ids=["async def", "object", "partial"],
)
def test_async_functions_are_refused(listener: BlockingListener, function: Any) -> None:
    """What would have to be awaited is refused at once, and the way out is named."""
    calls: list[Callable[[], object]] = [
        lambda: listener.listen("orders", function),
        lambda: listener.listen("orders", print, resync=function),
        lambda: listener.listen("orders", print, on_error=function),
        lambda: listener.on("orders")(function),
        lambda: listener.stream("orders", on_error=function),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="Listener"):
            call()
    assert listener.channels == frozenset()


def test_an_awaitable_that_a_handler_returns_is_an_error(
    listener: BlockingListener, notifier: BlockingNotifier, new_inbox: type[Inbox]
) -> None:
    """A coroutine that slipped through is closed and told of, and not forgotten silently."""
    told = new_inbox()

    def handle(n: Notification[str]) -> Awaitable[None]:
        return async_function(n)

    listener.listen("orders", handle, on_error=told)
    notifier.notify("orders")
    error, _ = told.next()
    assert isinstance(error, TypeError)


def test_what_is_no_function_is_refused(listener: BlockingListener) -> None:
    """A handler that cannot be called is refused by name."""
    wrong: Any
    for wrong in (None, 7):
        with pytest.raises(TypeError, match="handler must be callable"):
            listener.listen("orders", wrong)


def test_resync_comes_first_and_again_after_an_outage(
    dsn: str, notifier: BlockingNotifier, inbox: Inbox
) -> None:
    """Resync, in a worker thread, has been called before what follows the gap, also later."""
    events: list[ConnectionEvent] = []
    with BlockingListener(dsn, on_event=events.append) as listener:
        listener.listen("orders", inbox, resync=inbox)
        notifier.notify("orders", "1")
        first: Gap = inbox.next()
        assert first.reason is GapReason.START
        assert inbox.payloads(1) == ["1"]
        asyncio.run(execute(dsn, KILL))
        second: Gap = inbox.next()
        assert second.reason is GapReason.RECONNECT
        listener.notify("orders", "2")
        assert inbox.payloads(1) == ["2"]
        listener.wait_connected(timeout=WAIT_LIMIT)
        assert listener.stats().reconnects == 1
    assert isinstance(events[0], Connected)
    assert isinstance(events[-1], Closed)


async def execute(dsn: str, statement: str) -> None:
    """Execute a statement on a connection that is not ours."""
    import asyncpg  # noqa: PLC0415 - by this test alone

    connection = await asyncpg.connect(dsn, server_settings={"application_name": "tests"})
    await connection.execute(statement)
    await connection.close(timeout=5)


def test_on_registers_before_and_after_the_start(
    dsn: str, notifier: BlockingNotifier, inbox: Inbox
) -> None:
    """What on() has registered is served in every run, until it is unlistened."""
    listener = BlockingListener(dsn)
    assert listener.on("early")(inbox) is inbox
    for _ in range(2):
        with listener:
            assert "early" in listener.channels
            notifier.notify("early", "1")
            assert inbox.payloads(1) == ["1"]
            listener.on("late")(inbox)
    with listener:
        assert listener.channels == {"early", "late"}
        listener.unlisten("late")
        assert listener.channels == {"early"}
    listener.unlisten("early")
    assert listener.channels == frozenset()


def test_unlisten_and_cancel_end_handlers(
    listener: BlockingListener,
    notifier: BlockingNotifier,
    inbox: Inbox,
    new_inbox: type[Inbox],
    fence: Callable[[], None],
) -> None:
    """After cancel() and after unlisten() nothing reaches the handler any more."""
    kept = new_inbox()
    ended = listener.listen("orders", inbox)
    listener.listen("orders", kept)
    ended.cancel()
    ended.cancel()
    assert not ended.active
    notifier.notify("orders", "1")
    assert kept.payloads(1) == ["1"]
    listener.unlisten("orders")
    notifier.notify("orders", "2")
    fence()
    notifier.notify("orders", "3")
    listener.listen("orders", kept)
    notifier.notify("orders", "4")
    assert kept.payloads(1) == ["4"]
    assert ended.stats().delivered == 0


def test_typed_channels(
    listener: BlockingListener, notifier: BlockingNotifier, inbox: Inbox, new_inbox: type[Inbox]
) -> None:
    """A Channel codes for handlers, streams and notify(); what is not of its type is told."""
    orders, told = Channel("orders", dict), new_inbox()
    listener.listen(orders, inbox, on_error=told)
    with listener.stream(orders, on_error=told) as stream:
        listener.notify("orders", "no JSON")
        listener.notify(orders, {"id": 1})
        notifier.notify(orders, {"id": 2})
        assert inbox.payloads(2) == [{"id": 1}, {"id": 2}]
        assert stream.get(WAIT_LIMIT).payload == {"id": 1}
        assert next(stream).payload == {"id": 2}
        with pytest.raises(TimeoutError):
            stream.get(timeout=0)
    assert {told.next()[1].payload, told.next()[1].payload} == {"no JSON"}


# -- threads --------------------------------------------------------------------------------------


def test_any_number_of_threads_may_call(
    listener: BlockingListener, inbox: Inbox, in_threads: InThreads
) -> None:
    """200 threads listen, notify, stream and unlisten at once, and each gets what it sent."""

    def work(number: int) -> str:
        channel = f"channel {number % 50}"
        subscription = listener.listen(f"own {number}", inbox)
        with listener.stream(channel) as stream:
            listener.notify(channel, str(number))
            while (n := stream.get(WAIT_LIMIT)).payload != str(number):
                pass
        listener.notify(f"own {number}", str(number))
        assert listener.stats().state is State.CONNECTED
        if number % 2:
            subscription.cancel()
        else:
            listener.unlisten(f"own {number}")
        return n.payload

    assert in_threads(200, work) == [str(number) for number in range(200)]
    assert listener.channels == frozenset()


def test_threads_may_start_and_close_at_once(dsn: str, in_threads: InThreads) -> None:
    """Starting and closing from many threads ends in a listener that can be started."""
    listener = BlockingListener(dsn)

    def work(number: int) -> None:
        try:
            if number % 2:
                listener.start()
                listener.notify("orders")
            else:
                listener.close()
        except (ClosedError, NotStartedError):
            pass

    in_threads(40, work)
    listener.close()
    assert listener.state in {State.CLOSED, State.NEW}
    with listener:
        assert listener.is_connected


def test_a_handler_may_call_everything(
    listener: BlockingListener, notifier: BlockingNotifier, inbox: Inbox
) -> None:
    """A handler listens, notifies, streams, looks, and cancels its own subscription."""

    def handle(n: Notification[str]) -> None:
        listener.listen("found", inbox)
        listener.notify("found", "1")
        with listener.stream("other") as stream:
            listener.notify("other", "2")
            inbox(stream.get(WAIT_LIMIT))
        listener.health()
        subscription.cancel()
        listener.notify("found", str(subscription.active))

    subscription = listener.listen("orders", handle)
    notifier.notify("orders")
    assert sorted(inbox.payloads(3)) == ["1", "2", "False"]


def test_a_handler_may_close_the_listener(dsn: str, inbox: Inbox) -> None:
    """close() in a handler returns while that still runs, and the listener closes after it."""
    closed = threading.Event()

    def on_event(event: ConnectionEvent) -> None:
        if isinstance(event, Closed):
            closed.set()

    listener = BlockingListener(dsn, close_timeout=WAIT_LIMIT, on_event=on_event)

    def handle(n: Notification[str]) -> None:
        listener.close()
        inbox(n)

    with listener:
        listener.listen("orders", handle)
        began = time.monotonic()
        listener.notify("orders", "1")
        assert inbox.payloads(1) == ["1"]
        assert closed.wait(WAIT_LIMIT)
        assert time.monotonic() - began < WAIT_LIMIT / 2
    assert listener.state is State.CLOSED


def test_r35_the_loops_own_thread_is_told_so(dsn: str) -> None:
    """A call from on_event, which would wait for itself, raises; looking is allowed."""
    raised: list[type[Exception]] = []
    stats: list[object] = []

    def on_event(event: ConnectionEvent) -> None:
        calls: list[Callable[[], object]] = [
            lambda: listener.notify("orders"),
            listener.start,
            lambda: listener.stream("orders").get(1),
            lambda: listener.on("orders")(print),
        ]
        if isinstance(event, Connected):
            stats.extend([listener.stats(), listener.channels, listener.state])
            for call in calls:
                try:
                    call()
                except WrongLoopError as error:
                    raised.append(type(error))

    listener = BlockingListener(dsn, on_event=on_event)
    with listener:
        assert raised == [WrongLoopError] * 4
        assert len(stats) == 3


# -- lifetime -------------------------------------------------------------------------------------


def test_calls_need_a_running_listener(dsn: str, inbox: Inbox) -> None:
    """Before the start and after the end, calls say so; looking is always allowed."""
    listener = BlockingListener(dsn)
    calls: list[Callable[[], object]] = [
        lambda: listener.listen("orders", inbox),
        lambda: listener.notify("orders"),
        lambda: next(listener.stream("orders")),
        lambda: listener.stream("orders").__enter__(),
        listener.wait_connected,
        listener.health,
    ]
    listener.close()
    for call in calls:
        with pytest.raises(NotStartedError):
            call()
    assert str(listener.state) == "new"
    with listener:
        subscription = listener.listen("orders", inbox)
    for call in calls:
        with pytest.raises(ClosedError):
            call()
    listener.close()
    subscription.cancel()
    assert not subscription.active
    assert listener.state is State.CLOSED
    assert listener.stats().state is State.CLOSED
    assert "closed" in repr(listener)


def test_wait_closed_returns_when_another_thread_has_closed(
    dsn: str, in_threads: InThreads
) -> None:
    """For any number of waiting threads, and at once after that."""
    listener = BlockingListener(dsn)
    with pytest.raises(NotStartedError):
        listener.wait_closed()
    listener.start()
    with pytest.raises(TimeoutError, match="the listener is connected after 0 s, and not closed"):
        listener.wait_closed(0)
    in_threads(4, lambda n: listener.wait_closed(WAIT_LIMIT) if n else listener.close())
    listener.wait_closed()
    assert listener.state is State.CLOSED


def test_close_lets_handlers_finish(dsn: str, notifier: BlockingNotifier, inbox: Inbox) -> None:
    """What is buffered is handed over before close() returns; after an exception it is not."""
    handled: list[str] = []

    def handle(n: Notification[str]) -> None:
        if n.payload == "0":
            inbox(n)
            go.wait(WAIT_LIMIT)
        handled.append(n.payload)

    for failing, expected in ((False, 100), (True, 1)):
        go = threading.Event()
        handled.clear()
        with contextlib.suppress(LookupError), BlockingListener(dsn) as listener:
            listener.listen("orders", handle)
            notifier.notify_many(("orders", str(i)) for i in range(100))
            inbox.next()
            while listener.stats().received < 100:
                pass
            if not failing:
                threading.Timer(0.05, go.set).start()
            fail_if(failing)
        go.set()  # after an exception nobody has waited for the handler
        while len(handled) < expected:
            pass
        assert len(handled) == expected


def fail_if(failing: bool) -> None:  # noqa: FBT001 - a switch of the test's
    """Raise, if wanted."""
    if failing:
        raise LookupError


def test_what_cannot_be_right_is_refused_and_leaves_nothing(dsn: str) -> None:
    """A DSN that cannot be right is told of in the constructor, and no thread is left."""
    with pytest.raises(ConfigurationError):
        BlockingListener("postgresql://localhost/postgres?no_such_parameter=1&port=x")
    with pytest.raises(ChannelNameError):
        BlockingListener(dsn).stream("")
    with pytest.raises(TypeError, match="channel"):
        BlockingListener(dsn).stream()
    assert not [t for t in threading.enumerate() if t.name == "asyncnotify" and t.is_alive()]


def test_from_sqlalchemy(dsn: str, inbox: Inbox) -> None:
    """An engine says where to connect."""
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - by this test alone

    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    with BlockingListener.from_sqlalchemy(engine) as listener:
        listener.listen("orders", inbox)
        listener.notify("orders", "1")
        assert inbox.payloads(1) == ["1"]
    asyncio.run(engine.dispose())


def test_health_and_stats(listener: BlockingListener, inbox: Inbox) -> None:
    """health() and stats() tell of the connection and of the subscriptions."""
    listener.listen("orders", inbox)
    health = listener.health()
    assert health["state"] == "connected"
    assert health["server_error"] is None
    assert "queue_usage" not in listener.health(server=False)
    assert [s.channels for s in listener.stats().subscriptions] == [("orders",)]
    assert listener.is_connected
    assert "connected" in repr(listener)
