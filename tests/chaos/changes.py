"""What is sent: each notification tells one change of one row of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeAlias

from asyncnotify import Channel

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from asyncnotify import Notification

__all__ = ["CHANNELS", "FENCE", "NEWEST", "PRICES", "UNREADABLE", "Change", "Row", "Rows"]

CHANNELS: Final = ("orders", "stock", "people", "prices")
"""What is notified on."""

PRICES: Final = Channel("prices", int)
"""The last of them for those who want integers; now and then a payload is none."""

FENCE: Final = "fence"
"""The channel of notifications that mark a place in the server's order."""

KEYS: Final = 300
"""Rows of each channel: so many that a wrong one stays wrong for a while."""

NEWEST: Final = -1
"""The key of the row that holds the last number sent on its channel."""

UNREADABLE: Final = "!"
"""Begins a payload that is no integer."""

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
        number, rest = divmod(int(str(notification.payload).lstrip(UNREADABLE)), KEYS * 2)
        key, removed = divmod(rest, 2)
        return cls(number, key, bool(removed))

    def payload(self) -> str:
        """Return it as an integer in decimal digits."""
        return str((self.number * KEYS + self.key) * 2 + self.removed)
