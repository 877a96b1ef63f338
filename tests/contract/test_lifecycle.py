"""Starting and closing: from anywhere, at any time, any number of times, leaving nothing."""

from __future__ import annotations

import asyncio
import gc
import re
import warnings
from typing import TYPE_CHECKING

import pytest

from asyncnotify import (
    Closed,
    ClosedError,
    Connected,
    ConnectionLost,
    ConnectTimeoutError,
    Gap,
    GapReason,
    Listener,
    Notification,
    NotStartedError,
    State,
)
from tests.contract.fake_network import network_before
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncnotify import ConnectionEvent
    from asyncnotify.testing.proxy import FaultProxy
    from tests.contract.conftest import Database, Inbox, ListenerFactory


@pytest.fixture
async def silent_dsn(dsn: str) -> AsyncIterator[str]:
    """Where connections are accepted and nothing is ever said."""
    async with network_before(dsn) as proxy:
        proxy.silent()
        yield proxy.proxied_dsn(dsn)


class StuckHandler:
    """A handler that does not end by itself."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.released = asyncio.Event()
        self.calls = 0

    async def __call__(self, notification: Notification[str]) -> None:
        """Wait to be released."""
        self.calls += 1
        self.begun.set()
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.outcome.set_result("cancelled")
            raise


async def test_the_states_of_a_life(factory: ListenerFactory) -> None:
    """It is new, then connected, then closed, and says so; it starts anew after that."""
    listener = factory.listener()
    assert (listener.state, listener.is_connected) == (State.NEW, False)
    for _ in range(2):
        async with listener as entered:
            assert entered is listener
            assert (listener.state, listener.is_connected) == (State.CONNECTED, True)
        assert (listener.state, listener.is_connected) == (State.CLOSED, False)


async def test_start_and_close_in_different_tasks(
    factory: ListenerFactory, database: Database, inbox: Inbox[Notification[str]]
) -> None:
    """Each call of its life may come from a task of its own."""
    listener = factory.listener()
    await asyncio.create_task(listener.start())
    await asyncio.create_task(listener.listen("orders", inbox))
    await database.notify("orders", "1")
    assert await inbox.payloads(1) == ["1"]
    await asyncio.create_task(listener.aclose())
    assert await database.until_backends(0) == []


async def test_start_while_it_runs_only_waits(factory: ListenerFactory, database: Database) -> None:
    """Several calls of start(), at once and later, make one connection."""
    listener = factory.listener()
    await asyncio.gather(*(listener.start() for _ in range(5)))
    await listener.start()
    assert len(await database.backends()) == 1
    await listener.aclose()


async def test_close_is_idempotent_and_ends_with_one_event(factory: ListenerFactory) -> None:
    """However often and from how many tasks it is closed, one Closed comes, as the last event."""
    events: list[ConnectionEvent] = []
    listener = factory.listener(on_event=events.append)
    await listener.aclose()
    await listener.start()
    await asyncio.gather(*(listener.aclose() for _ in range(5)))
    await listener.aclose()
    assert [type(event) for event in events] == [Connected, Closed]


async def test_wait_closed_returns_when_another_task_has_closed(factory: ListenerFactory) -> None:
    """So a program that only listens needs nothing else to wait for, however often it starts."""
    listener = factory.listener()
    with pytest.raises(NotStartedError):
        await listener.wait_closed()
    for _ in range(2):
        async with asyncio.TaskGroup() as group, listener:
            waiting = [group.create_task(listener.wait_closed()) for _ in range(3)]
            with pytest.raises(TimeoutError, match="the listener is connected"):
                await listener.wait_closed(0)
            await group.create_task(listener.aclose())
            await asyncio.wait(waiting)
            assert listener.state is State.CLOSED
        await listener.wait_closed()


async def test_wait_closed_may_be_cancelled(factory: ListenerFactory) -> None:
    """The listener goes on, and others go on waiting."""
    async with factory.listener() as listener:
        staying, leaving = [asyncio.create_task(listener.wait_closed()) for _ in range(2)]
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait({leaving})
        assert leaving.cancelled()
        assert not staying.done()
        assert listener.is_connected
    await staying


async def test_losing_a_running_listener_is_warned_of(
    factory: ListenerFactory, database: Database, inbox: Inbox[Notification[str]]
) -> None:
    """It runs on, with its handlers: who has no reference to it cannot close it."""
    listener = factory.listener()
    await listener.start()
    await listener.listen("orders", inbox)
    run, held = listener._runs.running(), [listener]  # noqa: SLF001 - to end it
    del listener
    with pytest.warns(ResourceWarning, match=r"<Listener .* connected> was not closed") as warned:
        held.clear()
    assert [warning.filename for warning in warned] == [__file__]
    await database.notify("orders", "1")
    assert await inbox.payloads(1) == ["1"]
    await run.end(drain=False, timeout=1)


async def test_losing_any_other_listener_is_not_warned_of(factory: ListenerFactory) -> None:
    """One that was never started, that is closed, or whose start has failed or was cancelled."""
    new, closed, cancelled = factory.listener(), factory.listener(), factory.listener()
    failed = Listener("postgresql://127.0.0.1:1/nowhere", start_timeout=scaled(0.01))
    await closed.start()
    await closed.aclose()
    starting = asyncio.create_task(cancelled.start())
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait({starting})
    with pytest.raises(ConnectTimeoutError):
        await failed.start()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        del new, closed, cancelled, failed, starting
        gc.collect()
    assert [w for w in warned if "was not closed" in str(w.message)] == []


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_close_from_a_handler(
    factory: ListenerFactory, database: Database, concurrency: int
) -> None:
    """A handler may close its listener: the call returns to it soon, and it goes on."""
    closed: asyncio.Future[State] = asyncio.get_running_loop().create_future()
    listener = factory.listener(close_timeout=30.0)
    await listener.start()

    async def close(_: Notification[str]) -> None:
        await listener.aclose()
        closed.set_result(listener.state)

    await listener.listen("stop", close, concurrency=concurrency)
    await database.notify("stop", "")
    async with asyncio.timeout(scaled(2.5)):
        assert await closed is State.CLOSED
    assert await database.until_backends(0) == []


async def test_close_from_resync(
    factory: ListenerFactory, database: Database, inbox: Inbox[Notification[str]]
) -> None:
    """A resync may close its listener."""
    closed: asyncio.Future[State] = asyncio.get_running_loop().create_future()
    listener = factory.listener(close_timeout=30.0)

    async def close(_: Gap) -> None:
        await listener.aclose()
        closed.set_result(listener.state)

    listener.on("stop", resync=close)(inbox)
    await listener.start()
    async with asyncio.timeout(scaled(2.5)):
        assert await closed is State.CLOSED


async def test_close_while_starting(factory: ListenerFactory, silent_dsn: str) -> None:
    """Closed while it starts, it ends at once, and start() says why."""
    listener = factory.listener(silent_dsn)
    starting = asyncio.create_task(listener.start())
    await asyncio.sleep(0)
    assert f"{listener!r}".endswith(" connecting>")
    async with asyncio.timeout(scaled(2)):
        await listener.aclose()
    with pytest.raises(ClosedError):
        await starting
    assert listener.state is State.CLOSED


async def test_cancelled_start_leaves_nothing(
    factory: ListenerFactory, dsn: str, proxy: FaultProxy, database: Database
) -> None:
    """A start that is cancelled is closed, whether it has got a connection or not."""
    proxy.silent()
    listener = factory.listener(proxy.proxied_dsn(dsn))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await listener.start()
    assert listener.state is State.CLOSED
    proxy.heal()
    proxy.delay(to_client=0.02)
    other = factory.listener(proxy.proxied_dsn(dsn))
    starting = asyncio.create_task(other.start())
    while not await database.backends():
        assert not starting.done()
    starting.cancel()
    await asyncio.wait({starting})
    await other.aclose()
    assert await database.until_backends(0) == []


async def test_start_gives_up_in_time(factory: ListenerFactory, silent_dsn: str) -> None:
    """start() raises at its timeout, with the state closed and no password in the text."""
    timeout = scaled(0.1)
    listener = factory.listener(silent_dsn, start_timeout=timeout)
    with pytest.raises(ConnectTimeoutError, match=re.escape(f"within {timeout:g} s")):
        await listener.start()
    assert listener.state is State.CLOSED


async def test_r31_close_of_a_live_server_is_quick(
    factory: ListenerFactory, database: Database
) -> None:
    """With idle handlers and streams, closing takes far less than its timeout."""
    loop = asyncio.get_running_loop()
    async with factory.listener() as listener:
        await listener.listen("orders", lambda _: None)
        await listener.stream("events").__aenter__()
        await listener.notify("orders", "1")
        began = loop.time()
        await listener.aclose()
        assert loop.time() - began < scaled(1.0)


@pytest.mark.parametrize("timeout", [0.0, 0.3])
async def test_r31_close_with_a_stuck_handler_keeps_to_its_timeout(
    factory: ListenerFactory, database: Database, timeout: float
) -> None:
    """A handler that does not end is cancelled at the timeout of the call."""
    listener, handler = factory.listener(), StuckHandler()
    await listener.start()
    await listener.listen("orders", handler)
    await database.notify("orders", "1", "2")
    await handler.begun.wait()
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    began = loop.time()
    loop.call_later(timeout, over.set)  # by the loop's own clock, whatever its step
    await listener.aclose(timeout=timeout)
    assert over.is_set()
    assert loop.time() - began < timeout + scaled(0.5)
    assert await handler.outcome == "cancelled"
    assert handler.calls == 1
    assert await database.until_backends(0) == []


async def test_cancelled_close_closes_at_once(factory: ListenerFactory, database: Database) -> None:
    """Cancelling aclose() gives up waiting for handlers, not closing."""
    listener, handler = factory.listener(), StuckHandler()
    await listener.start()
    await listener.listen("orders", handler)
    await database.notify("orders", "1")
    await handler.begun.wait()
    closing = asyncio.create_task(listener.aclose(timeout=30.0))
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})
    assert closing.cancelled()
    assert await handler.outcome == "cancelled"
    assert listener.state is State.CLOSED
    assert await database.until_backends(0) == []


async def test_close_lets_handlers_and_streams_finish(
    factory: ListenerFactory, database: Database, inbox: Inbox[Notification[str]]
) -> None:
    """What was buffered is handed over before aclose() returns; a stream yields it, and ends."""
    listener, gate = factory.listener(), asyncio.Event()
    await listener.start()

    async def slow(notification: Notification[str]) -> None:
        await gate.wait()
        assert listener.state is State.CLOSING
        inbox(notification)

    await listener.listen("orders", slow)
    stream = await listener.stream("orders").__aenter__()
    await database.flood("orders", 100)
    await database.fence(listener)
    closing = asyncio.create_task(listener.aclose())
    await asyncio.sleep(0)
    gate.set()
    await closing
    expected = [str(n) for n in range(1, 101)]
    assert [notification.payload for notification in inbox.taken()] == expected
    assert [notification.payload async for notification in stream] == expected


async def test_leaving_with_an_exception_drops_what_is_buffered(
    factory: ListenerFactory, database: Database
) -> None:
    """An exception in the block closes without draining: the running handler is cancelled."""
    handler = StuckHandler()
    listener = factory.listener(close_timeout=30.0)

    async def use() -> None:
        async with listener:
            await listener.listen("orders", handler)
            await database.notify("orders", "1", "2")
            await handler.begun.wait()
            raise LookupError

    with pytest.raises(LookupError):
        async with asyncio.timeout(scaled(10)):
            await use()
    assert await handler.outcome == "cancelled"
    assert handler.calls == 1


async def test_restart_serves_registered_handlers_anew(
    factory: ListenerFactory, database: Database, inbox: Inbox[Notification[str]]
) -> None:
    """Handlers of on() are served in each run, each with a Gap at its start, and new counters."""
    gaps: list[Gap] = []
    listener = factory.listener()
    listener.on("orders", resync=gaps.append)(inbox)
    for n in range(3):
        async with listener:
            await database.notify("orders", str(n))
            assert await inbox.payloads(1) == [str(n)]
            assert listener.stats().received == 1
    assert gaps == [Gap("orders", GapReason.START)] * 3


@pytest.mark.parametrize("timeout", [-1, float("nan")])
async def test_a_timeout_of_close_that_cannot_be_is_refused(
    factory: ListenerFactory, timeout: float
) -> None:
    """It changes nothing: the listener goes on, until it is closed in earnest."""
    async with factory.listener() as listener:
        with pytest.raises(ValueError, match="timeout"):
            await listener.aclose(timeout=timeout)
        assert listener.is_connected


async def test_what_is_asked_for_while_it_closes_is_refused(
    factory: ListenerFactory, database: Database
) -> None:
    """A handler that finishes its work then cannot subscribe to more, but may still send."""
    refused: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
    begun, closing = asyncio.Event(), asyncio.Event()
    listener = factory.listener()

    async def handle(_: Notification[str]) -> None:
        begun.set()
        await closing.wait()
        await listener.notify("orders", "sent while closing")
        try:
            await listener.listen("more", handle)
        except ClosedError as error:
            refused.set_result(error)

    async with listener:
        await listener.listen("stop", handle)
        await database.notify("stop", "")
        await begun.wait()
        closer = asyncio.create_task(listener.aclose())
        assert await database.until_backends(0) == []  # it listens no more
        closing.set()
        await closer
    assert "closed" in str(await refused)


async def test_calls_need_a_running_listener(factory: ListenerFactory) -> None:
    """Before the start and after the end every call says which it is."""
    listener = factory.listener()
    stream = listener.stream("orders")
    for error in (NotStartedError, ClosedError):
        calls = [
            listener.listen("orders", lambda _: None),
            listener.notify("orders"),
            listener.wait_connected(),
            anext(stream),
            listener.stream("orders").__aenter__(),
        ]
        for call in calls:
            with pytest.raises(error):
                await call
        async with listener:
            pass


async def test_wait_connected(factory: ListenerFactory, dsn: str) -> None:
    """It returns once listening, at the start and again after a loss, or raises in time."""
    async with network_before(dsn) as proxy:
        async with factory.listener(proxy.proxied_dsn(dsn)) as listener:
            await listener.wait_connected()
            await cut_off(listener, proxy)
            with pytest.raises(ConnectTimeoutError):
                await listener.wait_connected(timeout=0.05)
            waiting = asyncio.create_task(listener.wait_connected())
            proxy.heal()
            await waiting
            assert listener.is_connected
            await cut_off(listener, proxy)
            waiting = asyncio.create_task(listener.wait_connected())
            await asyncio.sleep(0)
        with pytest.raises(ClosedError):
            await waiting


async def cut_off(listener: Listener, proxy: FaultProxy) -> None:
    """Cut the listener's connection, and let it make no other; return once it knows."""
    events = listener.events()
    proxy.refuse()
    proxy.reset()
    assert isinstance(await anext(events), ConnectionLost)


def test_made_at_import_time(factory: ListenerFactory) -> None:
    """Neither making one nor registering handlers needs an event loop."""
    listener = factory.listener()
    inbox: list[str] = []
    done: list[asyncio.Event] = []

    @listener.on("orders")
    def take(notification: Notification[str]) -> None:
        inbox.append(notification.payload)
        done[0].set()

    async def run() -> None:
        done[:] = [asyncio.Event()]
        async with listener:
            await listener.notify("orders", "1")
            await done[0].wait()

    asyncio.run(run())
    asyncio.run(run())
    assert inbox == ["1", "1"]
