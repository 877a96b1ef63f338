"""The times and the size of the queue of a notifier."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from asyncnotify._arguments import check_count, check_seconds

DEFAULT_QUEUE: Final = 10_000
"""Calls that may wait to be sent; further calls wait for room."""


_MAY_BE_NONE: Final = {"max_connection_age", "start_timeout"}


@dataclass(frozen=True, slots=True)
class PublishingLimits:
    """The times of a notifier, in seconds, and how many calls may wait."""

    connect_timeout: float = 10.0
    operation_timeout: float = 5.0
    start_timeout: float | None = 30.0
    retry_timeout: float = 30.0
    close_timeout: float = 5.0
    queue: int = DEFAULT_QUEUE
    max_connection_age: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value: object = getattr(self, field.name)
            if field.name == "queue":
                check_count(field.name, value)
            else:
                check_seconds(field.name, value, or_none=field.name in _MAY_BE_NONE)
