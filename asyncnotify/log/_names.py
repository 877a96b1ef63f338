"""What a log, and what belongs to it in the database, is called."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from asyncnotify import Channel, ChannelNameError
from asyncnotify.log._errors import LogNameError

SCHEMA: Final = "asyncnotify"
"""The schema that holds everything of every log, and nothing else."""

CREATE_SCHEMA: Final = f"""
    DO $do$ BEGIN
        IF pg_catalog.to_regnamespace('{SCHEMA}') IS NULL THEN
            CREATE SCHEMA IF NOT EXISTS {SCHEMA};
        END IF;
    END $do$
    """
"""``IF NOT EXISTS`` alone asks first for the right to create schemas: an owner may lack it."""

_LOG_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
CONSUMER_LIMIT: Final = 200
"""Characters of a consumer's name."""


def check_log_name(name: object) -> str:
    """Return the name if it can be a log's, else raise LogNameError."""
    if not isinstance(name, str) or not _LOG_NAME.fullmatch(name):
        reason = "1 to 40 of a-z, 0-9 and _ are allowed, and a letter at the beginning"
        raise LogNameError(name, "log", reason)
    return str.__str__(name)


def check_consumer_name(name: object) -> str:
    """Return the name if it can be a consumer's, else raise LogNameError."""
    if not isinstance(name, str) or not 0 < len(name) <= CONSUMER_LIMIT or not name.isprintable():
        reason = f"1 to {CONSUMER_LIMIT} printable characters are allowed"
        raise LogNameError(name, "consumer", reason)
    return str.__str__(name)


_CALLS: Final = {
    "read": "read('orders', 'prices')",
    "consumer": "consumer('mailer', 'orders', 'prices')",
    "on": "@log.on('mailer', 'orders', 'prices')",
}
"""How the methods that take several channels are called."""


def wake_channel(log: str) -> str:
    """
    Return the channel on which those who append to a log notify; at most 56 bytes.

    Raises nothing.
    """
    return f"asyncnotify_log_{log}"


def check_channels(method: str, channels: tuple[object, ...]) -> None:
    """Raise ChannelNameError if one of a method's channels is neither a text nor a Channel."""
    for channel in channels:
        if not isinstance(channel, str | Channel):
            remedy = f"name each channel by itself, as {_CALLS[method]}"
            if callable(channel) and not isinstance(channel, type):
                remedy = "functions are given to @log.on(name); read() and consumer() are iterated"
            reason = f"is of type {type(channel).__name__}, not str: {remedy}"
            raise ChannelNameError(channel, reason)


@dataclass(frozen=True, slots=True)
class Names:
    """
    The identifiers of one log: none needs quotes.

    Attributes:
        log: The checked name of the log.
    """

    log: str

    @property
    def prefix(self) -> str:
        """What the name of everything that belongs to the log begins with, in SQL."""
        return f"{SCHEMA}.{self.log}"

    @property
    def events(self) -> str:
        """The partitioned table of the events."""
        return f"{self.prefix}_events"

    @property
    def ticks(self) -> str:
        """The table of the ticks."""
        return f"{self.prefix}_ticks"

    @property
    def epochs(self) -> str:
        """The table of the epochs."""
        return f"{self.prefix}_epochs"

    @property
    def consumers(self) -> str:
        """The table of the consumers' cursors."""
        return f"{self.prefix}_consumers"

    @property
    def dead_letters(self) -> str:
        """The table of the events that a consumer could not handle."""
        return f"{self.prefix}_dead_letters"

    @property
    def sequence(self) -> str:
        """The sequence of the events' ids."""
        return f"{self.prefix}_id"

    @property
    def wake_channel(self) -> str:
        """The channel on which appenders notify; at most 56 bytes."""
        return wake_channel(self.log)

    def bucket_lock(self, consumer: str, number: int) -> int:
        """Return the key of the lock that one who serves a bucket of a consumer holds alone."""
        # No name of a consumer holds NUL
        return self.lock_key(f"consumer {consumer}" + (f"\0{number}" if number else ""))

    def members_lock(self, consumer: str) -> int:
        """Return the key of the lock that all hold together who share a consumer's buckets."""
        return self.lock_key(f"members {consumer}")

    def lock_key(self, what: str) -> int:
        """
        Return the key of an advisory lock for a purpose: 64 bits with a sign.

        Advisory locks count for one database, in which the name of a log is unique.
        """
        digest = hashlib.sha256(f"asyncnotify.log\0{self.log}\0{what}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)
