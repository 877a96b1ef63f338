from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import pytest

from asyncnotify.testing.faults import block_loop
from asyncnotify.testing.proxy import FaultProxy, ProxiedConnection, WaitTimeoutError
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify.testing.proxy import Direction
    from tests.integration.proxy.conftest import ProxyHarness

both_ways = pytest.mark.parametrize("direction", ["to_server", "to_client"])

# What was seen


async def test_dials_are_counted_and_timed(harness: ProxyHarness) -> None:
    """Each accepted connection has its time, also one that is dropped at once: for backoff."""
    begin = time.monotonic()
    harness.proxy.drop_new("fin")
    for _ in range(3):
        await (await harness.dial()).rest()
    end = time.monotonic()
    assert harness.proxy.accepted == len(harness.proxy.dials) == 3
    assert [begin, *harness.proxy.dials, end] == sorted([begin, *harness.proxy.dials, end])


async def test_waits_return_when_the_fact_is_there(harness: ProxyHarness) -> None:
    """Waiting ends with the connection, the dial, the bytes, or the end that was waited for."""
    proxy = harness.proxy
    waits = asyncio.gather(proxy.wait_for_connections(2), proxy.wait_for_dials(2))
    client, peer = await harness.pair()
    assert not waits.done()
    other, _ = await harness.pair()
    await waits
    waiting = asyncio.create_task(proxy.wait_for_bytes(b"pong", direction="to_client"))
    await client.send(b"pong")
    assert await peer.get(4) == b"pong"
    assert not waiting.done()
    await peer.send(b"pong")
    assert await client.get(4) == b"pong"
    assert (await waiting) in proxy.connections
    await client.close()
    await other.close()
    await proxy.wait_idle()


async def test_waits_end_by_timeout_and_say_what_for(harness: ProxyHarness) -> None:
    """A fact that does not come is a `TimeoutError` that names it."""
    proxy = harness.proxy
    await harness.dial()
    await proxy.wait_for_connections(1)
    for wait, what in (
        (proxy.wait_for_connections(2, 0.01), "2 open connections"),
        (proxy.wait_for_dials(2, 0.01), "2 accepted connections"),
        (proxy.wait_idle(0.01), "no open connection"),
        (proxy.wait_for_bytes(b"LISTEN", 0.01), "PatternDetector for b'LISTEN' to_server"),
        (proxy.cut_on(b"LISTEN").wait(0.01), "PatternDetector for b'LISTEN' to_server: armed"),
    ):
        with pytest.raises(WaitTimeoutError, match=what) as caught:
            await wait
        assert caught.value.timeout == 0.01


async def test_a_fact_seen_late_because_the_loop_was_blocked_counts(harness: ProxyHarness) -> None:
    """A timeout that fires after the fact has come true does not hide it."""
    client, _ = await harness.pair()
    detector = harness.proxy.detect(b"x")
    waiting = asyncio.create_task(detector.wait(0.01))
    harness.proxy.tap(lambda _connection, _direction, _data: block_loop(0.05))
    await client.send(b"x")
    assert (await waiting) in harness.proxy.connections


async def test_a_tap_gets_all_that_is_read_until_it_is_ended(harness: ProxyHarness) -> None:
    """Both directions, with the connection, before the bytes are passed on."""
    taken: list[tuple[Direction, bytes, int]] = []

    def tap(connection: ProxiedConnection, direction: Direction, data: bytes) -> None:
        taken.append((direction, data, getattr(connection, f"bytes_{direction}")))

    client, peer = await harness.pair()
    untap = harness.proxy.tap(tap)
    await client.send(b"ask")
    assert await peer.get(3) == b"ask"
    await peer.send(b"tell")
    assert await client.get(4) == b"tell"
    untap()
    await client.send(b"more")
    assert await peer.get(4) == b"more"
    assert taken == [("to_server", b"ask", 0), ("to_client", b"tell", 0)]


async def test_one_connection_can_be_treated_alone(harness: ProxyHarness) -> None:
    """The methods of one connection act on that connection alone."""
    client, peer = await harness.pair()
    (connection,) = harness.proxy.connections
    other, other_peer = await harness.pair()
    connection.pause("to_client")
    detector = harness.proxy.detect(b"held", "to_client")
    await peer.send(b"held")
    await detector.wait()
    assert harness.proxy.bytes_to_client == 0
    await other_peer.send(b"alive")
    assert await other.get(5) == b"alive"
    connection.resume()
    assert await client.get(4) == b"held"
    connection.fin()
    assert await client.rest() == b""
    assert connection.closed
    assert not connection.client_open
    assert harness.proxy.open_connections == 1


async def test_the_proxy_tells_what_it_is(harness: ProxyHarness) -> None:
    """Its repr has both addresses and the counts."""
    await harness.pair()
    assert repr(harness.proxy) == (
        f"<FaultProxy 127.0.0.1:{harness.proxy.port} to 127.0.0.1:{harness.server.port}: "
        "1 open of 1 accepted>"
    )


# Leaving


def open_files() -> int:
    """Return how many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - one call, no objects to be closed


FAULTS: dict[str, Callable[[FaultProxy], object]] = {
    "none": lambda _: None,
    "black_hole": FaultProxy.black_hole,
    "pause": FaultProxy.pause,
    "hold_fin": FaultProxy.hold_fin,
    "half_close": FaultProxy.half_close,
    "refuse": FaultProxy.refuse,
    "silent": FaultProxy.silent,
    "delay": lambda proxy: proxy.delay(to_server=3600, to_client=3600),
    "trickle": lambda proxy: proxy.trickle(1, 3600),
    "cut": lambda proxy: proxy.cut_on(b"never", answer=b""),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_leaving_is_immediate_and_complete_whatever_goes_on(
    harness: ProxyHarness, fault: str
) -> None:
    """Full buffers and waiting timers, in every fault: all sockets and tasks are gone at once."""
    tasks, files = asyncio.all_tasks(), open_files()
    other = await harness.behind(FaultProxy("127.0.0.1", harness.server.port))
    clients = [await other.dial()]
    peer = await harness.server.take()
    FAULTS[fault](other.proxy)
    for sender in (*clients, peer):
        sender.writer.write(bytes(16 << 20))
    await other.proxy.wait_for_bytes(b"\0")
    if fault != "refuse":
        clients.append(await other.dial())
        await other.proxy.wait_for_dials(2)
    begin = time.monotonic()
    other.proxy.close()
    assert time.monotonic() - begin < scaled(0.1)
    assert other.proxy.connections == ()
    async with asyncio.timeout(scaled(5)):
        while open_files() > files or asyncio.all_tasks() - tasks:
            for end in (*clients, *harness.server.peers):
                end.writer.transport.abort()
            await asyncio.sleep(0)  # the test's own transports close in the next turns


async def test_the_port_is_free_after_leaving(harness: ProxyHarness) -> None:
    """Another proxy can have it; closing twice, or a verb after that, does no harm."""
    async with FaultProxy("127.0.0.1", harness.server.port) as proxy:
        port = proxy.port
    proxy.close()
    proxy.heal()
    async with FaultProxy("127.0.0.1", harness.server.port, port=port) as proxy:
        assert proxy.port == port


async def test_verbs_before_entering_count(harness: ProxyHarness) -> None:
    """A proxy can be given its fault before it is entered."""
    proxy = FaultProxy("127.0.0.1", harness.server.port)
    proxy.black_hole()
    proxy.drop_new("fin")
    client = await (await harness.behind(proxy)).dial()
    assert await client.rest() == b""
    proxy = FaultProxy("127.0.0.1", harness.server.port)
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await (await harness.behind(proxy)).dial()


# DSNs


@pytest.mark.parametrize(
    ("dsn", "target", "rest"),
    [
        ("postgresql://db.example:5433/app", ("db.example", 5433), "postgresql://{}/app"),
        ("postgres://u:p%40ss@h/app?ssl=off", ("h", 5432), "postgres://u:p%40ss@{}/app?ssl=off"),
        ("postgresql+asyncpg://u@h/a", ("h", 5432), "postgresql+asyncpg://u@{}/a"),
        ("postgresql://u@[::1]:5433/a", ("::1", 5433), "postgresql://u@{}/a"),
        ("postgresql://h1:1,h2:2/a", ("h1", 1), "postgresql://{}/a"),
        ("postgresql:///a?host=/run/pg&port=7&x=1", ("/run/pg", 7), "postgresql://{}/a?x=1"),
        ("postgresql://%2Frun%2Fpg/a", ("/run/pg", 5432), "postgresql://{}/a"),
        ("postgresql://u@/a?host=h1,h2&port=1,2", ("h1", 1), "postgresql://u@{}/a"),
    ],
)
async def test_a_dsn_is_led_through_the_proxy(dsn: str, target: tuple[str, int], rest: str) -> None:
    """The proxy finds the server that the DSN names, and takes its place; all else stays."""
    proxy = FaultProxy.for_dsn(dsn, port=6000)
    assert f" to {target[0]}:{target[1]}:" in repr(proxy)
    assert proxy.proxied_dsn(dsn) == rest.format("127.0.0.1:6000")


def test_a_dsn_without_a_host_is_refused() -> None:
    """What the driver would take instead is not the proxy's to guess."""
    with pytest.raises(ValueError, match="names no host"):
        FaultProxy.for_dsn("postgresql:///app")
