"""
What a stream reads from, before and after the server has confirmed LISTEN.

Nothing here refers to the Stream. An exception keeps alive what the frames hold that it has
passed through, and a reference to the exception must not keep the subscription alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from asyncnotify._delivery.registry import Subscriber
from asyncnotify._errors import BufferOverflowError
from asyncnotify._model import Gap, Notification
from asyncnotify._subscriptions.callbacks import report
from asyncnotify._subscriptions.decoding import DecodeErrors, decoding_of
from asyncnotify._subscriptions.roster import Roster
from asyncnotify._tasks import SLICE

if TYPE_CHECKING:
    from asyncnotify._channels.channel import Channel
    from asyncnotify._delivery.mailbox import Item
    from asyncnotify._model import SubscriptionStats
    from asyncnotify._subscriptions.callbacks import OnError

Enlist: TypeAlias = Callable[[], tuple[Roster, Subscriber]]
"""What makes a subscription, which begins once the server has confirmed its channels."""


_GLANCE: Final = SLICE / 10
"""Seconds of decoding for a reader that does not wait: others may read in the same turn too."""


class Phase(StrEnum):
    """
    How far a stream has come.

    ::

        NOT_BEGUN ── a first step, or async with ──► BEGINNING ── confirmed ──► OPEN ──► ENDED
            ▲                                            │
            └── all who wait for the server give up ─────┘

    ``aclose()`` leads from each of them to CLOSED.
    """

    NOT_BEGUN = "not begun"
    """Nothing has been asked of the server."""
    BEGINNING = "beginning"
    """Some task waits until the server has confirmed the channels."""
    OPEN = "open"
    """Notifications arrive."""
    ENDED = "ended"
    """None will arrive any more; what is buffered can still be taken."""
    CLOSED = "closed"
    """It has been closed, and nothing can be taken."""


class Beginning:
    """
    A stream that does not listen yet, and the tasks that wait until it does.

    If all of them give up, the subscription is withdrawn, and a later call tries again.
    """

    __slots__ = (
        "_closed",
        "_enlist",
        "_enlisted",
        "_gaps",
        "_on_error",
        "_reading",
        "_timeout",
        "_waiting",
        "channels",
    )

    def __init__(
        self,
        enlist: Enlist,
        channels: tuple[Channel[Any], ...],
        *,
        gaps: bool,
        on_error: OnError | None,
        timeout: float | None,
    ) -> None:
        self._enlist = enlist
        self.channels = channels
        self._gaps = gaps
        self._on_error = on_error
        self._timeout = timeout
        self._closed = False
        self._waiting = 0
        self._enlisted: tuple[Roster, Subscriber] | None = None
        self._reading: Reading | None = None

    @property
    def phase(self) -> Phase:
        """How far the stream has come."""
        return Phase.NOT_BEGUN if self._enlisted is None else Phase.BEGINNING

    @property
    def has_told_end(self) -> bool:
        """Whether the consumer has met the end; not before the beginning."""
        return False

    @property
    def how_ended(self) -> str:
        """Why nothing arrives, for a message."""
        return "has been closed"

    async def ready(self) -> Reading:
        """
        Return what the stream reads from, once the server has confirmed its channels.

        Raises:
            StopAsyncIteration: The stream was closed before it began.
        """
        if self._closed:
            raise StopAsyncIteration
        if self._enlisted is None:
            self._enlisted = self._enlist()
        enlisted = roster, subscriber = self._enlisted
        roster.check_owner()
        self._waiting += 1
        try:
            await roster.confirmed(subscriber, self._timeout)
        except BaseException:
            if self._nobody_else_waits and self._enlisted is enlisted:
                self._enlisted = None
                roster.detach(subscriber)
            raise
        finally:
            self._waiting -= 1
        if self._reading is None:
            self._reading = Reading(
                roster, subscriber, self.channels, gaps=self._gaps, on_error=self._on_error
            )
        return self._reading

    def at_hand(self, limit: int) -> list[Any]:  # noqa: ARG002 - as that of Reading
        """Return what waits: nothing yet."""
        return []

    @property
    def _nobody_else_waits(self) -> bool:
        return self._waiting == 1 and self._reading is None

    async def close(self) -> None:
        """Let it begin no more; return once the server has confirmed that."""
        self._closed = True
        if self._enlisted is not None:
            roster, subscriber = self._enlisted
            roster.detach(subscriber)
            await roster.settled()

    def forget(self) -> None:
        """Withdraw the subscription, from whatever thread, without waiting."""
        if self._enlisted is not None:
            _forget(*self._enlisted)

    def stats(self) -> SubscriptionStats | None:
        """Return what became of the notifications so far; None before it began."""
        return None if self._enlisted is None else self._enlisted[1].stats()


class Reading:
    """A subscription that a stream reads from: until it ends, and what is buffered is read."""

    __slots__ = (
        "_decode_errors",
        "_decoding",
        "_on_error",
        "_owes_a_turn",
        "_roster",
        "channels",
        "has_told_end",
        "mailbox",
        "subscriber",
        "take",
        "wants_gaps",
    )

    def __init__(
        self,
        roster: Roster,
        subscriber: Subscriber,
        channels: tuple[Channel[Any], ...],
        *,
        gaps: bool,
        on_error: OnError | None,
    ) -> None:
        self._roster = roster
        self.subscriber = subscriber
        self.mailbox = mailbox = subscriber.mailbox
        self.channels = channels
        self.wants_gaps = gaps
        self._on_error = on_error
        self._decoding = decoding_of(
            subscriber,
            mailbox.peek_in_turn,
            channels,
            roster.warnings,
            wants_gaps=gaps,
            keeps_context=False,
        )
        # A method of Python's: after a call of any other object a signal handler may raise
        self.take = mailbox.take_in_turn if self._decoding is None else self._decoding.take
        self._decode_errors: DecodeErrors | None = None  # most streams never need one
        self._owes_a_turn = False
        self.has_told_end: bool = False  # whether its consumer has met the end

    @property
    def phase(self) -> Phase:
        """How far the stream has come."""
        return Phase.OPEN if self.mailbox.is_open else Phase.ENDED

    @property
    def how_ended(self) -> str:
        """Why no more arrives, for a message."""
        if self.subscriber.unlistened:
            return "has ended: unlisten() was called for its channel"
        if self.subscriber.refusal is not None:
            return "has ended: the server refused its channel"
        return "has ended"

    def check_owner(self) -> None:
        """Raise WrongLoopError if the call comes from another event loop or process."""
        self._roster.check_owner()

    async def ready(self) -> Reading:
        """Return this, once an item may be taken."""
        await self.report()
        return self

    # Between taking an item and returning it nothing is called, and no loop goes round: a signal
    # handler may raise after each, and the item would be lost.

    # -- one at a time ------------------------------------------------------------------------

    async def next(self) -> Item:
        """Return the next item for the consumer."""
        while True:
            item: Any = self.take()
            if item.__class__ is Notification:
                return item
            if item.__class__ is Gap:
                self.subscriber.gaps_taken += 1
                if self.wants_gaps:
                    return item
            elif item is not None:
                item = None  # the traceback of its error leads to this frame
                await self.report()
            elif not await self._something_waits():
                self.has_told_end = True
                raise StopAsyncIteration

    async def _something_waits(self) -> bool:
        self._roster.check_owner()
        try:
            await self.mailbox.wait_for_turn()
            return await self.mailbox.wait()
        except BufferOverflowError:
            self._roster.detach(self.subscriber)
            raise

    # -- many at a time -----------------------------------------------------------------------

    async def next_batch(self, limit: int) -> list[Any]:
        """Return all that waits for the consumer, at least one item, so many at most."""
        while True:
            await self.report()
            if self._owes_a_turn:
                self._owes_a_turn = False
                await asyncio.sleep(0)
            if not await self._something_waits():
                self.has_told_end = True
                raise StopAsyncIteration
            if batch := self._take_batch(limit):
                return batch

    def at_hand(self, limit: int) -> list[Any]:
        """Return what waits, so many at most, without waiting for a turn; the list may be empty."""
        return self._take_batch(limit, _GLANCE) if self.mailbox.readable else []

    def _take_batch(self, limit: int, seconds: float = SLICE) -> list[Any]:
        """Return what waits; of what has to be decoded, as much as this time allows."""
        if self._decoding is not None:
            batch = self._decoding.take_many(limit, seconds)
            self._owes_a_turn = self._decoding.ran_out  # not now: cancelled, it would lose them
            return batch
        batch = waiting = [*islice(self.mailbox, limit)]
        gaps = len(waiting) - [item.__class__ for item in waiting].count(Notification)
        if gaps and not self.wants_gaps:
            batch = [item for item in waiting if item.__class__ is Notification]
        self.mailbox.remove(len(waiting))
        self.subscriber.gaps_taken += gaps
        return batch

    # -- what cannot be decoded ---------------------------------------------------------------

    async def report(self) -> None:
        """Call ``on_error`` for each payload that could not be decoded. Cancelled, it goes on."""
        decoding = self._decoding
        while decoding is not None and decoding.has_failed:
            item = decoding.failure()
            if self._decode_errors is None:
                self._decode_errors = DecodeErrors()
            self._decode_errors.log(item)
            await report(self._on_error, item.error, item.notification, of=names(self.channels))
            await self.mailbox.give_way()

    # -- the end ------------------------------------------------------------------------------

    async def close(self) -> None:
        """End the subscription and discard its buffer; return once the server has confirmed."""
        self._roster.detach(self.subscriber)
        await self._roster.settled()
        await self.report()

    def forget(self) -> None:
        """End the subscription, from whatever thread, without waiting."""
        _forget(self._roster, self.subscriber)

    def stats(self) -> SubscriptionStats:
        """Return what became of the notifications so far."""
        return self.subscriber.stats()


def names(channels: tuple[Channel[Any], ...]) -> str:
    """Return how messages name these channels."""
    return ", ".join(repr(channel.name) for channel in channels)


def _forget(roster: Roster, subscriber: Subscriber) -> None:
    # The loop may be closed; or the interpreter, and then contextlib is no more
    try:  # noqa: SIM105 - as above
        roster.forget_soon(subscriber)
    except Exception:  # noqa: BLE001, S110 - as above
        pass
