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


@pytest.mark.parametrize("face", [Listener, BlockingListener])
def test_r48_what_is_no_middleware_is_refused_when_it_is_added(face: type[Any]) -> None:
    """And nothing is changed."""
    listener = face("postgresql://127.0.0.1:1/nowhere")
    with pytest.raises(TypeError, match="async function"):
        listener.add_middleware(print)
