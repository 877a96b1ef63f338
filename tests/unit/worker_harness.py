"""A subscription's worker by itself: no server, no listener, only the time that passes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from asyncnotify._delivery.bounded import BoundedMailbox
from asyncnotify._delivery.registry import Subscriber
from asyncnotify._logs import WarningLimit
from asyncnotify._model import Gap, GapReason, Notification
from asyncnotify._subscriptions.slow import SlowCalls
from asyncnotify._subscriptions.worker import HandlerWorker
from tests.unit.fake_sources import TrimmingSource

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asyncnotify._delivery.bounded import Overflow
    from asyncnotify._subscriptions.middleware import Middleware

LOST = GapReason.RECONNECT


class WorkerHarness:
    """A worker on a mailbox of its own, and what its handler saw, with the time."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.tasks: list[asyncio.Task[None]] = []
        self.handled: list[str] = []
        self.times: list[float] = []
        self.limit = WarningLimit(beyond=logging.DEBUG, clock=self.loop.time)
        self.workers: list[HandlerWorker] = []
        self.slow_calls = SlowCalls(
            self.loop,
            lambda: self.workers,
            wakings=lambda: sum(w.subscriber.mailbox.taken for w in self.workers),
        )
        self.errors: list[tuple[BaseException, object]] = []

    @property
    def now(self) -> float:
        """Seconds since the test began."""
        return self.loop.time() - self.began

    def handle(self, notification: Notification[str]) -> None:
        """Note a notification: the handler."""
        self.handled.append(notification.payload)
        self.times.append(self.now)

    def on_error(self, error: BaseException, item: object) -> None:
        """Note an error."""
        self.errors.append((error, item))

    def start(
        self,
        handler: Callable[[Notification[str]], Awaitable[object] | object] | None = None,
        *,
        resync: Callable[[Gap], Awaitable[object] | object] | None = None,
        on_error: Callable[[BaseException, object], Awaitable[object] | object] | None = None,
        concurrency: int = 1,
        buffer: int = 10_000,
        overflow: Overflow = "drop_oldest",
        slow_after: float | None = None,
        middleware: Sequence[Middleware] = (),
    ) -> Subscriber:
        """Let a worker run; return its subscriber, which has begun."""
        box = BoundedMailbox(buffer, overflow, channel="a", source=TrimmingSource())
        subscriber = Subscriber(["a"], box)
        worker = HandlerWorker(
            subscriber,
            handler or self.handle,
            resync=resync,
            on_error=on_error or self.on_error,
            concurrency=concurrency,
            slow_after=slow_after,
            middleware=middleware,
            warnings=self.limit,
        )
        self.workers.append(worker)
        self.slow_calls.add(worker)
        self.tasks.append(asyncio.create_task(worker.run()))
        subscriber.begin()
        return subscriber


def put(subscriber: Subscriber, *payloads: object) -> None:
    """Let notifications arrive."""
    for payload in payloads:
        subscriber.mailbox.put(Notification("a", str(payload), 7))


def lose(subscriber: Subscriber) -> None:
    """Lose the connection, and have it back."""
    subscriber.interrupt(LOST, None)
    subscriber.begin()


def failing(count: int, error: BaseException | None = None) -> Callable[[object], None]:
    """Return a function that raises so many times."""
    left = [error or ValueError("no good")] * count

    def fail(_item: object) -> None:
        if left:
            raise left.pop()

    return fail
