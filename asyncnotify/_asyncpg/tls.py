"""What TLS does for a connection: nothing, hide it, or prove who is at the other end."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncpg


def tls_weakness(connection: asyncpg.Connection[Any]) -> str | None:
    """Return what a network in between could do, and the cure; None where it can do nothing."""
    transport = getattr(connection, "_transport", None)
    if transport is None or _is_local(transport.get_extra_info("socket")):
        return None
    encryption = transport.get_extra_info("ssl_object")
    if encryption is None:
        return "is not encrypted: whoever is in between reads and forges; use sslmode=verify-full"
    if encryption.context.verify_mode is ssl.CERT_NONE:
        return (
            "is encrypted, but the server's certificate is not verified: whoever is in between"
            " may stand in for the server; use sslmode=verify-full"
        )
    return None


def _is_local(sock: socket.socket | None) -> bool:
    """Return whether no network is in between, or nobody knows."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return True
    try:
        address = ipaddress.ip_address(sock.getpeername()[0].partition("%")[0])
    except (OSError, ValueError):
        return True
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
