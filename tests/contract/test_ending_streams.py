"""``end_streams()``: the streams end, after what they had buffered, and nothing else does."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import Gap, Listener, Notification

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.conftest import Database, Inbox, ListenerFactory


def in_a_thread(listener: Listener) -> None:
    """Call it in another thread."""
    thread = threading.Thread(target=listener.end_streams)
    thread.start()
    thread.join()


def in_a_signal_handler(listener: Listener) -> None:
    """Call it where the event loop was interrupted."""

    def ended(*_: object) -> None:
        listener.end_streams()

    previous = signal.signal(signal.SIGTERM, ended)
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, previous)


def several_times(listener: Listener) -> None:
    """Call it again and again."""
    for _ in range(3):
        listener.end_streams()


CALLS = [Listener.end_streams, several_times, in_a_thread, in_a_signal_handler]


async def rest(stream: Any) -> list[str]:
    """Return the payloads that are left, once the stream has ended."""
    return [item.payload async for item in stream]


@pytest.mark.parametrize("call", CALLS)
async def test_streams_end_after_what_they_have_buffered(
    listener: Listener, database: Database, call: Callable[[Listener], None]
) -> None:
    """Those that wait end at once; the server listens no more; later streams begin as ever."""
    async with listener.stream("orders") as full, listener.stream("other") as waiting:
        ends = asyncio.ensure_future(rest(waiting))
        await database.notify("orders", "1", "2")
        await database.fence(listener)
        call(listener)
        assert await ends == []
        assert await rest(full) == ["1", "2"]
        assert await database.server_channels(listener) == set()
    async with listener.stream("orders") as later:
        await database.notify("orders", "3")
        assert (await anext(later)).payload == "3"


async def test_a_stream_that_begins_right_after_the_call_goes_on(
    listener: Listener, database: Database
) -> None:
    """It is not one of those that were open."""
    listener.end_streams()
    async with listener.stream("orders") as stream:
        await database.notify("orders", "1")
        assert (await anext(stream)).payload == "1"


async def test_handlers_go_on(
    listener: Listener, database: Database, inbox: Inbox[Notification[str]]
) -> None:
    """Also the one that makes the call."""

    async def handle(notification: Notification[str]) -> None:
        listener.end_streams(also_new=True)
        inbox(notification)

    await listener.listen("orders", handle)
    async with listener.stream("orders") as stream:
        await database.notify("orders", "1", "2")
        assert await inbox.payloads(2) == ["1", "2"]
        await rest(stream)
    await listener.listen("later", inbox)
    await database.notify("later", "3")
    assert await inbox.payloads(1) == ["3"]
    assert await database.server_channels(listener) == {"orders", "later"}


async def test_new_streams_end_at_once_until_the_listener_is_closed(
    factory: ListenerFactory, database: Database
) -> None:
    """They are not refused, as their clients should come again; the next run has streams."""
    listener = factory.listener()
    async with listener:
        listener.end_streams(also_new=True)
        listener.end_streams()
        for channel in ("orders", "other"):
            async with listener.stream(channel, timeout=None) as stream:
                assert await rest(stream) == []
        assert [item async for item in listener.stream("orders", gaps=True)] == []
        assert await database.server_channels(listener) == set()
    async with listener, listener.stream("orders", gaps=True) as stream:
        assert isinstance(await anext(stream), Gap)


async def test_a_listener_that_does_not_run_has_no_streams(factory: ListenerFactory) -> None:
    """Nothing happens, before the start and after the end; what is no bool is refused."""
    listener = factory.listener()
    listener.end_streams()
    async with listener:
        pass
    listener.end_streams(also_new=True)
    with pytest.raises(TypeError, match="also_new"):
        listener.end_streams(also_new=1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
