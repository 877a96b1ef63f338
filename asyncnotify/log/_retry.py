"""What to do with an event that a handler cannot handle."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from asyncnotify import ExponentialBackoff
from asyncnotify._arguments import check_backoff, check_count, check_timeout
from asyncnotify._logs import Log
from asyncnotify.typing import Backoff

log = Log("log")

_BACKOFF = ExponentialBackoff(initial=0.2, cap=30.0)
_WITHOUT_ANY = 1.0
"""Seconds, for a backoff that gives no delay at all."""


@dataclass(frozen=True, slots=True)
class Retry:
    """
    How often a handler is called for an event that makes it raise, and what follows then.

    Meanwhile the events behind it wait, so that the order is kept.

    Attributes:
        attempts: Calls in all, at least 1.
        then: ``"dead_letter"``: keep the event, with the error, where ``Log.dead_letters()`` shows
            it, and go on with the next. ``"stop"``: end the handler, and leave its cursor before
            the event, until the log is started again.
        backoff: Called for each event; returns an iterator of the seconds to wait before each call.
            The first is for the first call and does not count. Where the iterator ends, or gives
            what is no number of seconds, the last delay holds for all further calls.

    Raises:
        TypeError: ``backoff`` cannot be called as it would be.
        ValueError: ``attempts`` or ``then`` is not one of those allowed.
    """

    attempts: int = 5
    then: Literal["dead_letter", "stop"] = "dead_letter"
    backoff: Backoff = _BACKOFF

    def __post_init__(self) -> None:
        check_count("attempts", self.attempts)
        check_backoff(self.backoff)
        then: str = self.then
        if then not in ("dead_letter", "stop"):
            msg = f'then must be "dead_letter" or "stop", not {then!r}'
            raise ValueError(msg)

    def delays(self) -> Iterator[float]:
        """Return the seconds to wait before the second call, the third, and so on, without end."""
        delays = _endless(self.backoff)
        next(delays)
        return delays


def _endless(backoff: Backoff) -> Iterator[float]:
    """Yield the delays of a backoff, and then its last one: no mistake in it ends a handler."""
    last = _WITHOUT_ANY
    try:
        for delay in backoff():
            check_timeout("a delay", delay)
            last = float(delay)
            yield last
    except Exception:
        log.exception("backoff= of Retry must return an iterator of seconds: %.3g s is used", last)
    while True:
        yield last
