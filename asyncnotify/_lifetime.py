"""
One run of a listener, from start() to the end of aclose(): its tasks, and their end.

The supervisor task runs ``Lifetime.run``. The task group of the connection and of the handlers
lives inside it, so that start and close may be called from different tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._errors import ConnectTimeoutError, ListenerClosedError, ListenTimeoutError
from asyncnotify._events import Closed, describe_error
from asyncnotify._model import State, Stats, SubscriptionStats
from asyncnotify._totals import Totals

if TYPE_CHECKING:
    from asyncnotify._delivery import Delivery
    from asyncnotify._events import Announcer
    from asyncnotify._publisher import Publisher
    from asyncnotify._registry import Subscriber
    from asyncnotify._subscription import HandlerWorker
    from asyncnotify._supervisor import Limits, Supervisor

logger = logging.getLogger("asyncnotify.connection")

_LAST_MOMENT: Final = 0.2
"""Seconds granted to handlers for ending after they have been cancelled."""


class Lifetime:
    """Starts and ends the tasks of one run. Subscriptions begin and end here."""

    def __init__(
        self,
        supervisor: Supervisor,
        publisher: Publisher,
        limits: Limits,
        announcer: Announcer,
    ) -> None:
        self._supervisor = supervisor
        self._registry = supervisor.registry
        self._publisher = publisher
        self._publishing: asyncio.Task[None] | None = None
        self._limits = limits
        self._announcer = announcer
        self._loop = asyncio.get_running_loop()
        self._workers: dict[asyncio.Task[None], HandlerWorker] = {}
        self._closers: set[asyncio.Task[object] | None] = set()
        self._stop_requested = asyncio.Event()
        self._drain = True
        self._deadline = float("inf")
        self._hurry: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._served: set[Subscriber] = set()
        self._first_workers: list[HandlerWorker] = []
        self._past = Totals()
        self._group = asyncio.TaskGroup()
        self._task: asyncio.Task[None] | None = None

    # -- start ----------------------------------------------------------------------------------

    async def start(self, target: str, workers: list[HandlerWorker]) -> None:
        """Return once listening; on failure and on cancellation nothing is left running."""
        self._first_workers = workers
        self._task = asyncio.create_task(self.run(), name="asyncnotify supervisor")
        try:
            await self.wait_started(target)
        except BaseException:
            await self.end(drain=False, timeout=self._limits.close_timeout)
            raise

    async def wait_started(self, target: str) -> None:
        """Return once listening; raise what start() raises."""
        outcomes: set[asyncio.Future[None]] = {self._supervisor.started, self._ended}
        await asyncio.wait(
            outcomes,
            timeout=self._limits.start_timeout,
            return_when=asyncio.FIRST_COMPLETED,
        )
        self._check_started(target)

    async def wait_connected(self, target: str, timeout: float | None) -> None:
        """Return once listening, at the first or at a later connection."""
        connected = asyncio.create_task(self._supervisor.connected.wait())
        outcomes: set[asyncio.Future[Any]] = {connected, self._ended}
        try:
            await asyncio.wait(outcomes, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not connected.done():
                self._refuse_if_ending()
                raise self._connect_timeout(target, timeout or 0.0)
        finally:
            connected.cancel()

    def _check_started(self, target: str) -> None:
        started = self._supervisor.started
        if started.done():
            started.result()
        elif self._ended.done():
            msg = "the listener was closed while it was starting"
            raise ListenerClosedError(msg)
        else:
            raise self._connect_timeout(target, self._limits.start_timeout)

    def _connect_timeout(self, target: str, seconds: float) -> ConnectTimeoutError:
        cause = self._supervisor.health.last_error
        why = f": {describe_error(cause)}" if cause else ""
        error = ConnectTimeoutError(f"not connected to {target} within {seconds:g} s{why}")
        error.__cause__ = cause
        return error

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that all of this belongs to."""
        return self._loop

    @property
    def delivery(self) -> Delivery:
        """Where mailboxes learn what they need to know."""
        return self._supervisor.delivery

    @property
    def has_ended(self) -> bool:
        """Whether this run is over."""
        return self._ended.done() or self._loop.is_closed()

    @property
    def state(self) -> State:
        """What the listener is doing."""
        return State.CLOSED if self.has_ended else self._supervisor.state

    @property
    def channels(self) -> frozenset[str]:
        """The channels that somebody wants."""
        return self._registry.desired

    async def run(self) -> None:
        """Hold the connection and run the handlers, until asked to end."""
        try:
            async with self._group:
                connection = self._group.create_task(
                    self._supervisor.hold_sessions(), name="asyncnotify connection"
                )
                for worker in self._first_workers:
                    self.serve_soon(worker)
                await self._stop_requested.wait()
                await self._wind_up(connection)
        finally:
            self._finish()

    # -- subscriptions --------------------------------------------------------------------------

    async def attach(self, subscriber: Subscriber, timeout: float | None) -> None:
        """Return once the server has confirmed every channel of the subscription."""
        self._refuse_if_ending()
        self._registry.add(subscriber)
        if subscriber.in_force:
            return
        subscriber.waiter = self._loop.create_future()
        self._supervisor.notice_change()
        try:
            async with asyncio.timeout(timeout):
                await subscriber.waiter
        except TimeoutError:
            self.detach(subscriber)
            channels = tuple(subscriber.channels)
            raise self._listen_timeout(channels, timeout or 0.0) from None
        except BaseException:
            self.detach(subscriber)
            raise
        self._refuse_if_ending()

    def _listen_timeout(self, channels: tuple[str, ...], timeout: float) -> ListenTimeoutError:
        error = ListenTimeoutError(channels, timeout, self._supervisor.health.state)
        error.__cause__ = self._supervisor.health.last_error
        return error

    async def serve(self, worker: HandlerWorker, timeout: float | None) -> None:
        """Start a worker; return once the server has confirmed its channels."""
        self._refuse_if_ending()
        self._start_worker(worker)
        await self.attach(worker.subscriber, timeout)

    def serve_soon(self, worker: HandlerWorker) -> None:
        """Start a worker without waiting for the server."""
        self._refuse_if_ending()
        self._start_worker(worker)
        self._registry.add(worker.subscriber)
        self._supervisor.notice_change()

    def detach(self, subscriber: Subscriber) -> None:
        """Forget the subscription and throw away what waits in its mailbox."""
        if subscriber.mailbox.is_open:
            self._end_subscription(subscriber, discard=True)
            self._supervisor.notice_change()

    def forget_soon(self, subscriber: Subscriber) -> None:
        """Detach from whatever thread a garbage collector runs in."""
        if subscriber.mailbox.is_open:
            self._loop.call_soon_threadsafe(self.detach, subscriber)

    def _end_subscription(self, subscriber: Subscriber, *, discard: bool) -> None:
        self._registry.remove(subscriber)
        subscriber.mailbox.end(discard=discard)
        subscriber.stop_waiting()
        if subscriber not in self._served:
            self._past.add(subscriber.stats())

    async def unlisten(self, channel: str) -> None:
        """End the channel's subscriptions; return once the server has confirmed."""
        for subscriber in self._registry.remove_channel(channel):
            self._end_subscription(subscriber, discard=True)
        self._supervisor.notice_change()
        await self._supervisor.settled()

    async def settled(self) -> None:
        """Return once the server listens on what is desired, or the connection is gone."""
        await self._supervisor.settled()

    def _start_worker(self, worker: HandlerWorker) -> None:
        """Run the worker of a subscription as a task of its own."""
        task = self._group.create_task(worker.run(), name=f"asyncnotify handler of {worker.name}")
        self._workers[task] = worker
        self._served.add(worker.subscriber)
        task.add_done_callback(self._worker_ended)

    def _worker_ended(self, task: asyncio.Task[None]) -> None:
        worker = self._workers.pop(task)
        ours = self._stop_requested.is_set() or self._task is None or self._task.cancelling() > 0
        if ours or not worker.active:
            self._served.discard(worker.subscriber)
            self._past.add(worker.subscriber.stats())
        elif task.cancelled():
            logger.error("the handler of %s cancelled its own task; it goes on", worker.name)
            self._start_worker(worker)
        else:
            self._served.discard(worker.subscriber)
            self.detach(worker.subscriber)

    async def publish(self, channel: str, payload: str) -> None:
        """Send a notification, on a connection that is not the listening one."""
        if self._publishing is None and not self._ended.done():
            self._publishing = self._group.create_task(
                self._publisher.run(), name="asyncnotify publisher"
            )
        await self._publisher.publish(channel, payload)

    def stats(self) -> Stats:
        """Return a snapshot of the counters of this run."""
        health = self._supervisor.health
        subscriptions = self._subscription_stats()
        totals = self._past.plus(subscriptions)
        return Stats(
            state=self.state,
            received=self._supervisor.delivery.received,
            delivered=totals.delivered,
            dropped=totals.dropped,
            handler_errors=totals.handler_errors,
            decode_errors=totals.decode_errors,
            gaps=totals.gaps,
            reconnects=health.reconnects,
            connected_since=health.connected_since,
            last_heartbeat=health.last_heartbeat,
            heartbeat_round_trip=health.round_trip,
            subscriptions=subscriptions,
        )

    def _subscription_stats(self) -> tuple[SubscriptionStats, ...]:
        subscribers = dict.fromkeys(self._registry.subscribers)
        subscribers.update(dict.fromkeys(self._served))  # ended, but not yet done
        return tuple(subscriber.stats() for subscriber in subscribers)

    def _refuse_if_ending(self) -> None:
        if self._stop_requested.is_set() or self._ended.done():
            msg = "the listener is closed"
            raise ListenerClosedError(msg)

    # -- the end --------------------------------------------------------------------------------

    async def end(self, *, drain: bool, timeout: float) -> None:
        """
        Stop listening and return when everything has ended, or the timeout is over.

        May be called from a handler, which is not waited for, and several times: the
        shortest deadline stands. Cancelling it ends the rest without draining.
        """
        self._closers.add(asyncio.current_task())
        self._deadline = min(self._deadline, self._loop.time() + timeout)
        self._drain = self._drain and drain
        self._stop_requested.set()
        if not drain:
            self._hurry_up()
        try:
            await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            self._hurry_up()
            await asyncio.wait({self._ended}, timeout=_LAST_MOMENT * 2)
            raise
        await self._last_tasks()

    def _hurry_up(self) -> None:
        self._deadline = min(self._deadline, self._loop.time())
        if not self._hurry.done():
            self._hurry.set_result(None)

    async def _last_tasks(self) -> None:
        """Await the supervisor task, unless it waits for us."""
        if self._task is not None and self._closers.isdisjoint(self._workers):
            await asyncio.wait({self._task}, timeout=_LAST_MOMENT)

    async def _wind_up(self, connection: asyncio.Task[None]) -> None:
        self._supervisor.health.state = State.CLOSING
        self._supervisor.say_goodbye(max(0.0, self._deadline - self._loop.time()))
        connection.cancel()
        for subscriber in self._registry.subscribers:
            self._end_subscription(subscriber, discard=not self._drain)
        await self._end_tasks({connection, *self._workers})
        await self._end_publishing()
        self._finish()

    async def _end_tasks(self, tasks: set[asyncio.Task[None]]) -> None:
        """Wait for tasks until the deadline, then cancel them; none is waited for by itself."""
        await self._until_deadline(tasks)
        for task in tasks - self._closers:
            task.cancel()
        unfinished = {task for task in tasks - self._closers if not task.done()}
        if unfinished:
            await asyncio.wait(unfinished, timeout=_LAST_MOMENT)
        for task in unfinished:
            if not task.done():
                logger.warning("%s goes on though it was cancelled", task.get_name())

    async def _end_publishing(self) -> None:
        """Close the publisher last: a handler that finishes its work may need it."""
        self._publisher.close(max(0.0, self._deadline - self._loop.time()))
        if self._publishing is not None:
            await self._end_tasks({self._publishing})

    async def _until_deadline(self, tasks: set[asyncio.Task[None]]) -> None:
        while waiting := {t for t in tasks - self._closers if not t.done()}:
            remaining = self._deadline - self._loop.time()
            if remaining <= 0:
                return
            await asyncio.wait(
                {*waiting, self._hurry}, timeout=remaining, return_when=asyncio.FIRST_COMPLETED
            )

    def _finish(self) -> None:
        if self._ended.done():
            return
        for subscriber in self._registry.subscribers:
            self._end_subscription(subscriber, discard=not self._drain)
        self._supervisor.health.state = State.CLOSED
        self._supervisor.health.connected_since = None
        self._supervisor.connected.clear()
        self._announcer.announce(Closed())
        with contextlib.suppress(asyncio.InvalidStateError):
            self._ended.set_result(None)
