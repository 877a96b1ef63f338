"""What readers of a log see: events, and where they stand in its order."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar
from uuid import UUID

from asyncpg.pgproto.pgproto import UUID as DriversUUID  # noqa: N811 - makes one in a tenth of the time of its base

from asyncnotify.log._errors import PositionError

T_co = TypeVar("T_co", covariant=True)

_NEW: Final[Any] = tuple.__new__
_YEAR_2000: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
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


def microseconds_of(time: datetime) -> int:
    """Return how many microseconds a time is after the year 2000 began, as PostgreSQL keeps it."""
    return (time - _YEAR_2000) // _MICROSECOND


def time_of(microseconds: int) -> datetime:
    """
    Return the time that ``microseconds_of()`` has returned this of.

    Raises:
        OverflowError: Python knows no such time.
    """
    return _YEAR_2000 + timedelta(0, 0, microseconds)


class Event(tuple[Any, ...], Generic[T_co]):
    """
    One event of a log, immutable.

    The repr leaves the payload out, so that an event can be logged. Events of one log are ordered
    by their positions.

    Of most events little more is asked for than the payload. So an event holds what the server has
    sent, and ``position``, ``id`` and ``appended_at`` are made whenever they are asked for: made
    before, they took two thirds of the time in which events are made, much of it the garbage
    collector's. Only the names below are public, not the elements of the tuple that an event is.
    """

    __slots__ = ()
    __match_args__ = ("position", "id", "channel", "payload", "key", "headers", "appended_at")

    def __new__(  # noqa: PLR0917 - what an event is
        cls,
        position: Position,
        id: UUID,  # noqa: A002 - its name
        channel: str,
        payload: T_co,
        key: str | None,
        headers: Mapping[str, str],
        appended_at: datetime,
    ) -> Self:
        """Make an event, as a test of one's own may need it."""
        made_at = microseconds_of(appended_at)
        stored = (*position, id.bytes, channel, payload, key, headers, made_at)
        return super().__new__(cls, stored)

    def __getnewargs__(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__match_args__)

    @property
    def position(self) -> Position:
        """Where the event stands in the order."""
        return Position(*self[:4])

    @property
    def id(self) -> UUID:
        """The identity of the event, everywhere: two events never have the same."""
        return DriversUUID(self[4])

    @property
    def channel(self) -> str:
        """The channel that the event was appended to."""
        channel: str = self[5]
        return channel

    @property
    def payload(self) -> T_co:
        """What was appended."""
        payload: T_co = self[6]
        return payload

    @property
    def key(self) -> str | None:
        """What the event is about; events of one key are consumed in order. None: nothing."""
        key: str | None = self[7]
        return key

    @property
    def headers(self) -> Mapping[str, str]:
        """Further texts by name."""
        headers: Mapping[str, str] = self[8]
        return headers

    @property
    def appended_at(self) -> datetime:
        """When it was appended, by the server's clock; its transaction committed later."""
        return time_of(self[9])

    def __repr__(self) -> str:
        size = f" of {len(self.payload)} characters" if isinstance(self.payload, str) else ""
        return (
            f"Event({self.position}, id={self.id}, channel={self.channel!r},"
            f" payload=<hidden{size}>, key={self.key!r})"
        )

    __sentry_repr__ = __repr__
    """As of Notification: Sentry's SDK would send a tuple by its elements."""


def events_of(*stored: Iterable[object]) -> list[Event[Any]]:
    """
    Return events, given what they hold, column by column.

    Args:
        stored: The log, the epoch, the ticks, the ids, the identities as bytes, the channels, the
            payloads, the keys, the headers, and the times as ``microseconds_of()`` returns them.
            Some may not end.
    """
    return list(map(_NEW, repeat(Event), zip(*stored, strict=False)))


def with_contents(event: Event[Any], payload: object, headers: Mapping[str, str]) -> Event[Any]:
    """Return the same event, with another payload and other headers."""
    *before, _, key, _, made_at = event
    changed: Event[Any] = _NEW(Event, (*before, payload, key, headers, made_at))
    return changed
