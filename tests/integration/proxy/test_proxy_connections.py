from __future__ import annotations

import asyncio
import random
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from asyncnotify.testing.proxy import FaultProxy
from tests.support.machine import scaled

if TYPE_CHECKING:
    from pathlib import Path

    from asyncnotify.testing.proxy import Direction
    from tests.integration.proxy.conftest import ProxyHarness

RST_ON_CLOSE = struct.pack("ii", 1, 0)

both_ways = pytest.mark.parametrize("direction", ["to_server", "to_client"])

# Without a fault


@both_ways
async def test_bytes_pass_intact_however_many(harness: ProxyHarness, direction: Direction) -> None:
    """8 MiB arrive whole and in order, through a proxy that holds at most one window of them."""
    sender, receiver = await harness.ends(direction)
    data = random.randbytes(8 << 20)
    sending = asyncio.create_task(sender.send(data))
    assert await receiver.get(len(data)) == data
    await sending
    assert getattr(harness.proxy, f"bytes_{direction}") == len(data)
    (connection,) = harness.proxy.connections
    assert getattr(connection, f"bytes_{direction}") == len(data)


@both_ways
async def test_eof_passes_one_way_and_leaves_the_other_open(
    harness: ProxyHarness, direction: Direction
) -> None:
    """A peer that has ended its direction can still be sent to; then both are closed."""
    sender, receiver = await harness.ends(direction)
    await sender.send(b"last")
    sender.writer.write_eof()
    assert await receiver.rest() == b"last"
    await receiver.send(b"answer")
    assert await sender.get(6) == b"answer"
    receiver.writer.write_eof()
    assert await sender.rest() == b""
    await harness.proxy.wait_idle()
    assert harness.proxy.connections == ()


@both_ways
async def test_rst_passes_as_rst(harness: ProxyHarness, direction: Direction) -> None:
    """A reset connection is reset on the other side too."""
    sender, receiver = await harness.ends(direction)
    sender.rst()
    with pytest.raises(ConnectionResetError):
        await receiver.rest()
    assert harness.proxy.open_connections == 0


async def test_rst_right_behind_data_is_not_missed(harness: ProxyHarness) -> None:
    """Data and RST that are there at once: the RST passes too (uvloop tells but once of both)."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0)
        other = await harness.behind(FaultProxy("127.0.0.1", listening.getsockname()[1]))
        client = await other.dial()
        async with asyncio.timeout(scaled(5)):
            peer, _ = await asyncio.get_running_loop().sock_accept(listening)
        peer.send(b"x" * 100)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        peer.close()
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_a_server_that_cannot_be_reached_is_a_reset(harness: ProxyHarness) -> None:
    """The proxy has accepted already when the server refuses: the client is reset."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # not listening: connecting to it is refused
        other = await harness.behind(FaultProxy("127.0.0.1", bound.getsockname()[1]))
        client = await other.dial()
        with pytest.raises(ConnectionResetError):
            await client.rest()
        assert other.proxy.connections == ()


async def test_the_server_may_be_on_a_unix_socket(harness: ProxyHarness, tmp_path: Path) -> None:
    """A target host that is a directory means PostgreSQL's socket in it."""
    await harness.server.listen_unix(tmp_path / ".s.PGSQL.5433")
    proxy = FaultProxy.for_dsn(f"postgresql:///db?host={tmp_path}&port=5433")
    await (await harness.behind(proxy)).fence()


async def test_a_server_on_one_of_several_addresses_is_found(
    harness: ProxyHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with several addresses, as localhost has: the proxy tries them in turn."""
    loop = asyncio.get_running_loop()

    async def look_up(*_: object, **__: object) -> list[tuple[object, ...]]:
        address = ("127.0.0.1", harness.server.port)
        return [
            (socket.AF_INET6, 1, 6, "", ("::1", *address[1:])),
            (socket.AF_INET, 1, 6, "", address),
        ]

    monkeypatch.setattr(loop, "getaddrinfo", look_up)
    await (await harness.behind(FaultProxy("localhost", harness.server.port))).fence()


async def test_a_proxy_can_listen_on_ipv6(harness: ProxyHarness) -> None:
    """The proxy's own address may be an IPv6 one; the DSN then has it in brackets."""
    other = await harness.behind(FaultProxy("127.0.0.1", harness.server.port, host="::1"))
    await other.fence()
    port = other.proxy.port
    assert other.proxy.proxied_dsn("postgresql://x/db") == f"postgresql://[::1]:{port}/db"


# Holding what is on its way


@pytest.mark.parametrize("verb", ["black_hole", "pause"])
@both_ways
async def test_a_held_direction_passes_nothing_and_the_other_one_all(
    harness: ProxyHarness, direction: Direction, verb: str
) -> None:
    """Bytes are held one way only, and flow on in their order afterwards."""
    proxy = harness.proxy
    sender, receiver = await harness.ends(direction)
    getattr(proxy, verb)(direction)
    detector = proxy.detect(b"two", direction)
    await sender.send(b"one")
    await sender.send(b"two")
    await detector.wait()
    await receiver.send(b"other way")
    assert await sender.get(9) == b"other way"
    assert getattr(proxy, f"bytes_{direction}") == 0
    proxy.resume()
    assert await receiver.get(6) == b"onetwo"


@both_ways
async def test_a_black_hole_holds_the_end_as_well(
    harness: ProxyHarness, direction: Direction
) -> None:
    """Neither EOF nor RST gets through a hole; `heal()` lets it through, behind the bytes."""
    sender, receiver = await harness.ends(direction)
    harness.proxy.black_hole()
    detector = harness.proxy.detect(b"bye", direction)
    await sender.send(b"bye")
    await detector.wait()
    await sender.close()
    assert [connection.closed for connection in harness.proxy.connections] == [False]
    harness.proxy.heal()
    assert await receiver.rest() == b"bye"


async def test_a_client_that_leaves_in_a_black_hole_is_not_missed_by_the_server(
    harness: ProxyHarness,
) -> None:
    """The proxy counts it as gone, but its session stays on the server until the hole ends."""
    client, peer = await harness.pair()
    harness.proxy.black_hole()
    client.rst()
    await harness.proxy.wait_idle()
    (connection,) = harness.proxy.connections
    assert not peer.reader.at_eof()
    harness.proxy.heal()
    with pytest.raises(ConnectionResetError):
        await peer.rest()
    assert connection.closed


async def test_in_a_black_hole_a_new_connection_hangs_until_it_ends(harness: ProxyHarness) -> None:
    """It is accepted, the server is not dialled, and `heal()` makes it work."""
    harness.proxy.black_hole()
    client = await harness.dial()
    detector = harness.proxy.detect(b"startup")
    await client.send(b"startup")
    await detector.wait()
    assert harness.server.accepted == 0
    harness.proxy.heal()
    peer = await harness.server.take()
    assert await peer.get(7) == b"startup"


async def test_a_connection_given_up_in_a_black_hole_never_reaches_the_server(
    harness: ProxyHarness,
) -> None:
    """A client that dials and leaves while nothing passes leaves no trace on the server."""
    harness.proxy.black_hole()
    client = await harness.dial()
    await client.close()
    await harness.proxy.wait_for_dials(1)
    await harness.proxy.wait_idle()
    harness.proxy.heal()
    await harness.fence()
    assert harness.server.accepted == 1


async def test_pause_is_for_the_connections_open_now(harness: ProxyHarness) -> None:
    """New connections work while the old ones are held."""
    old, old_peer = await harness.pair()
    harness.proxy.pause()
    await old.send(b"held")
    await harness.fence()
    harness.proxy.resume()
    assert await old_peer.get(4) == b"held"


async def test_a_full_window_stops_the_sender(harness: ProxyHarness) -> None:
    """What is held is bounded: beyond it the sender's own buffers fill, as in a real network."""
    client, peer = await harness.pair()
    harness.proxy.pause()
    read: list[int] = []
    untap = harness.proxy.tap(lambda _connection, _direction, data: read.append(len(data)))
    data = random.randbytes(64 << 20)
    client.writer.write(data)
    while sum(read) < 1 << 20:
        await harness.fence()
    untap()
    for _ in range(10):
        await harness.fence()
    assert sum(read) < 2 << 20
    assert harness.proxy.bytes_to_server < 1 << 20
    harness.proxy.resume()
    assert await peer.get(len(data)) == data


async def test_hold_fin_gives_the_last_words_without_the_end(harness: ProxyHarness) -> None:
    """The client gets the server's bytes, no EOF, no RST, and can go on sending into nothing."""
    client, peer = await harness.pair()
    harness.proxy.hold_fin()
    await peer.send(b"FATAL")
    await peer.close()
    assert await client.get(5) == b"FATAL"
    for _ in range(3):
        await client.send(b"anyone there?")
        await harness.fence()
    assert not client.reader.at_eof()
    assert client.reader.exception() is None
    harness.proxy.heal()
    assert await client.rest() == b""


# Ending connections


async def test_reset_gives_every_client_rst_and_drops_the_server_side(
    harness: ProxyHarness,
) -> None:
    """All connections open now are ended; a new one works."""
    pairs = [await harness.pair() for _ in range(3)]
    harness.proxy.reset()
    assert harness.proxy.connections == ()
    for client, peer in pairs:
        with pytest.raises(ConnectionResetError):
            await client.rest()
        assert await peer.rest() == b""
    await harness.fence()


async def test_fin_closes_cleanly(harness: ProxyHarness) -> None:
    """The client gets what the server has sent before, then EOF; the server side is dropped."""
    client, peer = await harness.pair()
    await peer.send(b"last")
    assert await client.get(4) == b"last"
    harness.proxy.fin()
    assert await client.rest() == b""
    assert await peer.rest() == b""


async def test_half_close_ends_one_direction_only(harness: ProxyHarness) -> None:
    """The client has EOF, and what it sends still arrives; what the server sends does not."""
    client, peer = await harness.pair()
    harness.proxy.half_close()
    assert await client.rest() == b""
    await peer.send(b"lost")
    await client.send(b"still here")
    assert await peer.get(10) == b"still here"
    await client.close()
    assert await peer.rest() == b""
    await peer.close()
    await harness.proxy.wait_idle()
