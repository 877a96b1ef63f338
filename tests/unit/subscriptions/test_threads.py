from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify._subscriptions.threads import InThread, check_in_thread
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE = scaled(20.0)
NAME = "asyncnotify test thread"
REQUEST: ContextVar[str] = ContextVar("request", default="none")


def threads() -> list[threading.Thread]:
    """Return the threads of these tests that are alive."""
    return [thread for thread in threading.enumerate() if thread.name == NAME]


@pytest.fixture(autouse=True)
def _leaves_no_thread() -> Any:
    yield
    for thread in threads():
        thread.join(DEADLINE)
    assert threads() == []


def in_a_loop(function: Callable[[Any], object], *items: object) -> list[object]:
    """Call a function in threads, in a real event loop; return what each call raised, or None."""

    async def call() -> list[object]:
        called = InThread(function, name=NAME, limit=5)
        try:
            async with asyncio.timeout(DEADLINE):
                return list(await asyncio.gather(*map(called, items), return_exceptions=True))
        finally:
            called.dismiss()

    return asyncio.run(call())


def test_calls_at_once_have_a_thread_each() -> None:
    """One that blocks delays no other."""
    together = threading.Barrier(5)
    assert in_a_loop(lambda _: together.wait(DEADLINE), *range(5)) == [None] * 5


def test_calls_one_after_another_share_a_daemon_thread() -> None:
    """Which ends when it is dismissed; and a call after that has a new one."""
    used: list[threading.Thread] = []

    async def call() -> None:
        called = InThread(lambda _: used.append(threading.current_thread()), name=NAME, limit=1)
        for _ in range(3):
            await called(1)
        called.dismiss()
        await called(1)
        called.dismiss()

    asyncio.run(call())
    assert len(set(used)) == 2
    assert used[0] is used[2]
    assert all(thread.daemon for thread in used)


def test_each_call_sees_a_copy_of_its_callers_context() -> None:
    """What it sets is seen by nobody else."""
    seen: list[str] = []

    def handle(_: object) -> None:
        seen.append(REQUEST.get())
        REQUEST.set("a call's")

    async def call() -> str:
        REQUEST.set("the caller's")
        called = InThread(handle, name=NAME, limit=1)
        await called(1)
        await called(2)
        called.dismiss()
        return REQUEST.get()

    assert asyncio.run(call()) == "the caller's"
    assert seen == ["the caller's", "the caller's"]


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError(), GeneratorExit()])
def test_what_the_function_raises_is_raised(error: BaseException) -> None:
    """The thread goes on with the next call."""

    def fail(_: object) -> None:
        raise error

    raised = in_a_loop(fail, 1, 2)
    assert [type(each) for each in raised] == [type(error)] * 2


def test_what_is_raised_is_kept_alive_by_nothing() -> None:
    """Neither by the thread that waits for the next call, nor by a cycle with its traceback."""

    class Failed(Exception):  # noqa: N818 - of this test
        """Is raised, and noted."""

        def __init__(self) -> None:
            references.append(weakref.ref(self))

    references: list[weakref.ref[Failed]] = []

    def fail(_: object) -> None:
        raise Failed

    async def call() -> None:
        called = InThread(fail, name=NAME, limit=1)
        for _ in range(2):
            with pytest.raises(Failed):
                await called(1)
        called.dismiss()

    gc.disable()
    try:
        asyncio.run(call())
        assert references[0]() is None
    finally:
        gc.enable()


def test_a_cancelled_call_returns_at_once() -> None:
    """The function goes on by itself, and its thread ends with it."""
    release, begun = threading.Event(), threading.Event()

    def block(_: object) -> None:
        begun.set()
        release.wait(DEADLINE)

    async def call() -> None:
        called = InThread(block, name=NAME, limit=1)
        task = asyncio.create_task(called(1))
        await asyncio.to_thread(begun.wait, DEADLINE)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        called.dismiss()

    asyncio.run(call())
    assert len(threads()) == 1
    release.set()  # its loop is closed by now: the end of the call disturbs nobody


def test_what_has_to_be_awaited_is_refused() -> None:
    """When it is given, as far as that can be seen; else by an error of the call."""

    async def handle(_: object) -> None:
        """Be awaited."""

    with pytest.raises(TypeError, match="in_thread=True calls a plain function"):
        check_in_thread(handle)
    (error,) = in_a_loop(lambda item: handle(item), 1)  # noqa: PLW0108 - no name
    assert isinstance(error, TypeError)
    (error,) = in_a_loop(lambda _: Awaitable(), 1)
    assert isinstance(error, TypeError)


class Awaitable:
    """Something to be awaited that is no coroutine, and cannot be closed."""

    def __await__(self) -> Iterator[None]:
        yield
