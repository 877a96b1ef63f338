"""An injector of server errors into the traffic between clients and a server."""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from tests.support.stream_server import StreamServer

if TYPE_CHECKING:
    from asyncnotify.testing.server import PostgresServer


def error_response(sqlstate: str, text: str, severity: str = "ERROR") -> bytes:
    """Return an error as the server sends it."""
    fields = (("S", severity), ("V", severity), ("C", sqlstate), ("M", text))
    return message(b"E", b"".join(f"{kind}{value}\0".encode() for kind, value in fields) + b"\0")


def message(kind: bytes, body: bytes) -> bytes:
    """Return a message of PostgreSQL's protocol."""
    return kind + struct.pack("!i", len(body) + 4) + body


READY: Final = message(b"Z", b"I")
_SSL_REQUEST: Final = struct.pack("!ii", 8, 80877103)


@dataclass(slots=True)
class _Answer:
    beginning: str
    error: bytes
    times: int


class ErrorInjector:
    """
    Passes messages between clients and a server, and answers chosen statements with errors.

    To do so it understands PostgreSQL's protocol. ``statements`` are those that clients have sent,
    ``unasked`` sends to all clients what the server never said.
    """

    def __init__(self, server: PostgresServer, *, other_pid: bool = False) -> None:
        self.server = server
        self._shift = int(other_pid)
        self._answers: list[_Answer] = []
        self._clients: set[asyncio.StreamWriter] = set()
        self._listening = StreamServer(self._serve)
        self.statements: list[str] = []

    @property
    def port(self) -> int:
        """The port that clients connect to."""
        return self._listening.port

    @property
    def dsn(self) -> str:
        """The URL of the superuser's connection through the injector."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def answer(self, beginning: str, error: bytes, *, times: int = 1) -> None:
        """Answer the next statements that begin so with this error; the server gets none."""
        self._answers.append(_Answer(beginning, error, times))

    def send_unasked(self, data: bytes) -> None:
        """Send this to every client."""
        for client in self._clients:
            client.write(data)

    async def __aenter__(self) -> Self:
        await self._listening.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listening.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, to_server = await asyncio.open_connection(self.server.host, self.server.port)
        self._clients.add(writer)
        passing = asyncio.create_task(self._pass_answers(upstream, writer))
        try:
            await self._pass_statements(reader, writer, to_server)
        finally:
            self._clients.discard(writer)
            to_server.close()
            passing.cancel()
            await asyncio.wait({passing})

    async def _pass_statements(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        to_server: asyncio.StreamWriter,
    ) -> None:
        startup = await _unframed(reader)
        if startup == _SSL_REQUEST:
            writer.write(b"N")
            startup = await _unframed(reader)
        to_server.write(startup)
        answered = False
        while True:
            kind, body = await _framed(reader)
            error = self._answer_to(kind, body)
            if error is not None:
                writer.write(error + READY * (kind == b"Q"))
                answered = kind == b"P"  # what follows it, up to Sync, the server would skip
            elif not answered or kind == b"S":
                answered = False
                to_server.write(message(kind, body))

    def _answer_to(self, kind: bytes, body: bytes) -> bytes | None:
        if kind not in (b"Q", b"P"):
            return None
        statement = body.split(b"\0")[int(kind == b"P")].decode()
        self.statements.append(statement)
        for answer in self._answers:
            if answer.times and statement.startswith(answer.beginning):
                answer.times -= 1
                return answer.error
        return None

    async def _pass_answers(
        self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, body = await _framed(upstream)
                if kind == b"K":  # the key for cancelling, after the backend pid
                    (pid,) = struct.unpack_from("!i", body)
                    body = struct.pack("!i", pid + self._shift) + body[4:]
                writer.write(message(kind, body))
        writer.close()


async def _framed(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind = await reader.readexactly(1)
    return kind, (await _unframed(reader))[4:]


async def _unframed(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readexactly(4)
    return size + await reader.readexactly(struct.unpack("!i", size)[0] - 4)
