"""Where a server is: the host and port of its DSN, and the addresses they lead to."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from asyncnotify._arguments import check_present
from asyncnotify.testing._dsn import DEFAULT_PORT, pieces_of

if TYPE_CHECKING:
    from asyncnotify.testing._proxy.connection import Address


def target_of(dsn: str) -> tuple[str, int]:
    """
    Return the first host (or directory of a Unix socket) and port that a DSN names.

    Raises:
        ValueError: It is no URL, names no host, or no port where one is to be.
        TypeError: It is no str.
    """
    check_present("dsn", dsn, str)
    host, port = pieces_of(dsn).first_address()
    if not host:
        message = "the DSN names no host"
        raise ValueError(message)
    return host, _number(port or str(DEFAULT_PORT))


async def addresses_of(host: str, port: int) -> list[Address]:
    """
    Return the addresses of a host; of a directory, that of PostgreSQL's Unix socket in it.

    Raises:
        OSError: The name cannot be resolved.
    """
    if host.startswith("/"):
        return [(socket.AF_UNIX, f"{host}/.s.PGSQL.{port}")]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, (str(address[0]), port)) for family, _, _, _, address in found]


def _number(port: str) -> int:
    if not (port.isascii() and port.isdecimal()):
        message = "the port of the DSN must be a number"  # not shown: it may be of a password
        raise ValueError(message)
    return int(port)
