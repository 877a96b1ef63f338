"""What answers at the port and is no server of ours: it says what would act on a terminal."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, Self

from tests.hygiene.error_injector import READY, message
from tests.support.stream_server import StreamServer

if TYPE_CHECKING:
    import asyncio

HOSTILE: Final = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\t\u2028\u2029\u202e\u2066\ufeffforged"
"""A cleared screen, a title, a colour of C1, a carriage return, separators, marks of direction."""


def hostile_error(sqlstate: str, severity: str = "FATAL") -> bytes:
    """Return an error of the server whose every text is hostile."""
    parts = {"S": severity, "V": severity, "C": sqlstate}
    parts |= dict.fromkeys("MDHWqstcdnFR", HOSTILE)
    body = b"".join(f"{kind}{value}\0".encode() for kind, value in parts.items())
    return message(b"E", body + b"\0")


def _parameter(name: str, value: str) -> bytes:
    return message(b"S", f"{name}\0{value}\0".encode())


GREETING: Final = (
    message(b"R", struct.pack("!i", 0))
    + _parameter("server_version", f"18.0 {HOSTILE}")
    + _parameter("server_encoding", HOSTILE)
    + _parameter("client_encoding", "UTF8")
    + message(b"K", struct.pack("!ii", 7, 7))
    + READY
)


class HostileServer:
    """
    Answers a startup with what the test says, and each further message in the same way.

    Args:
        to_startup: What it sends when a client introduces itself.
        to_query: What it sends when a client asks.
    """

    def __init__(self, to_startup: bytes, to_query: bytes = b"") -> None:
        self._to_startup = to_startup
        self._to_query = to_query
        self._listening = StreamServer(self._serve)

    @property
    def dsn(self) -> str:
        """The URL that leads to it."""
        return f"postgresql://joe@127.0.0.1:{self._listening.port}/app?sslmode=disable"

    async def __aenter__(self) -> Self:
        await self._listening.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listening.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (size,) = struct.unpack("!i", await reader.readexactly(4))
        await reader.readexactly(size - 4)
        writer.write(self._to_startup)
        while self._to_query:
            await reader.readexactly(1)
            (size,) = struct.unpack("!i", await reader.readexactly(4))
            await reader.readexactly(size - 4)
            writer.write(self._to_query)
        await writer.drain()
