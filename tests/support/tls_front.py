"""A server that speaks TLS, in front of one that does not."""

from __future__ import annotations

import asyncio
import ssl
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.support.certificates import make_certificate
from tests.support.stream_server import StreamServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.certificates import Certificate


class TlsFront:
    """Speaks TLS in front of a server that does not."""

    def __init__(self, folder: Path, target: tuple[str, int], host: str) -> None:
        self.certificate = make_certificate(folder, host)
        self.names: list[str | None] = []
        self.clients: list[bool] = []  # whether each has shown a certificate
        self._target = target
        self._context = self.certificate.server_context()
        self._context.sni_callback = lambda _object, name, _context: self.names.append(name)
        self._server = StreamServer(self._take)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    def ask_for(self, certificate: Certificate) -> None:
        """Ask clients for this certificate; they may have none."""
        self._context.load_verify_locations(certificate.certificate)
        self._context.verify_mode = ssl.CERT_OPTIONAL

    async def serve(self, host: str, *, direct: bool = False) -> int:
        """Begin; return the port. Direct: TLS begins at once, without being asked for."""
        await self._server.open(host, context=self._context if direct else None)
        return self._server.port

    def reset(self) -> None:
        """End all that goes through."""
        self._server.reset()

    async def close(self) -> None:
        """End, and all that goes through with it."""
        await self._server.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if writer.get_extra_info("ssl_object") is None:
            assert struct.unpack("!ii", await reader.readexactly(8)) == (8, 80877103)
            writer.write(b"S")
            await writer.start_tls(self._context)
        self.clients.append(bool(writer.get_extra_info("peercert")))
        there, back = await asyncio.open_connection(*self._target)
        await asyncio.gather(_pump(reader, back), _pump(there, writer))


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        with suppress(OSError):
            while data := await source.read(65_536):
                sink.write(data)
    finally:
        sink.close()
