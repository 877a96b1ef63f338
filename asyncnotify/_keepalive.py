"""How TCP finds out by itself that the other end is gone."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

_MOST: Final = {"idle": 32_767, "interval": 32_767, "count": 127, "user_timeout": 2_147_483}


@dataclass(frozen=True, slots=True)
class Keepalive:
    """
    TCP keepalive and user timeout, for our socket and for the server's.

    They let the server drop the backend of a client that has vanished, and let a listener
    without a heartbeat notice a server that has. Best effort: what an operating system, a server
    or a pooler does not know is left as it is, and a Unix socket needs none.

    Where there is a user timeout, as on Linux, it alone says when an end is taken for dead, be it
    idle or not: after 30 seconds with the defaults. Elsewhere an idle one is after
    ``idle + interval * count``, 25 seconds.

    Attributes:
        idle: Seconds of silence until the first probe; 1 to 32,767.
        interval: Seconds between probes; 1 to 32,767.
        count: Probes without an answer until the connection is dead; 1 to 127.
        user_timeout: Seconds for which anything sent, a probe as well, may stay without an
            acknowledgement; 1 to 2,147,483.

    Raises:
        ValueError: A figure is no whole number within these bounds, which are Linux's.
    """

    idle: int = 10
    interval: int = 5
    count: int = 3
    user_timeout: int = 30

    def __post_init__(self) -> None:
        for field in fields(self):
            value: object = getattr(self, field.name)
            most = _MOST[field.name]
            if not isinstance(value, int) or not 1 <= value <= most:
                msg = f"{field.name} must be a whole number from 1 to {most}, not {value!r}"
                raise ValueError(msg)
