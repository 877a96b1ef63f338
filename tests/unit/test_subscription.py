from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from asyncnotify._bounded_mailbox import BoundedMailbox
from asyncnotify._errors import BufferOverflowError
from asyncnotify._model import Gap, GapReason, Notification
from asyncnotify._registry import Subscriber
from asyncnotify._subscription import HandlerWorker, Subscription
from tests.unit.clock import JumpingLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from asyncnotify._bounded_mailbox import Overflow

LOST = GapReason.RECONNECT


NOTHING: dict[str, Any] = {"known_good": lambda: None, "on_full": id}


def trim_at_once(box: BoundedMailbox) -> None:
    """Give the consumer no turn before an overflow is counted."""
    box.trim()


class Workshop:
    """A worker on a mailbox of its own, and what its handler saw, with the time."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.tasks: list[asyncio.Task[None]] = []
        self.handled: list[str] = []
        self.times: list[float] = []
        self.errors: list[tuple[BaseException, object]] = []

    @property
    def now(self) -> float:
        """Seconds since the test began."""
        return self.loop.time() - self.began

    def handle(self, notification: Notification[str]) -> None:
        """Note a notification: the handler."""
        self.handled.append(notification.payload)
        self.times.append(self.now)

    def on_error(self, error: BaseException, item: object) -> None:
        """Note an error."""
        self.errors.append((error, item))

    def employ(
        self,
        handler: Callable[[Notification[str]], Awaitable[object] | object] | None = None,
        *,
        resync: Callable[[Gap], Awaitable[object] | object] | None = None,
        on_error: Callable[[BaseException, object], Awaitable[object] | object] | None = None,
        concurrency: int = 1,
        buffer: int = 10_000,
        overflow: Overflow = "drop_oldest",
    ) -> Subscriber:
        """Let a worker run; return its subscriber, which has begun."""
        box = BoundedMailbox(
            buffer, overflow, channel="a", known_good=lambda: None, on_full=trim_at_once
        )
        subscriber = Subscriber(["a"], box)
        worker = HandlerWorker(
            subscriber,
            handler or self.handle,
            resync=resync,
            on_error=on_error or self.on_error,
            concurrency=concurrency,
        )
        self.tasks.append(asyncio.create_task(worker.run()))
        subscriber.begin()
        return subscriber


@pytest_asyncio.fixture
async def shop() -> AsyncIterator[Workshop]:
    """Workers, all of which have ended when the test has."""
    made = Workshop()
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


def put(subscriber: Subscriber, *payloads: object) -> None:
    """Let notifications arrive."""
    for payload in payloads:
        subscriber.mailbox.put(Notification("a", str(payload), 7))


def lose(subscriber: Subscriber) -> None:
    """Lose the connection, and have it back."""
    subscriber.interrupt(LOST, None)
    subscriber.begin()


def failing(count: int, error: BaseException | None = None) -> Callable[[object], None]:
    """Return a function that raises so many times."""
    left = [error or ValueError("no good")] * count

    def fail(_item: object) -> None:
        if left:
            raise left.pop()

    return fail


def drive(coroutine: Coroutine[Any, Any, None]) -> None:
    """Step a coroutine as a task does, without the loop that would be torn by what it raises."""
    while True:
        coroutine.send(None)


# -- calling the handler --------------------------------------------------------------------------


async def test_the_handler_is_called_in_order_and_one_at_a_time(shop: Workshop) -> None:
    """The next call begins when the last has ended."""

    async def handle(notification: Notification[str]) -> None:
        shop.handle(notification)
        await asyncio.sleep(10)

    put(shop.employ(handle), 1, 2, 3)
    await asyncio.sleep(100)
    assert shop.handled == ["1", "2", "3"]
    assert shop.times == pytest.approx([0, 10, 20])


async def test_at_most_so_many_calls_run_at_once(shop: Workshop) -> None:
    """concurrency=3: the fourth begins when one of the first three has ended."""

    async def handle(notification: Notification[str]) -> None:
        shop.handle(notification)
        await asyncio.sleep(10 if notification.payload == "2" else 30)

    put(shop.employ(handle, concurrency=3), 1, 2, 3, 4, 5)
    await asyncio.sleep(100)
    assert shop.handled == ["1", "2", "3", "4", "5"]
    assert shop.times == pytest.approx([0, 0, 0, 10, 30])


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_what_waits_at_the_end_is_handled_unless_it_is_discarded(
    shop: Workshop, concurrency: int
) -> None:
    """Ended in good order, the worker finishes what is there, and then itself."""

    async def handle(notification: Notification[str]) -> None:
        await asyncio.sleep(10)
        shop.handle(notification)

    for discard in (False, True):
        subscriber = shop.employ(handle, concurrency=concurrency)
        put(subscriber, 1, 2, 3)
        subscriber.mailbox.end(discard=discard)
    await asyncio.wait(shop.tasks)
    assert sorted(shop.handled) == ["1", "2", "3"]


async def test_r26_a_handler_that_is_stuck_delays_no_other(shop: Workshop) -> None:
    """Each subscription has a task of its own."""
    stuck, other = shop.employ(lambda _: asyncio.sleep(1_000)), shop.employ()
    put(stuck, 1)
    put(other, 1)
    await asyncio.sleep(1)
    assert shop.times == pytest.approx([0])


async def test_a_handler_that_never_awaits_lets_others_have_their_turn(shop: Workshop) -> None:
    """After some milliseconds of calling it, whoever else is ready runs."""
    loop = shop.loop
    assert isinstance(loop, JumpingLoop)
    subscriber = shop.employ(lambda _: loop.spend(0.001))
    put(subscriber, *range(1_000))
    longest = 0.0
    while len(subscriber.mailbox):
        before = shop.now
        await asyncio.sleep(0)
        longest = max(longest, shop.now - before)
    assert 0 < longest < 0.1


async def test_a_plain_function_that_returns_an_awaitable_is_awaited(
    shop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    """And told once, in a warning, that it should be an async def."""

    async def handle(notification: Notification[str]) -> None:
        shop.handle(notification)

    put(shop.employ(lambda notification: handle(notification)), 1, 2)  # noqa: PLW0108
    await asyncio.sleep(1)
    assert shop.handled == ["1", "2"]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "should be an async def" in record.getMessage()


async def test_an_object_with_an_async_call_is_a_handler(
    shop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    """It is awaited, and no warning is due."""

    class Handler:
        async def __call__(self, notification: Notification[str]) -> None:
            shop.handle(notification)

    put(shop.employ(Handler()), 1)
    await asyncio.sleep(1)
    assert shop.handled == ["1"]
    assert not caplog.records


# -- errors of the handler ------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize(
    "error", [ValueError("no good"), asyncio.CancelledError(), GeneratorExit(), BaseException("x")]
)
async def test_r25_an_error_is_logged_counted_and_told_once(
    shop: Workshop, caplog: pytest.LogCaptureFixture, error: BaseException, concurrency: int
) -> None:
    """With the channel and the traceback; the next notification is handled as ever."""
    fail = failing(1, error)

    async def handle(notification: Notification[str]) -> None:
        fail(notification)
        shop.handle(notification)

    subscriber = shop.employ(handle, concurrency=concurrency)
    put(subscriber, 1, 2)
    await asyncio.sleep(1)
    assert shop.handled == ["2"]
    assert subscriber.stats().handler_errors == 1
    assert shop.errors == [(error, ("a", "1", 7))]
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage() == "the handler of 'a' raised"
    assert record.exc_info
    assert record.exc_info[1] is error


async def test_r25_a_thousand_errors_are_a_thousand(shop: Workshop) -> None:
    """Each is counted, and none is the last."""
    logging.getLogger("asyncnotify.handler").disabled = True
    subscriber = shop.employ(failing(1_000))
    put(subscriber, *range(1_001))
    await asyncio.sleep(1)
    logging.getLogger("asyncnotify.handler").disabled = False
    stats = subscriber.stats()
    assert (stats.handler_errors, stats.delivered, len(shop.errors)) == (1_000, 1_001, 1_000)


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
async def test_r25_what_ends_the_process_passes(shop: Workshop, fatal: type[BaseException]) -> None:
    """KeyboardInterrupt and SystemExit are neither contained nor logged."""
    worker = HandlerWorker(
        subscriber := Subscriber(["a"], BoundedMailbox(9, "fail", channel="a", **NOTHING)),
        failing(1, fatal()),
        resync=None,
        on_error=shop.on_error,
        concurrency=1,
    )
    subscriber.begin()
    put(subscriber, 1)
    with pytest.raises(fatal):
        drive(worker.run())
    assert shop.errors == []


@pytest.mark.parametrize("error", [ValueError("second"), asyncio.CancelledError()])
@pytest.mark.parametrize("is_async", [False, True])
async def test_on_error_that_raises_is_logged_too(
    shop: Workshop, caplog: pytest.LogCaptureFixture, error: BaseException, *, is_async: bool
) -> None:
    """It does as little harm as the handler."""

    def fail(_error: BaseException, _item: object) -> None:
        raise error

    async def fail_later(_error: BaseException, _item: object) -> None:
        await asyncio.sleep(1)
        raise error

    subscriber = shop.employ(failing(1), on_error=fail_later if is_async else fail)
    put(subscriber, 1, 2)
    await asyncio.sleep(10)
    assert [record.getMessage() for record in caplog.records] == [
        "the handler of 'a' raised",
        "on_error of 'a' raised",
    ]
    assert subscriber.stats().delivered == 2


async def test_cancelling_the_worker_ends_it_in_the_midst_of_a_call(shop: Workshop) -> None:
    """A cancellation from outside is no error of the handler."""
    put(shop.employ(lambda _: asyncio.sleep(1_000)), 1)
    await asyncio.sleep(1)
    shop.tasks[0].cancel()
    await asyncio.wait(shop.tasks, timeout=1)
    assert shop.tasks[0].cancelled()
    assert shop.errors == []


async def test_cancelling_the_worker_is_not_counted_as_an_error(shop: Workshop) -> None:
    """handler_errors says how many calls of the handler raised."""
    subscriber = shop.employ(lambda _: asyncio.sleep(1_000))
    put(subscriber, 1)
    await asyncio.sleep(1)
    shop.tasks[0].cancel()
    await asyncio.wait(shop.tasks)
    assert subscriber.stats().handler_errors == 0


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_an_overflow_that_was_not_to_be_borne_ends_the_worker_and_is_told(
    shop: Workshop, caplog: pytest.LogCaptureFixture, concurrency: int
) -> None:
    """overflow="fail": what fitted is handled, then on_error hears of it, once; nothing raises."""
    subscriber = shop.employ(overflow="fail", buffer=2, concurrency=concurrency)
    await asyncio.sleep(1)
    put(subscriber, 1, 2, 3, 4)
    await asyncio.wait(shop.tasks)
    assert shop.handled == ["1", "2"]
    ((error, gap),) = shop.errors
    assert isinstance(error, BufferOverflowError)
    assert (error.limit, error.dropped) == (2, 1)
    assert gap == Gap("a", GapReason.OVERFLOW, None, 1)
    assert "the subscription of 'a' has ended" in caplog.text
    await shop.tasks[0]


# -- resync ---------------------------------------------------------------------------------------


async def test_resync_is_called_before_what_follows_the_gap(shop: Workshop) -> None:
    """At the start and after a loss, while everything later waits for it to end."""
    order: list[object] = []

    async def resync(gap: Gap) -> None:
        await asyncio.sleep(10)
        order.append(gap.reason)

    subscriber = shop.employ(lambda n: order.append(n.payload), resync=resync)
    put(subscriber, 1)
    lose(subscriber)
    put(subscriber, 2)
    await asyncio.sleep(100)
    assert order == [GapReason.START, "1", LOST, "2"]


async def test_resync_waits_for_the_calls_that_came_before_the_gap(shop: Workshop) -> None:
    """Also with concurrency: what was received earlier has been handled."""
    order: list[object] = []

    async def handle(notification: Notification[str]) -> None:
        await asyncio.sleep(int(notification.payload))
        order.append(notification.payload)

    subscriber = shop.employ(handle, resync=lambda gap: order.append(gap.reason), concurrency=9)
    put(subscriber, 30, 20)
    lose(subscriber)
    put(subscriber, 10)
    await asyncio.sleep(100)
    assert order == [GapReason.START, "20", "30", LOST, "10"]


async def test_resync_is_tried_again_with_growing_delays(
    shop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    """At once it is not; the pauses have bounds that double up to 5 s; the handler waits."""
    tries: list[float] = []
    fail = failing(12)

    def resync(gap: Gap) -> None:
        tries.append(shop.now)
        fail(gap)

    subscriber = shop.employ(resync=resync)
    put(subscriber, 1)
    await asyncio.sleep(1_000)
    assert len(tries) == 13
    bounds = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, *[5.0] * 6]
    pauses = [after - before for before, after in itertools.pairwise(tries)]
    assert all(pause <= bound + 1e-6 for pause, bound in zip(pauses, bounds, strict=True))
    assert len(set(pauses)) == 12
    assert sum(pauses[6:]) > 1.0
    assert shop.times == pytest.approx([tries[-1]])
    stats = subscriber.stats()
    assert (stats.resync_errors, stats.handler_errors, stats.gaps) == (12, 0, 1)
    assert [record.getMessage() for record in caplog.records] == ["resync of 'a' raised"] * 12
    assert {item for _, item in shop.errors} == {Gap("a", GapReason.START)}


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit()])
async def test_resync_may_raise_what_it_likes(shop: Workshop, error: BaseException) -> None:
    """What looks like a cancellation, and is none, is tried again."""
    subscriber = shop.employ(resync=failing(2, error))
    put(subscriber, 1)
    await asyncio.sleep(10)
    assert shop.handled == ["1"]
    assert subscriber.stats().resync_errors == 2


async def test_a_newer_gap_replaces_the_one_that_resync_failed_on(shop: Workshop) -> None:
    """It is told of both, as one; what came before the newer gap is handled after it."""
    told: list[Gap] = []

    async def resync(gap: Gap) -> None:
        told.append(gap)
        await asyncio.sleep(10)
        if len(told) <= 2:
            raise OSError

    subscriber = shop.employ(resync=resync)
    put(subscriber, 1)
    await asyncio.sleep(1)
    lose(subscriber)
    put(subscriber, 2)
    lose(subscriber)
    await asyncio.sleep(100)
    assert told == [Gap("a", GapReason.START)] * 3
    assert shop.handled == ["1", "2"]
    assert subscriber.stats().gaps == 3


async def test_nothing_is_handled_when_the_end_comes_before_resync_has_succeeded(
    shop: Workshop,
) -> None:
    """The worker ends at once, and throws away what waited."""

    def resync(_gap: Gap) -> None:
        raise OSError

    subscriber = shop.employ(resync=resync)
    put(subscriber, 1)
    await asyncio.sleep(50)
    subscriber.mailbox.end(discard=False)
    before = shop.now
    await asyncio.wait(shop.tasks)
    assert shop.now == before
    assert (shop.handled, len(subscriber.mailbox)) == ([], 0)
    await shop.tasks[0]


async def test_without_resync_a_gap_is_passed_over(shop: Workshop) -> None:
    """It is counted, and what follows is handled."""
    subscriber = shop.employ()
    put(subscriber, 1)
    lose(subscriber)
    put(subscriber, 2)
    await asyncio.sleep(1)
    assert shop.handled == ["1", "2"]
    stats = subscriber.stats()
    assert (stats.delivered, stats.gaps, stats.backlog) == (2, 2, 0)


async def test_gaps_that_are_taken_as_one_are_not_counted_as_delivered(shop: Workshop) -> None:
    """delivered says how many notifications were handed over."""
    subscriber = shop.employ(resync=failing(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    lose(subscriber)
    lose(subscriber)
    put(subscriber, 1)
    await asyncio.sleep(10)
    assert shop.handled == ["1"]
    assert subscriber.stats().delivered == 1


# -- the handle -----------------------------------------------------------------------------------


class Counter:
    """Where the handle's subscription ends: notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def attach(self, subscriber: Subscriber, timeout: float | None) -> None:
        """Never called by a handle."""
        raise NotImplementedError

    def detach(self, subscriber: Subscriber) -> None:
        """End it."""
        self.asked.append("detach")
        subscriber.mailbox.end(discard=True)

    async def settled(self) -> None:
        """Take a second to agree with the server."""
        self.asked.append("settled")
        await asyncio.sleep(1)

    def check_place(self) -> None:
        """Never called by a handle."""
        raise NotImplementedError

    def forget_soon(self, subscriber: Subscriber) -> None:
        """Never called by a handle."""
        raise NotImplementedError


async def test_a_handle_cancels_its_subscription_and_waits_for_the_server() -> None:
    """It ends at once, and returns when the server has agreed; its repr says so."""
    box = BoundedMailbox(9, "fail", channel="a", **NOTHING)
    worker = HandlerWorker(Subscriber(["a"], box), print, resync=None, on_error=None, concurrency=1)
    desk = Counter()
    subscription = Subscription(desk, "a", worker)
    assert (subscription.channel, subscription.active) == ("a", True)
    assert repr(subscription) == "<Subscription channel='a' active=True>"
    assert subscription.stats().channels == ("a",)
    await subscription.cancel()
    assert desk.asked == ["detach", "settled"]
    assert repr(subscription) == "<Subscription channel='a' active=False>"
    await subscription.cancel()
