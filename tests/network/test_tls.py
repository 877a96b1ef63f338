from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from asyncnotify import Listener, Reconnected
from asyncnotify.testing.proxy import FaultProxy
from tests.support.machine import scaled

WAIT_LIMIT = scaled(10.0)


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
        async with asyncio.timeout(WAIT_LIMIT):
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
