"""A subscription as an asynchronous iterator."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self, cast

from asyncnotify._arguments import check_count
from asyncnotify._channels.channel import Channel
from asyncnotify._delivery.registry import Subscriber
from asyncnotify._errors import BufferOverflowError
from asyncnotify._model import Gap, Notification, SubscriptionStats
from asyncnotify._subscriptions.batches import DEFAULT_BATCH, Batches, ItemT_co
from asyncnotify._subscriptions.callbacks import OnError, report
from asyncnotify._subscriptions.decoding import DecodeErrors, Undecodable, decoder_of, taking
from asyncnotify._subscriptions.roster import Roster

if TYPE_CHECKING:
    from asyncnotify._delivery.mailbox import Item, Mailbox
    from asyncnotify._subscriptions.decoding import Taken

_SLICE: Final = 0.010
"""Seconds after which the loop gets a turn, though nothing had to be waited for."""

_DECODED_AT_ONCE: Final = 32
"""Payloads that are decoded between two looks at the clock."""


def _nothing(*_: object) -> None:
    """Stand in for the functions of a mailbox while nothing is to be taken from it."""


class Stream(Generic[ItemT_co]):
    """
    Notifications as an asynchronous iterator, as returned by ``Listener.stream()``.

    ``async for n in listener.stream("orders")`` listens from its first step to its end;
    ``async with listener.stream("orders") as stream`` listens once the block is entered, so
    that nothing sent inside the block is missed. It ends with StopAsyncIteration when the
    channel is unlistened or the listener is closed, after what had been buffered.

    Leaving it by ``break``, by an exception or by cancellation ends the subscription as soon
    as the object is collected; ``aclose()``, or leaving ``async with``, does so at once.

    Waiting for the next item may be cancelled, and loses nothing: the next call gets it.
    Several tasks may take from one stream; each item goes to one of them.
    To be used from the event loop of its listener.
    """

    __slots__ = (
        "__weakref__",
        "_beginners",
        "_begun",
        "_channels",
        "_closed",
        "_decode",
        "_decode_errors",
        "_enlist",
        "_gaps",
        "_loop",
        "_next_arrival",
        "_on_error",
        "_owes_a_turn",
        "_roster",
        "_slice_ends",
        "_subscriber",
        "_take",
        "_timeout",
        "_unreported",
    )

    def __init__(
        self,
        enlist: Callable[[], tuple[Roster, Subscriber]],
        channels: tuple[Channel[Any], ...],
        *,
        gaps: bool,
        on_error: OnError | None,
        timeout: float | None,
    ) -> None:
        self._enlist = enlist
        self._channels = channels
        self._gaps = gaps
        self._on_error = on_error
        self._timeout = timeout
        self._roster: Roster | None = None
        self._subscriber: Subscriber | None = None
        self._closed = False
        self._begun = False
        self._slice_ends = 0.0
        self._owes_a_turn = False
        self._beginners = 0
        self._take: Callable[[], Taken | None] = _nothing
        self._next_arrival: Callable[[Any], asyncio.Future[None] | None] = _nothing
        self._loop: asyncio.AbstractEventLoop | None = None
        self._decode: Callable[[Item], Taken] | None = None
        self._decode_errors: DecodeErrors | None = None
        self._unreported: list[Undecodable] = []

    def __repr__(self) -> str:
        return f"<Stream of {self._name}>"

    @property
    def _name(self) -> str:
        return ", ".join(repr(channel.name) for channel in self._channels)

    async def __aenter__(self) -> Self:
        """
        Begin to listen; returns once the server has confirmed.

        Raises:
            ListenTimeoutError: It did not within the timeout.
            NotStartedError: The listener has not been started.
            ClosedError: The listener has been closed.
        """
        await self._begin()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT_co:
        """
        Return the next item.

        Raises:
            StopAsyncIteration: The stream has ended.
            BufferOverflowError: The stream is of ``overflow="fail"`` and has overflowed.
            ListenTimeoutError: As for entering the stream, at the first call.
        """
        item: Any = self._take()
        if item.__class__ is Notification:  # nearly always: the hot path ends here
            return item  # type: ignore[return-value]  # cast() would be a call for each
        if item is None and (arrival := self._next_arrival(self._loop)) is not None:
            try:
                await arrival
            except BaseException as error:
                self._give_up(arrival, error)
                raise
            item = self._take()
            if item.__class__ is Notification:
                return item  # type: ignore[return-value]
        return await self._next_after(item)

    def _give_up(self, arrival: asyncio.Future[None], error: BaseException) -> None:
        if self._subscriber is not None:
            self._subscriber.mailbox.give_up(arrival)
        if isinstance(error, RuntimeError):
            self._check_owner()  # so asyncio refuses a future of another loop

    async def _next_after(self, item: Taken | None) -> ItemT_co:
        """Return the item, if it is one for the consumer, or the next one that is."""
        if not self._begun:
            await self._begin()
        if self._subscriber is None:
            raise StopAsyncIteration
        if self._take is _nothing:
            self._open_mailbox(self._subscriber.mailbox)
            await self._report_undecodable()
            item = self._take()
        while True:
            if item is None:
                if not await self._something_waits():
                    raise StopAsyncIteration
            elif isinstance(item, Notification) or await self._wants(item):
                return cast("ItemT_co", item)
            item = self._take()

    async def _wants(self, item: Gap | Undecodable) -> bool:
        """See to what is no notification; return whether the consumer is to have it."""
        if isinstance(item, Gap):
            self._count_gap()
            return self._gaps
        self._count_undecodable(item)
        await self._report_undecodable()
        return False

    def _count_gap(self) -> None:
        if self._subscriber is not None:
            self._subscriber.gaps_taken += 1

    def _count_undecodable(self, item: Undecodable) -> None:
        if self._decode_errors is None and self._subscriber is not None:
            self._decode_errors = DecodeErrors(self._subscriber)
        if self._decode_errors is not None:
            self._decode_errors.note(item)
        self._unreported.append(item)

    async def _report_undecodable(self) -> None:
        while self._unreported:
            item = self._unreported.pop(0)
            await report(self._on_error, item.error, item.notification, of=self._name)
            await self._yield_now_and_then()

    async def _yield_now_and_then(self) -> None:
        """Let others run when it has been a while, where nothing else might wait for anything."""
        clock = asyncio.get_running_loop().time
        if clock() > self._slice_ends:
            await asyncio.sleep(0)
            self._slice_ends = clock() + _SLICE

    def batches(self, limit: int = DEFAULT_BATCH) -> Batches[ItemT_co]:
        """
        Return the stream as an asynchronous iterator of lists: of all that waits, in order.

        For those who want many at once: a list costs a fraction of as many single steps. Each
        has one item at least. It ends as the stream does, and cancelling loses nothing.

        Args:
            limit: Items in one list, at most.
        """
        check_count("limit", limit)
        return Batches(self._next_batch, limit)

    async def _next_batch(self, limit: int) -> list[ItemT_co]:
        while True:
            await self._report_undecodable()
            if self._owes_a_turn:
                self._owes_a_turn = False
                await asyncio.sleep(0)
            if not self._begun:
                await self._begin()
            if self._subscriber is not None:
                self._open_mailbox(self._subscriber.mailbox)
            if self._subscriber is None or not await self._something_waits():
                raise StopAsyncIteration
            batch = self._take_batch(self._subscriber.mailbox, limit)
            if self._unreported:
                self._shut_mailbox()  # on_error comes before the next item, however it is taken
            if batch:
                return batch

    def _take_batch(self, mailbox: Mailbox, limit: int) -> list[ItemT_co]:
        """Return what waits; of what has to be decoded, as much as a slice of time allows."""
        decode = self._decode
        if decode is None:
            return self._sort_out(mailbox.take_many(limit))
        batch: list[ItemT_co] = []
        clock = asyncio.get_running_loop().time
        ends = clock() + _SLICE
        while limit > 0 and clock() < ends:
            items = mailbox.take_many(min(limit, _DECODED_AT_ONCE))
            if not items:
                break
            limit -= len(items)
            self._decode_into(batch, items, decode)
        self._owes_a_turn = clock() >= ends  # not now: cancelled there, it would lose the batch
        return batch

    def _decode_into(
        self, batch: list[Any], items: list[Item], decode: Callable[[Item], Taken]
    ) -> None:
        """
        Add what is for the consumer; never waits, so that nothing is lost.

        No local variable may hold an error at the end: its traceback leads to this frame, and
        only the garbage collector would find the two.
        """
        for item in items:
            taken: Taken | None = decode(item)
            if isinstance(taken, Undecodable):
                self._count_undecodable(taken)
                taken = None
            elif not isinstance(taken, Gap):
                batch.append(taken)
            else:
                self._count_gap()
                if self._gaps:
                    batch.append(taken)

    def _sort_out(self, items: list[Any]) -> list[ItemT_co]:
        """Return what is for the consumer; never waits, so that nothing is lost."""
        gaps = [item for item in items if item.__class__ is not Notification]
        for _ in gaps:
            self._count_gap()
        return items if self._gaps or not gaps else [i for i in items if not isinstance(i, Gap)]

    async def _something_waits(self) -> bool:
        roster, subscriber = self._roster, self._subscriber
        if roster is None or subscriber is None:
            return False
        self._check_owner()
        try:
            return await subscriber.mailbox.wait()
        except BufferOverflowError:
            roster.detach(subscriber)
            raise

    def _check_owner(self) -> None:
        if self._roster is not None:
            self._roster.check_owner()

    async def aclose(self) -> None:
        """
        End the stream and throw away what it had buffered.

        When it returns, UNLISTEN has been confirmed if this was the channel's last
        subscription, or the connection is gone. Idempotent. Cancelling it leaves the stream
        ended.
        """
        self._closed = True
        if self._roster is not None and self._subscriber is not None:
            self._roster.detach(self._subscriber)
            await self._roster.settled()
        await self._report_undecodable()

    def stats(self) -> SubscriptionStats | None:
        """Return what became of this stream's notifications so far; None before it began."""
        if self._subscriber is None:
            return None
        return self._subscriber.stats()

    async def _begin(self) -> None:
        """Return once listening; if all who wait for that give up, a later call tries again."""
        if self._begun or self._closed:
            return
        roster, subscriber = self._roster, self._subscriber
        if roster is None or subscriber is None:
            roster, subscriber = self._roster, self._subscriber = self._enlist()
        roster.check_owner()
        self._beginners += 1
        try:
            await roster.confirmed(subscriber, self._timeout)
        except BaseException:
            if self._nobody_else_begins(subscriber):
                self._subscriber = None
                roster.detach(subscriber)
            raise
        finally:
            self._beginners -= 1
        if self._loop is not None:
            return  # another task was sooner
        self._loop = asyncio.get_running_loop()
        self._begun = True
        del self._enlist  # of ten thousand that wait, nothing is kept that is of no more use
        self._decode = decoder_of(self._channels)
        self._open_mailbox(subscriber.mailbox)

    def _open_mailbox(self, mailbox: Mailbox) -> None:
        self._take = taking(mailbox.take, self._decode)
        self._next_arrival = mailbox.next_arrival

    def _shut_mailbox(self) -> None:
        self._take = self._next_arrival = _nothing

    def _nobody_else_begins(self, subscriber: Subscriber) -> bool:
        return self._beginners == 1 and not self._begun and self._subscriber is subscriber

    def __del__(self) -> None:
        if self._subscriber is not None and self._roster is not None:
            with contextlib.suppress(Exception):  # the loop may be closed, or the interpreter
                self._roster.forget_soon(self._subscriber)
