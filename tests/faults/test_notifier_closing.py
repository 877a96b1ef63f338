"""A Notifier's aclose() in every state: in time, every caller told, nothing left behind."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import (
    ClosedError,
    ConnectError,
    ConnectionLostError,
    Listener,
    Notifier,
)
from tests.faults.conftest import WAIT_LIMIT
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from asyncnotify.testing.server import PostgresServer
    from tests.faults.conftest import ProxiedDatabase

FOR_EVER = 60.0
CLOSE_TIMEOUT, SLACK = 0.2, scaled(1.0)


class NotifierHarness:
    """A notifier about to be closed, with the calls that are in progress then."""

    def __init__(self, database: ProxiedDatabase) -> None:
        self.database = database
        self.calls: list[asyncio.Task[object]] = []
        self.failed = asyncio.Semaphore(0)  # attempts, after which the next one is waited for
        self.notifier = Notifier(
            database.proxied_dsn,
            connect_timeout=FOR_EVER,
            operation_timeout=FOR_EVER,
            start_timeout=FOR_EVER,
            retry_timeout=FOR_EVER,
            close_timeout=CLOSE_TIMEOUT,
            queue=10,
            backoff=self._delays,
        )

    def _delays(self) -> Iterator[float]:
        yield 0.0
        while True:
            self.failed.release()
            yield FOR_EVER / 2

    def call(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Start a call."""
        self.calls.append(asyncio.create_task(coroutine))

    def call_several(self) -> None:
        """Start more calls than have room in the queue."""
        for n in range(20):
            self.call(self.notifier.notify("orders", str(n)))
        self.call(self.notifier.notify_many([("orders", "many")]))

    async def warm(self) -> None:
        """Have a connection."""
        await self.notifier.notify("orders", "warm")


async def at_rest(harness: NotifierHarness) -> None:
    """Nothing is in progress."""
    await harness.warm()


async def alone_in_flight(harness: NotifierHarness) -> None:
    """A call that is alone gets no answer."""
    await harness.warm()
    held = harness.database.proxy.cut_on(b"alone", then="black_hole")
    harness.call(harness.notifier.notify("orders", "alone"))
    await held.wait()


async def several_in_flight(harness: NotifierHarness) -> None:
    """Calls together get no answer, others wait, and others wait for room."""
    await harness.warm()
    held = harness.database.proxy.cut_on(b"more", then="black_hole")
    harness.call(harness.notifier.notify("orders", "alone"))
    harness.call(harness.notifier.notify("orders", "more"))
    await held.wait()
    harness.call_several()
    await asyncio.sleep(0)


async def many_in_flight(harness: NotifierHarness) -> None:
    """notify_many() gets no answer, with more to come."""
    await harness.warm()
    held = harness.database.proxy.cut_on(b"999", then="black_hole")
    harness.call(harness.notifier.notify_many(("orders", str(n)) for n in range(3_000)))
    await held.wait()
    harness.call_several()
    await asyncio.sleep(0)


async def dialling(harness: NotifierHarness) -> None:
    """The server is silent when it is connected to."""
    harness.database.proxy.silent()
    harness.call_several()
    await harness.database.proxy.wait_for_dials(1)


async def starting(harness: NotifierHarness) -> None:
    """start() waits for its next attempt, for a minute."""
    harness.database.proxy.refuse()
    harness.call(harness.notifier.start())
    await harness.failed.acquire()


async def trying_again(harness: NotifierHarness) -> None:
    """Calls with retry=True wait for their next attempt."""
    await harness.warm()
    harness.database.proxy.refuse()
    harness.database.proxy.half_close()
    await harness.database.proxy.wait_idle()
    for n in range(3):
        harness.call(harness.notifier.notify("orders", str(n), retry=True))
    for _ in range(3):
        await harness.failed.acquire()


async def saying_goodbye(harness: NotifierHarness) -> None:
    """The server does not notice that it leaves."""
    await harness.warm()
    harness.database.proxy.black_hole()


STATES = [
    at_rest,
    alone_in_flight,
    several_in_flight,
    many_in_flight,
    dialling,
    starting,
    trying_again,
    saying_goodbye,
]


async def check_calls(harness: NotifierHarness) -> None:
    """Check that every call has ended, or tries again until it learns that all is over."""
    waiting = [call for call in harness.calls if not call.done()]
    for call in waiting:
        call.cancel()  # it sleeps until its next attempt
    for outcome in await asyncio.gather(*harness.calls, return_exceptions=True):
        assert outcome is None or isinstance(
            outcome,
            ConnectError | ConnectionLostError | ClosedError | asyncio.CancelledError,
        )


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("how", ["aclose", "twice", "at once", "cancelled"])
async def test_r31_aclose_is_bounded_in_every_state(
    database: ProxiedDatabase, state: Callable[[NotifierHarness], Awaitable[None]], how: str
) -> None:
    """It keeps its timeout, tells every caller, leaves no session, and start() begins anew."""
    harness = NotifierHarness(database)
    await state(harness)
    closes = [asyncio.create_task(harness.notifier.aclose(0 if how == "at once" else None))]
    if how == "twice":
        closes.append(asyncio.create_task(harness.notifier.aclose()))
    await asyncio.sleep(0)
    if how == "cancelled":
        closes[0].cancel()
    began = time.monotonic()
    async with asyncio.timeout(WAIT_LIMIT):
        await asyncio.wait(closes)
        if state not in (starting, trying_again) and harness.calls:
            await asyncio.wait(harness.calls)
    assert time.monotonic() - began < CLOSE_TIMEOUT + SLACK
    await check_calls(harness)
    database.proxy.heal()
    await harness.notifier.aclose()
    with pytest.raises(ClosedError):
        await harness.notifier.notify("orders", "late")
    await database.proxy.wait_idle()
    await harness.notifier.start()
    await harness.notifier.notify("orders", "anew")
    await harness.notifier.aclose()


@pytest.mark.parametrize("harm", ["freeze", "stop"])
async def test_r31_aclose_is_bounded_without_a_server(
    own_database: ProxiedDatabase, battered_server: PostgresServer, harm: str
) -> None:
    """The server stands still, or is down, with calls in flight and waiting."""
    harness = NotifierHarness(own_database)
    await harness.warm()
    pids = await own_database.backends()
    if harm == "freeze":
        for pid in pids:
            battered_server.freeze_backend(pid)
    else:
        await asyncio.to_thread(battered_server.stop)
    try:
        harness.call_several()
        await asyncio.sleep(0)
        began = time.monotonic()
        await harness.notifier.aclose()
        assert time.monotonic() - began < CLOSE_TIMEOUT + SLACK
        async with asyncio.timeout(WAIT_LIMIT):
            await asyncio.wait(harness.calls)
        await check_calls(harness)
    finally:
        if harm == "freeze":
            for pid in pids:
                battered_server.thaw_backend(pid)
        await asyncio.to_thread(battered_server.start)


async def test_aclose_flushes_while_the_network_is_slow(database: ProxiedDatabase) -> None:
    """Within its timeout, what was accepted is sent, and in order."""
    async with Listener(database.dsn) as listener, listener.stream("orders") as heard:
        notifier = Notifier(database.proxied_dsn)
        await notifier.start()
        database.proxy.delay(to_server=0.03, to_client=0.03)
        calls = [asyncio.create_task(notifier.notify("orders", str(n))) for n in range(50)]
        await asyncio.sleep(0)
        await notifier.aclose(WAIT_LIMIT)
        assert await asyncio.gather(*calls) == [None] * 50
        assert [(await anext(heard)).payload for _ in range(50)] == [str(n) for n in range(50)]


async def test_a_start_beside_aclose_does_not_cut_it_short(database: ProxiedDatabase) -> None:
    """start() is refused while somebody closes; what was accepted is still sent."""
    notifier = Notifier(database.proxied_dsn)
    await notifier.notify("orders", "warm")
    held = database.proxy.cut_on(b"accepted", then="black_hole")
    call = asyncio.create_task(notifier.notify("orders", "accepted"))
    await held.wait()
    closing = asyncio.create_task(notifier.aclose(WAIT_LIMIT))
    await asyncio.sleep(0)
    with pytest.raises(ClosedError):
        await notifier.start()
    database.proxy.heal()
    await call
    await closing


async def test_an_old_start_does_not_close_what_was_begun_after(database: ProxiedDatabase) -> None:
    """A start() that was closed under its wait learns of it, and touches nothing that is newer."""
    failed = asyncio.Event()

    def delays() -> Iterator[float]:
        yield 0.0
        failed.set()
        yield 0.2
        yield FOR_EVER

    notifier = Notifier(database.proxied_dsn, backoff=delays)
    database.proxy.drop_new()
    old = asyncio.create_task(notifier.start())
    await failed.wait()
    await notifier.aclose()
    database.proxy.accept()
    await notifier.start()
    async with asyncio.timeout(WAIT_LIMIT):
        with pytest.raises(ClosedError):
            await old
    await notifier.notify("orders", "still")
    await notifier.aclose()
