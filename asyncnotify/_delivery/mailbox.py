"""
The buffer between the connection and one consumer. Bounded; putting never waits.

The socket has to be read whatever a consumer does: a session that listens and does not read
keeps the server from emptying its notification queue, and once that is full, every NOTIFY on
the server fails.

A mailbox is *held* from the loss of a connection until LISTEN is in effect again. What arrives
in that time is kept behind the place of the Gap, and the consumer sees nothing of it before
the Gap. If the next connection is lost before that, what was held is discarded: the Gap that
is still to come covers it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeAlias

from asyncnotify._errors import BufferOverflowError
from asyncnotify._model import Gap, GapReason, Notification

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

Item: TypeAlias = Notification[Any] | Gap


class Mailbox(ABC):
    """What the two kinds of mailbox share: waiting, ending, counting."""

    __slots__ = (
        "_ended",
        "_error",
        "_open",
        "_waiters",
        "conflated",
        "discarded",
        "dropped",
        "gaps",
        "taken",
    )

    def __init__(self) -> None:
        self._open = True
        self.discarded: bool = False  # whether what waited was discarded at the end
        self._error: BufferOverflowError | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._ended: asyncio.Future[None] | None = None
        self.taken: int = 0
        self.gaps: int = 0
        self.dropped: int = 0
        self.conflated: int = 0

    @abstractmethod
    def put(self, notification: Notification[Any]) -> None:
        """Add a notification. Never waits, never fails."""

    @abstractmethod
    def take(self) -> Item | None:
        """Remove and return what comes next; None if nothing can be taken now."""

    def take_in_turn(self) -> Item | None:
        """As take(), but None also if other tasks should run first: see next_arrival()."""
        return self.take()

    # What is taken must be returned or stay, whatever is raised. A signal handler may raise after
    # each call, and where a function or the next round of a loop begins; not between other steps.
    # So whoever has to do something with an item looks at it, and removes it at the very end.

    @abstractmethod
    def __iter__(self) -> Iterator[Item]:
        """Iterate over what can be taken, in order, without taking it."""

    def peek(self) -> Item | None:
        """Return what take() would, and let it stay."""
        for item in self:
            return item
        return None

    def peek_in_turn(self) -> Item | None:
        """Return what take_in_turn() would, and let it stay."""
        return self.peek()

    @abstractmethod
    def remove(self, count: int) -> None:
        """Take so many items that have been looked at. Nothing is called after they are gone."""

    @abstractmethod
    def replace(self, gap: Gap) -> None:
        """
        Let a gap come next in place of the next notification, and of a gap right before that.

        The notification counts as taken; the gap does not count against the limit. Nothing is
        called after the notification is gone.
        """

    async def wait_for_turn(self) -> None:
        """Return when the consumer may run again; here at once."""
        return

    async def give_way(self) -> None:
        """Let other tasks run, between two calls of a function of the user's."""
        await asyncio.sleep(0)

    @property
    def since(self) -> datetime | None:
        """A time before what waits was sent, at which delivery was good; None: unknown."""
        return None

    @abstractmethod
    def hold(self) -> None:
        """Keep what arrives from here on from the consumer, until release()."""

    @abstractmethod
    def release(self, gap: Gap) -> None:
        """Append the gap, and after it what has been held; the consumer may take both."""

    def release_without_gap(self) -> None:
        """Append what has been held, for a consumer that takes no gaps; the gap is counted."""
        if self._open:
            self._emit_held()

    @abstractmethod
    def _emit_held(self) -> None:
        """Count a gap, and let the consumer see what has been held."""

    @abstractmethod
    def take_gap(self) -> Gap | None:
        """
        Remove and return the gaps at the head, merged into one.

        A gap behind a notification stays in its place: no gap may overtake what was received
        before its loss. None if a notification comes next, or nothing.
        """

    @abstractmethod
    def purge(self, channel: str) -> None:
        """Discard the notifications of this channel that wait."""

    @abstractmethod
    def _discard(self) -> None:
        """Discard everything that waits."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many items wait, held ones included."""

    @property
    @abstractmethod
    def readable(self) -> bool:
        """Whether take() would return something."""

    @property
    def is_awaited(self) -> bool:
        """Whether a consumer waits for something to come."""
        return bool(self._waiters)

    @property
    def is_open(self) -> bool:
        """Whether more may come."""
        return self._open

    def end(self, *, discard: bool) -> None:
        """Accept no more; the consumer may take what waits, unless that is discarded."""
        self._open = False
        if discard:
            self.discarded = True
            self._discard()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        self._wake_all()

    async def stays_open(self, seconds: float) -> bool:
        """Wait this long, or until the mailbox ends; return whether it is open. For one waiter."""
        if self._open:
            self._ended = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._ended}, timeout=seconds)
        return self._open

    def _fail(self, error: BufferOverflowError) -> None:
        """End; the consumer takes what waits, and wait() then raises the error."""
        self._error = error
        self.end(discard=False)

    async def wait(self) -> bool:
        """
        Wait until something can be taken; return False if the mailbox has ended and is empty.

        Cancelling it loses nothing. Several tasks may wait at once.

        Raises:
            BufferOverflowError: The mailbox overflowed, and its policy is ``fail``.
        """
        while not self.readable:
            arrival = self.next_arrival(asyncio.get_running_loop())
            if arrival is None:
                if self._error is not None:
                    raise BufferOverflowError(*self._error.args)  # each caller gets its own
                return False
            try:
                await arrival
            except BaseException:
                self.give_up(arrival)
                raise
        return True

    def next_arrival(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None] | None:
        """
        Return a future that is done once something can be taken; None if the mailbox has ended.

        For a consumer that has just found the mailbox empty. If awaiting the future raises, the
        consumer has to call give_up().
        """
        if not self._open:
            return None
        arrival = loop.create_future()
        self._waiters += (arrival,)  # no call: after one, what is raised would leave it there
        return arrival

    def give_up(self, arrival: asyncio.Future[None]) -> None:
        """Wait no more; if this future was woken already, wake the next one instead."""
        if arrival in self._waiters:
            self._waiters.remove(arrival)
        elif self.readable:
            self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.pop(0)
            if not waiter.done():
                waiter.set_result(None)
                return

    def _wake_all(self) -> None:
        while self._waiters:
            self._wake_one()


def merge_gaps(older: Gap | None, newer: Gap) -> Gap:
    """
    Return one gap that covers both, with the earlier ``since``.

    START covers everything. A lost LISTEN covers an overflow, whose count is then unknown. Every
    other reason covers REREAD: what is unknown is worse than what the sender has told of.
    """
    if older is None:
        return newer
    channel = older.channel if older.channel == newer.channel else None
    if GapReason.START in (older.reason, newer.reason):
        return Gap(channel, GapReason.START)
    since = _earlier(older.since, newer.since)
    if older.reason is newer.reason:
        return Gap(channel, newer.reason, since, _sum(older.dropped, newer.dropped))
    if GapReason.REREAD in (older.reason, newer.reason):
        worse = newer if older.reason is GapReason.REREAD else older
        return Gap(channel, worse.reason, since, worse.dropped)
    reason = older.reason if newer.reason is GapReason.OVERFLOW else newer.reason
    return Gap(channel, reason, since)


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return None if one is None or other is None else min(one, other)
