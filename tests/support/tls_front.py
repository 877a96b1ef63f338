"""A server that speaks TLS, in front of one that does not."""

from __future__ import annotations

import asyncio
import ssl
import struct
from typing import TYPE_CHECKING

from tests.support.certificates import make_certificate

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
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def ask_for(self, certificate: Certificate) -> None:
        """Ask clients for this certificate; they may have none."""
        self._context.load_verify_locations(certificate.certificate)
        self._context.verify_mode = ssl.CERT_OPTIONAL

    async def serve(self, host: str, *, direct: bool = False) -> int:
        """Begin; return the port. Direct: TLS begins at once, without being asked for."""
        context = self._context if direct else None
        self._server = await asyncio.start_server(self._take, host, 0, ssl=context)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self.port

    def reset(self) -> None:
        """End all that goes through."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """End, and all that goes through with it."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if writer.get_extra_info("ssl_object") is None:
                assert struct.unpack("!ii", await reader.readexactly(8)) == (8, 80877103)
                writer.write(b"S")
                await writer.start_tls(self._context)
            self.clients.append(bool(writer.get_extra_info("peercert")))
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(_pump(source, sink))
            self._tasks.add(task)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            sink.write(data)
    except OSError:
        pass
    finally:
        sink.close()
