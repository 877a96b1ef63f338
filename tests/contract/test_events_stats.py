"""What a listener says of itself: events in order, numbers that add up, health."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING

import pytest

from asyncnotify import (
    Closed,
    Connected,
    ConnectionLost,
    ConnectTimeoutError,
    Listener,
    Notification,
    Reconnected,
    RetryScheduled,
    State,
    Stats,
)
from tests.contract.fake_network import network_before
from tests.support.machine import scaled

if TYPE_CHECKING:
    from asyncnotify import ConnectionEvent
    from tests.contract.conftest import Database, Inbox, ListenerFactory

    Text = Inbox[Notification[str]]

AT_ONCE = partial(repeat, 0.0)
SOON = partial(repeat, 0.002)  # not sooner than the clock of any event loop shows


async def test_events_of_a_life_with_losses(factory: ListenerFactory, database: Database) -> None:
    """They come in order, to the callback and to a stream alike, with pids and counts."""
    told: list[ConnectionEvent] = []
    listener = factory.listener(on_event=told.append, backoff=SOON)
    events = listener.events()
    pids = []
    async with listener:
        await listener.listen("orders", lambda _: None)
        for _ in range(2):
            pids.append((await database.backends())[0]["pid"])
            await database.interrupt(listener)
        pids.append((await database.backends())[0]["pid"])
    streamed = [event async for event in events]
    assert streamed == told
    first, *losses, closed = [event for event in told if not isinstance(event, RetryScheduled)]
    assert first == Connected(channels=0, backend_pid=pids[0])
    assert closed == Closed()
    assert [type(event) for event in losses] == [ConnectionLost, Reconnected] * 2
    for n, event in enumerate(losses):
        assert isinstance(event, ConnectionLost | Reconnected)
        assert event.backend_pid == pids[(n + 1) // 2]
        if isinstance(event, Reconnected):
            assert (event.channels, event.downtime > 0) == (1, True)


async def test_attempts_are_told(factory: ListenerFactory, dsn: str) -> None:
    """Each attempt that fails is told with its number, the delay and the cause."""
    async with (
        network_before(dsn) as proxy,
        factory.listener(proxy.proxied_dsn(dsn), backoff=AT_ONCE) as listener,
    ):
        events = listener.events()
        proxy.refuse()
        proxy.reset()
        assert isinstance(await anext(events), ConnectionLost)
        attempts = []
        for _ in range(5):
            event = await anext(events)
            assert isinstance(event, RetryScheduled)
            assert isinstance(event.cause, OSError)
            assert event.delay == 0
            attempts.append(event.attempt)
        assert attempts == [1, 2, 3, 4, 5]
        assert listener.state is State.RECONNECTING
        proxy.heal()
        async for event in events:
            if isinstance(event, Reconnected):
                assert event.attempts > 5
                return


async def test_an_on_event_that_raises_harms_nothing(
    factory: ListenerFactory, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """What the callback raises is logged; connecting and closing go on."""

    def fail(event: ConnectionEvent) -> None:
        raise LookupError

    async with factory.listener(on_event=fail) as listener:
        await database.interrupt(listener)
        await database.fence(listener)
    assert listener.state is State.CLOSED
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) >= 4
    assert {record.getMessage() for record in errors} == {"on_event raised; the listener goes on"}


async def test_an_events_stream_ends_with_the_run(factory: ListenerFactory) -> None:
    """It waits across the start, survives cancelled waits, and ends after Closed."""
    listener = factory.listener()
    events = listener.events()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(events)
    async with listener:
        assert isinstance(await anext(events), Connected)
    assert await anext(events) == Closed()
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_stats_before_during_and_after(factory: ListenerFactory, database: Database) -> None:
    """They are there in every state, frozen when the run is over, and new at the next start."""
    listener = factory.listener()
    assert listener.stats() == Stats()
    began = datetime.now(UTC)
    async with listener:
        await database.fence(listener)
        stats = listener.stats()
        assert (stats.state, stats.received, stats.delivered) == (State.CONNECTED, 1, 1)
        assert stats.connected_since is not None
        assert began <= stats.connected_since <= datetime.now(UTC)
    after = listener.stats()
    assert (after.state, after.received, after.connected_since) == (State.CLOSED, 1, None)
    async with listener:
        assert listener.stats().received == 0


async def test_stats_add_up_exactly(
    factory: ListenerFactory, database: Database, inbox: Text
) -> None:
    """Each notification is delivered, dropped, conflated or waiting, whatever befell it."""
    gate = asyncio.Event()

    async def stuck(_: Notification[str]) -> None:
        await gate.wait()

    def fail(notification: Notification[str]) -> None:
        if int(notification.payload) % 7 == 0:
            raise LookupError

    async with factory.listener(backoff=AT_ONCE) as listener:
        subscriptions = [
            await listener.listen("orders", inbox),
            await listener.listen("orders", fail),
            await listener.listen("orders", stuck, buffer=10),
            await listener.listen("orders", stuck, buffer=10, overflow="drop_newest"),
            await listener.listen("orders", stuck, latest=True),
            await listener.listen("orders", stuck, concurrency=3, buffer=20),
        ]
        for n in range(1, 4):
            await database.flood("orders", 100 * n)
            await database.fence(listener)
            await database.interrupt(listener)
        for stats in (subscription.stats() for subscription in subscriptions):
            accounted = stats.delivered + stats.dropped + stats.conflated
            assert 600 <= accounted + stats.backlog <= 600 + stats.gaps
        gate.set()
    final = [subscription.stats() for subscription in subscriptions]
    for stats in final:
        assert (stats.backlog, stats.delivered + stats.dropped + stats.conflated) == (0, 600)
    assert [stats.gaps for stats in final[:2]] == [4, 4]
    assert final[1].handler_errors == 14 + 28 + 42
    totals = listener.stats()
    assert totals.received == 600 + 3  # three fences
    assert totals.delivered == sum(stats.delivered for stats in final) + 3
    assert totals.dropped == sum(stats.dropped for stats in final) > 0
    assert totals.handler_errors == 14 + 28 + 42
    assert totals.reconnects == 3
    assert len(inbox) == 600


async def test_stats_of_what_has_ended_stay_counted(
    listener: Listener, database: Database, inbox: Text
) -> None:
    """A subscription that ends is no longer listed, and its numbers stay in the totals."""
    subscription = await listener.listen("orders", inbox)
    await database.notify("orders", "1", "2", "3")
    await inbox.payloads(3)
    async with listener.stream("orders") as stream:
        await database.notify("orders", "4")
        await anext(stream)
        await inbox.payloads(1)
        assert [s.delivered for s in listener.stats().subscriptions] == [4, 1]
    await subscription.cancel()
    stats = listener.stats()
    assert (stats.subscriptions, stats.received, stats.delivered, stats.gaps) == ((), 4, 5, 2)
    assert subscription.stats().delivered == 4


async def test_heartbeats_are_told(factory: ListenerFactory, database: Database) -> None:
    """stats() says when the server last answered, and how long that took."""
    async with factory.listener(heartbeat=0.01, heartbeat_timeout=scaled(5.0)) as listener:
        while (stats := listener.stats()).last_heartbeat is None:
            await database.backends()
        assert stats.heartbeat_round_trip is not None
        assert 0 <= stats.heartbeat_round_trip < 5
        assert stats.reconnects == 0


async def test_health_is_json_and_agrees_with_the_stats(
    listener: Listener, database: Database, inbox: Text
) -> None:
    """health() tells of the connection, the counters and the server's queue."""
    await listener.listen("orders", inbox)
    await database.notify("orders", "1")
    await inbox.next()
    health = json.loads(json.dumps(await listener.health()))
    assert (health["state"], health["generation"]) == ("connected", 1)
    assert health["backend_pid"] == (await database.backends())[0]["pid"]
    assert (health["channels_desired"], health["channels_confirmed"]) == (1, 1)
    assert (health["received"], health["delivered"], health["dropped"]) == (1, 1, 0)
    assert 0 <= health["queue_usage"] < 0.01
    assert health["server_error"] is None
    assert 0 <= health["last_contact_age"] < 5
    local = await listener.health(server=False)
    assert "queue_usage" not in local
    await database.interrupt(listener)
    assert (await listener.health(server=False))["generation"] == 2


async def test_health_while_down(factory: ListenerFactory, dsn: str) -> None:
    """Without a connection health() returns all the same, and says what is wrong."""
    async with (
        network_before(dsn) as proxy,
        factory.listener(proxy.proxied_dsn(dsn)) as listener,
    ):
        events = listener.events()
        proxy.refuse()
        proxy.reset()
        async for event in events:
            if isinstance(event, RetryScheduled):
                break
        health = await listener.health()
        assert (health["state"], health["backend_pid"]) == ("reconnecting", None)
        assert health["last_error"]
        assert health["server_error"]
        with pytest.raises(ConnectTimeoutError):
            await listener.wait_connected(timeout=0.01)


async def test_log_records_have_fields(
    factory: ListenerFactory,
    database: Database,
    inbox: Inbox[Notification[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What a line says of the connection and of a handler can be read without taking it apart."""
    caplog.set_level("INFO", "asyncnotify")

    def fail(notification: Notification[str]) -> None:
        inbox(notification)
        raise LookupError

    async with factory.listener() as listener:
        await listener.listen("orders", fail)
        first = (await database.backends())[0]["pid"]
        await database.notify("orders", "1")
        sender = (await inbox.next()).pid
        await database.interrupt(listener)
        second = (await database.backends())[0]["pid"]
    found = [
        (record.levelname, *(getattr(record, name) for name in ("channel", "pid", "target")))
        for record in caplog.records
    ]
    target = repr(listener).split()[1]
    connection = [entry for entry in found if entry[3] is not None]
    assert [entry[2] for entry in connection if entry[2]] == [first, first, second]
    assert {entry[3] for entry in connection} == {target}
    assert ("ERROR", "orders", sender, None) in found
    assert {vars(record)["attempt"] for record in caplog.records} == {None}


async def test_a_failed_attempt_has_its_number_and_delay_in_the_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As RetryScheduled has them."""
    caplog.set_level("INFO", "asyncnotify")
    events: list[object] = []
    listener = Listener(
        "postgresql://127.0.0.1:1/nowhere", on_event=events.append, start_timeout=scaled(1)
    )
    with pytest.raises(ConnectTimeoutError):
        await listener.start()
    retries = [(e.attempt, e.delay) for e in events if isinstance(e, RetryScheduled)]
    logged = [(vars(r)["attempt"], vars(r)["delay"]) for r in caplog.records if vars(r)["attempt"]]
    assert len(retries) > 1
    assert logged == retries
