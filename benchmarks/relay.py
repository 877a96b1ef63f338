"""A relay in front of the server that counts round trips."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from asyncnotify.testing.server import PostgresServer

_READY_FOR_QUERY = ord("Z")
_HEADER = struct.Struct("!ci")
_CHUNK = 1 << 16


class CountingRelay:
    """
    Passes everything on, and counts how often the server said that it is ready again.

    Attributes:
        trips: For each connection, in their order, the commands that were answered on it; the
            first one is the connecting.
    """

    def __init__(self, server: PostgresServer) -> None:
        self._target = server
        self._relay: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.trips: list[int] = []

    async def __aenter__(self) -> Self:
        self._relay = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._relay is not None:
            self._relay.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def dsn(self) -> str:
        """The way to the server through this relay, as ``Environment.dsn`` is without a relay."""
        if self._relay is None:
            message = "the relay has not been entered"
            raise RuntimeError(message)
        port = self._relay.sockets[0].getsockname()[1]
        dsn = self._target.dsn.replace(f":{self._target.port}/", f":{port}/")
        return f"{dsn}?sslmode=disable"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        number = len(self.trips)
        self.trips.append(0)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            upstream = await asyncio.open_connection(self._target.host, self._target.port)
            sending = asyncio.create_task(_pass_on(reader, upstream[1]))
            try:
                await self._count(number, upstream[0], writer)
            finally:
                sending.cancel()
                upstream[1].close()
                writer.close()

    async def _count(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            header = await reader.readexactly(_HEADER.size)
            kind, length = _HEADER.unpack(header)
            body = await reader.readexactly(length - 4)
            self.trips[number] += kind[0] == _READY_FOR_QUERY
            writer.write(header + body)
            await writer.drain()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    writer.close()
