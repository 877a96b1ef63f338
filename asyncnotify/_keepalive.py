"""How TCP finds out by itself that the other end is gone."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Keepalive:
    """
    TCP keepalive and user timeout, for our socket and for the server's.

    They let the server drop the backend of a client that has vanished, and let a listener
    without a heartbeat notice a server that has. Best effort: what an operating system, a server
    or a pooler does not know is left as it is, and a Unix socket needs none.

    With the defaults an idle connection is found dead after 25 seconds, one with unacknowledged
    data after 30.

    Attributes:
        idle: Seconds of silence until the first probe; at least 1.
        interval: Seconds between probes; at least 1.
        count: Probes without an answer until the connection is dead; at least 1.
        user_timeout: Seconds for which sent data may stay unacknowledged; at least 1.

    Raises:
        ValueError: A figure is not a whole number of at least 1.
    """

    idle: int = 10
    interval: int = 5
    count: int = 3
    user_timeout: int = 30

    def __post_init__(self) -> None:
        for field in fields(self):
            value: object = getattr(self, field.name)
            if not isinstance(value, int) or value < 1:
                msg = f"{field.name} must be a whole number, at least 1, not {value!r}"
                raise ValueError(msg)
