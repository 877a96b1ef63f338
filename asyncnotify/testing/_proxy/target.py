"""Where a server is: the host and port of its DSN, and the addresses they lead to."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from asyncnotify._arguments import check_present

if TYPE_CHECKING:
    from asyncnotify.testing._proxy.connection import Address

DEFAULT_PORT = 5432
ADDRESS_KEYS = {"host", "hostaddr", "port"}


def target_of(dsn: str) -> tuple[str, int]:
    """
    Return the first host (or directory of a Unix socket) and port that a DSN names.

    Raises:
        ValueError: It names no host, or no port where one is to be.
        TypeError: It is no str.
    """
    check_present("dsn", dsn, str)
    parts = urlsplit(dsn)
    query = dict(parse_qsl(parts.query))
    first = parts.netloc.rpartition("@")[2].split(",")[0]
    host, port = _host_and_port(first)
    host = host or query.get("host", "").split(",")[0]
    if not host:
        message = "the DSN names no host"
        raise ValueError(message)
    return host, _number(port or query.get("port", "").split(",")[0] or str(DEFAULT_PORT))


def rewritten(dsn: str, host: str, port: int) -> str:
    """Return the DSN with every host and port replaced by this one."""
    parts = urlsplit(dsn)
    user, at, _ = parts.netloc.rpartition("@")
    query = [pair for pair in parse_qsl(parts.query) if pair[0] not in ADDRESS_KEYS]
    name = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=f"{user}{at}{name}:{port}", query=urlencode(query)).geturl()


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
        message = f"the port of the DSN must be a number, not {port!r}"
        raise ValueError(message)
    return int(port)


def _host_and_port(netloc: str) -> tuple[str, str]:
    if netloc.startswith("["):
        host, _, rest = netloc[1:].partition("]")
        return host, rest.removeprefix(":")
    host, _, port = netloc.partition(":")
    return unquote(host), port
