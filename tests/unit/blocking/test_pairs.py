from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify._blocking.pairs import send_pairs
from asyncnotify._publishing.batching import BATCH_COUNT
from tests.unit.blocking.conftest import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from asyncnotify._blocking.portal import Portal


class UnreadableError(Exception):
    """What an iterable raises."""


async def count_all(pairs: AsyncIterator[Any]) -> int:
    """Take all, and return how many there were."""
    return len([pair async for pair in pairs])


def numbers(count: int, threads: set[int]) -> Iterator[int]:
    """Yield numbers; record in which threads."""
    for number in range(count):
        threads.add(threading.get_ident())
        yield number


@pytest.mark.parametrize("count", [0, 1, BATCH_COUNT, 2 * BATCH_COUNT + 1])
def test_all_pairs_arrive_in_order(portal: Portal, count: int) -> None:
    """However many portions they take; the result is what notify_many returns."""
    arrived: list[int] = []

    async def notify_many(pairs: AsyncIterator[Any]) -> int:
        arrived.extend([pair async for pair in pairs])
        return len(arrived)

    assert send_pairs(portal, notify_many, range(count)) == count
    assert arrived == list(range(count))


def test_iterating_happens_in_the_calling_thread(portal: Portal) -> None:
    """A cursor or a file of the caller's may be read from there alone."""
    threads: set[int] = set()
    assert send_pairs(portal, count_all, numbers(3 * BATCH_COUNT, threads)) == 3 * BATCH_COUNT
    assert threads == {threading.get_ident()}


def test_no_more_is_taken_than_is_asked_for(portal: Portal) -> None:
    """The first portion alone, if notify_many then fails; its error is the caller's."""
    taken: list[int] = []

    def pairs() -> Iterator[int]:
        for number in range(100 * BATCH_COUNT):
            taken.append(number)
            yield number

    async def fail(pairs: AsyncIterator[Any]) -> int:
        async for _ in pairs:
            raise UnreadableError
        return 0

    with pytest.raises(UnreadableError):
        send_pairs(portal, fail, pairs())
    assert len(taken) == BATCH_COUNT


def test_what_iterating_raises_comes_out_of_the_asynchronous_iterator(portal: Portal) -> None:
    """So that notify_many can note how many were sent before."""
    seen: list[type[BaseException]] = []

    def pairs() -> Iterator[int]:
        yield 1
        raise UnreadableError

    async def note(pairs: AsyncIterator[Any]) -> int:
        try:
            return await count_all(pairs)
        except UnreadableError as error:
            seen.append(type(error))
            raise

    with pytest.raises(UnreadableError):
        send_pairs(portal, note, pairs())
    assert seen == [UnreadableError]


def test_what_cannot_be_iterated_over_is_refused(portal: Portal) -> None:
    """Before anything is begun in the loop."""
    begun: list[object] = []

    async def notify_many(pairs: AsyncIterator[Any]) -> int:
        begun.append(pairs)
        return 0

    not_iterable: Any = 7
    with pytest.raises(TypeError):
        send_pairs(portal, notify_many, not_iterable)
    assert begun == []


def test_an_interrupt_cancels_what_runs_in_the_loop(portal: Portal) -> None:
    """Ctrl-C while the pairs are iterated over: nothing more is sent."""
    ended = threading.Event()

    def interrupted() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    async def notify_many(pairs: AsyncIterator[Any]) -> int:
        try:
            return await count_all(pairs)
        except asyncio.CancelledError:
            ended.set()
            raise

    with pytest.raises(KeyboardInterrupt):
        send_pairs(portal, notify_many, interrupted())
    assert ended.wait(TIMEOUT)


def test_an_answer_that_comes_too_late_disturbs_nobody(
    portal: Portal, caplog: pytest.LogCaptureFixture
) -> None:
    """Sending has failed while the thread was still iterating: that is what is raised."""
    failed = threading.Event()

    def slow() -> Iterator[int]:
        failed.wait(TIMEOUT)
        yield 1

    async def notify_many(pairs: AsyncIterator[Any]) -> int:
        asking = asyncio.ensure_future(anext(pairs))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking})
        failed.set()
        raise UnreadableError

    with pytest.raises(UnreadableError):
        send_pairs(portal, notify_many, slow())
    portal.call(lambda: asyncio.sleep(0))  # what was handed to the loop before has run
    assert caplog.records == []
