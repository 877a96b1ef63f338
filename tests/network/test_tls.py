from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from types import SimpleNamespace
from typing import Any, cast

import pytest

from asyncnotify import Listener, Reconnected
from asyncnotify._asyncpg.tls import tls_weakness
from asyncnotify.testing.proxy import FaultProxy

PATIENCE = 10.0


@pytest.fixture
def own_address() -> str:
    """An address of this machine that is not its loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.18.0.1", 9))  # UDP: nothing is sent
            address = str(probe.getsockname()[0])
        except OSError:
            address = "127.0.0.1"
    if address.startswith("127."):
        pytest.skip("this machine has no address but its loopback")
    return address


def warnings_of_tls(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was said of encryption."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and "encrypted" in record.getMessage()
    ]


async def test_an_unencrypted_connection_over_a_network_is_warned_of_once(
    dsn: str, own_address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told at the first connection, names the cure, and is not repeated."""
    async with (
        FaultProxy.for_dsn(dsn, host=own_address) as proxy,
        Listener(proxy.proxied_dsn(dsn)) as listener,
    ):
        events = listener.events()
        await listener.notify("orders")  # a second connection
        proxy.reset()
        async with asyncio.timeout(PATIENCE):
            while not isinstance(await anext(events), Reconnected):
                pass
    (warning,) = warnings_of_tls(caplog)
    assert "is not encrypted" in warning
    assert "sslmode=verify-full" in warning


async def test_a_connection_within_the_machine_needs_no_tls(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is in between, so nothing is said."""
    async with FaultProxy.for_dsn(dsn) as proxy, Listener(proxy.proxied_dsn(dsn)):
        pass
    assert warnings_of_tls(caplog) == []


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
