"""How long to wait before the next attempt: iterators of delays."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

from asyncnotify._arguments import check_number, check_seconds
from asyncnotify._logs import Log

Backoff: TypeAlias = Callable[[], Iterator[float]]
"""What ``backoff=`` takes: called at the beginning of each outage, it returns an endless iterator
of the seconds to wait before each attempt."""

log = Log("connection")


@dataclass(frozen=True, slots=True)
class ExponentialBackoff:
    """
    Exponential backoff with full jitter; calling it starts a new series of delays.

    The first delay is 0: the first attempt is made at once. The delay before attempt n + 2
    is drawn evenly from 0 to ``min(cap, initial * factor ** n)`` seconds, so that many
    listeners that lost the same server do not reconnect all at once.

    Attributes:
        initial: Upper bound of the second delay, in seconds; more than 0.
        factor: Growth of the bound from one attempt to the next; at least 1.
        cap: Largest bound, in seconds; at least ``initial``.

    Raises:
        ValueError: An argument is out of its bounds.
    """

    initial: float = 0.1
    factor: float = 2.0
    cap: float = 5.0

    def __post_init__(self) -> None:
        check_seconds("initial", self.initial)
        check_seconds("cap", self.cap)
        check_number("factor", self.factor, minimum=1)
        if self.initial > self.cap:
            msg = f"initial must be at most cap, not initial={self.initial}, cap={self.cap}"
            raise ValueError(msg)

    def __call__(self) -> Iterator[float]:
        """Return an endless iterator of delays in seconds, from the beginning."""
        yield 0.0
        bound = self.initial
        while True:
            yield random.uniform(0, bound)  # noqa: S311 - jitter, not a secret
            bound = min(self.cap, bound * self.factor)


def first_at_once(backoff: Backoff) -> Iterator[float]:
    """Return the delays of a backoff behind a first one of 0: they are between attempts."""
    return chain((0.0,), backoff())


def longest_delay(backoff: ExponentialBackoff) -> float:
    """Return a delay near the cap, in seconds: for errors that retrying will not fix."""
    return random.uniform(backoff.cap / 2, backoff.cap)  # noqa: S311 - jitter, not a secret


def shortened(seconds: float) -> float:
    """
    Return up to a tenth less than these seconds.

    For the age of a connection: those that began together are then not all replaced at once.
    """
    return random.uniform(0.9 * seconds, seconds)  # noqa: S311 - jitter, not a secret


class Delays:
    """The delays of one outage. They never end, whatever the caller's iterator does."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._iterator: Iterator[float] | None = None
        self._failed = False

    def next(self) -> float:
        """Return the seconds to wait before the next attempt."""
        if not self._failed:
            try:
                return self._next_from_backoff()
            except Exception:
                self._failed = True
                log.exception(
                    "backoff= must return an endless iterator of seconds, but did not; in this"
                    " outage attempts are made every 2.5 to 5 s instead",
                )
        return longest_delay(ExponentialBackoff())

    def _next_from_backoff(self) -> float:
        if self._iterator is None:
            self._iterator = iter(self._backoff())
        delay = float(next(self._iterator))
        if not 0 <= delay < float("inf"):
            msg = f"backoff= gave {delay}, which is not a number of seconds to wait"
            raise ValueError(msg)
        return delay
