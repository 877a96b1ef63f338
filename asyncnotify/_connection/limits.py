"""The times of a listener."""

from __future__ import annotations

from dataclasses import dataclass, fields

from asyncnotify._arguments import check_seconds


@dataclass(frozen=True, slots=True)
class Limits:
    """The times of a listener, in seconds."""

    connect_timeout: float
    heartbeat: float | None
    heartbeat_timeout: float
    operation_timeout: float
    start_timeout: float
    close_timeout: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value: object = getattr(self, field.name)
            if value is None and field.name == "heartbeat":
                continue
            check_seconds(field.name, value)

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
