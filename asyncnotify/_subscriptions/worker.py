"""
Calling a handler with what waits in its mailbox.

Each subscription has a worker task of its own, so that a slow or failing handler affects no
other. What a handler raises ends in one place, ``HandlerWorker._contain``.
"""

from __future__ import annotations

import asyncio
import inspect
from contextvars import Context, ContextVar, copy_context
from functools import partial
from math import inf
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, cast

from asyncnotify._arguments import check_ran, is_async
from asyncnotify._backoff import ExponentialBackoff
from asyncnotify._delivery.bounded import BoundedMailbox
from asyncnotify._delivery.mailbox import Item, merge_gaps
from asyncnotify._delivery.turns import Turns
from asyncnotify._errors import BufferOverflowError
from asyncnotify._logs import Fields, Log, WarningLimit
from asyncnotify._model import Gap, GapReason, Notification
from asyncnotify._subscriptions.callbacks import is_meant_for_us, report
from asyncnotify._subscriptions.decoding import Counted, DecodeErrors, PassedOver, decoding_of
from asyncnotify._subscriptions.middleware import Chain
from asyncnotify._subscriptions.slow import RunningCall, SlowWarning
from asyncnotify._subscriptions.threads import InThread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from asyncnotify._channels.channel import Channel
    from asyncnotify._delivery.registry import Subscriber
    from asyncnotify._subscriptions.callbacks import Handler, OnError, Resync
    from asyncnotify._subscriptions.decoding import Counter, Taken
    from asyncnotify._subscriptions.middleware import Middleware

log = Log("handler")

_CLOCK_INTERVAL: Final = 64
"""Calls between two readings of the clock, at most; fewer until the handler has proved quick."""

_HANDLER: Final = "the handler"

_serving: ContextVar[HandlerWorker] = ContextVar("asyncnotify_serving")
"""The worker whose handler runs. A task that the handler starts inherits the variable."""


def serving_worker() -> HandlerWorker | None:
    """Return the worker whose handler, or a task that it has started, makes this call."""
    worker = _serving.get(None)
    return worker if worker is not None and worker.is_busy else None


class HandlerWorker:
    """Takes from a mailbox and calls the handler: one at a time, or up to ``concurrency``."""

    def __init__(
        self,
        subscriber: Subscriber,
        handler: Handler[Any],
        *,
        channels: Iterable[Channel[Any]] = (),
        resync: Resync | None,
        on_error: OnError | None,
        concurrency: int,
        middleware: Sequence[Middleware] = (),
        context: Context | None = None,
        turns: Turns | None = None,
        warnings: WarningLimit | None = None,
        slow_after: float | None = None,
    ) -> None:
        self.task: asyncio.Task[None] | None = None
        self.subscriber = subscriber
        self.name: str = ", ".join(map(repr, subscriber.channels))
        self._mailbox = subscriber.mailbox
        self._warnings = WarningLimit() if warnings is None else warnings
        self._decoding = decoding_of(
            subscriber, self._mailbox.peek, channels, self._warnings, wants_gaps=resync is not None
        )
        self._take = self._mailbox.take if self._decoding is None else self._decoding.take
        self._turns = turns
        self._decode_errors = DecodeErrors()
        self._given = handler
        self._resync = resync
        self._on_error = on_error
        self._concurrency = concurrency
        self._running: set[asyncio.Task[None]] = set()
        self.slow: SlowWarning = SlowWarning(subscriber.label, slow_after, self._warnings)
        self.use(middleware)
        self._others_ran = False  # since the clock was last read
        self._function: str | None = _HANDLER
        self._cold_calls = 0
        self._serving: asyncio.Task[Any] | None = None
        self._warned_of_future = False
        self._context = context.copy() if context is not None else Context()
        self._context.run(_serving.set, self)

    @property
    def context(self) -> Context:
        """A fresh copy of the context in which the handler was registered."""
        return self._context.copy()

    @property
    def active(self) -> bool:
        """Whether the subscription has not ended."""
        return self._mailbox.is_open

    @property
    def is_busy(self) -> bool:
        """Whether a call may be running: the worker does not wait for its mailbox."""
        return bool(self._running) or not self._mailbox.is_awaited

    async def run(self) -> None:
        """
        Serve the subscription until it ends and its mailbox is empty.

        Must be run by a task in ``context``. No call sees context variables that another call
        has set: after a call that has set some, a new task with a fresh copy goes on.
        """
        self.task = asyncio.current_task()
        try:
            await self._serve()
        finally:
            for function in (self._given, self._resync):
                if isinstance(function, InThread):
                    function.dismiss()

    def use(self, middleware: Sequence[Middleware]) -> None:
        """Call the handler through these, from the next time on that something waits."""
        handler = Chain(middleware, self._call_given) if middleware else self._given
        self._handler: Handler[Any] = handler
        self._is_async = is_async(self._handler)
        self._blocks_after = inf if self._is_async else self.slow.blocks_after

    async def _call_given(self, item: Notification[Any]) -> None:
        """Call the handler within its middleware."""
        result = self._timed(_HANDLER, self._given, item, self.slow.blocks_after)
        await self._await_if_needed(result)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        if self._turns is None:
            self._turns = Turns(loop)
            self._turns.begin()
        if self._concurrency > 1:
            async with asyncio.TaskGroup() as group:
                while await self._something_waits():
                    await self._serve_at_once(group)
            return
        has_ended = await self._serve_in_one_context()
        while not has_ended:
            # 4 us for each, where handlers set variables; looking whether they did takes 16 ns
            serving = loop.create_task(self._serve_in_one_context(), context=self.context)
            has_ended = await serving

    async def _serve_in_one_context(self) -> bool:
        """Return True if the subscription has ended, False if a call has set context variables."""
        fresh = copy_context()
        self._serving = asyncio.current_task()
        while await self._something_waits():
            has_ended_in_it = await self._serve_in_order(fresh)
            if self._blocks_after != inf:
                self._note_overrun()
            if not has_ended_in_it:
                return False
        return True

    async def _something_waits(self) -> bool:
        """Wait for something to take, and for a turn; return False if the mailbox has ended."""
        try:
            waits = await self._mailbox.wait()
        except BufferOverflowError as error:
            await self._overflowed(error)
            return False
        if waits and self._turns is not None and self._turns.is_taken:
            await self._turns.next()
        return waits

    async def _serve_in_order(self, fresh: Context) -> bool:  # noqa: C901 - no call for each item
        """
        Call the handler until the mailbox is empty. The hot path of handlers.

        Returns False as soon as the context differs from this fresh one.
        """
        handler, is_async = self._handler, self._is_async
        ready, taking, count = self._taking()
        turns = cast("Turns", self._turns)
        untimed, interval = 0, 1
        for item in taking:
            count.taken += 1
            if not isinstance(item, Notification):
                await self._process_other(item)
            else:
                try:
                    result = handler(item)
                    if is_async and type(result) is CoroutineType:
                        await result
                    elif result is not None:
                        await self._await_if_needed(result)
                except BaseException as error:  # noqa: BLE001 - what ends the task is raised again
                    await self._handler_failed(error, item)
            if copy_context() != fresh:
                return False
            untimed += 1
            if untimed >= interval:
                untimed, interval = 0, await self._next_turn_if_over(turns, interval)
            if not ready:
                break
        return True

    def _taking(self) -> tuple[Collection[object], Iterator[Taken], Counter]:
        """
        Return what is empty when nothing can be taken, what takes, and what counts that.

        A call of take() for each item would cost 35 ns, a twentieth of what a notification costs.
        """
        mailbox = self._mailbox
        if self._decoding is None and isinstance(mailbox, BoundedMailbox):
            return mailbox.ready, mailbox.taking if mailbox.ready else iter(()), mailbox
        return (True,), self._taken(), Counted()

    def _taken(self) -> Iterator[Taken]:
        while (item := self._take()) is not None:
            yield item

    async def _next_turn_if_over(self, turns: Turns, interval: int) -> int:
        """Let other tasks run if the turn is over; return the number of calls to the next look."""
        if not turns.is_over:
            return min(_CLOCK_INTERVAL, interval * 2)
        self._note_overrun()
        await turns.next()
        return 1

    def _note_overrun(self) -> None:
        """Warn if the handler has blocked the event loop since the clock was last read."""
        if self._blocks_after == inf:
            return
        overrun = cast("Turns", self._turns).overrun
        if overrun > self._blocks_after and not self._others_ran:
            self.slow.blocked(_HANDLER, overrun)
        self._others_ran = False

    async def _serve_at_once(self, group: asyncio.TaskGroup) -> None:
        """Start calls of the handler until the mailbox is empty, ``concurrency`` at a time."""
        turns = cast("Turns", self._turns)
        while True:
            while len(self._running) >= self._concurrency:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            item = self._take()
            if item is None:
                return
            if not isinstance(item, Notification):
                await self._process_other(item)
                if turns.is_over:
                    await turns.next()
            else:
                name = f"asyncnotify call of {self.name}"
                call = group.create_task(self._call(item), name=name, context=self.context)
                self._running.add(call)
                call.add_done_callback(self._running.discard)

    async def _call(self, item: Notification[Any]) -> None:
        if self._mailbox.discarded:
            return  # the subscription was ended before this call began
        try:
            result = self._timed(_HANDLER, self._handler, item, self._blocks_after)
            if result is not None:
                await self._await_if_needed(result)
        except BaseException as error:  # noqa: BLE001 - what ends the task is raised again
            await self._handler_failed(error, item)

    def _timed(
        self, name: str, function: Callable[[Any], object], item: Item, blocks_after: float
    ) -> object:
        """Call a function of the user's; warn if it has blocked the event loop."""
        if blocks_after == inf:
            return function(item)
        clock = cast("Turns", self._turns).clock
        began = clock()
        try:
            return function(item)
        finally:
            if (took := clock() - began) > blocks_after:
                self.slow.blocked(name, took)

    async def _handler_failed(self, error: BaseException, item: Item) -> None:
        if is_meant_for_us(error):
            raise error
        self._others_ran = True
        self.subscriber.handler_errors += 1
        await self._contain(error, _HANDLER, item, "the next notification follows")

    async def _await_if_needed(self, result: object) -> None:
        check_ran(_HANDLER, result)
        if inspect.isawaitable(result):
            # A coroutine is what a decorated or wrapped async def returns
            if isinstance(result, asyncio.Future) and not self._warned_of_future:
                self._warned_of_future = True
                log.warning(
                    self._warnings,
                    ("awaitable", self.name),
                    "the handler of %s returned a %s: it is awaited before the next call of the"
                    " handler; to handle several at once use concurrency=",
                    self.name,
                    type(result).__name__,
                    channel=self.subscriber.label,
                )
            self._others_ran = True
            await result

    async def _process_other(self, item: Gap | PassedOver) -> None:
        """Process a Gap, or a payload that could not be decoded."""
        self._others_ran = True
        if isinstance(item, Gap):
            await self._process_gap(item)
        elif self._decoding is not None and self._decoding.has_failed:
            failed = self._decoding.failure()
            self._decode_errors.log(failed)
            await self._report(failed.error, failed.notification)

    async def _process_gap(self, gap: Gap) -> None:
        """Call resync until it succeeds. A gap that follows at once is merged into this one."""
        self.subscriber.gaps_taken += 1
        if self._resync is None:
            return
        if self._running:
            await asyncio.wait(self._running)
            if self._mailbox.discarded:
                return
        delays = ExponentialBackoff()()
        next(delays)  # 0: resync has just failed, and must not be called again at once
        while not await self._resynced(self._resync, gap):
            self._now_in(None)
            if not await self._mailbox.stays_open(next(delays)):
                self._mailbox.end(discard=True)  # the handler must not run without a resync
                return
            newer = self._mailbox.take_gap()
            if newer is not None:
                self.subscriber.gaps_taken += 1
                gap = merge_gaps(gap, newer)

    async def _resynced(self, resync: Resync, gap: Gap) -> bool:
        self._now_in("resync")
        try:
            result = self._timed("resync", resync, gap, self.slow.blocks_after)
            check_ran("resync", result)
            if inspect.isawaitable(result):
                await result
        except BaseException as error:
            if is_meant_for_us(error):
                raise
            self.subscriber.resync_errors += 1
            await self._contain(error, "resync", gap, "the handler waits until it succeeds")
            return False
        finally:
            self._now_in(_HANDLER)
        return True

    async def _contain(self, error: BaseException, function: str, item: Item, then: str) -> None:
        """Log and report what a function of the user raised, and what happens then."""
        fields = Fields(channel=item.channel)
        if isinstance(item, Notification):
            fields["pid"] = item.pid
        log.error("%s of %s raised; %s", function, self.name, then, exc_info=error, **fields)
        await self._report(error, item)

    async def _overflowed(self, error: BufferOverflowError) -> None:
        label = self.subscriber.label
        log.error("the subscription of %s has ended: %s", self.name, error, channel=label)
        await self._report(error, Gap(label, GapReason.OVERFLOW, dropped=error.dropped))

    async def _report(self, error: BaseException, item: Item) -> None:
        self._now_in("on_error")
        on_error = None if self._on_error is None else self._timed_on_error
        await report(on_error, error, item, of=self.name)
        self._now_in(_HANDLER)

    def _timed_on_error(self, error: BaseException, item: Item) -> object:
        call = partial(cast("OnError", self._on_error), error)
        return self._timed("on_error", call, item, self.slow.blocks_after)

    # -- what runs ----------------------------------------------------------------------------

    def _now_in(self, function: str | None) -> None:
        """Note which function of the user's is called next; None: none."""
        self._function = function
        self._cold_calls += 1

    def running_calls(self) -> Iterable[RunningCall]:
        """Return the calls of the user's functions that have not returned."""
        if self._running:
            return [RunningCall(task, _HANDLER, task) for task in self._running]
        if self._function is None or self._mailbox.is_awaited:
            return ()
        key = (self, self._mailbox.taken, self._cold_calls)
        return (RunningCall(key, self._function, self._serving or self.task),)
