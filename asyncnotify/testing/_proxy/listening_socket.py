"""The fault proxy's listening socket: one port for life, open or closed."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BACKLOG = 128


class ListeningSocket:
    """Listens on one port; while closed, connecting to that port is refused."""

    def __init__(self, host: str, port: int, on_client: Callable[[socket.socket], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_client = on_client
        self._listening: socket.socket | None = None
        self.host = host
        # Bound for life, never listening: reserves the port while nothing listens, also from the
        # kernel, which could give it to a dialling client as its own: TCP then connects the
        # client to itself. Elsewhere than on Linux two sockets may not share an address so.
        self._reservation = _bound(host, port)
        self.port: int = self._reservation.getsockname()[1]
        if sys.platform != "linux":
            self._reservation.close()
        self.open()

    def open(self) -> None:
        """Listen; do nothing if the socket listens already."""
        if self._listening is None:
            self._listening = _bound(self.host, self.port)
            self._listening.listen(BACKLOG)
            self._loop.add_reader(self._listening, self._on_readable, self._listening)

    def close(self) -> None:
        """Refuse from now on; clients that only the kernel has accepted so far get RST."""
        if self._listening is not None:
            self._loop.remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    def remove(self) -> None:
        """Stop listening and give back the port."""
        self.close()
        self._reservation.close()

    def _on_readable(self, listening: socket.socket) -> None:
        try:
            client, _ = listening.accept()
        except OSError:
            return  # the client has left, or no descriptors are free: the next turn tries again
        self._on_client(client)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock
