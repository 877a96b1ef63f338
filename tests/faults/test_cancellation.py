"""Callers cancelled at every moment of every call: nothing stays behind, nothing is confused."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import ConnectionLost, ExponentialBackoff, Notification, State
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator

    from asyncnotify import Listener
    from asyncnotify.testing.proxy import FaultProxy
    from tests.faults.conftest import ProxiedDatabase, Subject

    Call = Callable[[Listener], Coroutine[Any, Any, object]]

AT_ONCE = ExponentialBackoff(initial=0.001, cap=0.001)
CHANNELS = ("orders", "other")
WAIT_LIMIT = scaled(10.0)

pytestmark = pytest.mark.parametrize("connects_by", ["dsn", "connect"])


class Steps:
    """
    Awaits a coroutine step by step, and cancels its task at one of its suspensions.

    ``late`` cancels it when what it waits for has come and it has not run yet: the moment at
    which a result is most easily lost.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, object], at: int, *, late: bool) -> None:
        self._coroutine = coroutine
        self._at = at
        self._late = late
        self.cancelled = False

    def __await__(self) -> Generator[Any, Any, object]:
        result: Any = None
        failure: BaseException | None = None
        for suspension in itertools.count(1):
            try:
                waits_for = self._step(result, failure)
            except StopIteration as stop:
                return stop.value
            if suspension == self._at:
                self._cancel(waits_for)
            result = failure = None
            try:
                result = yield waits_for
            except BaseException as error:  # noqa: BLE001 - the coroutine is to see it
                failure = error
        return None

    def _step(self, result: object, failure: BaseException | None) -> asyncio.Future[Any] | None:
        if failure is not None:
            waits_for = self._coroutine.throw(failure)
        else:
            waits_for = self._coroutine.send(result)
        assert waits_for is None or asyncio.isfuture(waits_for)
        return waits_for

    def _cancel(self, waits_for: asyncio.Future[Any] | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._late and waits_for is not None:
            waits_for.add_done_callback(lambda _: self._cancel_task(task))
        else:
            self._cancel_task(task)

    def _cancel_task(self, task: asyncio.Task[Any]) -> None:
        self.cancelled = task.cancel()


class Moment:
    """One moment in a call: its n-th suspension, before or after it, or n-th read on the wire."""

    def __init__(self, proxy: FaultProxy, kind: str, number: int) -> None:
        self._proxy = proxy
        self._kind = kind
        self._number = number

    def __repr__(self) -> str:
        return f"{self._kind} {self._number}"

    async def interrupts(self, coroutine: Coroutine[Any, Any, object]) -> bool:
        """Run a call and cancel it at this moment; return False if it was over before."""
        if self._kind == "read":
            return await self._interrupts_at_read(coroutine)
        steps = Steps(coroutine, self._number, late=self._kind == "late")
        return await self._outcome(asyncio.create_task(_awaited(steps)), lambda: steps.cancelled)

    async def _interrupts_at_read(self, coroutine: Coroutine[Any, Any, object]) -> bool:
        task = asyncio.create_task(coroutine)
        left, cancelled = self._number, False

        def count(*_: object) -> None:
            nonlocal left, cancelled
            left -= 1
            if not left:
                cancelled = task.cancel()

        stop = self._proxy.tap(count)
        try:
            return await self._outcome(task, lambda: cancelled)
        finally:
            stop()

    async def _outcome(self, task: asyncio.Task[object], cancelled: Callable[[], bool]) -> bool:
        async with asyncio.timeout(WAIT_LIMIT):
            await asyncio.wait({task})
        assert task.cancelled() == cancelled(), f"{self}: the cancellation was swallowed"
        if not task.cancelled():
            task.result()
        return task.cancelled()


async def _awaited(awaitable: Awaitable[object]) -> object:
    return await awaitable


async def every_moment(
    database: ProxiedDatabase, attempt: Callable[[Moment], Awaitable[bool]], *, at_least: int = 1
) -> None:
    """Make an attempt for every moment, until the call is over before it; no task may be left."""
    made = 0
    for kind in ("early", "late", "read"):
        for number in itertools.count(1):
            before = asyncio.all_tasks()
            interrupted = await attempt(Moment(database.proxy, kind, number))
            await no_more_than(before, f"{kind} {number}")
            if not interrupted:
                break
            made += 1
    assert made >= at_least


async def no_more_than(before: set[asyncio.Task[Any]], moment: str) -> None:
    """Check that there are no more tasks than before, once those that end have ended."""
    deadline = asyncio.get_running_loop().time() + scaled(1.0)
    while len(asyncio.all_tasks()) > len(before):
        left = asyncio.all_tasks() - before
        remaining = deadline - asyncio.get_running_loop().time()
        assert remaining > 0, f"left at {moment}: {left}"
        await asyncio.wait(left, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)


@pytest.fixture
async def subject(database: ProxiedDatabase) -> AsyncIterator[Subject]:
    """A running listener that loses no time between attempts."""
    async with database.running(backoff=AT_ONCE) as subject:
        yield subject


async def check(database: ProxiedDatabase, subject: Subject, *, sessions: int = 1) -> None:
    """Check that the server and the listener agree, and that no session is left over."""
    await database.check_agreement(subject, CHANNELS)
    await database.until_backends(sessions)


async def listened(listener: Listener) -> None:
    """Listen with a handler."""
    await listener.listen("orders", print)


async def connected(listener: Listener) -> None:
    """Wait for a connection."""
    await listener.wait_connected()


async def entered(listener: Listener) -> None:
    """Begin a stream and leave it."""
    async with listener.stream(*CHANNELS):
        pass


async def first_item(listener: Listener) -> None:
    """Take the first item of a stream, which is a gap."""
    await anext(listener.stream(*CHANNELS, gaps=True))


@pytest.mark.parametrize("call", [listened, entered, first_item])
async def test_r32_listening_may_be_cancelled_anywhere(
    database: ProxiedDatabase, subject: Subject, call: Call
) -> None:
    """listen() or a stream's beginning, cancelled anywhere, is withdrawn whole."""

    async def attempt(moment: Moment) -> bool:
        interrupted = await moment.interrupts(call(subject.listener))
        if interrupted:
            assert subject.listener.channels == {"fence"}
        await check(database, subject)
        for channel in CHANNELS:
            await subject.listener.unlisten(channel)
        return interrupted

    await every_moment(database, attempt, at_least=4)
    assert subject.count(ConnectionLost) == 0


@pytest.mark.parametrize("how", ["unlisten", "cancel", "aclose"])
async def test_r32_unlistening_may_be_cancelled_anywhere(
    database: ProxiedDatabase, subject: Subject, how: str
) -> None:
    """unlisten() and its like, cancelled anywhere, have ended the subscription all the same."""
    received: list[Notification[str]] = []

    async def begin() -> Coroutine[Any, Any, object]:
        if how == "aclose":
            return (await subject.listener.stream("orders").__aenter__()).aclose()
        subscription = await subject.listener.listen("orders", received.append)
        return subscription.cancel() if how == "cancel" else subject.listener.unlisten("orders")

    async def attempt(moment: Moment) -> bool:
        interrupted = await moment.interrupts(await begin())
        assert subject.listener.channels == {"fence"}
        await check(database, subject)
        return interrupted

    await every_moment(database, attempt, at_least=4)
    assert received == []
    assert subject.count(ConnectionLost) == 0


async def test_r32_notify_may_be_cancelled_anywhere(
    database: ProxiedDatabase, subject: Subject
) -> None:
    """notify(), cancelled anywhere, leaves a publisher that works, on one connection."""
    await subject.listener.notify("orders", "first")

    async def attempt(moment: Moment) -> bool:
        interrupted = await moment.interrupts(subject.listener.notify("orders", repr(moment)))
        await subject.listener.notify("orders", "next")
        await check(database, subject, sessions=2)
        return interrupted

    await every_moment(database, attempt, at_least=3)


async def test_r32_the_first_notify_may_be_cancelled_anywhere(database: ProxiedDatabase) -> None:
    """notify(), cancelled while its connection is being made, leaves no second connection."""

    async def attempt(moment: Moment) -> bool:
        async with database.running(backoff=AT_ONCE) as subject:
            interrupted = await moment.interrupts(subject.listener.notify("orders", "first"))
            await subject.listener.notify("orders", "next")
            await database.until_backends(2)
        return interrupted

    await every_moment(database, attempt, at_least=6)


async def test_r32_waiting_for_an_item_may_be_cancelled_anywhere(
    database: ProxiedDatabase, subject: Subject
) -> None:
    """anext() on a stream, cancelled anywhere, leaves the item to the next call."""
    async with subject.listener.stream("orders") as stream:

        async def attempt(moment: Moment) -> bool:
            interrupting = asyncio.create_task(moment.interrupts(anext(stream)))
            await database.notify("orders", repr(moment))
            interrupted = await interrupting
            if interrupted:
                assert (await anext(stream)).payload == repr(moment)
            return interrupted

        await every_moment(database, attempt, at_least=3)


async def test_r32_start_may_be_cancelled_anywhere(database: ProxiedDatabase) -> None:
    """start(), cancelled anywhere, leaves nothing running, and may be called again."""

    async def attempt(moment: Moment) -> bool:
        subject = database.subject(backoff=AT_ONCE)
        for channel in CHANNELS:
            subject.listener.on(channel)(print)
        interrupted = await moment.interrupts(subject.listener.start())
        if interrupted:
            subject.check_state(State.CLOSED)
            await database.proxy.wait_idle()
            await subject.listener.start()
        await subject.set_up_fence()
        await check(database, subject)
        await subject.listener.aclose()
        await database.proxy.wait_idle()
        return interrupted

    await every_moment(database, attempt, at_least=6)


async def test_r32_aclose_may_be_cancelled_anywhere(database: ProxiedDatabase) -> None:
    """aclose(), cancelled anywhere, has closed all the same, without waiting for handlers."""

    async def attempt(moment: Moment) -> bool:
        async with database.running(backoff=AT_ONCE) as subject:
            await subject.listener.notify("orders")
            interrupted = await moment.interrupts(subject.listener.aclose())
            subject.check_state(State.CLOSED)
            await database.proxy.wait_idle()
        return interrupted

    await every_moment(database, attempt, at_least=2)


@pytest.mark.parametrize("call", [listened, connected, entered])
async def test_r32_callers_may_be_cancelled_anywhere_in_a_reconnect(
    database: ProxiedDatabase, subject: Subject, call: Call
) -> None:
    """Calls that wait for a reconnect, cancelled at any point of it, do not disturb it."""
    await subject.listener.listen("other", print)

    async def attempt(moment: Moment) -> bool:
        database.proxy.reset()
        await subject.until(ConnectionLost)
        interrupted = await moment.interrupts(call(subject.listener))
        await subject.comes_back()
        await check(database, subject)
        await subject.listener.unlisten("orders")
        if "other" not in subject.listener.channels:
            await subject.listener.listen("other", print)
        return interrupted

    await every_moment(database, attempt)


async def test_r32_a_reconnect_may_be_closed_anywhere(database: ProxiedDatabase) -> None:
    """aclose() at any point of a reconnect leaves no connection, however far that had come."""

    async def attempt(moment: Moment) -> bool:
        async with database.running(backoff=AT_ONCE) as subject:
            database.proxy.reset()
            await subject.until(ConnectionLost)
            interrupted = await moment.interrupts(connected(subject.listener))
            await subject.listener.aclose()
            await database.proxy.wait_idle()
        return interrupted

    await every_moment(database, attempt, at_least=6)
