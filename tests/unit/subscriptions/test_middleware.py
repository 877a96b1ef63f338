from __future__ import annotations

import asyncio
import inspect
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify._model import GapReason, Notification
from asyncnotify._subscriptions.middleware import checked, with_outermost, without
from asyncnotify._subscriptions.threads import InThread
from asyncnotify.testing.clock import VirtualTimeLoop
from tests.unit.worker_harness import WorkerHarness, failing, put

if TYPE_CHECKING:
    from asyncnotify._model import Gap
    from asyncnotify._subscriptions.middleware import CallNext, Middleware

TENANT: ContextVar[str] = ContextVar("tenant", default="nobody's")


def naming(name: str, said: list[str]) -> Middleware:
    """Return a middleware that notes when it begins and ends."""

    async def middleware(notification: Notification[Any], call_next: CallNext) -> None:
        said.append(f"{name} {notification.payload}")
        await call_next(notification)
        said.append(f"{name} ends")

    return middleware


async def once(notification: Notification[Any], call_next: CallNext) -> None:
    """Call the handler."""
    await call_next(notification)


async def drained(workers: WorkerHarness) -> None:
    """Return when the workers have served what waits."""
    for worker in workers.workers:
        worker.subscriber.mailbox.end(discard=False)
    await asyncio.gather(*workers.tasks)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_the_first_is_the_outermost(concurrency: int) -> None:
    """Each is called with what the one before it gives to `call_next`; the handler comes last."""
    workers, said = WorkerHarness(), list[str]()
    subscriber = workers.start(
        lambda n: said.append(f"handler {n.payload}"),
        middleware=[naming("outer", said), naming("inner", said)],
        concurrency=concurrency,
    )
    put(subscriber, "x")
    await drained(workers)
    assert said == ["outer x", "inner x", "handler x", "inner ends", "outer ends"]


async def test_an_async_handler_has_returned_when_call_next_returns() -> None:
    """So the time between is the duration of the call."""
    workers, took = WorkerHarness(), list[float]()

    async def handler(_: Notification[str]) -> None:
        await asyncio.sleep(5)

    async def timing(notification: Notification[Any], call_next: CallNext) -> None:
        began = workers.now
        await call_next(notification)
        took.append(workers.now - began)

    put(workers.start(handler, middleware=[timing]), 1, 2)
    await drained(workers)
    assert took == [5, 5]


async def test_what_it_raises_counts_as_an_error_of_the_handler() -> None:
    """It is contained, counted, and given to `on_error`; the next notification follows."""
    workers, errors = WorkerHarness(), failing(1)

    async def raising(notification: Notification[Any], call_next: CallNext) -> None:
        errors(notification)
        await call_next(notification)

    subscriber = workers.start(middleware=[raising])
    put(subscriber, 1, 2)
    await drained(workers)
    assert workers.handled == ["2"]
    assert subscriber.stats().handler_errors == 1
    assert [(str(error), getattr(item, "payload", "")) for error, item in workers.errors] == [
        ("no good", "1")
    ]


async def test_it_sees_what_the_handler_raises_and_may_call_it_again() -> None:
    """A retry is a middleware; what succeeds in the end counts as no error."""
    workers, errors = WorkerHarness(), failing(2)

    def handler(notification: Notification[str]) -> None:
        errors(notification)
        workers.handle(notification)

    async def retrying(notification: Notification[Any], call_next: CallNext) -> None:
        for _ in range(2):
            try:
                await call_next(notification)
            except ValueError:
                continue
            return
        await call_next(notification)

    subscriber = workers.start(handler, middleware=[retrying])
    put(subscriber, "x")
    await drained(workers)
    assert (workers.handled, workers.errors) == (["x"], [])
    assert subscriber.stats().handler_errors == 0


async def test_it_may_leave_the_handler_out_or_give_it_something_else() -> None:
    """What reaches the handler is what a middleware calls it with."""
    workers = WorkerHarness()

    async def doubling(notification: Notification[Any], call_next: CallNext) -> None:
        if notification.payload != "not this":
            await call_next(notification._replace(payload=notification.payload * 2))

    put(workers.start(middleware=[doubling]), "a", "not this", "b")
    await drained(workers)
    assert workers.handled == ["aa", "bb"]


async def test_gaps_go_past_it() -> None:
    """`resync` is called as without middleware."""
    workers, said, gaps = WorkerHarness(), list[str](), list[GapReason]()

    def resync(gap: Gap) -> None:
        gaps.append(gap.reason)

    put(workers.start(resync=resync, middleware=[naming("m", said)]), "x")
    await drained(workers)
    assert (said, gaps) == (["m x", "m ends"], [GapReason.START])


async def test_context_variables_of_it_are_seen_by_the_handler_and_by_no_other_call() -> None:
    """Also where it does not take them back."""
    workers, seen = WorkerHarness(), list[str]()

    async def tenant(notification: Notification[Any], call_next: CallNext) -> None:
        if notification.payload == "first":
            TENANT.set("hers")
        await call_next(notification)

    put(workers.start(lambda _: seen.append(TENANT.get()), middleware=[tenant]), "first", "second")
    await drained(workers)
    assert seen == ["hers", "nobody's"]


async def test_the_threads_of_a_handler_end_with_the_subscription() -> None:
    """The worker finds them behind the middleware."""
    workers, dismissed = WorkerHarness(), list[bool]()

    class Threads(InThread):
        def dismiss(self) -> None:
            dismissed.append(True)

    workers.start(Threads(print, name="handler", limit=1), middleware=[once])
    await drained(workers)
    assert dismissed == [True]


async def test_a_plain_handler_that_blocks_is_named_also_within_middleware(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The time for which middleware waits is none in which the loop was blocked."""
    workers = WorkerHarness()

    async def waiting(notification: Notification[Any], call_next: CallNext) -> None:
        await asyncio.sleep(100)
        await call_next(notification)

    put(workers.start(middleware=[waiting], slow_after=50), *range(3))
    await drained(workers)
    assert "blocked" not in caplog.text

    def blocking(_: Notification[str]) -> None:
        assert isinstance(workers.loop, VirtualTimeLoop)
        workers.loop.spend(2)

    put(workers.start(blocking, middleware=[once], slow_after=50), 1)
    await drained(workers)
    assert "blocked the event loop for 2.0 s" in caplog.text


async def test_one_that_is_added_serves_the_handlers_there_are() -> None:
    """From the next time on that something waits for them."""
    workers, said = WorkerHarness(), list[str]()
    handled = asyncio.Event()
    subscriber = workers.start(lambda _: handled.set())
    put(subscriber, "before")
    await handled.wait()
    workers.workers[0].use([naming("m", said)])
    put(subscriber, "after")
    await drained(workers)
    assert said == ["m after", "m ends"]


async def test_without_middleware_the_handler_itself_is_called() -> None:
    """Nothing stands between: the frame that calls it is the worker's."""
    workers, callers = WorkerHarness(), list[str]()

    def handler(_: Notification[str]) -> None:
        frame = inspect.currentframe()
        assert frame is not None
        assert frame.f_back is not None
        callers.append(frame.f_back.f_code.co_name)

    put(workers.start(handler), 1)
    await drained(workers)
    assert callers == ["_serve_in_order"]


def test_adding_and_removing_make_new_lists() -> None:
    """The one added is outermost; one that is not there is removed without an error."""
    first, second = naming("first", []), naming("second", [])
    both = with_outermost(checked([first]), second)
    assert both == (second, first)
    assert without(both, second) == (first,)
    assert without((first,), second) == (first,)


@pytest.mark.parametrize("wrong", [5, "trace", once, None, [5], [print], [naming]])
def test_r48_what_is_no_list_of_middleware_is_refused(wrong: object) -> None:
    """When it is given, by an error that names it."""
    with pytest.raises(TypeError, match="middleware must be"):
        checked(wrong)
