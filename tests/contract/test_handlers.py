"""Handlers: one at a time or several, and whatever they do, nothing else suffers."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import Gap, GapReason, Notification, State
from tests.contract.conftest import check_exit
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from asyncnotify import Listener
    from tests.contract.conftest import Database, Inbox, ListenerFactory

    Text = Inbox[Notification[str]]

ERRORS = (ValueError, asyncio.CancelledError, GeneratorExit, StopIteration, BaseException)
CASES = [(kind, error) for kind in ("async", "plain") for error in ERRORS]

RAISES = """
import asyncio, sys
import asyncpg
from asyncnotify import Listener
from asyncnotify.testing.fake import FakeServer

def connect():
    return asyncpg.connect(dsn, server_settings={"application_name": "asyncnotify"})

dsn, connects_by, error = sys.argv[1:]
if connects_by == "fake":
    fake = FakeServer()
    dsn = fake.dsn

async def fail(notification):
    raise {"SystemExit": SystemExit(7), "KeyboardInterrupt": KeyboardInterrupt()}[error]

async def main():
    async with Listener(connect=connect) if connects_by == "connect" else Listener(dsn) as listener:
        await listener.listen("orders", fail)
        await listener.notify("orders")
        await asyncio.sleep(10)  # what the handler raises ends it

asyncio.run(main())
"""


def errors_logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what asyncnotify has logged at ERROR or above."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.ERROR and record.name.startswith("asyncnotify")
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1].__name__}")
async def test_r25_what_a_handler_raises_concerns_nobody_else(
    listener: Listener,
    database: Database,
    inbox: Text,
    caplog: pytest.LogCaptureFixture,
    case: tuple[str, type[BaseException]],
) -> None:
    """It is logged once with its channel, counted, handed to on_error, and everything goes on."""
    kind, error = case
    told: list[tuple[BaseException, object]] = []
    raised: list[BaseException] = []

    def fail(notification: Notification[str]) -> None:
        inbox(notification)
        if notification.payload == "bad":
            raised.append(error("for a test"))
            raise raised[0]

    async def fail_later(notification: Notification[str]) -> None:
        await asyncio.sleep(0)
        fail(notification)

    def tell(problem: BaseException, item: object) -> None:
        told.append((problem, item))

    handler = fail if kind == "plain" else fail_later
    subscription = await listener.listen("orders", handler, on_error=tell)
    async with listener.stream("orders") as stream:
        await database.notify("orders", "bad", "good")
        assert await inbox.payloads(2) == ["bad", "good"]
        bad, good = await anext(stream), await anext(stream)
    assert (bad.payload, good.payload) == ("bad", "good")
    ((problem, item),) = told
    assert item == bad
    assert problem is raised[0] or problem.__cause__ is raised[0]
    (message,) = errors_logged(caplog)
    assert "'orders'" in message
    assert subscription.stats().handler_errors == listener.stats().handler_errors == 1
    assert subscription.active


async def test_r25_a_thousand_errors_are_a_thousand_counted(
    listener: Listener, database: Database
) -> None:
    """Nothing is lost or restarted, however often a handler raises."""
    failures = iter(range(1, 1_001))
    done = asyncio.Event()

    async def fail(_: Notification[str]) -> None:
        if next(failures) == 1_000:
            done.set()
        raise LookupError

    (before,) = await database.backends()
    await listener.listen("orders", fail)
    await database.flood("orders", 1_000)
    await done.wait()
    await database.fence(listener)
    assert listener.stats().handler_errors == 1_000
    assert listener.stats().reconnects == 0
    assert [backend["pid"] for backend in await database.backends()] == [before["pid"]]


async def test_r25_an_awaitable_from_a_plain_function_is_awaited(
    listener: Listener, database: Database, inbox: Text, caplog: pytest.LogCaptureFixture
) -> None:
    """A plain function around a coroutine works, one at a time, and needs no warning."""

    async def handle(notification: Notification[str]) -> None:
        await asyncio.sleep(0)
        inbox(notification)

    def begin(notification: Notification[str]) -> Awaitable[None]:
        return handle(notification)

    await listener.listen("orders", begin)
    await database.notify("orders", "1", "2", "3")
    assert await inbox.payloads(3) == ["1", "2", "3"]
    assert [r.getMessage() for r in caplog.records if r.name == "asyncnotify.handler"] == []


def generates(item: object) -> Iterator[object]:
    """Have a body that a call does not run."""
    yield item


async def generates_async(item: object) -> AsyncIterator[object]:
    """Have a body that a call does not run."""
    yield item


@pytest.mark.parametrize("options", [{}, {"concurrency": 2}, {"in_thread": True}])
@pytest.mark.parametrize("function", [generates, generates_async])
async def test_r48_a_generator_that_a_handler_returns_is_an_error(
    listener: Listener, function: Callable[[object], object], options: dict[str, Any]
) -> None:
    """Behind a wrapper, where no check at the beginning sees it: nothing of its body has run."""
    told: asyncio.Queue[BaseException] = asyncio.Queue()
    subscription = await listener.listen(
        "orders",
        lambda n: function(n),  # noqa: PLW0108 - what hides that it is a generator function
        on_error=lambda error, _: told.put_nowait(error),
        **options,
    )
    await listener.notify("orders")
    error = await asyncio.wait_for(told.get(), scaled(10))
    assert isinstance(error, TypeError)
    assert f"{function.__name__}(), of whose body nothing has run" in str(error)
    assert subscription.stats().handler_errors == 1


async def test_r48_a_resync_that_returns_a_generator_has_not_succeeded(listener: Listener) -> None:
    """It is called again, as one that raises is."""
    told: asyncio.Queue[BaseException] = asyncio.Queue()
    await listener.listen(
        "orders",
        lambda _: None,
        resync=lambda gap: generates(gap),  # noqa: PLW0108 - see above
        on_error=lambda error, _: told.put_nowait(error),
    )
    for _ in range(2):
        assert isinstance(await asyncio.wait_for(told.get(), scaled(10)), TypeError)


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_handler_that_cancels_its_own_task_goes_on(
    listener: Listener, database: Database, inbox: Text, concurrency: int
) -> None:
    """Cancelling the current task from a handler ends that call only."""

    async def handle(notification: Notification[str]) -> None:
        inbox(notification)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    subscription = await listener.listen("orders", handle, concurrency=concurrency)
    await database.notify("orders", "1", "2", "3")
    assert await inbox.payloads(3) == ["1", "2", "3"]
    assert subscription.active
    assert listener.stats().reconnects == 0


@pytest.mark.parametrize(
    ("error", "codes"),
    [("SystemExit", {7}), ("KeyboardInterrupt", {-signal.SIGINT, 128 + signal.SIGINT})],
)
def test_r25_exit_and_interrupt_end_the_program(
    factory: ListenerFactory, error: str, codes: set[int]
) -> None:
    """SystemExit and KeyboardInterrupt are not contained: they end the program."""
    check_exit(codes, RAISES, factory.dsn, factory.connected_by, error)


async def test_an_error_in_on_error_is_logged(
    listener: Listener, database: Database, inbox: Text, caplog: pytest.LogCaptureFixture
) -> None:
    """on_error may be async; if it raises itself, that is logged too, and all goes on."""

    def fail(notification: Notification[str]) -> None:
        inbox(notification)
        raise LookupError

    async def fail_again(problem: BaseException, item: object) -> None:
        await asyncio.sleep(0)
        raise OSError

    await listener.listen("orders", fail, on_error=fail_again)
    await database.notify("orders", "1", "2")
    assert await inbox.payloads(2) == ["1", "2"]
    await database.fence(listener)
    assert len(errors_logged(caplog)) == 4
    assert listener.stats().handler_errors == 2


async def test_r48_an_on_error_that_returns_a_generator_has_failed(
    listener: Listener, database: Database, inbox: Text, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of its body has run: that is logged, as what it raises is."""

    def fail(notification: Notification[str]) -> None:
        inbox(notification)
        raise LookupError

    await listener.listen("orders", fail, on_error=lambda _, item: generates(item))
    await database.notify("orders", "1")
    assert await inbox.payloads(1) == ["1"]
    await database.fence(listener)
    assert "on_error of 'orders' raised" in errors_logged(caplog)[-1]
    assert "generates(), of whose body nothing has run" in caplog.text


async def test_r26_a_stuck_handler_delays_nobody(
    listener: Listener, database: Database, new_inbox: type[Text]
) -> None:
    """While one handler never returns, others, also of its channel, get everything in order."""
    other, same, stuck = new_inbox(), new_inbox(), new_inbox()

    async def never_return(notification: Notification[str]) -> None:
        stuck(notification)
        await asyncio.Event().wait()

    await listener.listen("orders", never_return)
    await listener.listen("orders", same)
    await listener.listen("events", other)
    await database.notify("orders", "1", "2")
    await database.notify("events", "3", "4")
    assert await other.payloads(2) == ["3", "4"]
    assert await same.payloads(2) == ["1", "2"]
    assert await stuck.payloads(1) == ["1"]
    await listener.unlisten("orders")
    await database.notify("events", "5")
    assert await other.payloads(1) == ["5"]
    await listener.aclose(timeout=0.1)


class Lines(logging.Handler):
    """Keeps the lines of a logger, for a test that waits for one."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.queue.put_nowait(record.getMessage())


@pytest.mark.parametrize("registered", [False, True])
async def test_a_handler_that_never_returns_is_named(
    factory: ListenerFactory, *, registered: bool
) -> None:
    """By a warning, after slow_after, which tells the place; it goes on, and so do others."""

    async def never_return(_: Notification[str]) -> None:
        await asyncio.Event().wait()

    lines, logger = Lines(), logging.getLogger("asyncnotify.handler")
    logger.addHandler(lines)
    try:
        async with factory.listener(close_timeout=0.1) as listener:
            if registered:
                listener.on("orders", slow_after=0.05)(never_return)
            else:
                await listener.listen("orders", never_return, slow_after=0.05)
            await listener.notify("orders", "1")
            line = await lines.queue.get()
            assert re.match(r"the handler of 'orders' has not returned for [\d.]+ s", line)
            await listener.listen("events", print)
    finally:
        logger.removeHandler(lines)


@pytest.mark.load
async def test_a_handler_that_never_awaits_leaves_others_their_turn(
    listener: Listener, database: Database, inbox: Text
) -> None:
    """However much is buffered for a plain function, other handlers run in between."""
    counts: list[int] = []
    calls = 0

    def count(_: Notification[str]) -> None:
        nonlocal calls
        calls += 1

    async def look(_: Notification[str]) -> None:
        counts.append(calls)

    await listener.listen("orders", count)
    await listener.listen("looks", look)
    await listener.listen("end", inbox)
    async with database.transaction():
        await database.flood("orders", 200_000)
        await database.notify("looks", *map(str, range(10)))
        await database.notify("orders", "last")
        await database.flood("orders", 200_000, size=7)
        await database.notify("end", "")
    await inbox.next()
    assert counts
    assert counts[0] < 400_000


async def test_calls_come_one_at_a_time_in_order(
    listener: Listener, database: Database, inbox: Text
) -> None:
    """Unless asked otherwise, a handler is called again only when it has returned."""
    running = 0

    async def handle(notification: Notification[str]) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0)
        inbox(notification)
        running -= 1

    await listener.listen("orders", handle)
    await database.flood("orders", 200)
    assert await inbox.payloads(200) == [str(n) for n in range(1, 201)]
    assert listener.stats().handler_errors == 0


async def test_concurrency_bounds_how_many_calls_run(
    listener: Listener, database: Database, new_inbox: type[Text]
) -> None:
    """With concurrency=4 four calls run at once, never a fifth; the next begins when one ends."""
    begun, gates = new_inbox(), [asyncio.Event() for _ in range(10)]
    running = peak = 0

    async def handle(notification: Notification[str]) -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        begun(notification)
        await gates[int(notification.payload)].wait()
        running -= 1

    await listener.listen("orders", handle, concurrency=4)
    await database.notify("orders", *map(str, range(10)))
    assert await begun.payloads(4) == ["0", "1", "2", "3"]
    await database.fence(listener)
    assert len(begun) == 0
    gates[2].set()
    assert await begun.payloads(1) == ["4"]
    for gate in gates:
        gate.set()
    assert await begun.payloads(5) == ["5", "6", "7", "8", "9"]
    assert peak == 4


async def test_plain_functions_may_block_in_threads(
    listener: Listener, database: Database, new_inbox: type[Text]
) -> None:
    """With in_thread=True one delays neither the event loop nor another; the order is kept."""
    loop, other, resyncs = asyncio.get_running_loop(), new_inbox(), list[Gap]()
    begun, handled = new_inbox(), new_inbox()
    gate = threading.Event()

    def block(notification: Notification[str]) -> None:
        loop.call_soon_threadsafe(begun, notification)
        assert gate.wait(scaled(10))
        loop.call_soon_threadsafe(handled, notification)

    listener.on("orders", in_thread=True, resync=resyncs.append)(block)
    await listener.listen("events", other)
    await database.notify("orders", "1", "2", "3")
    assert await begun.payloads(1) == ["1"]
    await database.notify("events", "4")
    assert await other.payloads(1) == ["4"]
    assert len(begun) == 0
    gate.set()
    assert await handled.payloads(3) == ["1", "2", "3"]
    assert [gap.reason for gap in resyncs] == [GapReason.START]


async def test_r25_what_is_raised_in_a_thread_is_an_error_of_the_handler(
    listener: Listener, database: Database, inbox: Text, caplog: pytest.LogCaptureFixture
) -> None:
    """Logged, counted and passed to on_error, in the event loop; then the next one follows."""
    listener_loop = asyncio.get_running_loop()
    errors: list[tuple[type[BaseException], str]] = []

    def fail(notification: Notification[str]) -> None:
        raise LookupError(notification.payload)

    def on_error(error: BaseException, item: Notification[str] | Gap) -> None:
        assert asyncio.get_running_loop() is listener_loop
        assert isinstance(item, Notification)
        errors.append((type(error), str(error)))
        inbox(item)

    subscription = await listener.listen("orders", fail, in_thread=True, on_error=on_error)
    await database.notify("orders", "1", "2")
    assert await inbox.payloads(2) == ["1", "2"]
    assert errors == [(LookupError, "1"), (LookupError, "2")]
    assert (subscription.active, subscription.stats().handler_errors) == (True, 2)
    assert len(errors_logged(caplog)) == 2


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_r31_a_thread_that_blocks_does_not_keep_close_from_returning(
    factory: ListenerFactory, database: Database, inbox: Text, concurrency: int
) -> None:
    """The call is left to itself; no thread is left once it has returned."""
    loop, gate, ended = asyncio.get_running_loop(), threading.Event(), asyncio.Event()

    def block(notification: Notification[str]) -> None:
        loop.call_soon_threadsafe(inbox, notification)
        gate.wait(scaled(10))
        loop.call_soon_threadsafe(ended.set)

    async with factory.listener(close_timeout=0.1) as listener:
        await listener.listen("orders", block, in_thread=True, concurrency=concurrency)
        await database.notify("orders", *map(str, range(concurrency)))
        await inbox.payloads(concurrency)
    gate.set()
    await ended.wait()
    for thread in threading.enumerate():
        if thread.name.startswith("asyncnotify handler"):
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive()


async def test_a_handler_in_a_thread_may_close_the_listener(
    factory: ListenerFactory, database: Database
) -> None:
    """By the event loop, as any thread does: the call does not wait for the handler."""
    loop, closed = asyncio.get_running_loop(), asyncio.Event()
    listener = factory.listener(close_timeout=30)
    await listener.start()

    def close(_: Notification[str]) -> None:
        asyncio.run_coroutine_threadsafe(listener.aclose(), loop).result(scaled(10))
        loop.call_soon_threadsafe(closed.set)

    await listener.listen("orders", close, in_thread=True)
    await database.notify("orders", "1")
    async with asyncio.timeout(scaled(5)):
        await closed.wait()
    assert listener.state is State.CLOSED


async def test_concurrent_calls_fail_each_for_itself(
    listener: Listener, database: Database, inbox: Text
) -> None:
    """An error in one of several calls neither cancels the others nor ends the subscription."""
    gate = asyncio.Event()

    async def handle(notification: Notification[str]) -> None:
        if notification.payload == "bad":
            gate.set()
            raise LookupError
        await gate.wait()
        inbox(notification)

    subscription = await listener.listen("orders", handle, concurrency=3)
    await database.notify("orders", "1", "2", "bad", "3")
    assert sorted(await inbox.payloads(3)) == ["1", "2", "3"]
    assert (subscription.active, subscription.stats().handler_errors) == (True, 1)
