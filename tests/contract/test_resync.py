"""resync: the state is read again at every Gap, before what follows it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from asyncnotify import Gap, GapReason, Notification

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify import Listener
    from tests.contract.conftest import Database, Inbox

    Text = Inbox[Notification[str]]


class Reload:
    """A resync that fails as often as told, and notes what happens around it."""

    def __init__(self, failures: int, error: type[BaseException] = LookupError) -> None:
        self._failures = failures
        self._error = error
        self.gaps: list[Gap] = []
        self.log: list[str] = []
        self.errors: list[BaseException] = []

    async def __call__(self, gap: Gap) -> None:
        """Fail, or load."""
        self.gaps.append(gap)
        await asyncio.sleep(0)
        if self._failures:
            self._failures -= 1
            self.log.append("failed")
            self.errors.append(self._error())
            raise self.errors[-1]
        self.log.append("loaded")


def logging_to(log: list[str], inbox: Text) -> Callable[[Notification[str]], Awaitable[None]]:
    """Return a handler that notes the payload, and keeps the notification."""

    async def handle(notification: Notification[str]) -> None:
        log.append(notification.payload)
        inbox(notification)

    return handle


@pytest.mark.parametrize("concurrency", [1, 5])
async def test_resync_runs_before_what_follows_a_gap(
    listener: Listener, database: Database, inbox: Text, concurrency: int
) -> None:
    """It is called at the start and after each loss; the handler only when it has returned."""
    reload = Reload(failures=0)
    handler = logging_to(reload.log, inbox)
    await listener.listen("orders", handler, resync=reload, concurrency=concurrency)
    for n in range(3):
        await database.notify("orders", str(n))
        await inbox.next()
        await database.interrupt(listener)
    await database.notify("orders", "3")
    await inbox.next()
    assert reload.log == ["loaded", "0", "loaded", "1", "loaded", "2", "loaded", "3"]
    assert [gap.reason for gap in reload.gaps] == [GapReason.START, *[GapReason.RECONNECT] * 3]
    times = [gap.since for gap in reload.gaps[1:] if gap.since is not None]
    assert len(times) == 3
    assert times == sorted(times)


async def test_resync_waits_for_the_calls_that_run(
    listener: Listener, database: Database, new_inbox: type[Text]
) -> None:
    """With concurrency, what came before a Gap has been handled when resync is called."""
    begun, gate, log = new_inbox(), asyncio.Event(), list[str]()

    async def handle(notification: Notification[str]) -> None:
        begun(notification)
        await gate.wait()
        log.append(notification.payload)

    def resync(gap: Gap) -> None:
        log.append(str(gap.reason))

    await listener.listen("orders", handle, resync=resync, concurrency=3)
    await database.notify("orders", "1", "2")
    await begun.payloads(2)
    await database.interrupt(listener)
    await database.notify("orders", "3")
    await database.fence(listener)
    assert log == ["start"]
    gate.set()
    assert await begun.payloads(1) == ["3"]
    assert log[:4] == ["start", "1", "2", "reconnect"]


@pytest.mark.parametrize("error", [LookupError, asyncio.CancelledError, GeneratorExit])
async def test_a_resync_that_fails_is_tried_again_first(
    listener: Listener,
    database: Database,
    inbox: Text,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
) -> None:
    """Until it has succeeded the handler is not called; each failure is told and counted."""
    reload = Reload(failures=3, error=error)
    told: list[tuple[BaseException, object]] = []

    def tell(problem: BaseException, item: object) -> None:
        told.append((problem, item))

    subscription = await listener.listen(
        "orders", logging_to(reload.log, inbox), resync=reload, on_error=tell
    )
    await database.notify("orders", "1", "2")
    await inbox.payloads(2)
    assert reload.log == ["failed", "failed", "failed", "loaded", "1", "2"]
    gap = Gap("orders", GapReason.START)
    assert reload.gaps == [gap] * 4
    assert told == [(raised, gap) for raised in reload.errors]
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == ["resync of 'orders' raised; the handler waits until it succeeds"] * 3
    stats = subscription.stats()
    assert (stats.resync_errors, stats.handler_errors, stats.delivered, stats.gaps) == (3, 0, 2, 1)
    assert listener.stats().handler_errors == 3


async def test_r46_a_newer_gap_keeps_its_place_while_resync_fails(
    listener: Listener, database: Database, inbox: Text
) -> None:
    """Losses in a row are told by one call; none overtakes what was received before it."""
    calls: list[Gap] = []
    order: list[str] = []
    failing, begun = asyncio.Event(), asyncio.Event()

    async def resync(gap: Gap) -> None:
        calls.append(gap)
        if gap.reason is GapReason.RECONNECT and not failing.is_set():
            begun.set()
            await failing.wait()
            raise LookupError
        order.append(str(gap.reason))

    subscription = await listener.listen("orders", logging_to(order, inbox), resync=resync)
    await database.interrupt(listener)
    await begun.wait()
    await database.interrupt(listener)
    for payload in ("1", "2"):
        await database.notify("orders", payload)
        await database.fence(listener)
        await database.interrupt(listener)
    failing.set()
    await database.notify("orders", "last")
    assert await inbox.payloads(3) == ["1", "2", "last"]
    assert order == ["start", "reconnect", "1", "reconnect", "2", "reconnect", "last"]
    assert calls[2].since == calls[1].since
    stats = subscription.stats()
    assert (stats.delivered, stats.backlog, stats.gaps) == (3, 0, 5)
