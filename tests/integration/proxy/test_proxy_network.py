from __future__ import annotations

import asyncio
import random
import socket
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from asyncnotify.testing.proxy import FaultProxy

if TYPE_CHECKING:
    from asyncnotify.testing.proxy import Direction
    from tests.integration.proxy.conftest import Scene

both_ways = pytest.mark.parametrize("direction", ["to_server", "to_client"])

# New connections


async def test_refuse_and_accept_keep_the_port_and_the_open_connections(scene: Scene) -> None:
    """Dialling is refused, time and again, while an open connection works; then accepted anew."""
    client, peer = await scene.pair()
    port = scene.proxy.port
    for _ in range(50):
        scene.proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await client.send(b"x")
        assert await peer.get(1) == b"x"
        scene.proxy.accept()
        await scene.fence()
    assert scene.proxy.port == port
    assert scene.proxy.accepted == 51


async def test_a_refused_port_cannot_be_taken_by_a_dialling_client(scene: Scene) -> None:
    """The kernel never uses it as a client's own port, so no client connects to itself."""
    scene.proxy.refuse()
    with socket.socket() as sock, pytest.raises(OSError, match="in use"):
        sock.bind((scene.proxy.host, scene.proxy.port))


@pytest.mark.parametrize("how", ["reset", "fin"])
async def test_drop_new_accepts_and_ends_at_once(scene: Scene, how: str) -> None:
    """The server never sees them; they count as accepted; open connections stay."""
    client, peer = await scene.pair()
    scene.proxy.drop_new("reset" if how == "reset" else "fin")
    for _ in range(3):
        try:
            assert await (await scene.dial()).rest() == b""
            assert how == "fin"
        except ConnectionResetError:
            assert how == "reset"
    assert (scene.proxy.accepted, scene.server.accepted) == (4, 1)
    await client.send(b"x")
    assert await peer.get(1) == b"x"
    scene.proxy.accept()
    await scene.fence()


async def test_silent_accepts_and_never_answers(scene: Scene) -> None:
    """The server is not dialled, not even after `accept()`; the client's leaving is noticed."""
    scene.proxy.silent()
    client = await scene.dial()
    await client.send(b"hello?")
    await scene.proxy.wait_for_connections(1)
    scene.proxy.accept()
    await scene.fence()
    assert scene.server.accepted == 1
    assert not client.reader.at_eof()
    await client.close()
    await scene.proxy.wait_idle()


async def test_garbage_greets_and_ends(scene: Scene) -> None:
    """The client gets exactly these bytes and EOF; the server is not dialled."""
    scene.proxy.garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    client = await scene.dial()
    await client.send(b"startup")
    assert await client.rest() == b"HTTP/1.1 400 Bad Request\r\n\r\n"
    await client.close()
    await scene.proxy.wait_idle()
    assert scene.server.accepted == 0


# A slow network


async def test_delay_is_latency_not_throughput(scene: Scene) -> None:
    """A hundred chunks sent one after the other arrive in order after one delay, not a hundred."""
    client, peer = await scene.pair()
    scene.proxy.delay(to_server=0.2)
    begin = time.monotonic()
    for number in range(100):
        detector = scene.proxy.detect(b"%d;" % number)
        await client.send(b"%d;" % number)
        await detector.wait()
    expected = b"".join(b"%d;" % number for number in range(100))
    assert await peer.get(len(expected)) == expected
    assert 0.2 <= time.monotonic() - begin < 2.0


@both_ways
async def test_delay_goes_for_its_direction_and_for_the_end(
    scene: Scene, direction: Direction
) -> None:
    """The other direction is not delayed; EOF comes as late as bytes do."""
    sender, receiver = await scene.ends(direction)
    scene.proxy.delay(**{direction: 0.2})
    begin = time.monotonic()
    await receiver.send(b"x")
    assert await sender.get(1) == b"x"
    sender.writer.write_eof()
    assert await receiver.rest() == b""
    assert time.monotonic() - begin >= 0.19  # a loop's clock may be coarse


async def test_ending_a_delay_releases_what_waits(scene: Scene) -> None:
    """`heal()` and `delay()` let delayed bytes go at once."""
    client, peer = await scene.pair()
    scene.proxy.delay(to_server=3600, to_client=3600)
    await client.send(b"a")
    await peer.send(b"b")
    scene.proxy.delay(to_client=3600)
    assert await peer.get(1) == b"a"
    scene.proxy.heal()
    assert await client.get(1) == b"b"


async def test_trickle_passes_piece_by_piece(scene: Scene) -> None:
    """No more than the given bytes pass in one turn of the loop, and all arrive."""
    client, peer = await scene.pair()
    scene.proxy.trickle(2)
    await peer.send(b"little by little")
    counts = [0]
    async with asyncio.timeout(5):
        while counts[-1] < 16:
            await asyncio.sleep(0)
            counts.append(scene.proxy.bytes_to_client)
    assert {after - before for before, after in pairwise(counts)} <= {0, 2}
    assert await client.get(16) == b"little by little"


async def test_trickle_rests_after_each_piece(scene: Scene) -> None:
    """Ten pieces take nine intervals, and one direction alone can be slow."""
    client, peer = await scene.pair()
    scene.proxy.trickle(1, 0.01, "to_client")
    begin = time.monotonic()
    await peer.send(b"0123456789")
    assert await client.get(10) == b"0123456789"
    assert time.monotonic() - begin >= 0.08  # a loop's clock may be coarse


async def test_trickle_of_much_is_not_quadratic(scene: Scene) -> None:
    """A large read goes out in small pieces without being copied for each."""
    client, peer = await scene.pair()
    scene.proxy.trickle(100)
    data = random.randbytes(1 << 20)
    sending = asyncio.create_task(client.send(data))
    assert await peer.get(len(data)) == data
    await sending


def test_trickle_refuses_pieces_of_nothing() -> None:
    """With 0 bytes at a time nothing would ever pass: that is what a black hole is for."""
    with pytest.raises(ValueError, match="at least 1"):
        FaultProxy("127.0.0.1", 1).trickle(0)
