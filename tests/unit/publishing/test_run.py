from __future__ import annotations

import asyncio

import pytest

from asyncnotify import ClosedError, WrongLoopError
from asyncnotify._publishing.limits import PublishingLimits
from asyncnotify._publishing.run import PublishingRun
from tests.unit.fake_publishing import ANSWER_TIME, FakePublishingServer


async def test_it_sends_until_it_is_ended() -> None:
    """What was accepted before is sent, and the connection is closed."""
    server = FakePublishingServer()
    run = PublishingRun(server, PublishingLimits())
    assert run.owner.is_here
    sending = asyncio.gather(*(run.publisher.publish("orders", str(n)) for n in range(3)))
    await asyncio.sleep(0)
    assert run.is_unclosed
    await run.end(10)
    await sending
    assert server.payloads == ["0", "1", "2"]
    assert len(server.closed) == 1
    assert run.has_ended


async def test_a_run_that_has_ended_needs_no_warning() -> None:
    """Nor one that is closing."""
    run = PublishingRun(FakePublishingServer(), PublishingLimits())
    ending = asyncio.create_task(run.end(10))
    await asyncio.sleep(0)
    assert not run.is_unclosed
    await ending


async def test_it_ends_at_its_time() -> None:
    """However slow the server is; callers learn that nobody knows."""
    server = FakePublishingServer()
    server.answer_time = 4.0
    run = PublishingRun(server, PublishingLimits())
    sending = asyncio.ensure_future(run.publisher.publish("orders", "1"))
    await asyncio.sleep(ANSWER_TIME)
    began = asyncio.get_running_loop().time()
    await run.end(1.0)
    assert asyncio.get_running_loop().time() - began < 2
    assert run.has_ended
    assert isinstance(await asyncio.gather(sending, return_exceptions=True), list)
    assert sending.exception() is not None


async def test_cancelled_its_end_comes_at_once() -> None:
    """The task does not outlive it."""
    server = FakePublishingServer()
    server.answer_time = 4.0
    run = PublishingRun(server, PublishingLimits())
    sending = asyncio.ensure_future(run.publisher.publish("orders", "1"))
    await asyncio.sleep(ANSWER_TIME)
    ending = asyncio.create_task(run.end(100.0))
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.wait({ending, sending})
    assert ending.cancelled()
    assert run.has_ended


async def test_abandoned_it_sends_nothing_more() -> None:
    """Callers that wait get an error at once, without a turn of the loop."""
    server = FakePublishingServer()
    run = PublishingRun(server, PublishingLimits())
    sending = asyncio.ensure_future(run.publisher.publish("orders", "1"))
    run.abandon()
    with pytest.raises(ClosedError):
        await sending
    await asyncio.sleep(1)
    assert run.has_ended
    assert server.committed == []


def test_it_needs_an_event_loop() -> None:
    """The error is the one that each object of asyncnotify raises."""
    with pytest.raises(WrongLoopError):
        PublishingRun(FakePublishingServer(), PublishingLimits())
