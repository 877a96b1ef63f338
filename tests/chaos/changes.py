"""What is sent: each notification tells one change of one row of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeAlias

from asyncnotify import Channel, Reread

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from asyncnotify import Notification

__all__ = [
    "CHANNELS",
    "FENCE",
    "MARKS",
    "NEWEST",
    "PEOPLE",
    "PRICES",
    "TYPED",
    "Change",
    "Row",
    "Rows",
]

CHANNELS: Final = ("orders", "stock", "people", "prices")
"""What is notified on."""

UNREADABLE: Final = "!"
"""Begins a payload that is no integer."""

AGAIN: Final = "?"
"""Begins a payload that says "read again" to those who read PEOPLE."""


def _number(text: str) -> int | Reread:
    return Reread(1) if text.startswith(AGAIN) else int(text)


PRICES: Final = Channel("prices", int)
"""The last of them for those who want integers; now and then a payload is none."""

PEOPLE: Final = Channel("people", decode=_number)
"""Another for those who want integers; now and then a payload says "read again" instead."""

TYPED: Final = {PRICES.name: PRICES, PEOPLE.name: PEOPLE}

MARKS: Final = {PRICES.name: UNREADABLE, PEOPLE.name: AGAIN}
"""What begins a payload that has no integer to give, by channel."""

FENCE: Final = "fence"
"""The channel of notifications that mark a place in the server's order."""

KEYS: Final = 300
"""Rows of each channel: so many that a wrong one stays wrong for a while."""

NEWEST: Final = -1
"""The key of the row that holds the last number sent on its channel."""

Row: TypeAlias = tuple[str, int]
"""A channel and a key."""

if TYPE_CHECKING:
    Rows: TypeAlias = Mapping[Row, int]


class Change(NamedTuple):
    """A row got this number, or was removed."""

    number: int
    key: int
    removed: bool

    @classmethod
    def draw(cls, number: int, chance: random.Random) -> Self:
        """Return a change of a row at random."""
        return cls(number, chance.randrange(KEYS), chance.random() < 0.2)

    @classmethod
    def of(cls, notification: Notification[Any]) -> Self:
        """Read what a notification tells, decoded or not."""
        number, rest = divmod(int(str(notification.payload).lstrip(UNREADABLE + AGAIN)), KEYS * 2)
        key, removed = divmod(rest, 2)
        return cls(number, key, bool(removed))

    def payload(self) -> str:
        """Return it as an integer in decimal digits."""
        return str((self.number * KEYS + self.key) * 2 + self.removed)
