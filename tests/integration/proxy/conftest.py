"""A server and clients around a fault proxy, every end of them played by the test."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import pytest_asyncio

from asyncnotify.testing.proxy import FaultProxy
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asyncnotify.testing.proxy import Direction

DEADLINE = scaled(5.0)
RST_ON_CLOSE = struct.pack("ii", 1, 0)


class Peer:
    """One end of a connection; every wait has a deadline."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        """Send all of this."""
        self.writer.write(data)
        async with asyncio.timeout(DEADLINE):
            await self.writer.drain()

    async def get(self, size: int) -> bytes:
        """Return the next bytes, exactly so many."""
        async with asyncio.timeout(DEADLINE):
            return await self.reader.readexactly(size)

    async def rest(self) -> bytes:
        """Return what comes until EOF."""
        async with asyncio.timeout(DEADLINE):
            return await self.reader.read()

    def rst(self) -> None:
        """Close with RST."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        self.writer.transport.abort()

    async def close(self) -> None:
        """Close, however the connection has ended."""
        self.writer.close()
        with suppress(OSError):
            async with asyncio.timeout(DEADLINE):
                await self.writer.wait_closed()


class Server:
    """A server whose side of every connection is played by the test."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._taken: asyncio.Queue[Peer] = asyncio.Queue()
        self.peers: list[Peer] = []

    @property
    def accepted(self) -> int:
        """How many connections it has had."""
        return len(self.peers)

    async def listen(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        server = await asyncio.start_server(self._on_connection, "127.0.0.1", 0)
        self._stack.callback(server.close)
        self.port: int = server.sockets[0].getsockname()[1]

    async def listen_unix(self, path: Path) -> None:
        """Listen on a Unix socket as well."""
        server = await asyncio.start_unix_server(self._on_connection, path)
        self._stack.callback(server.close)

    async def take(self) -> Peer:
        """Return the server's end of the next connection."""
        async with asyncio.timeout(DEADLINE):
            return await self._taken.get()

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        self._stack.push_async_callback(peer.close)
        self._taken.put_nowait(peer)


class ProxyHarness:
    """A server, a proxy before it, and as many clients as it takes."""

    def __init__(self, stack: AsyncExitStack, server: Server, proxy: FaultProxy) -> None:
        self._stack, self.server, self.proxy = stack, server, proxy

    async def behind(self, proxy: FaultProxy) -> ProxyHarness:
        """Return a harness with this proxy, entered, in place of ours."""
        await self._stack.enter_async_context(proxy)
        return ProxyHarness(self._stack, self.server, proxy)

    async def dial(self) -> Peer:
        """Connect a client to the proxy."""
        async with asyncio.timeout(DEADLINE):
            streams = await asyncio.open_connection(self.proxy.host, self.proxy.port)
        client = Peer(*streams)
        self._stack.push_async_callback(client.close)
        return client

    async def pair(self) -> tuple[Peer, Peer]:
        """Connect a client; return it and the server's end of its connection."""
        client = await self.dial()
        return client, await self.server.take()

    async def ends(self, direction: Direction) -> tuple[Peer, Peer]:
        """Connect a client; return who sends and who receives in this direction."""
        client, peer = await self.pair()
        return (client, peer) if direction == "to_server" else (peer, client)

    async def fence(self) -> None:
        """Make a round trip on a new connection: what was to happen before it has happened."""
        client, peer = await self.pair()
        for sender, receiver in ((client, peer), (peer, client)):
            await sender.send(b"fence")
            assert await receiver.get(5) == b"fence"
        await client.close()
        await peer.close()


@pytest_asyncio.fixture
async def harness() -> AsyncIterator[ProxyHarness]:
    """A server and a proxy before it, without a fault."""
    async with AsyncExitStack() as stack:
        server = Server(stack)
        await server.listen()
        proxy = await stack.enter_async_context(FaultProxy("127.0.0.1", server.port))
        yield ProxyHarness(stack, server, proxy)
