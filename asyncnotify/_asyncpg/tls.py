"""Whether a connection is encrypted, and whether the server has proved who it is."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncpg


def tls_weakness(connection: asyncpg.Connection[Any]) -> str | None:
    """Return what is insecure about a connection over a network, and the remedy; else None."""
    transport = getattr(connection, "_transport", None)
    if transport is None or _is_local(transport.get_extra_info("socket")):
        return None
    encryption = transport.get_extra_info("ssl_object")
    if encryption is None:
        return (
            "is not encrypted: anyone on the path can read and forge notifications; use"
            " sslmode=verify-full"
        )
    if encryption.context.verify_mode is ssl.CERT_NONE:
        return (
            "is encrypted, but the server's certificate is not verified: anyone on the path can"
            " pose as the server; use sslmode=verify-full"
        )
    return None


def _is_local(sock: socket.socket | None) -> bool:
    """Return whether the connection stays on this machine, or this is not known."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return True
    try:
        address = ipaddress.ip_address(sock.getpeername()[0].partition("%")[0])
    except (OSError, ValueError):
        return True
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
