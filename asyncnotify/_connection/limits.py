"""The times of a listener."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from asyncnotify._arguments import check_seconds

_MAY_BE_NONE: Final = {"heartbeat", "max_connection_age", "start_timeout"}


@dataclass(frozen=True, slots=True)
class Limits:
    """The times of a listener, in seconds."""

    connect_timeout: float
    heartbeat: float | None
    heartbeat_timeout: float
    operation_timeout: float
    start_timeout: float | None
    close_timeout: float
    max_connection_age: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            may_be_none = field.name in _MAY_BE_NONE
            check_seconds(field.name, getattr(self, field.name), or_none=may_be_none)

    @property
    def command_timeout(self) -> float:
        """
        Seconds for LISTEN and UNLISTEN.

        Not more than heartbeat and heartbeat_timeout together: a connection that dies under a
        command must be found as soon as one that dies while idle.
        """
        if self.heartbeat is None:
            return self.operation_timeout
        return min(self.operation_timeout, self.heartbeat + self.heartbeat_timeout)
