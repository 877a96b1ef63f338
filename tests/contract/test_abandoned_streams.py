"""A stream that nobody iterates any more ends at once, whoever keeps exceptions and tasks of it."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import pytest_asyncio

from asyncnotify import BlockingListener, BufferOverflowError, Channel, Gap, Notification

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from asyncnotify import Listener
    from tests.contract.conftest import Database

    Iterate = Callable[[Listener], Coroutine[Any, Any, None]]

CLIENTS = 50


@pytest.fixture(autouse=True)
def _without_the_collector() -> Iterator[None]:
    """Let nothing be found by the garbage collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.collect()


@pytest_asyncio.fixture
async def kept() -> AsyncIterator[list[BaseException]]:
    """Exceptions that somebody keeps, with their tracebacks."""
    kept: list[BaseException] = []
    yield kept
    kept.clear()


async def nothing_is_left(listener: Listener) -> bool:
    """Return whether no subscription is left, once the loop has had its turns."""
    for _ in range(5):
        await asyncio.sleep(0)
    return listener.stats().subscriptions == ()


async def waiting(listener: Listener) -> None:
    """Return once LISTEN is in force, and whoever iterates waits for the next item."""
    for _ in range(3):
        await listener.unlisten("to be sure that no command is under way")


async def one_by_one(listener: Listener) -> None:
    """Iterate a stream."""
    async for _ in listener.stream("orders"):
        pass


async def in_lists(listener: Listener) -> None:
    """Iterate the lists of a stream."""
    async for _ in listener.stream("orders").batches():
        pass


async def decoded(listener: Listener) -> None:
    """Iterate a stream whose payloads are decoded."""
    async for _ in listener.stream(Channel("orders", int), gaps=True):
        pass


async def a_single_step(listener: Listener) -> None:
    """Take a single step of a stream that nothing else refers to."""
    await anext(listener.stream("orders"))


async def through_a_generator(listener: Listener) -> None:
    """Iterate a generator that iterates a stream."""

    async def payloads() -> AsyncIterator[str]:
        async for notification in listener.stream("orders"):
            yield notification.payload

    async for _ in payloads():
        pass


ways = pytest.mark.parametrize(
    "iterate", [one_by_one, in_lists, decoded, a_single_step, through_a_generator]
)


async def waiting_tasks(
    listener: Listener, iterate: Callable[[], Coroutine[Any, Any, None]]
) -> list[asyncio.Task[None]]:
    """Return tasks that wait for the next item of a stream each, its Gap taken."""
    tasks = [asyncio.create_task(iterate()) for _ in range(CLIENTS)]
    await waiting(listener)
    assert len(listener.stats().subscriptions) == CLIENTS
    return tasks


@ways
async def test_r49_a_kept_exception_keeps_no_stream(
    listener: Listener, iterate: Iterate, kept: list[BaseException]
) -> None:
    """Whoever keeps what a cancelled iteration raised, and its traceback, keeps no subscription."""

    async def keep_what_it_raises() -> None:
        try:
            await iterate(listener)
        except BaseException as error:
            kept.append(error)
            raise

    tasks = await waiting_tasks(listener, keep_what_it_raises)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert len(kept) == CLIENTS
    assert await nothing_is_left(listener)


@ways
async def test_r49_a_kept_task_keeps_no_stream(listener: Listener, iterate: Iterate) -> None:
    """A task that was cancelled, and is kept by somebody, keeps no subscription."""
    tasks = await waiting_tasks(listener, lambda: iterate(listener))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert await nothing_is_left(listener)
    assert all(task.cancelled() for task in tasks)


@ways
async def test_r49_a_cancelled_scope_keeps_no_stream(
    listener: Listener, iterate: Iterate, kept: list[BaseException]
) -> None:
    """A cancel scope of anyio's that ends an iteration, and is kept, keeps no subscription."""
    scopes: list[anyio.CancelScope] = []

    async def within_a_scope() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            async with anyio.create_task_group() as group:
                group.start_soon(iterate, listener)

    tasks = await waiting_tasks(listener, within_a_scope)
    for scope in scopes:
        scope.cancel()
    await asyncio.wait(tasks)
    assert await nothing_is_left(listener)


@ways
async def test_r49_an_error_beside_it_keeps_no_stream(
    listener: Listener, iterate: Iterate, kept: list[BaseException]
) -> None:
    """Where a task group fails beside an iteration, its kept exception keeps no subscription."""
    fail = asyncio.Event()

    async def in_a_group() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(iterate(listener))
                await fail.wait()
                raise LookupError
        except ExceptionGroup as errors:
            kept.append(errors)

    tasks = await waiting_tasks(listener, in_a_group)
    fail.set()
    await asyncio.wait(tasks)
    assert len(kept) == CLIENTS
    assert await nothing_is_left(listener)


async def test_r49_a_kept_decode_error_keeps_no_stream(
    listener: Listener, database: Database, kept: list[BaseException]
) -> None:
    """Whoever collects what ``on_error`` is given keeps no subscription."""
    orders = Channel("orders", int)

    def keep(error: BaseException, _: Notification[Any] | Gap) -> None:
        kept.append(error)

    async def first_of_one() -> None:
        async for _ in listener.stream(orders, on_error=keep):
            return

    async def first_list() -> None:
        async for _ in listener.stream(orders, on_error=keep).batches():
            return

    tasks = [asyncio.ensure_future(first()) for first in (first_of_one, first_list)]
    await waiting(listener)
    await database.notify("orders", "no number")
    await database.fence(listener)
    await database.notify("orders", "1", "2")
    await asyncio.gather(*tasks)
    assert len(kept) == 2
    assert await nothing_is_left(listener)


@pytest.mark.parametrize("as_lists", [False, True])
async def test_r49_a_decode_error_that_nobody_keeps_is_gone(
    listener: Listener, database: Database, caplog: pytest.LogCaptureFixture, *, as_lists: bool
) -> None:
    """It is part of no cycle: its memory does not wait for the garbage collector either."""
    caplog.set_level(logging.CRITICAL, "asyncnotify.handler")  # what is logged, pytest keeps
    seen: list[weakref.ref[BaseException]] = []

    def look_at(error: BaseException, _: Notification[Any] | Gap) -> None:
        seen.append(weakref.ref(error))

    stream = listener.stream(Channel("orders", int), on_error=look_at)
    async with stream:
        await database.notify("orders", "no number", "1")
        await database.fence(listener)
        if as_lists:
            assert [n.payload for n in await anext(stream.batches(1))] == [1]
        else:
            assert (await anext(stream)).payload == 1
    assert [error() for error in seen] == [None]


async def test_r49_a_kept_overflow_keeps_no_stream(
    listener: Listener, database: Database, kept: list[BaseException]
) -> None:
    """Each caller of a stream that has overflowed gets an error of its own; none keeps it."""
    stream = await listener.stream("orders", overflow="fail", buffer=1).__aenter__()
    await database.flood("orders", 100)
    await database.fence(listener)
    for _ in range(2):
        with pytest.raises(BufferOverflowError) as raised:
            async for _ in stream:
                pass
        kept.append(raised.value)
    assert kept[0] is not kept[1]
    of_the_stream = weakref.ref(stream)
    del stream
    assert of_the_stream() is None
    assert await nothing_is_left(listener)


async def test_r49_a_stream_that_is_still_used_goes_on(
    listener: Listener, database: Database
) -> None:
    """A wait that is cancelled in a task that ends takes nothing from whoever goes on."""
    stream = listener.stream("orders")
    for n in range(3):
        step = asyncio.ensure_future(anext(stream))
        await waiting(listener)
        step.cancel()
        await asyncio.wait({step})
        await database.notify("orders", str(n))
        assert (await anext(stream)).payload == str(n)
    with anyio.move_on_after(0):
        await anext(stream)
    await database.notify("orders", "last")
    async for notification in stream:
        assert notification.payload == "last"
        break
    await stream.aclose()


def test_r49_a_kept_exception_of_a_thread_keeps_no_stream(dsn: str) -> None:
    """What a blocking stream raises when nothing comes in time keeps no subscription."""
    kept: list[BaseException] = []
    with BlockingListener(dsn) as listener:
        for timeout in (0, 0.001):
            stream = listener.stream("orders", gaps=True)
            assert isinstance(stream.get(), Gap)
            with pytest.raises(TimeoutError) as raised:
                stream.get(timeout)
            kept.append(raised.value)
            del stream
        listener.unlisten("to be sure that the loop has had its turns")
        assert listener.stats().subscriptions == ()
