"""The calls that wait to be sent: which of them go out together, and how long they may wait."""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import Context
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from asyncnotify._errors import NotifyTimeoutError
from asyncnotify._publishing.batching import BATCH_CHARACTERS, BATCH_COUNT
from asyncnotify._publishing.errors import not_sent_closed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Sent: TypeAlias = "asyncio.Future[None]"
Call: TypeAlias = "tuple[str, str, Sent, int]"
"""Channel, payload, what the caller awaits, and the tick at which it came; sent with others."""
Bulk: TypeAlias = "tuple[Sequence[str], Sequence[str], Sent, int]"
"""The same of many notifications: a transaction by itself."""

HALVING: Final = 32
"""Calls that wait, from which on only half of those in play is sent at once: so the callers of one
half go on while the server is at work on the other. Twice as fast, for 100 callers and more."""

_TICKS: Final = 4
"""Ticks in the time that a call may wait: it fails between that and one tick more."""


class WaitingCalls:
    """
    The calls that wait to be sent, up to a limit; further calls wait for room.

    PostgreSQL delivers equal notifications of one transaction once, and each call counts. So a
    batch takes one of several equal ones; the others are left to later batches, and delay no
    other call.
    """

    def __init__(self, limit: int, seconds: float, is_counting: Callable[[], bool]) -> None:
        """
        Keep up to ``limit`` calls.

        Args:
            limit: Calls in the queue, those that wait for room not counted.
            seconds: How long a call may wait.
            is_counting: Whether time counts now. It does not while there is no connection: that
                has a deadline of its own.
        """
        self._loop = asyncio.get_running_loop()
        self._new_future = self._loop.create_future
        self._limit = limit
        self._room = limit  # for fresh ones: less than the limit by those that repeat
        self._seconds = seconds
        self._is_counting = is_counting
        self._tick = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._stopped = False
        self._fresh: deque[Call] = deque()
        self._repeats: dict[tuple[str, str], deque[Call]] = {}
        self._bulks: deque[Bulk] = deque()
        self._beyond: deque[Call] = deque()  # for which there is no room yet

    def __iter__(self) -> Iterator[Call | Bulk]:
        yield from self._fresh
        for calls in self._repeats.values():
            yield from calls
        yield from self._beyond
        yield from self._bulks

    def __bool__(self) -> bool:
        """Return whether anything waits to be sent."""
        return bool(self._fresh or self._bulks or self._repeats or self._beyond)

    @property
    def is_closed(self) -> bool:
        """Whether no more calls are accepted."""
        return self._closed

    def add(self, channel: str, payload: str) -> Sent:
        """Return what is done once this has been sent; raise ClosedError if it will not be."""
        if self._closed:
            raise not_sent_closed()
        sent: Sent = self._new_future()
        calls = self._fresh
        if self._beyond or len(calls) >= self._room:
            calls = self._beyond
        calls.append((channel, payload, sent, self._tick))
        if self._timer is None:
            self._set_timer()
        return sent

    def add_bulk(self, channels: Sequence[str], payloads: Sequence[str]) -> Sent:
        """Return what is done once these have been sent, in a transaction by themselves."""
        if self._closed:
            raise not_sent_closed()
        sent: Sent = self._new_future()
        self._bulks.append((channels, payloads, sent, self._tick))
        if self._timer is None:
            self._set_timer()
        return sent

    def put_back(self, calls: Sequence[Call]) -> None:
        """Let calls that were taken, and have not been sent, be the next ones."""
        if self._stopped:
            fail(calls, not_sent_closed)
            return
        self._fresh.extendleft(reversed(calls))
        if self._timer is None:
            self._set_timer()

    def put_bulk_back(self, bulk: Bulk) -> None:
        """The same for a transaction of many notifications."""
        if self._stopped:
            fail([bulk], not_sent_closed)
            return
        self._bulks.appendleft(bulk)
        if self._timer is None:
            self._set_timer()

    def call_of(self, channel: str, payload: str) -> Call:
        """Return a call for what a caller was about to send by itself."""
        return channel, payload, self._new_future(), self._tick

    def admit(self) -> int:
        """Accept as many calls as there is room for, in order; return how many are accepted."""
        while self._beyond and len(self._fresh) < self._room:
            self._fresh.append(self._beyond.popleft())
        return len(self._fresh) + self._limit - self._room

    # -- what is sent next --------------------------------------------------------------------

    @property
    def has_bulk(self) -> bool:
        """Whether a transaction of many notifications waits."""
        return bool(self._bulks)

    def next_bulk(self) -> Bulk:
        """Take the next transaction of many notifications."""
        return self._bulks.popleft()

    def next_batch(self, in_flight: int) -> list[Call]:
        """
        Take what can go into one transaction, in order; callers who gave up are left out.

        Args:
            in_flight: Calls that have just been sent, whose callers have not been told.
        """
        fresh = self._fresh
        in_play = len(fresh) + self._limit - self._room + in_flight
        looked_at = min(len(fresh), BATCH_COUNT, max(HALVING, (in_play + 1) // 2))
        if self._repeats:
            return self._next_round(looked_at)
        batch = [call for call in islice(fresh, looked_at) if not call[2].done()]
        payloads = [call[1] for call in batch]
        if len(set(payloads)) < len(batch) or sum(map(len, payloads)) > BATCH_CHARACTERS:
            return self._next_round(looked_at)
        for _ in range(looked_at):
            fresh.popleft()
        return batch

    def _next_round(self, looked_at: int) -> list[Call]:
        """Take one of each pair of channel and payload; keep the others for the next rounds."""
        fresh, repeats, pairs = self._fresh, self._repeats, set[tuple[str, str]]()
        batch = self._one_of_each_repeated(pairs)
        size = sum(len(call[1]) for call in batch)
        while looked_at and len(batch) < BATCH_COUNT and size <= BATCH_CHARACTERS:
            looked_at -= 1
            call = fresh.popleft()
            if call[2].done():
                continue
            pair = call[:2]
            if pair in pairs or pair in repeats:
                repeats.setdefault(pair, deque()).append(call)
                self._room -= 1
            else:
                pairs.add(pair)
                batch.append(call)
                size += len(call[1])
        return batch

    def _one_of_each_repeated(self, pairs: set[tuple[str, str]]) -> list[Call]:
        """Take one of each pair that is kept; at most half of a batch, to leave room for others."""
        batch: list[Call] = []
        size = 0
        for pair in list(islice(self._repeats, BATCH_COUNT // 2)):
            if size > BATCH_CHARACTERS // 2:
                break
            calls = self._repeats.pop(pair)
            call = calls.popleft()
            self._room += 1
            if calls:
                self._repeats[pair] = calls  # behind the other pairs
            if not call[2].done():
                pairs.add(pair)
                batch.append(call)
                size += len(call[1])
        return batch

    # -- what is not sent ---------------------------------------------------------------------

    def close(self) -> None:
        """Accept no more, and fail those for which there is no room yet."""
        self._closed = True
        beyond, self._beyond = self._beyond, deque()
        fail(beyond, not_sent_closed)

    def fail_all(self, make_error: Callable[[], Exception]) -> None:
        """Let all that waits fail, each call by an error of its own."""
        waiting = [*self]
        for calls in (self._fresh, self._repeats, self._beyond, self._bulks):
            calls.clear()
        self._room = self._limit
        fail(waiting, make_error)

    def stop(self) -> None:
        """Stop the clock. Whatever comes is refused, and whatever comes back."""
        self._closed = self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        self._timer = self._loop.call_later(
            self._seconds / _TICKS, self._on_tick, context=Context()
        )

    def _on_tick(self) -> None:
        self._timer = None
        if self._is_counting():
            self._tick += 1
            self._expire(self._tick - _TICKS)
        if self:
            self._set_timer()

    def _expire(self, tick: int) -> None:
        """Let those fail that came before this tick."""
        for calls in (self._fresh, self._beyond, self._bulks):
            self._expire_first(calls, tick)
        for pair, calls in list(self._repeats.items()):
            self._room += self._expire_first(calls, tick)
            if not calls:
                del self._repeats[pair]

    def _expire_first(self, calls: deque[Any], tick: int) -> int:
        expired = 0
        while calls and calls[0][3] < tick:
            fail([calls.popleft()], self._not_sent_in_time)
            expired += 1
        return expired

    def _not_sent_in_time(self) -> NotifyTimeoutError:
        return NotifyTimeoutError(
            f"not sent: the call waited for more than {self._seconds:g} s behind other calls"
        )


def tell(calls: Iterable[Call | Bulk]) -> None:
    """Let the callers go on: what they asked for is committed."""
    for _, _, sent, _ in calls:
        if not sent.done():
            sent.set_result(None)


def fail(calls: Iterable[Call | Bulk], make_error: Callable[[], Exception]) -> None:
    """Tell every caller, each by an error of its own."""
    for _, _, sent, _ in calls:
        if not sent.done():
            sent.set_exception(make_error())
