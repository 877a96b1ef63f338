"""aclose() in every state: in time, once, and with nothing left behind."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from asyncnotify import (
    AsyncNotifyError,
    Closed,
    ClosedError,
    ConnectionLost,
    Listener,
    RetryScheduled,
    State,
)
from asyncnotify.testing.faults import dns_hangs
from asyncnotify.testing.proxy import FaultProxy, ProxiedConnection
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from asyncnotify.testing.server import PostgresServer
    from tests.faults.conftest import ProxiedDatabase, Subject

BEAT = b"pg_listening_channels"
FOR_EVER = 60.0
CLOSE_TIMEOUT, SLACK = 0.3, scaled(0.5)
WAIT_LIMIT = scaled(10.0)
PATIENT = {
    "connect_timeout": FOR_EVER,
    "heartbeat": None,
    "operation_timeout": FOR_EVER,
    "heartbeat_timeout": FOR_EVER,
}


class ListenerHarness(NamedTuple):
    """A listener about to be closed, and the calls that wait in it."""

    database: ProxiedDatabase
    subject: Subject
    calls: list[asyncio.Task[object]]

    def call(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Start a call that is to be in progress when the listener is closed."""
        self.calls.append(asyncio.create_task(coroutine))


async def connected(harness: ListenerHarness) -> None:
    """Nothing is wrong."""


async def between_attempts(harness: ListenerHarness) -> None:
    """The server refuses; the next attempt is due in a minute."""
    harness.database.proxy.refuse()
    harness.database.proxy.reset()
    while (await harness.subject.until(RetryScheduled)).delay < FOR_EVER:
        pass


async def waiting_for_a_connection(harness: ListenerHarness) -> None:
    """As before, and listen() waits."""
    await between_attempts(harness)
    harness.call(harness.subject.listener.listen("orders", print))
    harness.call(harness.subject.listener.wait_connected())
    harness.call(anext(harness.subject.listener.stream("orders")))


async def dialling(harness: ListenerHarness) -> None:
    """The server does not answer."""
    dials = harness.database.proxy.accepted
    harness.database.proxy.silent()
    harness.database.proxy.reset()
    await harness.database.proxy.wait_for_dials(dials + 1)


async def listening(harness: ListenerHarness) -> None:
    """LISTEN is lost on its way."""
    sent = harness.database.proxy.cut_on(b'LISTEN "orders"', then=ProxiedConnection.pause)
    harness.call(harness.subject.listener.listen("orders", print))
    await sent.wait()
    harness.call(harness.subject.listener.listen("more orders", print))


async def unlistening(harness: ListenerHarness) -> None:
    """UNLISTEN is lost on its way."""
    await harness.subject.listener.listen("orders", print)
    await harness.subject.listener.listen("more orders", print)
    sent = harness.database.proxy.cut_on(b'UNLISTEN "orders"', then=ProxiedConnection.pause)
    harness.call(harness.subject.listener.unlisten("orders"))
    await sent.wait()
    harness.call(harness.subject.listener.unlisten("more orders"))


async def listening_again(harness: ListenerHarness) -> None:
    """The LISTEN of a reconnect is lost on its way."""
    sent = harness.database.proxy.cut_on(b'LISTEN "fence"', then=ProxiedConnection.pause)
    harness.database.proxy.reset()
    await sent.wait()


async def probing(harness: ListenerHarness) -> None:
    """A heartbeat is lost on its way."""
    await harness.database.proxy.cut_on(BEAT, then=ProxiedConnection.pause).wait()


async def unheard(harness: ListenerHarness) -> None:
    """Nothing comes and goes any more, which nobody knows yet."""
    harness.database.proxy.black_hole()


async def with_a_stuck_handler(harness: ListenerHarness) -> None:
    """A handler never returns, and its buffer is full."""
    begun = asyncio.Event()

    async def handler(_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    await harness.subject.listener.listen("orders", handler, buffer=10)
    await harness.database.notify_all(["orders"] * 1, "first")
    await begun.wait()
    query = "SELECT count(pg_notify('orders', n::text)) FROM generate_series(1, 100) n"
    await harness.database.fetchval(query)
    await harness.subject.fence()


async def with_a_failing_resync(harness: ListenerHarness) -> None:
    """A resync fails whenever it is called."""
    failed = asyncio.Event()

    def resync(_: object) -> None:
        failed.set()
        raise LookupError

    await harness.subject.listener.listen("orders", print, resync=resync)
    await failed.wait()


async def notifying(harness: ListenerHarness) -> None:
    """A notification is lost on its way, and others wait behind it."""
    sent = harness.database.proxy.cut_on(b"lost", then=ProxiedConnection.pause)
    harness.call(harness.subject.listener.notify("orders", "lost"))
    await sent.wait()
    harness.call(harness.subject.listener.notify("orders", "behind"))


async def dialling_for_notify(harness: ListenerHarness) -> None:
    """The connection for a notification is being made, and the server does not answer."""
    dials = harness.database.proxy.accepted
    harness.database.proxy.silent()
    harness.call(harness.subject.listener.notify("orders"))
    await harness.database.proxy.wait_for_dials(dials + 1)


def hardly_ever() -> Iterator[float]:
    """Try at once, then wait for a minute."""
    return itertools.chain([0.0], itertools.repeat(FOR_EVER))


OPTIONS: dict[Callable[[ListenerHarness], Awaitable[None]], dict[str, Any]] = {
    between_attempts: {"backoff": hardly_ever},
    waiting_for_a_connection: {"backoff": hardly_ever},
    probing: {"heartbeat": 0.05, "heartbeat_timeout": scaled(5.0)},
}
DRIVER_STATES = (connected, dialling, listening, unlistening, listening_again, probing, unheard)
OTHER_STATES = (
    between_attempts,
    waiting_for_a_connection,
    with_a_stuck_handler,
    with_a_failing_resync,
    notifying,
    dialling_for_notify,
)


@pytest.mark.parametrize(
    ("state", "connects_by"),
    [
        *((state, "dsn") for state in DRIVER_STATES + OTHER_STATES),
        *((state, "connect") for state in DRIVER_STATES),
    ],
)
async def test_r31_aclose_is_in_time(
    database: ProxiedDatabase, state: Callable[[ListenerHarness], Awaitable[None]]
) -> None:
    """In every state aclose() returns within its timeout, and every waiting call is released."""
    async with database.running(**{**PATIENT, **OPTIONS.get(state, {})}) as subject:
        harness = ListenerHarness(database, subject, [])
        await state(harness)
        began = time.monotonic()
        await subject.listener.aclose(timeout=CLOSE_TIMEOUT)
        assert time.monotonic() - began < CLOSE_TIMEOUT + SLACK
        subject.check_state(State.CLOSED)
        await subject.listener.aclose(timeout=CLOSE_TIMEOUT)
        assert subject.count(Closed) == 1
        assert isinstance(subject.events[-1], Closed)
        await ended_by_closing(harness.calls)
        database.proxy.heal()
        await database.until_backends(0)


async def ended_by_closing(calls: list[asyncio.Task[object]]) -> None:
    """Check that calls end, and with an error of ours if with one."""
    async with asyncio.timeout(WAIT_LIMIT):
        results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        assert result is None or isinstance(result, AsyncNotifyError | StopAsyncIteration), result


async def test_r31_aclose_leaves_a_handler_that_will_not_end(database: ProxiedDatabase) -> None:
    """A handler that goes on though it was cancelled is given up on, not waited for."""
    begun, over = asyncio.Event(), asyncio.Event()

    async def handler(_: object) -> None:
        begun.set()
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()

    async with database.running() as subject:
        await subject.listener.listen("orders", handler)
        await database.notify("orders")
        await begun.wait()
        async with asyncio.timeout(WAIT_LIMIT):
            await subject.listener.aclose(timeout=0.1)
        assert subject.count(Closed) == 1
        over.set()


async def test_r31_aclose_on_a_live_server_is_quick(database: ProxiedDatabase) -> None:
    """With nothing to wait for, aclose() says goodbye and returns at once."""
    async with database.running() as subject, subject.listener.stream("orders"):
        await subject.listener.notify("orders")
        began = time.monotonic()
        await subject.listener.aclose()
        assert time.monotonic() - began < scaled(0.2)
        assert subject.count(ConnectionLost) == 0


async def test_r31_aclose_does_not_wait_for_a_frozen_session(
    own_database: ProxiedDatabase, battered_server: PostgresServer
) -> None:
    """A server process that has stopped cannot hold up the end."""
    async with own_database.running() as subject:
        battered_server.freeze_backend(subject.pid)
        began = time.monotonic()
        await subject.listener.aclose(timeout=CLOSE_TIMEOUT)
        assert time.monotonic() - began < CLOSE_TIMEOUT + SLACK
        battered_server.thaw_backend(subject.pid)


@pytest.mark.parametrize("connects_by", ["dsn", "connect"])
@pytest.mark.parametrize("fault", [FaultProxy.silent, FaultProxy.refuse, FaultProxy.black_hole])
async def test_r31_aclose_ends_a_start(
    database: ProxiedDatabase, fault: Callable[[FaultProxy], None]
) -> None:
    """A start() that is still trying ends with an error when the listener is closed."""
    fault(database.proxy)
    subject = database.subject(**PATIENT, backoff=hardly_ever)
    starting = asyncio.create_task(subject.listener.start())
    if fault is FaultProxy.refuse:
        await subject.until(RetryScheduled)
    else:
        await database.proxy.wait_for_dials(1)
    began = time.monotonic()
    await subject.listener.aclose(timeout=CLOSE_TIMEOUT)
    assert time.monotonic() - began < CLOSE_TIMEOUT + SLACK
    with pytest.raises(ClosedError):
        await starting
    assert subject.count(Closed) == 1
    database.proxy.heal()
    await database.proxy.wait_idle()


async def test_r31_aclose_does_not_wait_for_a_name_service(database: ProxiedDatabase) -> None:
    """A lookup that hangs in its thread does not hold up the end."""
    listener = Listener(database.proxied_dsn.replace("127.0.0.1", "localhost"))
    with dns_hangs(FOR_EVER, "localhost") as lookups:
        starting = asyncio.create_task(listener.start())
        async with asyncio.timeout(WAIT_LIMIT):
            while not lookups.running:
                await asyncio.to_thread(bool)  # lookups run in threads, and tell nobody
        began = time.monotonic()
        await listener.aclose(timeout=CLOSE_TIMEOUT)
        assert time.monotonic() - began < CLOSE_TIMEOUT + SLACK
        with pytest.raises(ClosedError):
            await starting
