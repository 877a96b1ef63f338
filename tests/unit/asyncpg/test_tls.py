from __future__ import annotations

import socket
import ssl
from types import SimpleNamespace
from typing import Any, cast

import pytest

from asyncnotify._asyncpg.tls import tls_weakness


def connection_to(peer: tuple[Any, ...], verify: ssl.VerifyMode | None) -> Any:  # noqa: ANN401
    """Return what is looked at of a connection; None: it has no TLS."""
    family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
    context = None if verify is None else SimpleNamespace(verify_mode=verify)
    extras = {
        "socket": SimpleNamespace(family=family, getpeername=lambda: peer),
        "ssl_object": context and SimpleNamespace(context=context),
    }
    return SimpleNamespace(_transport=SimpleNamespace(get_extra_info=extras.get))


@pytest.mark.parametrize("peer", ["192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7", "fe80::1%eth0"])
def test_tls_that_verifies_nothing_is_weak(peer: str) -> None:
    """Encryption alone does not say who is at the other end; a verified certificate does."""
    unverified = tls_weakness(connection_to((peer, 5432), ssl.CERT_NONE))
    assert "is not verified" in (unverified or "")
    assert tls_weakness(connection_to((peer, 5432), ssl.CERT_REQUIRED)) is None
    assert "is not encrypted" in (tls_weakness(connection_to((peer, 5432), None)) or "")


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_the_loopback_is_no_network(peer: str) -> None:
    """Nor is a Unix socket, nor a transport that does not tell."""
    assert tls_weakness(connection_to((peer, 5432), None)) is None
    assert tls_weakness(cast("Any", SimpleNamespace())) is None


def test_a_socket_that_does_not_tell_its_peer_is_no_network() -> None:
    """It is closed by now, or led through something that has no addresses of the internet."""

    def refuse() -> None:
        raise OSError

    connection = connection_to(("192.0.2.7", 5432), None)
    for getpeername in (refuse, lambda: ("somewhere", 5432)):
        connection._transport.get_extra_info("socket").getpeername = getpeername  # noqa: SLF001
        assert tls_weakness(connection) is None
