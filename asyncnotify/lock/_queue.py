"""Who waits for which lock, and which locks the session has: no I/O, no task."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from asyncnotify._errors import own_copy
from asyncnotify.lock._errors import LockTimeoutError, TooManyLocksError
from asyncnotify.lock._held import Holding
from asyncnotify.lock._names import key_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

_FIRST_DELAY: Final = 0.002
_LONGEST_DELAY: Final = 0.1
"""Seconds between looks at a row that the transaction of the last holder has locked."""


@dataclass(slots=True, eq=False)
class Waiter:
    """
    One call that waits for a lock.

    Attributes:
        done: Gets what is held, or why nothing is.
        once: Whether one attempt is all that is asked for.
    """

    done: asyncio.Future[Holding]
    once: bool = False


@dataclass(slots=True, eq=False)
class Entry:
    """
    A lock that somebody of this process waits for, or has.

    Attributes:
        is_taken: The session has the lock.
        in_flight: The server has been asked for the lock, and has not answered.
        holding: Who has the lock was told so; None while it is taken: it has no token yet.
        due: When to try next, or to ask for a token, by the loop's clock.
        released: Waits for the release of what was held; None: nobody has let it go.
    """

    name: str
    waiters: deque[Waiter] = field(default_factory=deque)
    is_taken: bool = False
    in_flight: bool = False
    holding: Holding | None = None
    due: float = 0.0
    released: asyncio.Future[None] | None = None
    _delay: float = _FIRST_DELAY

    def is_held_by(self, task: asyncio.Task[object] | None) -> bool:
        """Whether a task has the lock, and has not let it go: it would wait for itself."""
        return self.holding is not None and self.released is None and self.holding.task is task

    @property
    def waits(self) -> bool:
        """Whether a call waits that has not been cancelled."""
        while self.waiters and self.waiters[0].done.done():
            self.waiters.popleft()
        return bool(self.waiters)

    @property
    def is_wanted(self) -> bool:
        """Whether the lock is to be tried."""
        return not self.is_taken and self.waits

    def hand_over(self, token: int) -> None:
        """Give the lock, which is taken and has a token, to the first who waits."""
        self._delay = _FIRST_DELAY
        if self.waits:
            self.holding = Holding(self.name, token)
            self.waiters.popleft().done.set_result(self.holding)

    def put_off(self, now: float) -> None:
        """Look later whether the last holder's transaction has ended."""
        self.due = now + self._delay
        self._delay = min(2 * self._delay, _LONGEST_DELAY)

    def fail(self, error: Exception, *, only_once: bool = False) -> None:
        """Tell those who wait, or those of them who asked for one attempt, why they get nothing."""
        left: deque[Waiter] = deque()
        for waiter in self.waiters:
            if only_once and not waiter.once:
                left.append(waiter)
            elif not waiter.done.done():
                waiter.done.set_exception(own_copy(error))
        self.waiters = left

    def busy(self) -> None:
        """Note that an attempt has failed."""
        self.fail(LockTimeoutError(self.name, 0), only_once=True)

    def is_free(self) -> None:
        """Note that the session has no longer the lock."""
        self.is_taken, self.holding, self.due = False, None, 0.0
        self._delay = _FIRST_DELAY


class Queue:
    """
    The locks that a process uses, each by its key.

    Args:
        limit: How many names may be used at once.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: dict[int, Entry] = {}

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def __bool__(self) -> bool:
        return bool(self._entries)

    def entry(self, name: str) -> Entry:
        """
        Return the entry of a lock, which is made if it is not there.

        Raises:
            TooManyLocksError: There are as many as are allowed.
        """
        key = key_of(name)
        if key not in self._entries:
            if len(self._entries) >= self._limit:
                self.forget_unused()
            if len(self._entries) >= self._limit:
                raise TooManyLocksError(self._limit)
            self._entries[key] = Entry(name)
        return self._entries[key]

    def get(self, key: int) -> Entry | None:
        """Return the entry of a key, if there is one."""
        return self._entries.get(key)

    def forget_unused(self) -> None:
        """Forget the locks that nobody waits for, and that the session does not have."""
        self._entries = {
            key: entry
            for key, entry in self._entries.items()
            if entry.is_taken or entry.in_flight or entry.waits
        }

    def wanted(self, now: float) -> list[Entry]:
        """Return what is to be tried now."""
        return [entry for entry in self if entry.is_wanted and entry.due <= now]

    def unnumbered(self, now: float) -> list[Entry]:
        """Return what is taken, wanted, and has no token; and may have one now."""
        taken = (entry for entry in self if entry.is_taken and entry.holding is None)
        return [entry for entry in taken if entry.due <= now and entry.waits]

    def to_release(self) -> list[Entry]:
        """Return what the session has, and nobody needs."""
        taken = (entry for entry in self if entry.is_taken)
        return [
            entry
            for entry in taken
            if entry.released is not None or (entry.holding is None and not entry.waits)
        ]

    def next_due(self) -> float | None:
        """Return when the next of them is to be tried, or to get a token."""
        return min(
            (entry.due for entry in self if entry.holding is None and entry.waits), default=None
        )
