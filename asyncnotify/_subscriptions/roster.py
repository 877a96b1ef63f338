"""The subscriptions of one run: where they begin and end, and the tasks that serve them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from asyncnotify._errors import CLOSED, ClosedError, ListenTimeoutError, own_copy
from asyncnotify._logs import Log
from asyncnotify._subscriptions.slow import SlowCalls
from asyncnotify._subscriptions.worker import HandlerWorker, serving_worker

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncnotify._delivery.registry import Registry, Subscriber
    from asyncnotify._logs import WarningLimit
    from asyncnotify._model import State, SubscriptionStats
    from asyncnotify._owner import Owner
    from asyncnotify._subscriptions.middleware import Middleware

log = Log("handler")


class Agreement(Protocol):
    """What makes the server listen on the channels that are desired."""

    def notice_change(self) -> None:
        """Compare what is desired with what the server has confirmed, soon."""

    async def settled(self) -> None:
        """Return once the server agrees with what is desired now, or the session is gone."""


class Status(Protocol):
    """What is known of the connection."""

    state: State
    last_error: Exception | None


@dataclass(slots=True)
class Totals:
    """What became of the notifications of several subscriptions."""

    delivered: int = 0
    dropped: int = 0
    handler_errors: int = 0
    decode_errors: int = 0
    gaps: int = 0
    rereads: int = 0

    def add(self, subscription: SubscriptionStats) -> None:
        """Add the counters of a subscription."""
        self.delivered += subscription.delivered
        self.dropped += subscription.dropped
        self.handler_errors += subscription.handler_errors + subscription.resync_errors
        self.decode_errors += subscription.decode_errors
        self.rereads += subscription.rereads
        self.gaps += subscription.gaps

    def plus(self, subscriptions: Iterable[SubscriptionStats]) -> Totals:
        """Return new totals: these, and the counters of some more subscriptions."""
        result = replace(self)
        for subscription in subscriptions:
            result.add(subscription)
        return result


class Roster:
    """Begins and ends subscriptions; each handler is served by a task of its own."""

    def __init__(
        self, registry: Registry, agreement: Agreement, status: Status, owner: Owner
    ) -> None:
        self._registry = registry
        self._agreement = agreement
        self._status = status
        self._owner = owner
        self._group: asyncio.TaskGroup | None = None
        self._not_yet_served: list[HandlerWorker] = []
        self._workers: dict[asyncio.Task[None], HandlerWorker] = {}
        self._served: set[Subscriber] = set()
        self._past = Totals()
        self._slow_calls = SlowCalls(
            owner.loop, self._workers.values, wakings=lambda: registry.wakings
        )
        self._closed = False
        self._ends_new_streams = False
        registry.on_refused = self._keep_counters

    # -- the tasks ----------------------------------------------------------------------------

    def open(self, group: asyncio.TaskGroup) -> None:
        """Start the worker tasks in this group, also those of workers that came before."""
        self._group = group
        early, self._not_yet_served = self._not_yet_served, []
        for worker in early:
            self._serve_by_task(worker)

    def close(self, *, discard: bool) -> None:
        """End every subscription; workers finish what is buffered, unless that is discarded."""
        self._closed = True
        for subscriber in self._registry.subscribers:
            self._end(subscriber, discard=discard)
        if discard:
            self.stop_workers()

    def stop_workers(self) -> None:
        """Discard what is still buffered, so that no handler is called any more."""
        self._slow_calls.stop()
        for worker in self._workers.values():
            worker.subscriber.mailbox.end(discard=True)

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """The tasks that serve handlers now."""
        return set(self._workers)

    @property
    def calling_task(self) -> asyncio.Task[None] | None:
        """The worker task of the handler that makes this call; None if no handler does."""
        worker = serving_worker()
        return worker.task if worker is not None and worker.task in self._workers else None

    def use(self, middleware: Sequence[Middleware]) -> None:
        """Let every handler be called through these, also those that are served already."""
        self._owner.check()
        for worker in (*self._not_yet_served, *self._workers.values()):
            worker.use(middleware)

    def _serve_by_task(self, worker: HandlerWorker) -> None:
        if self._group is None:
            self._not_yet_served.append(worker)
            return
        name = f"asyncnotify handler of {worker.name}"
        task = self._group.create_task(worker.run(), name=name, context=worker.context)
        self._workers[task] = worker
        self._served.add(worker.subscriber)
        self._slow_calls.add(worker)
        task.add_done_callback(self._worker_ended)

    def _worker_ended(self, task: asyncio.Task[None]) -> None:
        worker = self._workers.pop(task)
        if task.cancelled() and worker.active and not self._closed:
            log.error(
                "the handler of %s cancelled its own task; a new task goes on with the next"
                " notification",
                worker.name,
                channel=worker.subscriber.label,
            )
            self._serve_by_task(worker)
            return
        self._served.discard(worker.subscriber)
        if self._registry.has(worker.subscriber):
            self._end(worker.subscriber, discard=True)
            self._agreement.notice_change()
        else:
            self._past.add(worker.subscriber.stats())

    # -- subscriptions ------------------------------------------------------------------------

    async def serve(self, worker: HandlerWorker, timeout: float | None) -> None:
        """Start a worker; return once the server has confirmed its channels."""
        self._refuse_if_closed()
        self._serve_by_task(worker)
        await self.attach(worker.subscriber, timeout)

    def serve_soon(self, worker: HandlerWorker) -> None:
        """Start a worker without waiting for the server."""
        self._refuse_if_closed()
        self._serve_by_task(worker)
        self._registry.add(worker.subscriber)
        self._agreement.notice_change()

    async def attach(self, subscriber: Subscriber, timeout: float | None) -> None:
        """Return once the server has confirmed every channel; else withdraw the subscription."""
        self.enlist(subscriber)
        try:
            await self.confirmed(subscriber, timeout)
        except BaseException:
            self.detach(subscriber)
            raise

    def enlist(self, subscriber: Subscriber) -> None:
        """Desire the channels of a subscription; it begins when the server has confirmed them."""
        self._refuse_if_closed()
        subscriber.waiter = self._owner.loop.create_future()
        self._registry.add(subscriber)
        self._agreement.notice_change()

    def enlist_stream(self, subscriber: Subscriber) -> None:
        """As enlist(); once new streams are to end, too, the subscription has ended already."""
        self.enlist(subscriber)
        if self._ends_new_streams:  # looked at afterwards: end_streams() may interrupt this
            self._end_streams((subscriber,))

    async def confirmed(self, subscriber: Subscriber, timeout: float | None) -> None:
        """
        Return once the server has confirmed every channel of an enlisted subscription.

        Raises:
            ListenTimeoutError: The server did not confirm in time.
            ChannelNameError: The server refused a channel.
            ConfigurationError: The server does not listen at all.
            ClosedError: The listener was closed meanwhile.
        """
        if subscriber.in_force or subscriber.waiter is None:
            return
        await asyncio.wait({subscriber.waiter}, timeout=timeout)
        if not subscriber.waiter.done():
            error = ListenTimeoutError(subscriber.channels, timeout or 0.0, self._status.state)
            raise error from self._status.last_error
        if subscriber.refusal is not None:
            raise own_copy(subscriber.refusal)  # several may wait: each gets an error of its own
        if not subscriber.in_force:
            self._refuse_if_closed()

    def detach(self, subscriber: Subscriber) -> None:
        """End the subscription and discard what waits in its mailbox."""
        self._owner.check()
        if self._registry.has(subscriber):
            self._end(subscriber, discard=True)
            self._agreement.notice_change()
        else:
            subscriber.mailbox.end(discard=True)

    def forget_soon(self, subscriber: Subscriber) -> None:
        """Detach soon; for garbage collection, which may run in any thread."""
        if self._registry.has(subscriber) and not self._owner.is_other_process:
            self._owner.loop.call_soon_threadsafe(self.detach, subscriber)

    async def unlisten(self, channel: str) -> None:
        """End the channel's subscriptions; return once the server has confirmed."""
        for subscriber in self._registry.remove_channel(channel):
            subscriber.unlistened = True
            self._end(subscriber, discard=True)
            if subscriber not in self._served:  # a stream, whose reader may not expect that
                log.info("unlisten() has ended a stream of %r", channel, channel=channel)
        self._agreement.notice_change()
        await self._agreement.settled()

    def end_streams(self, *, also_new: bool) -> None:
        """End the streams that are open now, soon; from whatever thread, or a signal handler."""
        self._ends_new_streams = self._ends_new_streams or also_new
        present = self._registry.subscribers
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            self._owner.loop.call_soon_threadsafe(self._end_streams, present)

    def _end_streams(self, subscribers: Iterable[Subscriber]) -> None:
        handlers = self._served.union(worker.subscriber for worker in self._not_yet_served)
        for subscriber in subscribers:
            if subscriber not in handlers and self._registry.has(subscriber):
                self._end(subscriber, discard=False)
        self._agreement.notice_change()

    async def settled(self) -> None:
        """Return once the server listens on what is desired, or the connection is gone."""
        self._owner.check()
        await self._agreement.settled()

    def check_owner(self) -> None:
        """Raise WrongLoopError if the call comes from another event loop or process."""
        self._owner.check()

    @property
    def is_of_other_process(self) -> bool:
        """Whether this is a fork of the process in which the subscriptions are."""
        return self._owner.is_other_process

    def _end(self, subscriber: Subscriber, *, discard: bool) -> None:
        self._registry.remove(subscriber)
        subscriber.mailbox.end(discard=discard)
        subscriber.stop_waiting()
        self._keep_counters(subscriber)

    def _keep_counters(self, subscriber: Subscriber) -> None:
        """Count on with what has ended; a handler that is served may still have something to do."""
        if subscriber not in self._served:
            self._past.add(subscriber.stats())

    def _refuse_if_closed(self) -> None:
        self._owner.check()
        if self._closed:
            raise ClosedError(CLOSED)

    # -- reports ------------------------------------------------------------------------------

    @property
    def warnings(self) -> WarningLimit:
        """The limit of the warnings of consumers."""
        return self._registry.warnings

    @property
    def channels(self) -> frozenset[str]:
        """The channels that have a subscription."""
        return self._registry.desired

    def stats(self) -> tuple[tuple[SubscriptionStats, ...], Totals]:
        """Return the counters of each subscription, and the totals, with those that have ended."""
        subscribers = dict.fromkeys(self._registry.subscribers)
        subscribers.update(dict.fromkeys(self._served))  # ended, but their workers are not done
        stats = tuple(subscriber.stats() for subscriber in subscribers)
        return stats, self._past.plus(stats)
