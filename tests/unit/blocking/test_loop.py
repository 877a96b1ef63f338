from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from asyncnotify._blocking.loop import LoopThread, attach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TIMEOUT = 20.0


class User:
    """Notes what becomes of the loop."""

    def __init__(self) -> None:
        self.thread: LoopThread | None = None
        self.runs, self.ended = threading.Event(), threading.Event()
        self.loops: list[asyncio.AbstractEventLoop] = []
        self.failure: BaseException | None = None

    def loop_runs(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note it."""
        self.loops.append(loop)
        self.runs.set()

    def loop_ended(self, failure: BaseException | None) -> None:
        """Note it."""
        self.failure = failure
        self.ended.set()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, which runs soon."""
        assert self.runs.wait(TIMEOUT)
        return self.loops[0]

    def leave(self) -> None:
        """Leave the loop."""
        left = threading.Event()

        def detach() -> None:
            assert self.thread is not None
            self.thread.detach(self)
            left.set()

        self.loop.call_soon_threadsafe(detach)
        assert left.wait(TIMEOUT)


def attached() -> User:
    """Return a new user of the loop."""
    user = User()
    attach(user)
    return user


@pytest.fixture(autouse=True)
def _leaves_no_thread() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == "asyncnotify":
            thread.join(TIMEOUT)
            assert not thread.is_alive()


def test_all_users_share_a_loop_until_the_last_has_left() -> None:
    """Then its thread ends, and the next user gets another loop."""
    first, second = attached(), attached()
    thread = first.thread
    assert thread is second.thread
    assert thread is not None
    assert first.loop is second.loop
    first.leave()
    thread.join(0.0)  # returns: the other user keeps it
    second.leave()
    third = attached()
    assert third.thread is not thread
    assert third.loop is not first.loop
    thread.join(TIMEOUT)
    assert first.loop.is_closed()
    third.leave()


def test_the_next_loop_begins_when_the_earlier_one_has_ended() -> None:
    """Under gevent both would run in one thread."""
    first, released = attached(), threading.Event()

    async def outlive() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            released.wait(TIMEOUT)

    outliving = asyncio.run_coroutine_threadsafe(outlive(), first.loop)
    first.leave()
    second = attached()
    assert not second.runs.wait(0.05)
    released.set()
    assert second.loop is not first.loop
    assert outliving.cancelled()
    second.leave()


def test_exit_in_the_loop_ends_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A function of one user that tries to exit is told of in the log; all go on."""
    first, second = attached(), attached()
    first.loop.call_soon_threadsafe(sys.exit, "for a test")
    passed = threading.Event()
    second.loop.call_soon_threadsafe(passed.set)
    assert passed.wait(TIMEOUT)
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]
    for user in (first, second):
        user.leave()


def test_users_are_told_when_the_loop_ends_by_itself() -> None:
    """Whatever ends it; the next user gets another."""
    first, second = attached(), attached()
    first.loop.call_soon_threadsafe(first.loop.stop)
    for user in (first, second):
        assert user.ended.wait(TIMEOUT)
        assert user.failure is None
    third = attached()
    assert third.loop is not first.loop
    third.leave()


def test_r57_users_are_told_why_the_loop_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next user tries anew."""

    def fail() -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("asyncnotify._blocking.loop._new_loop", fail)
        first = attached()
        assert first.ended.wait(TIMEOUT)
    assert isinstance(first.failure, OSError)
    second = attached()
    assert second.loop.is_running()
    second.leave()


def test_a_thread_that_could_not_be_started_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closing returns at once where the system had no more threads for a loop."""

    def fail(_thread: threading.Thread) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        user = attached()
        assert user.ended.wait(TIMEOUT)
    assert user.thread is not None
    user.thread.join(TIMEOUT)
    assert isinstance(user.failure, RuntimeError)


def test_a_lookup_that_is_cancelled_before_its_thread_runs_is_not_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread begins late, on a busy machine, and finds that nobody waits."""
    runs: list[Callable[[], None]] = []
    made: list[str] = []

    class LateThread:
        def __init__(self, *, target: Callable[[], None], **_: object) -> None:
            runs.append(target)

        def start(self) -> None:
            """Begin when the test says so."""

    user = attached()
    loop = user.loop

    async def cancel() -> None:
        with monkeypatch.context() as patch:
            patch.setattr("asyncnotify._blocking.loop.threading.Thread", LateThread)
            lookup = loop.run_in_executor(None, made.append, "looked up")
        lookup.cancel()
        await asyncio.wait({lookup})

    asyncio.run_coroutine_threadsafe(cancel(), loop).result(TIMEOUT)
    runs[0]()
    assert made == []
    user.leave()


def test_r55_a_paused_loop_stands_still_until_it_is_resumed() -> None:
    """So a fork finds no lock of a library held by what the loop runs."""
    user, passed = attached(), threading.Event()
    assert user.loop.is_running()
    assert user.thread is not None
    user.thread.pause(time.monotonic() + TIMEOUT)
    user.loop.call_soon_threadsafe(passed.set)
    assert not passed.wait(0.05)
    user.thread.resume()
    assert passed.wait(TIMEOUT)
    user.leave()


async def test_no_second_loop_runs_in_one_thread() -> None:
    """Under gevent, which makes one of all threads: there asyncio leaves no room for ours."""
    user = User()
    thread = LoopThread(None)
    thread.add(user)
    thread._run()  # noqa: SLF001 - in this thread, as gevent would
    assert isinstance(user.failure, RuntimeError)
    assert "gevent" in str(user.failure)
