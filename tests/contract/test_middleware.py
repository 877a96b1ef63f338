"""Middleware of a listener: around the handlers of both faces, added and removed while it runs."""

from __future__ import annotations

import asyncio
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import BlockingListener, Gap, Listener, Notification
from tests.support.machine import scaled

if TYPE_CHECKING:
    from asyncnotify.typing import CallNext, Middleware
    from tests.contract.conftest import ListenerFactory


def noting(name: str, said: list[str]) -> Middleware:
    """Return a middleware that notes each notification."""

    async def middleware(notification: Notification[Any], call_next: CallNext) -> None:
        said.append(f"{name} {notification.payload}")
        await call_next(notification)

    return middleware


async def test_handlers_registered_before_and_after_the_start_are_called_through_it(
    factory: ListenerFactory,
) -> None:
    """Streams and gaps are not: what they bring reaches its consumer as without."""
    said: list[str] = []
    async with factory.listener(
        middleware=[noting("outer", said), noting("inner", said)]
    ) as listener:
        first: list[Notification[str]] = []
        second: list[Notification[str]] = []
        listener.on("one")(first.append)
        await listener.listen("two", second.append, resync=lambda gap: said.append(gap.reason))
        async with listener.stream("end", gaps=True) as stream:
            assert isinstance(await anext(stream), Gap)
            for channel in ("one", "two", "end"):
                await listener.notify(channel, channel)
            assert isinstance(await anext(stream), Notification)
        await listener.aclose()
    assert sorted(said) == ["inner one", "inner two", "outer one", "outer two", "start"]
    assert [n.payload for n in (*first, *second)] == ["one", "two"]


async def test_what_is_added_serves_the_handlers_there_are_until_it_is_removed(
    factory: ListenerFactory,
) -> None:
    """As the outermost one; removing it twice is removing it once."""
    said: list[str] = []
    handled: asyncio.Queue[Notification[str]] = asyncio.Queue()
    async with factory.listener(middleware=[noting("given", said)]) as listener:
        await listener.listen("orders", handled.put)
        remove = listener.add_middleware(noting("added", said))
        await listener.notify("orders", "1")
        assert (await handled.get()).payload == "1"
        remove()
        remove()
        await listener.notify("orders", "2")
        assert (await handled.get()).payload == "2"
    assert said == ["added 1", "given 1", "given 2"]


def test_a_blocking_listener_has_it_too(dsn: str) -> None:
    """It runs in the event loop's thread, around a handler in a thread of its own."""
    threads: dict[str, int] = {}
    handled: SimpleQueue[str] = SimpleQueue()

    def note(name: str) -> Middleware:
        async def middleware(notification: Notification[Any], call_next: CallNext) -> None:
            threads[name] = threading.get_ident()
            await call_next(notification)

        return middleware

    def handler(notification: Notification[str]) -> None:
        threads["handler"] = threading.get_ident()
        handled.put(notification.payload)

    with BlockingListener(dsn, middleware=[note("given")]) as listener:
        listener.listen("orders", handler)
        remove = listener.add_middleware(note("added"))
        listener.notify("orders", "1")
        assert handled.get(timeout=scaled(20)) == "1"
        remove()
        added = threads.pop("added")
        listener.notify("orders", "2")
        assert handled.get(timeout=scaled(20)) == "2"
    assert added == threads["given"] != threads["handler"]
    assert "added" not in threads


class Handled:
    """A function that blocks until it is let go, and notes how many of its calls run at once."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.ended: SimpleQueue[str] = SimpleQueue()
        self.failed: SimpleQueue[BaseException] = SimpleQueue()
        self.begun: list[str] = []
        self.most = 0
        self._running: list[str] = []

    def block(self, notification: Notification[str]) -> None:
        """Handle a notification."""
        self.begun.append(notification.payload)
        self._running.append(notification.payload)
        self.most = max(self.most, len(self._running))
        self.gate.wait(scaled(20))
        self._running.remove(notification.payload)
        self.ended.put(notification.payload)

    def on_error(self, error: BaseException, _: object) -> None:
        """Note that a call has failed."""
        self.failed.put(error)

    def see_that_each_fails(self) -> None:
        """Wait until six calls have failed, then let what runs end."""
        errors = [self.failed.get(timeout=scaled(20)) for _ in range(6)]
        assert {type(error) for error in errors} == {TimeoutError}
        self.gate.set()

    def wait_for_the_last(self) -> None:
        """Return when the last one has ended."""
        while self.ended.get(timeout=scaled(20)) != "last":
            pass

    def check(self, concurrency: int) -> None:
        """See that no more ran at once than may, and the last one after them."""
        *before, last = self.begun
        assert last == "last"
        assert len(before) <= concurrency
        assert self.most <= concurrency


async def limited(notification: Notification[Any], call_next: CallNext) -> None:
    """Give the handler little time, in which a thread begins; except for the last one."""
    async with asyncio.timeout(None if notification.payload == "last" else scaled(0.1)):
        await call_next(notification)


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_p4_a_call_whose_time_is_over_counts_until_its_thread_returns(
    factory: ListenerFactory, concurrency: int
) -> None:
    """A thread cannot be cancelled: no more run at once than may, and they keep their order."""
    handled = Handled()
    async with factory.listener(middleware=[limited]) as listener:
        options: dict[str, Any] = {"concurrency": concurrency, "on_error": handled.on_error}
        await listener.listen("orders", handled.block, in_thread=True, **options)
        for number in range(6):
            await listener.notify("orders", str(number))
        await asyncio.to_thread(handled.see_that_each_fails)
        await listener.notify("orders", "last")
        await asyncio.to_thread(handled.wait_for_the_last)
    handled.check(concurrency)


@pytest.mark.parametrize("concurrency", [1, 2])
def test_p4_the_same_holds_of_a_blocking_listener(dsn: str, concurrency: int) -> None:
    """Whose handlers all run in threads."""
    handled = Handled()
    with BlockingListener(dsn, middleware=[limited]) as listener:
        options: dict[str, Any] = {"concurrency": concurrency, "on_error": handled.on_error}
        listener.listen("orders", handled.block, **options)
        for number in range(6):
            listener.notify("orders", str(number))
        handled.see_that_each_fails()
        listener.notify("orders", "last")
        handled.wait_for_the_last()
    handled.check(concurrency)


@pytest.mark.parametrize("face", [Listener, BlockingListener])
def test_r48_what_is_no_middleware_is_refused_when_it_is_added(face: type[Any]) -> None:
    """And nothing is changed."""
    listener = face("postgresql://127.0.0.1:1/nowhere")
    with pytest.raises(TypeError, match="async function"):
        listener.add_middleware(print)
