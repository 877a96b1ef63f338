"""The times of a listener."""

from __future__ import annotations

from dataclasses import dataclass, fields


def check_seconds(name: str, value: object) -> None:
    """Raise ValueError unless it is a number of seconds that can be waited for."""
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        msg = f"{name} must be a positive number of seconds, not {value!r}"
        raise ValueError(msg)


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
        """How long LISTEN may take: a dead connection must not live longer than by heartbeat."""
        if self.heartbeat is None:
            return self.operation_timeout
        return min(self.operation_timeout, self.heartbeat + self.heartbeat_timeout)
