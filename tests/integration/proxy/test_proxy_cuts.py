from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncnotify.testing.proxy import FaultProxy, ProxiedConnection

if TYPE_CHECKING:
    from asyncnotify.testing.proxy import Cut, Direction
    from tests.integration.proxy.conftest import ProxyHarness

both_ways = pytest.mark.parametrize("direction", ["to_server", "to_client"])


@both_ways
@pytest.mark.parametrize("size", [0, 1, 5, 10])
async def test_cut_after_passes_exactly_so_many_bytes(
    harness: ProxyHarness, direction: Direction, size: int
) -> None:
    """The connection ends behind the given byte, whatever the pieces that it was sent in."""
    sender, receiver = await harness.ends(direction)
    harness.proxy.cut_after(size, direction, "fin")
    await sender.send(b"01234")
    await sender.send(b"56789abcdef")
    assert await receiver.rest() == b"0123456789"[:size]
    await harness.fence()


async def test_cut_after_may_black_hole_in_the_middle(harness: ProxyHarness) -> None:
    """The bytes behind the cut are held, and arrive when the hole ends."""
    client, peer = await harness.pair()
    harness.proxy.cut_after(3, "to_server", "black_hole")
    await client.send(b"abcdef")
    assert await peer.get(3) == b"abc"
    assert harness.proxy.bytes_to_server == 3
    harness.proxy.heal()
    assert await peer.get(3) == b"def"


def test_cut_after_refuses_a_negative_size() -> None:
    """Such a cut would never come."""
    with pytest.raises(ValueError, match="size must be a whole number, at least 0"):
        FaultProxy("127.0.0.1", 1).cut_after(-1)


async def test_cut_on_comes_before_the_bytes_are_passed_on(harness: ProxyHarness) -> None:
    """The server never sees what the client was sending when it was cut."""
    client, peer = await harness.pair()
    cut = harness.proxy.cut_on(b"UNLISTEN")
    await client.send(b"LISTEN x;")
    assert await peer.get(9) == b"LISTEN x;"
    assert not cut.detected
    await client.send(b"UNLISTEN x;")
    await cut.wait()
    with pytest.raises(ConnectionResetError):
        await client.rest()
    assert await peer.rest() == b""


async def test_cut_on_sees_a_pattern_that_comes_in_pieces(harness: ProxyHarness) -> None:
    """The last piece is what is cut; pieces on different connections do not add up."""
    client, peer = await harness.pair()
    other, other_peer = await harness.pair()
    cut = harness.proxy.cut_on(b"LISTEN")
    await client.send(b"LIS")
    assert await peer.get(3) == b"LIS"
    await other.send(b"TEN")
    assert await other_peer.get(3) == b"TEN"
    assert not cut.detected
    await client.send(b"TEN")
    await cut.wait()
    assert await peer.rest() == b""


async def test_cut_on_answer_lets_the_server_act_and_keeps_it_from_the_client(
    harness: ProxyHarness,
) -> None:
    """The request arrives, the answer does not: the client cannot know that it was carried out."""
    client, peer = await harness.pair()
    cut = harness.proxy.cut_on(b"LISTEN", answer=b"ok", then="fin")
    await peer.send(b"ok, early")
    assert await client.get(9) == b"ok, early"
    await client.send(b"LISTEN x;")
    assert await peer.get(9) == b"LISTEN x;"
    await peer.send(b"hm")
    assert await client.get(2) == b"hm"
    assert not cut.detected
    await peer.send(b"ok")
    await cut.wait()
    assert await client.rest() == b""


async def test_cut_on_answer_is_for_the_connection_that_asked(harness: ProxyHarness) -> None:
    """The same answer on another connection is passed on."""
    client, peer = await harness.pair()
    other, other_peer = await harness.pair()
    cut = harness.proxy.cut_on(b"LISTEN", answer=b"")
    await client.send(b"LISTEN")
    assert await peer.get(6) == b"LISTEN"
    await other_peer.send(b"ok")
    assert await other.get(2) == b"ok"
    assert not cut.detected
    await peer.send(b"anything")
    await cut.wait()
    with pytest.raises(ConnectionResetError):
        await client.rest()


@pytest.mark.parametrize("then", ["pause", "black_hole"])
async def test_cut_on_may_hold_instead_of_ending(harness: ProxyHarness, then: Cut) -> None:
    """The bytes that set it off are held with what follows, and flow on afterwards."""
    client, peer = await harness.pair()
    cut = harness.proxy.cut_on(b"LISTEN", then=then)
    await client.send(b"LISTEN x;")
    await cut.wait()
    assert harness.proxy.bytes_to_server == 0
    harness.proxy.resume()
    assert await peer.get(9) == b"LISTEN x;"


async def test_cut_on_half_close_passes_the_request_on(harness: ProxyHarness) -> None:
    """The client has EOF, the server the request."""
    client, peer = await harness.pair()
    harness.proxy.cut_on(b"LISTEN", then="half_close")
    await client.send(b"LISTEN x;")
    assert await client.rest() == b""
    assert await peer.get(9) == b"LISTEN x;"


async def test_cut_on_may_do_what_the_test_says(harness: ProxyHarness) -> None:
    """A callable is given the connection concerned and may use any verb, here two of them."""
    client, _ = await harness.pair()
    other, other_peer = await harness.pair()

    def act(connection: ProxiedConnection) -> None:
        connection.reset()
        harness.proxy.refuse()

    cut = harness.proxy.cut_on(b"LISTEN", then=act)
    await client.send(b"LISTEN x;")
    assert (await cut.wait()).closed
    with pytest.raises(ConnectionResetError):
        await client.rest()
    await other.send(b"alive")
    assert await other_peer.get(5) == b"alive"
    with pytest.raises(ConnectionRefusedError):
        await harness.dial()


async def test_a_cut_comes_once_and_not_after_heal(harness: ProxyHarness) -> None:
    """The second match passes; `heal()`, as well as `cancel()`, disarms what has not come."""
    proxy = harness.proxy
    client, peer = await harness.pair()
    first = proxy.cut_on(b"LISTEN", then="pause")
    cancelled = proxy.cut_on(b"NOTIFY")
    cancelled.cancel()
    await client.send(b"LISTEN")
    await first.wait()
    proxy.resume()
    answered = proxy.cut_on(b"NOTIFY", answer=b"ok")
    before = proxy.cut_on(b"LISTEN")
    proxy.cut_after(0, "to_server")
    proxy.heal()
    await client.send(b"LISTENNOTIFY")
    assert await peer.get(18) == b"LISTENLISTENNOTIFY"
    await peer.send(b"ok")
    assert await client.get(2) == b"ok"
    assert not any(cut.detected for cut in (cancelled, answered, before))
