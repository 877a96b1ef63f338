from __future__ import annotations

import asyncio
import random
import socket
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from asyncnotify.testing.proxy import FaultProxy
from tests.support.machine import scaled

if TYPE_CHECKING:
    from asyncnotify.testing.proxy import Direction
    from tests.integration.proxy.conftest import ProxyHarness

both_ways = pytest.mark.parametrize("direction", ["to_server", "to_client"])

# New connections


async def test_refuse_and_accept_keep_the_port_and_the_open_connections(
    harness: ProxyHarness,
) -> None:
    """Dialling is refused, time and again, while an open connection works; then accepted anew."""
    client, peer = await harness.pair()
    port = harness.proxy.port
    for _ in range(50):
        harness.proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await client.send(b"x")
        assert await peer.get(1) == b"x"
        harness.proxy.accept()
        await harness.fence()
    assert harness.proxy.port == port
    assert harness.proxy.accepted == 51


async def test_a_refused_port_cannot_be_taken_by_a_dialling_client(harness: ProxyHarness) -> None:
    """The kernel never uses it as a client's own port, so no client connects to itself."""
    harness.proxy.refuse()
    with socket.socket() as sock, pytest.raises(OSError, match="in use"):
        sock.bind((harness.proxy.host, harness.proxy.port))


@pytest.mark.parametrize("how", ["reset", "fin"])
async def test_drop_new_accepts_and_ends_at_once(harness: ProxyHarness, how: str) -> None:
    """The server never sees them; they count as accepted; open connections stay."""
    client, peer = await harness.pair()
    harness.proxy.drop_new("reset" if how == "reset" else "fin")
    for _ in range(3):
        try:
            assert await (await harness.dial()).rest() == b""
            assert how == "fin"
        except ConnectionResetError:
            assert how == "reset"
    assert (harness.proxy.accepted, harness.server.accepted) == (4, 1)
    await client.send(b"x")
    assert await peer.get(1) == b"x"
    harness.proxy.accept()
    await harness.fence()


async def test_silent_accepts_and_never_answers(harness: ProxyHarness) -> None:
    """The server is not dialled, not even after `accept()`; the client's leaving is noticed."""
    harness.proxy.silent()
    client = await harness.dial()
    await client.send(b"hello?")
    await harness.proxy.wait_for_connections(1)
    harness.proxy.accept()
    await harness.fence()
    assert harness.server.accepted == 1
    assert not client.reader.at_eof()
    await client.close()
    await harness.proxy.wait_idle()


async def test_garbage_greets_and_ends(harness: ProxyHarness) -> None:
    """The client gets exactly these bytes and EOF; the server is not dialled."""
    harness.proxy.garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    client = await harness.dial()
    await client.send(b"startup")
    assert await client.rest() == b"HTTP/1.1 400 Bad Request\r\n\r\n"
    await client.close()
    await harness.proxy.wait_idle()
    assert harness.server.accepted == 0


# A slow network


async def test_delay_is_latency_not_throughput(harness: ProxyHarness) -> None:
    """A hundred chunks sent one after the other arrive in order after one delay, not a hundred."""
    client, peer = await harness.pair()
    delay = scaled(0.1)
    harness.proxy.delay(to_server=delay)
    begin = time.monotonic()
    for number in range(100):
        detector = harness.proxy.detect(b"%d;" % number)
        await client.send(b"%d;" % number)
        await detector.wait()
    expected = b"".join(b"%d;" % number for number in range(100))
    assert await peer.get(len(expected)) == expected
    assert delay <= time.monotonic() - begin < 50 * delay


@both_ways
async def test_delay_goes_for_its_direction_and_for_the_end(
    harness: ProxyHarness, direction: Direction
) -> None:
    """The other direction is not delayed; EOF comes as late as bytes do."""
    sender, receiver = await harness.ends(direction)
    harness.proxy.delay(**{direction: 0.2})
    begin = time.monotonic()
    await receiver.send(b"x")
    assert await sender.get(1) == b"x"
    sender.writer.write_eof()
    assert await receiver.rest() == b""
    assert time.monotonic() - begin >= 0.19  # a loop's clock may be coarse


async def test_ending_a_delay_releases_what_waits(harness: ProxyHarness) -> None:
    """`heal()` and `delay()` let delayed bytes go at once."""
    client, peer = await harness.pair()
    harness.proxy.delay(to_server=3600, to_client=3600)
    await client.send(b"a")
    await peer.send(b"b")
    harness.proxy.delay(to_client=3600)
    assert await peer.get(1) == b"a"
    harness.proxy.heal()
    assert await client.get(1) == b"b"


async def test_trickle_passes_piece_by_piece(harness: ProxyHarness) -> None:
    """No more than the given bytes pass in one turn of the loop, and all arrive."""
    client, peer = await harness.pair()
    harness.proxy.trickle(2)
    await peer.send(b"little by little")
    counts = [0]
    async with asyncio.timeout(scaled(5)):
        while counts[-1] < 16:
            await asyncio.sleep(0)
            counts.append(harness.proxy.bytes_to_client)
    assert {after - before for before, after in pairwise(counts)} <= {0, 2}
    assert await client.get(16) == b"little by little"


async def test_trickle_rests_after_each_piece(harness: ProxyHarness) -> None:
    """Ten pieces take nine intervals, and one direction alone can be slow."""
    client, peer = await harness.pair()
    harness.proxy.trickle(1, 0.01, "to_client")
    begin = time.monotonic()
    await peer.send(b"0123456789")
    assert await client.get(10) == b"0123456789"
    assert time.monotonic() - begin >= 0.08  # a loop's clock may be coarse


async def test_trickle_of_much_is_not_quadratic(harness: ProxyHarness) -> None:
    """A large read goes out in small pieces without being copied for each."""
    client, peer = await harness.pair()
    harness.proxy.trickle(100)
    data = random.randbytes(1 << 20)
    sending = asyncio.create_task(client.send(data))
    assert await peer.get(len(data)) == data
    await sending


def test_trickle_refuses_pieces_of_nothing() -> None:
    """With 0 bytes at a time nothing would ever pass: that is what a black hole is for."""
    with pytest.raises(ValueError, match="at least 1"):
        FaultProxy("127.0.0.1", 1).trickle(0)
