"""
Calling a handler with what waits in its mailbox.

Each subscription has a worker task of its own, so that a slow or failing handler concerns
nobody else. The one place that contains a handler's errors is ``HandlerWorker._contain``.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._arguments import is_async
from asyncnotify._backoff import ExponentialBackoff
from asyncnotify._delivery.mailbox import Item, merge_gaps
from asyncnotify._errors import BufferOverflowError
from asyncnotify._model import Gap, GapReason, Notification
from asyncnotify._subscriptions.callbacks import is_meant_for_us, report
from asyncnotify._subscriptions.decoding import DecodeErrors, Undecodable, decoder_of, taking

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from asyncnotify._channels.channel import Channel
    from asyncnotify._delivery.registry import Subscriber
    from asyncnotify._subscriptions.callbacks import Handler, OnError, Resync


logger = logging.getLogger("asyncnotify.handler")

_SLICE: Final = 0.010
"""Seconds for which one worker may call a handler that never awaits, before others get a turn."""

_CLOCK_INTERVAL: Final = 64
"""Calls between two looks at the clock, at most: as long as the handler proves to be quick."""


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
    ) -> None:
        self.subscriber = subscriber
        self.name: str = f"{', '.join(map(repr, subscriber.channels))}"
        self._mailbox = subscriber.mailbox
        self._take = taking(subscriber.mailbox.take, decoder_of(channels))
        self._decode_errors = DecodeErrors(subscriber)
        self._handler = handler
        self._resync = resync
        self._on_error = on_error
        self._concurrency = concurrency
        self._running: set[asyncio.Task[None]] = set()
        self._is_async = is_async(handler)
        self._told_of_awaitable = False

    @property
    def active(self) -> bool:
        """Whether the subscription has not ended."""
        return self._mailbox.is_open

    @property
    def calls(self) -> Collection[asyncio.Task[None]]:
        """The calls that run now, where several may."""
        return self._running

    async def run(self) -> None:
        """Serve the subscription until it ends and its mailbox is empty."""
        if self._concurrency == 1:
            while await self._something_waits():
                await self._serve_in_order()
            return
        async with asyncio.TaskGroup() as group:
            while await self._something_waits():
                await self._serve_at_once(group)

    async def _something_waits(self) -> bool:
        try:
            return await self._mailbox.wait()
        except BufferOverflowError as error:
            await self._overflowed(error)
            return False

    async def _serve_in_order(self) -> None:
        """Call the handler until the mailbox is empty. The hot path of handlers."""
        take, handler, is_async = self._take, self._handler, self._is_async
        clock = asyncio.get_running_loop().time
        untimed, interval, slice_ends = 0, 1, clock() + _SLICE
        while (item := take()) is not None:
            if not isinstance(item, Notification):
                await self._see_other(item)
            else:
                try:
                    result = handler(item)
                    if is_async and type(result) is CoroutineType:
                        await result
                    elif result is not None:
                        await self._await_if_needed(result)
                except BaseException as error:  # noqa: BLE001 - what is meant for us passes
                    await self._handler_failed(error, item)
            untimed += 1
            if untimed >= interval:
                untimed, interval = 0, min(_CLOCK_INTERVAL, interval * 2)
                if clock() > slice_ends:
                    await asyncio.sleep(0)
                    interval, slice_ends = 1, clock() + _SLICE

    async def _serve_at_once(self, group: asyncio.TaskGroup) -> None:
        """Start calls of the handler until the mailbox is empty, so many at a time."""
        clock = asyncio.get_running_loop().time
        slice_ends = clock() + _SLICE
        while True:
            while len(self._running) >= self._concurrency:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            item = self._take()
            if item is None:
                return
            if not isinstance(item, Notification):
                await self._see_other(item)
                if clock() > slice_ends:
                    await asyncio.sleep(0)
                    slice_ends = clock() + _SLICE
            else:
                call = group.create_task(self._call(item), name=f"asyncnotify call of {self.name}")
                self._running.add(call)
                call.add_done_callback(self._running.discard)

    async def _call(self, item: Notification[Any]) -> None:
        if self._mailbox.discarded:
            return  # it was ended before the call began
        try:
            result = self._handler(item)
            if result is not None:
                await self._await_if_needed(result)
        except BaseException as error:  # noqa: BLE001 - what is meant for us passes
            await self._handler_failed(error, item)

    async def _handler_failed(self, error: BaseException, item: Item) -> None:
        if is_meant_for_us(error):
            raise error
        self.subscriber.handler_errors += 1
        await self._contain(error, "the handler", item)

    async def _await_if_needed(self, result: object) -> None:
        if inspect.isawaitable(result):
            if not self._is_async and not self._told_of_awaitable:
                self._told_of_awaitable = True
                logger.warning(
                    "the handler of %s is a plain function that returned an awaitable; it is"
                    " being awaited, but should be an async def",
                    self.name,
                )
            await result

    async def _see_other(self, item: Gap | Undecodable) -> None:
        """See to what is not for the handler."""
        if isinstance(item, Gap):
            await self._see_gap(item)
        else:
            self._decode_errors.note(item)
            await self._report(item.error, item.notification)

    async def _see_gap(self, gap: Gap) -> None:
        """Run resync until it succeeds; a newer gap replaces the one it is given."""
        self.subscriber.gaps_taken += 1
        if self._resync is None:
            return
        if self._running:
            await asyncio.wait(self._running)
            if self._mailbox.discarded:
                return
        delays = ExponentialBackoff()()
        next(delays)
        while not await self._resynced(self._resync, gap):
            if not await self._mailbox.stays_open(next(delays)):
                self._mailbox.end(discard=True)  # nothing later may reach the handler
                return
            newer = self._mailbox.take_gap()
            if newer is not None:
                self.subscriber.gaps_taken += 1
                gap = merge_gaps(gap, newer)

    async def _resynced(self, resync: Resync, gap: Gap) -> bool:
        try:
            result = resync(gap)
            if inspect.isawaitable(result):
                await result
        except BaseException as error:
            if is_meant_for_us(error):
                raise
            self.subscriber.resync_errors += 1
            await self._contain(error, "resync", gap)
            return False
        return True

    async def _contain(self, error: BaseException, culprit: str, item: Item) -> None:
        """Log and report what a user's function raised."""
        logger.error("%s of %s raised", culprit, self.name, exc_info=error)
        await self._report(error, item)

    async def _overflowed(self, error: BufferOverflowError) -> None:
        logger.error("the subscription of %s has ended: %s", self.name, error)
        await self._report(
            error, Gap(self.subscriber.label, GapReason.OVERFLOW, dropped=error.dropped)
        )

    async def _report(self, error: BaseException, item: Item) -> None:
        await report(self._on_error, error, item, of=self.name)
