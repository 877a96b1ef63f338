from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncnotify._subscriptions.slow import DEFAULT_SLOW_AFTER, SlowCalls, place_of
from asyncnotify.testing.clock import VirtualTimeLoop
from tests.unit.worker_harness import failing, lose, put

if TYPE_CHECKING:
    from asyncnotify._model import Gap, Notification
    from asyncnotify._subscriptions.worker import HandlerWorker
    from tests.unit.worker_harness import WorkerHarness

SLOW_AFTER = 10.0
FILE = Path(__file__).name


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings since the last look."""
    texts = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    caplog.clear()
    return texts


def spend(seconds: float) -> None:
    """Block the event loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.spend(seconds)


# -- what does not return -------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_handler_that_never_returns_is_named_once(
    workers: WorkerHarness, caplog: pytest.LogCaptureFixture, concurrency: int
) -> None:
    """After slow_after, by a warning that names the channel and the line at which it waits."""

    async def never_return(_: Notification[str]) -> None:
        await asyncio.Event().wait()

    put(workers.start(never_return, slow_after=SLOW_AFTER, concurrency=concurrency), 1, 2)
    await asyncio.sleep(SLOW_AFTER)
    assert warnings(caplog) == []
    await asyncio.sleep(SLOW_AFTER / 2)
    (text,) = warnings(caplog)
    line = never_return.__code__.co_firstlineno + 1
    place = f"(at {FILE}:{line}, in never_return)"
    assert text.startswith(f"the handler of 'a' has not returned for 10 s {place}: the not")
    await asyncio.sleep(1_000)
    assert warnings(caplog) == []


async def test_a_resync_that_never_returns_is_named(
    workers: WorkerHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """With what that means: the handler is not called."""

    async def never_return(_: Gap) -> None:
        await asyncio.Event().wait()

    workers.start(resync=never_return, slow_after=SLOW_AFTER)
    await asyncio.sleep(2 * SLOW_AFTER)
    (text,) = warnings(caplog)
    assert text.startswith("resync of 'a' has not returned for")
    assert "the handler is not called until it has" in text


async def test_a_resync_that_fails_again_and_again_is_not_slow(
    workers: WorkerHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither its attempts nor the delays between them are one call."""
    workers.start(resync=failing(100), slow_after=1.0)
    await asyncio.sleep(100)
    assert warnings(caplog) == []


async def test_on_error_that_never_returns_is_named(
    workers: WorkerHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """It holds the handler up as well."""

    async def never_return(_: BaseException, __: object) -> None:
        await asyncio.Event().wait()

    put(workers.start(failing(1), on_error=never_return, slow_after=SLOW_AFTER), 1)
    await asyncio.sleep(2 * SLOW_AFTER)
    (text,) = warnings(caplog)
    assert text.startswith("on_error of 'a' has not returned for")


@pytest.mark.parametrize("slow_after", [None, 100.0])
async def test_calls_that_return_in_time_are_not_named(
    workers: WorkerHarness, caplog: pytest.LogCaptureFixture, slow_after: float | None
) -> None:
    """However long all of them take together; None: no call is."""

    async def handle(_: Notification[str]) -> None:
        await asyncio.sleep(90)

    for concurrency in (1, 2):
        put(workers.start(handle, slow_after=slow_after, concurrency=concurrency), *range(10))
    await asyncio.sleep(10_000)
    assert [worker.subscriber.mailbox.taken for worker in workers.workers] == [11, 11]
    assert warnings(caplog) == []


async def test_slow_calls_of_one_subscription_fill_no_log(
    workers: WorkerHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning a minute at most; another subscription has its own."""

    async def handle(_: Notification[str]) -> None:
        await asyncio.sleep(2)

    one, other = (workers.start(handle, slow_after=1.0) for _ in range(2))
    put(one, *range(100))
    await asyncio.sleep(30)
    put(other, 1)
    await asyncio.sleep(10)
    assert len(warnings(caplog)) == 2
    await asyncio.sleep(200)
    assert 2 <= len(warnings(caplog)) <= 3


async def test_when_none_with_a_limit_is_left_nobody_looks(workers: WorkerHarness) -> None:
    """Those that are left may run as long as they like; the next one with a limit is watched."""
    workers.start(slow_after=DEFAULT_SLOW_AFTER)
    workers.workers.clear()  # as where its subscription has ended
    workers.start(slow_after=None)
    await asyncio.sleep(10 * DEFAULT_SLOW_AFTER)
    assert not workers.slow_calls.is_looking()
    workers.start(slow_after=DEFAULT_SLOW_AFTER)
    assert workers.slow_calls.is_looking()


async def test_there_is_no_timer_without_a_limit(workers: WorkerHarness) -> None:
    """Nor after the end; nothing is looked at then."""
    workers.start(slow_after=None)
    await asyncio.sleep(0)
    assert not workers.slow_calls.is_looking()
    workers.start(slow_after=DEFAULT_SLOW_AFTER)
    assert workers.slow_calls.is_looking()
    workers.slow_calls.stop()
    workers.start(slow_after=1.0)
    assert not workers.slow_calls.is_looking()


async def test_the_shortest_limit_counts(
    workers: WorkerHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever worker came first, each is looked at soon enough."""

    async def never_return(_: Notification[str]) -> None:
        await asyncio.Event().wait()

    for slow_after in (1_000.0, 10.0, 100.0):
        put(workers.start(never_return, slow_after=slow_after), 1)
    for seconds, count in ((13, 1), (112, 1), (1_125, 1)):
        await asyncio.sleep(seconds)
        assert len(warnings(caplog)) == count


async def test_idle_workers_are_not_looked_at(workers: WorkerHarness) -> None:
    """As long as none was busy, and none has been woken; so idling costs next to nothing."""
    looks: list[float] = []

    def all_workers() -> list[HandlerWorker]:
        looks.append(workers.now)
        return workers.workers

    workers.slow_calls.stop()
    woken = 0
    slow_calls = SlowCalls(workers.loop, all_workers, wakings=lambda: woken)
    workers.start(slow_after=None)
    workers.start(slow_after=4.0)
    slow_calls.add(workers.workers[-1])
    await asyncio.sleep(100)
    assert looks == [1]
    woken += 1
    await asyncio.sleep(100)
    assert looks == [1, 101]
    slow_calls.stop()


# -- what blocks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("quick", [0, 1, 2, 3, 100])
async def test_a_plain_function_that_blocks_the_loop_is_named(
    workers: WorkerHarness, caplog: pytest.LogCaptureFixture, concurrency: int, quick: int
) -> None:
    """After a second, whatever slow_after; however quick the calls before it were."""

    def handle(notification: Notification[str]) -> None:
        if notification.payload == "slow":
            spend(3.2)

    box = workers.start(handle, slow_after=DEFAULT_SLOW_AFTER, concurrency=concurrency)
    await asyncio.sleep(1)
    put(box, *range(quick), "slow")
    await asyncio.sleep(1)
    (text,) = warnings(caplog)
    assert text.startswith(
        "the handler of 'a' is a plain function, and blocked the event loop for 3.2 s"
    )
    assert "in_thread=True" in text
    put(box, "slow")
    await asyncio.sleep(1)
    assert warnings(caplog) == []
    await asyncio.sleep(60)
    put(box, "slow")
    await asyncio.sleep(1)
    assert len(warnings(caplog)) == 1


async def test_a_plain_resync_that_blocks_the_loop_is_named(
    workers: WorkerHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """So is one of which slow_after demands more."""
    workers.start(resync=lambda _: spend(0.5), slow_after=0.4)
    workers.start(resync=lambda _: spend(0.5), slow_after=10.0)
    await asyncio.sleep(1)
    (text,) = warnings(caplog)
    assert text.startswith("resync of 'a' is a plain function, and blocked the event loop for 0.5")


async def test_a_plain_on_error_that_blocks_the_loop_is_named(
    workers: WorkerHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """And the handler, which was quick, is not."""

    def on_error(_: BaseException, __: object) -> None:
        spend(2)

    box = workers.start(failing(1), on_error=on_error, slow_after=DEFAULT_SLOW_AFTER)
    put(box, 1, 2)
    await asyncio.sleep(1)
    (text,) = warnings(caplog)
    assert text.startswith("on_error of 'a' is a plain function, and blocked the event loop for 2")


async def test_nobody_is_named_for_what_others_do(
    workers: WorkerHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither before its turn, nor while it waits, is a handler that is quick taken for slow."""
    fails = failing(1)

    async def on_error(_: BaseException, __: object) -> None:
        await asyncio.sleep(5)

    async def wait(_: object) -> None:
        await asyncio.sleep(5)

    def quick(notification: Notification[str]) -> None:
        workers.handle(notification)
        fails(notification)

    box = workers.start(quick, on_error=on_error, resync=wait, slow_after=DEFAULT_SLOW_AFTER)
    waiting = workers.start(wait, slow_after=DEFAULT_SLOW_AFTER)
    await asyncio.sleep(10)
    asyncio.get_running_loop().call_soon(spend, 4)
    put(box, 1, 2)
    put(waiting, 1)
    asyncio.get_running_loop().call_soon(spend, 4)
    await asyncio.sleep(100)
    lose(box)
    put(box, 3)
    await asyncio.sleep(100)
    assert workers.handled == ["1", "2", "3"]
    assert warnings(caplog) == []


async def test_the_place_is_that_of_the_users_function() -> None:
    """Of the outermost of its functions: there the await stands that does not end."""

    async def inner() -> None:
        await asyncio.sleep(1_000)

    async def outer() -> None:
        await inner()

    task = asyncio.create_task(outer())
    await asyncio.sleep(1)
    assert place_of(task).endswith(", in outer)")
    assert place_of(None) == ""
    task.cancel()
    await asyncio.wait({task})
    assert place_of(task) == ""
