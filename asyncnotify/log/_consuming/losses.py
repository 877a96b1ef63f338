"""Sessions that are lost while an event is handled."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from asyncnotify._errors import ConnectionLostError
from asyncnotify.log._consuming.calling import HandlerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncnotify.log._retry import Retry
    from asyncnotify.log._values import Position

_MOST: Final = 5
"""Sessions, one after another, that are lost while one event is handled: then it is the cause."""


class Losses:
    """
    Counts the losses of sessions in succession, for one event at a time.

    One loss is no fault of the function's: the server may have been stopped. An event with which it
    happens each time holds up those behind it, whatever the function did: it may have caught the
    error, closed the connection, or left a trigger that ends the session at COMMIT.

    Args:
        retry: How long to wait before each further call.
    """

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._at: Position | None = None
        self._count = 0
        self._delays: Iterator[float] = itertools.repeat(0.0)

    def note(self, position: Position, *, is_called: bool = True) -> float:
        """
        Note a loss; return the seconds to wait before the event is tried again.

        Args:
            position: Of the event.
            is_called: The function had been called, so it may be the cause.
        """
        if position != self._at:
            self._at, self._count = position, 0
            self._delays = self._retry.delays()
        self._count += is_called
        return 0.0 if is_called and self._count == _MOST else next(self._delays)

    def end(self) -> None:
        """Note that an event is done with."""
        self._at = None

    def too_many(self, position: Position) -> int | None:
        """Return how often it has happened with this event, if that is too often."""
        return self._count if position == self._at and self._count >= _MOST else None

    @staticmethod
    def error(count: int) -> HandlerError:
        """Return what an event is given up for after so many losses."""
        text = f"the connection was lost {count} times in the handler"
        return HandlerError(ConnectionLostError(text))
