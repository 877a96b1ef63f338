"""TCP keepalive: how the operating systems find out that the other end is gone."""

from dataclasses import dataclass, fields
from typing import Final

_MAXIMA: Final = {"idle": 32_767, "interval": 32_767, "count": 127, "user_timeout": 2_147_483}


@dataclass(frozen=True, slots=True)
class Keepalive:
    """
    TCP keepalive and user timeout, for the client's socket and for the server's.

    The server then ends the session of a client that has vanished, and a listener without a
    heartbeat notices a server that has vanished. Best effort: an option that the operating
    system, the server or a pooler does not know is left as it is. A Unix socket needs none.

    On a system that has a user timeout, as Linux does, this alone decides when a connection is
    dead, idle or not: after 30 seconds with the defaults. On other systems an idle connection is
    dead after ``idle + interval * count``, 25 seconds.

    Attributes:
        idle: Seconds of silence until the first probe; 1 to 32,767.
        interval: Seconds between probes; 1 to 32,767.
        count: Probes without an answer until the connection is dead; 1 to 127.
        user_timeout: Seconds for which what was sent, probes included, may stay without an
            acknowledgement; 1 to 2,147,483.

    Raises:
        ValueError: A value is not a whole number within these bounds, which are Linux's.
    """

    idle: int = 10
    interval: int = 5
    count: int = 3
    user_timeout: int = 30

    def __post_init__(self) -> None:
        for field in fields(self):
            value: object = getattr(self, field.name)
            maximum = _MAXIMA[field.name]
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= maximum:
                msg = f"{field.name} must be a whole number from 1 to {maximum}, not {value!r}"
                raise ValueError(msg)
