"""What readers of a log see: events, and where they stand in its order."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Self, TypeVar
from uuid import UUID

from asyncnotify.log._errors import PositionError

T_co = TypeVar("T_co", covariant=True)

if TYPE_CHECKING:
    # As for Notification: type checkers lose the payload's type of a generic NamedTuple
    from asyncnotify._model import _NamedTuple  # pyright: ignore[reportPrivateUsage]  # as it says
else:
    _NamedTuple = NamedTuple

_TEXT: Final = re.compile(r"([a-z][a-z0-9_]{0,39}):([0-9]{1,9})\.([0-9]{1,18})\.([0-9]{1,18})")


class Position(NamedTuple):
    """
    A place in the order of a log, just behind an event.

    Positions of one log are ordered as its events are. ``str(position)`` is a short text to store
    or to send, for example as the ``id`` of a server-sent event; ``Position.parse()`` reads it.

    Attributes:
        log: The name of the log.
        epoch: Counts the clusters and timelines on which the log has lived.
        tick: The tick that the event belongs to.
        id: The number of the event; numbers ascend within a tick.
    """

    log: str
    epoch: int
    tick: int
    id: int

    def __str__(self) -> str:
        return f"{self.log}:{self.epoch}.{self.tick}.{self.id}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Return the position of which this is the text.

        Raises:
            PositionError: The text is not that of a position.
        """
        match = _matched(text)
        if match is None:
            msg = f"{text!r:.100} is not the text of a position"
            raise PositionError(msg)
        return cls(match[1], int(match[2]), int(match[3]), int(match[4]))


def _matched(text: object) -> re.Match[str] | None:
    return _TEXT.fullmatch(text) if isinstance(text, str) else None


class Event(_NamedTuple, Generic[T_co]):
    """
    One event of a log.

    A named tuple, as a Notification is. The repr leaves the payload out, so that an event can be
    logged.

    Attributes:
        position: Where the event stands in the order.
        id: The identity of the event, everywhere: two events never have the same.
        channel: The channel that the event was appended to.
        payload: What was appended.
        key: What the event is about; events of one key are consumed in their order. None: nothing.
        headers: Further texts by name.
        appended_at: When it was appended, by the server's clock; its transaction committed later.
    """

    position: Position
    id: UUID
    channel: str
    payload: T_co
    key: str | None
    headers: Mapping[str, str]
    appended_at: datetime

    def __repr__(self) -> str:
        size = f" of {len(self.payload)} characters" if isinstance(self.payload, str) else ""
        return (
            f"Event({self.position}, id={self.id}, channel={self.channel!r},"
            f" payload=<hidden{size}>, key={self.key!r})"
        )

    __sentry_repr__ = __repr__
    """As of Notification: Sentry's SDK would send a tuple by its elements."""
