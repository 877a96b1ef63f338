from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest

from asyncnotify._model import Gap, GapReason
from tests.unit.worker_harness import LOST, failing, lose, put

if TYPE_CHECKING:
    from asyncnotify._model import Notification
    from tests.unit.worker_harness import WorkerHarness


async def test_resync_is_called_before_what_follows_the_gap(workers: WorkerHarness) -> None:
    """At the start and after a loss, while everything later waits for it to end."""
    order: list[object] = []

    async def resync(gap: Gap) -> None:
        await asyncio.sleep(10)
        order.append(gap.reason)

    subscriber = workers.start(lambda n: order.append(n.payload), resync=resync)
    put(subscriber, 1)
    lose(subscriber)
    put(subscriber, 2)
    await asyncio.sleep(100)
    assert order == [GapReason.START, "1", LOST, "2"]


async def test_resync_waits_for_the_calls_that_came_before_the_gap(workers: WorkerHarness) -> None:
    """Also with concurrency: what was received earlier has been handled."""
    order: list[object] = []

    async def handle(notification: Notification[str]) -> None:
        await asyncio.sleep(int(notification.payload))
        order.append(notification.payload)

    subscriber = workers.start(handle, resync=lambda gap: order.append(gap.reason), concurrency=9)
    put(subscriber, 30, 20)
    lose(subscriber)
    put(subscriber, 10)
    await asyncio.sleep(100)
    assert order == [GapReason.START, "20", "30", LOST, "10"]


async def test_resync_is_tried_again_with_growing_delays(
    workers: WorkerHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """At once it is not; the pauses have bounds that double up to 5 s; the handler waits."""
    tries: list[float] = []
    fail = failing(12)

    def resync(gap: Gap) -> None:
        tries.append(workers.now)
        fail(gap)

    subscriber = workers.start(resync=resync)
    put(subscriber, 1)
    await asyncio.sleep(1_000)
    assert len(tries) == 13
    bounds = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, *[5.0] * 6]
    pauses = [after - before for before, after in itertools.pairwise(tries)]
    assert all(pause <= bound + 1e-6 for pause, bound in zip(pauses, bounds, strict=True))
    assert len(set(pauses)) == 12
    assert sum(pauses[6:]) > 1.0
    assert workers.times == pytest.approx([tries[-1]])
    stats = subscriber.stats()
    assert (stats.resync_errors, stats.handler_errors, stats.gaps) == (12, 0, 1)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["resync of 'a' raised; the handler waits until it succeeds"] * 12
    assert {item for _, item in workers.errors} == {Gap("a", GapReason.START)}


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit()])
async def test_resync_may_raise_what_it_likes(workers: WorkerHarness, error: BaseException) -> None:
    """What looks like a cancellation, and is none, is tried again."""
    subscriber = workers.start(resync=failing(2, error))
    put(subscriber, 1)
    await asyncio.sleep(10)
    assert workers.handled == ["1"]
    assert subscriber.stats().resync_errors == 2


async def test_a_newer_gap_replaces_the_one_that_resync_failed_on(workers: WorkerHarness) -> None:
    """Losses that follow one another become one call, told of them all."""
    told: list[Gap] = []

    async def resync(gap: Gap) -> None:
        told.append(gap)
        await asyncio.sleep(10)
        if len(told) <= 2:
            raise OSError

    subscriber = workers.start(resync=resync)
    await asyncio.sleep(1)
    lose(subscriber)
    lose(subscriber)
    put(subscriber, 1)
    await asyncio.sleep(100)
    assert told == [Gap("a", GapReason.START)] * 3
    assert workers.handled == ["1"]
    assert subscriber.stats().gaps == 3


async def test_r46_a_newer_gap_does_not_overtake_what_came_before_its_loss(
    workers: WorkerHarness,
) -> None:
    """While resync fails a notification arrives and a loss follows: they keep their order."""
    order: list[object] = []
    fail = failing(2)

    def resync(gap: Gap) -> None:
        fail(gap)
        order.append(gap.reason)

    subscriber = workers.start(lambda n: order.append(n.payload), resync=resync)
    put(subscriber, "old")
    lose(subscriber)
    put(subscriber, "new")
    await asyncio.sleep(100)
    assert order == [GapReason.START, "old", LOST, "new"]


async def test_nothing_is_handled_when_the_end_comes_before_resync_has_succeeded(
    workers: WorkerHarness,
) -> None:
    """The worker ends at once, and throws away what waited."""

    def resync(_gap: Gap) -> None:
        raise OSError

    subscriber = workers.start(resync=resync)
    put(subscriber, 1)
    await asyncio.sleep(50)
    subscriber.mailbox.end(discard=False)
    before = workers.now
    await asyncio.wait(workers.tasks)
    assert workers.now == before
    assert (workers.handled, len(subscriber.mailbox)) == ([], 0)
    await workers.tasks[0]


async def test_without_resync_a_gap_is_passed_over(workers: WorkerHarness) -> None:
    """It is counted, and what follows is handled."""
    subscriber = workers.start()
    put(subscriber, 1)
    lose(subscriber)
    put(subscriber, 2)
    await asyncio.sleep(1)
    assert workers.handled == ["1", "2"]
    stats = subscriber.stats()
    assert (stats.delivered, stats.gaps, stats.backlog) == (2, 2, 0)


async def test_gaps_that_are_taken_as_one_are_not_counted_as_delivered(
    workers: WorkerHarness,
) -> None:
    """delivered says how many notifications were handed over."""
    subscriber = workers.start(resync=failing(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    lose(subscriber)
    lose(subscriber)
    put(subscriber, 1)
    await asyncio.sleep(10)
    assert workers.handled == ["1"]
    assert subscriber.stats().delivered == 1


async def test_resync_is_not_called_once_the_subscription_has_been_ended(
    workers: WorkerHarness,
) -> None:
    """Not even for a Gap that waited for calls of before to end."""
    gaps: list[Gap] = []
    subscriber = workers.start(lambda _: asyncio.sleep(10), resync=gaps.append, concurrency=3)
    put(subscriber, 1)
    await asyncio.sleep(1)
    lose(subscriber)
    await asyncio.sleep(1)
    subscriber.mailbox.end(discard=True)
    await asyncio.wait(workers.tasks)
    assert [gap.reason for gap in gaps] == [GapReason.START]
