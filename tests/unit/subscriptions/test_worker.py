from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING, Any, cast

import pytest

from asyncnotify._delivery.bounded import BoundedMailbox
from asyncnotify._delivery.registry import Subscriber
from asyncnotify._errors import BufferOverflowError
from asyncnotify._model import Gap, GapReason
from asyncnotify._subscriptions.subscription import Subscription
from asyncnotify._subscriptions.worker import HandlerWorker
from asyncnotify.testing.clock import VirtualTimeLoop
from tests.unit.fake_sources import RecordingSource
from tests.unit.worker_harness import failing, put

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from asyncnotify._model import Notification
    from asyncnotify._subscriptions.roster import Roster
    from tests.unit.worker_harness import WorkerHarness


def drive(coroutine: Coroutine[Any, Any, None]) -> None:
    """Step a coroutine as a task does, without the loop that would be torn by what it raises."""
    while True:
        coroutine.send(None)


# -- calling the handler --------------------------------------------------------------------------


async def test_the_handler_is_called_in_order_and_one_at_a_time(workers: WorkerHarness) -> None:
    """The next call begins when the last has ended."""

    async def handle(notification: Notification[str]) -> None:
        workers.handle(notification)
        await asyncio.sleep(10)

    put(workers.start(handle), 1, 2, 3)
    await asyncio.sleep(100)
    assert workers.handled == ["1", "2", "3"]
    assert workers.times == pytest.approx([0, 10, 20])


async def test_at_most_so_many_calls_run_at_once(workers: WorkerHarness) -> None:
    """concurrency=3: the fourth begins when one of the first three has ended."""

    async def handle(notification: Notification[str]) -> None:
        workers.handle(notification)
        await asyncio.sleep(10 if notification.payload == "2" else 30)

    put(workers.start(handle, concurrency=3), 1, 2, 3, 4, 5)
    await asyncio.sleep(100)
    assert workers.handled == ["1", "2", "3", "4", "5"]
    assert workers.times == pytest.approx([0, 0, 0, 10, 30])


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_what_waits_at_the_end_is_handled_unless_it_is_discarded(
    workers: WorkerHarness, concurrency: int
) -> None:
    """Ended in good order, the worker finishes what is there, and then itself."""

    async def handle(notification: Notification[str]) -> None:
        await asyncio.sleep(10)
        workers.handle(notification)

    for discard in (False, True):
        subscriber = workers.start(handle, concurrency=concurrency)
        put(subscriber, 1, 2, 3)
        subscriber.mailbox.end(discard=discard)
    await asyncio.wait(workers.tasks)
    assert sorted(workers.handled) == ["1", "2", "3"]


async def test_r26_a_handler_that_is_stuck_delays_no_other(workers: WorkerHarness) -> None:
    """Each subscription has a task of its own."""
    stuck, other = workers.start(lambda _: asyncio.sleep(1_000)), workers.start()
    put(stuck, 1)
    put(other, 1)
    await asyncio.sleep(1)
    assert workers.times == pytest.approx([0])


async def test_a_handler_that_never_awaits_lets_others_have_their_turn(
    workers: WorkerHarness,
) -> None:
    """After some milliseconds of calling it, other tasks that are ready run."""
    loop = workers.loop
    assert isinstance(loop, VirtualTimeLoop)
    subscriber = workers.start(lambda _: loop.spend(0.001))
    put(subscriber, *range(1_000))
    longest = 0.0
    while len(subscriber.mailbox):
        before = workers.now
        await asyncio.sleep(0)
        longest = max(longest, workers.now - before)
    assert 0 < longest < 0.1


async def test_a_plain_function_that_returns_an_awaitable_is_awaited(
    workers: WorkerHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a warning: decorators and wrappers of an async def are such functions."""

    async def handle(notification: Notification[str], count: int = 1) -> None:
        await asyncio.sleep(count)
        workers.handle(notification)

    @functools.wraps(handle)
    def decorated(notification: Notification[str]) -> Awaitable[None]:
        return handle(notification)

    class Wrapper:
        def __call__(self, notification: Notification[str]) -> Awaitable[None]:
            return handle(notification)

    handlers: list[Callable[[Notification[str]], Awaitable[None]]] = [
        functools.partial(handle, count=1),
        decorated,
        Wrapper(),
    ]
    for handler in handlers:
        put(workers.start(handler), 1, 2)
    await asyncio.sleep(10)
    assert workers.handled == ["1", "1", "1", "2", "2", "2"]
    assert caplog.records == []


async def test_a_task_that_a_plain_function_returns_is_awaited(
    workers: WorkerHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """And a warning says so, once: whoever starts tasks may not expect that."""

    async def handle(notification: Notification[str]) -> None:
        await asyncio.sleep(1)
        workers.handle(notification)

    put(workers.start(lambda n: asyncio.create_task(handle(n))), 1, 2)
    await asyncio.sleep(10)
    assert workers.handled == ["1", "2"]
    assert workers.times == [1, 2]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "returned a Task: it is awaited before the next call" in record.getMessage()


async def test_an_object_with_an_async_call_is_a_handler(
    workers: WorkerHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """It is awaited, and no warning is due."""

    class Handler:
        async def __call__(self, notification: Notification[str]) -> None:
            workers.handle(notification)

    put(workers.start(Handler()), 1)
    await asyncio.sleep(1)
    assert workers.handled == ["1"]
    assert not caplog.records


# -- errors of the handler ------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize(
    "error", [ValueError("no good"), asyncio.CancelledError(), GeneratorExit(), BaseException("x")]
)
async def test_r25_an_error_is_logged_counted_and_told_once(
    workers: WorkerHarness, caplog: pytest.LogCaptureFixture, error: BaseException, concurrency: int
) -> None:
    """With the channel and the traceback; the next notification is handled as ever."""
    fail = failing(1, error)

    async def handle(notification: Notification[str]) -> None:
        fail(notification)
        workers.handle(notification)

    subscriber = workers.start(handle, concurrency=concurrency)
    put(subscriber, 1, 2)
    await asyncio.sleep(1)
    assert workers.handled == ["2"]
    assert subscriber.stats().handler_errors == 1
    assert workers.errors == [(error, ("a", "1", 7))]
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage() == "the handler of 'a' raised; the next notification follows"
    assert record.exc_info
    assert record.exc_info[1] is error


async def test_r25_a_thousand_errors_are_a_thousand(workers: WorkerHarness) -> None:
    """Each is counted, and none is the last."""
    logging.getLogger("asyncnotify.handler").disabled = True
    subscriber = workers.start(failing(1_000))
    put(subscriber, *range(1_001))
    await asyncio.sleep(1)
    logging.getLogger("asyncnotify.handler").disabled = False
    stats = subscriber.stats()
    assert (stats.handler_errors, stats.delivered, len(workers.errors)) == (1_000, 1_001, 1_000)


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
async def test_r25_what_ends_the_process_passes(
    workers: WorkerHarness, fatal: type[BaseException]
) -> None:
    """KeyboardInterrupt and SystemExit are neither contained nor logged."""
    worker = HandlerWorker(
        subscriber := Subscriber(
            ["a"], BoundedMailbox(9, "fail", channel="a", source=RecordingSource())
        ),
        failing(1, fatal()),
        resync=None,
        on_error=workers.on_error,
        concurrency=1,
    )
    subscriber.begin()
    put(subscriber, 1)
    with pytest.raises(fatal):
        drive(worker.run())
    assert workers.errors == []


@pytest.mark.parametrize("error", [ValueError("second"), asyncio.CancelledError()])
@pytest.mark.parametrize("is_async", [False, True])
async def test_on_error_that_raises_is_logged_too(
    workers: WorkerHarness,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    *,
    is_async: bool,
) -> None:
    """It does as little harm as the handler."""

    def fail(_error: BaseException, _item: object) -> None:
        raise error

    async def fail_later(_error: BaseException, _item: object) -> None:
        await asyncio.sleep(1)
        raise error

    subscriber = workers.start(failing(1), on_error=fail_later if is_async else fail)
    put(subscriber, 1, 2)
    await asyncio.sleep(10)
    assert [record.getMessage() for record in caplog.records] == [
        "the handler of 'a' raised; the next notification follows",
        "on_error of 'a' raised",
    ]
    assert subscriber.stats().delivered == 2


async def test_a_call_that_begins_after_the_end_of_its_subscription_is_not_made(
    workers: WorkerHarness,
) -> None:
    """One of several at once has ended it, and those behind it had been given out already."""

    async def end(notification: Notification[str]) -> None:
        workers.handled.append(notification.payload)
        subscriber.mailbox.end(discard=True)

    subscriber = workers.start(end, concurrency=3)
    put(subscriber, 1, 2, 3)
    await asyncio.wait(workers.tasks)
    assert workers.handled == ["1"]


async def test_cancelling_the_worker_ends_it_in_the_midst_of_a_call(workers: WorkerHarness) -> None:
    """A cancellation from outside is no error of the handler."""
    put(workers.start(lambda _: asyncio.sleep(1_000)), 1)
    await asyncio.sleep(1)
    workers.tasks[0].cancel()
    await asyncio.wait(workers.tasks, timeout=1)
    assert workers.tasks[0].cancelled()
    assert workers.errors == []


async def test_cancelling_the_worker_is_not_counted_as_an_error(workers: WorkerHarness) -> None:
    """handler_errors says how many calls of the handler raised."""
    subscriber = workers.start(lambda _: asyncio.sleep(1_000))
    put(subscriber, 1)
    await asyncio.sleep(1)
    workers.tasks[0].cancel()
    await asyncio.wait(workers.tasks)
    assert subscriber.stats().handler_errors == 0


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_an_overflow_that_was_not_to_be_borne_ends_the_worker_and_is_told(
    workers: WorkerHarness, caplog: pytest.LogCaptureFixture, concurrency: int
) -> None:
    """overflow="fail": what fitted is handled, then on_error is called once; nothing raises."""
    subscriber = workers.start(overflow="fail", buffer=2, concurrency=concurrency)
    await asyncio.sleep(1)
    put(subscriber, 1, 2, 3, 4)
    await asyncio.wait(workers.tasks)
    assert workers.handled == ["1", "2"]
    ((error, gap),) = workers.errors
    assert isinstance(error, BufferOverflowError)
    assert (error.limit, error.dropped) == (2, 1)
    assert gap == Gap("a", GapReason.OVERFLOW, None, 1)
    assert "the subscription of 'a' has ended" in caplog.text
    await workers.tasks[0]


# -- the handle -----------------------------------------------------------------------------------


class Counter:
    """What a handle needs of the roster where subscriptions end: notes what it is asked."""

    is_of_other_process = False

    def __init__(self) -> None:
        self.asked: list[str] = []

    def detach(self, subscriber: Subscriber) -> None:
        """End it."""
        self.asked.append("detach")
        subscriber.mailbox.end(discard=True)

    async def settled(self) -> None:
        """Take a second to agree with the server."""
        self.asked.append("settled")
        await asyncio.sleep(1)


async def test_a_handle_cancels_its_subscription_and_waits_for_the_server() -> None:
    """It ends at once, and returns when the server has agreed; its repr says so."""
    box = BoundedMailbox(9, "fail", channel="a", source=RecordingSource())
    worker = HandlerWorker(Subscriber(["a"], box), print, resync=None, on_error=None, concurrency=1)
    roster = Counter()
    subscription = Subscription(cast("Roster", roster), "a", worker)
    assert (subscription.channel, subscription.active) == ("a", True)
    assert repr(subscription) == "<Subscription channel='a' active=True>"
    assert subscription.stats().channels == ("a",)
    await subscription.cancel()
    assert roster.asked == ["detach", "settled"]
    assert repr(subscription) == "<Subscription channel='a' active=False>"
    await subscription.cancel()
