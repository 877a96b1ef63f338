"""A multiplexer: gives many clients few backends, as PGlite behind its socket server does."""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

from tests.support.stream_server import StreamServer

_STARTUP = 196_608


class _Backend:
    """One session of the server, which serves one client after another."""

    def __init__(self, host: str, port: int, startup: bytes) -> None:
        self._place = (host, port)
        self._startup = startup
        self._turn = asyncio.Lock()
        self._client: asyncio.StreamWriter | None = None
        self._pumping: asyncio.Task[None] | None = None
        self.greeting = b""

    async def open(self) -> None:
        """Connect, and keep what the server says about the session."""
        self._reader, self._writer = await asyncio.open_connection(*self._place)
        try:
            self._writer.write(self._startup)
            while not self.greeting.endswith(b"Z\0\0\0\x05I"):
                self.greeting += await _message(self._reader)
        except BaseException:
            self._writer.close()
            raise
        self._pumping = asyncio.create_task(self._pump())

    async def send(self, client: asyncio.StreamWriter, message: bytes) -> None:
        """Pass on a message; its client has the backend until the end of the transaction."""
        if self._client is not client:
            await self._turn.acquire()
            self._client = client
        self._writer.write(message)

    async def _pump(self) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while message := await _message(self._reader):
                if self._client is not None:  # else nobody gets it: a notification, as a rule
                    self._client.write(message)
                    if message[:1] == b"Z":
                        self._client = None
                        self._turn.release()

    async def close(self) -> None:
        """End the session."""
        if self._pumping is not None:
            self._writer.close()
            await self._pumping


class Multiplexer:
    """
    Stands before a server whose superuser needs no password.

    Args:
        dsn: Of the server.
        backends: How many sessions of the server there are. Clients get them by turns, and each
            is opened when the first client gets it.
        own_pids: Whether each client is told a pid of its own, instead of its backend's.
    """

    def __init__(self, dsn: str, *, backends: int = 1, own_pids: bool = False) -> None:
        url = urlsplit(dsn)
        self._dsn = url
        self._place = (str(url.hostname), int(url.port or 5432))
        parts = [b"user", str(url.username).encode(), b"database", url.path[1:].encode(), b"", b""]
        body = struct.pack("!i", _STARTUP) + b"\0".join(parts)
        self._startup = struct.pack("!i", len(body) + 4) + body
        self._backends: list[_Backend] = []
        self._count = backends
        self._own_pids = own_pids
        self._clients = 0
        self._opening = asyncio.Lock()
        self._server = StreamServer(self._serve)

    @property
    def dsn(self) -> str:
        """A URL that leads through it."""
        place = f"{self._dsn.username}@127.0.0.1:{self._server.port}"
        return self._dsn._replace(netloc=place).geturl()

    async def __aenter__(self) -> Self:
        await self._server.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()
        for backend in self._backends:
            await backend.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await _startup_code(reader) != _STARTUP:
            writer.write(b"N")
            await _startup_code(reader)
        number, self._clients = self._clients, self._clients + 1
        backend = await self._backend(number % self._count)
        greeting = backend.greeting
        if self._own_pids:
            key = greeting.index(b"K\0\0\0\x0c") + 5
            greeting = greeting[:key] + struct.pack("!i", 900_000 + number) + greeting[key + 4 :]
        writer.write(greeting)
        while (message := await _message(reader))[:1] != b"X":
            await backend.send(writer, message)

    async def _backend(self, number: int) -> _Backend:
        async with self._opening:
            if number == len(self._backends):
                backend = _Backend(*self._place, self._startup)
                await backend.open()
                self._backends.append(backend)
            return self._backends[number]


async def _message(reader: asyncio.StreamReader) -> bytes:
    header = await reader.readexactly(5)
    (length,) = struct.unpack("!i", header[1:])
    return header + await reader.readexactly(length - 4)


async def _startup_code(reader: asyncio.StreamReader) -> int:
    length, code = struct.unpack("!ii", await reader.readexactly(8))
    await reader.readexactly(length - 8)
    return int(code)
