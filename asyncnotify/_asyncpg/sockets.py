"""The socket of a connection: TCP keepalive on both ends, and whether something has arrived."""

from __future__ import annotations

import asyncio
import select
import socket
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._errors import describe_error
from asyncnotify._keepalive import Keepalive
from asyncnotify._logs import Log

if TYPE_CHECKING:
    from collections.abc import Iterator

    import asyncpg

log = Log("connection")

ENDED: Final = "the connection was ended while it was idle"
"""What a statement fails with that is not sent any more."""

_TURNS_TO_READ: Final = 3
"""Turns of the loop until it has read what had arrived: it looks, it reads, and reads the end."""


def check_keepalive(keepalive: object) -> None:
    """Raise TypeError unless it is a Keepalive or None."""
    if not (keepalive is None or isinstance(keepalive, Keepalive)):
        msg = f"keepalive must be a Keepalive or None, not of type {type(keepalive).__name__}"
        raise TypeError(msg)


def keep_alive(connection: asyncpg.Connection[Any], keepalive: Keepalive) -> None:
    """Set the options of the client's socket; an unsupported option is left as it is."""
    transport = getattr(connection, "_transport", None)
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    for level, option, value in _options(keepalive):
        try:
            sock.setsockopt(level, option, value)
        except (OSError, ValueError) as error:  # uvloop's, where the connection has just died
            log.debug("socket option %d stays as it is: %s", option, describe_error(error))


def _options(keepalive: Keepalive) -> Iterator[tuple[int, int, int]]:
    yield socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1
    known = {
        "TCP_KEEPIDLE": keepalive.idle,
        "TCP_KEEPALIVE": keepalive.idle,  # the name of TCP_KEEPIDLE on macOS
        "TCP_KEEPINTVL": keepalive.interval,
        "TCP_KEEPCNT": keepalive.count,
        "TCP_USER_TIMEOUT": keepalive.user_timeout * 1000,  # milliseconds
    }
    for name, value in known.items():
        option = getattr(socket, name, None)
        if option is not None:
            yield socket.IPPROTO_TCP, option, value


def server_settings(keepalive: Keepalive) -> dict[str, str]:
    """Return the settings of the server for the same, to be set after connecting."""
    # Not as startup parameters: poolers refuse those (08P01)
    return {
        "tcp_keepalives_idle": str(keepalive.idle),
        "tcp_keepalives_interval": str(keepalive.interval),
        "tcp_keepalives_count": str(keepalive.count),
        "tcp_user_timeout": f"{keepalive.user_timeout}s",
    }


class Arrivals:
    """Whether something has arrived at a socket that the event loop has not read yet."""

    def __init__(self, transport: asyncio.Transport, number: int) -> None:
        self._transport = transport
        self._poll = select.poll()
        self._poll.register(number, select.POLLIN)

    @classmethod
    def of(cls, connection: asyncpg.Connection[Any]) -> Arrivals | None:
        """Return those of a connection; None if the driver or the system does not show them."""
        transport: Any = getattr(connection, "_transport", None)
        if transport is None or not hasattr(select, "poll"):
            return None
        sock = transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return None
        return cls(transport, sock.fileno())

    @property
    def have_ended(self) -> bool:
        """Whether the connection is closed, or about to be: the last words have been read."""
        return self._transport.is_closing()

    def wait(self) -> bool:
        """Return whether something waits to be read, or nothing can come any more; 1 us."""
        return self.have_ended or bool(self._poll.poll(0))

    async def read(self) -> bool:
        """
        Let the loop read what has arrived unasked; return whether it was the end of the session.

        Mostly it is. Then nothing is to be sent: a statement that is written now would be lost.
        """
        for _ in range(_TURNS_TO_READ):
            await asyncio.sleep(0)
            if self.have_ended:
                return True
        return False
