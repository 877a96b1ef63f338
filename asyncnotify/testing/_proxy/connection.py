"""One client's connection through the fault proxy: two sockets and two forwarders."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from asyncnotify.testing._arguments import check_bytes, check_direction
from asyncnotify.testing._proxy.conditions import Conditions
from asyncnotify.testing._proxy.forwarder import Callbacks, Ending, Forwarder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncnotify.testing._proxy.conditions import Cutoff

Address = tuple[socket.AddressFamily, tuple[str, int] | str]

Direction = Literal["to_server", "to_client"]
"""One of the two ways that bytes go."""
Directions = Literal["both", "to_server", "to_client"]
"""One of the ways that bytes go, or both."""

# l_onoff = 1, l_linger = 0: close() sends RST instead of FIN.
LINGER_NOTHING = struct.pack("ii", 1, 0)


class ProxiedConnection:
    """
    One client's connection through the proxy, for faults that concern it alone.

    Attributes:
        closed: Whether the proxy has closed both sockets.
        client_open: Whether neither the client nor the proxy has ended the connection.
    """

    def __init__(
        self,
        client: socket.socket,
        to_server: Conditions,
        to_client: Conditions,
        on_bytes: Callable[[ProxiedConnection, Direction, bytes], None],
        on_change: Callable[[ProxiedConnection], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._server: socket.socket | None = None
        self._dialling = False
        self._untried: Iterator[Address] = iter(())
        self._on_bytes = on_bytes
        self._on_change = on_change
        self.closed: bool = False
        self.client_open: bool = True
        callbacks = Callbacks(
            read=self._has_read,
            source_ended=self._source_ended,
            pass_ending=self._pass_ending,
            sink_died=self._sink_died,
            cut=self._cut,
        )
        self._to_server, self._to_client = (
            Forwarder(to_server, callbacks),
            Forwarder(to_client, callbacks),
        )
        _prepare(client)
        self._to_client.attach(sink=client)
        self._to_server.attach(source=client)

    @property
    def bytes_to_server(self) -> int:
        """How many bytes were passed on to the server."""
        return self._to_server.passed

    @property
    def bytes_to_client(self) -> int:
        """How many bytes were passed on to the client."""
        return self._to_client.passed

    def pause(self, direction: Directions = "both") -> None:
        """
        Hold what comes, on this connection alone.

        Raises:
            ValueError: ``direction`` is not one of those allowed.
        """
        check_direction(direction, may_be_both=True)
        for forwarder in self._forwarders(direction):
            forwarder.paused = True

    def resume(self) -> None:
        """Pass on what was held, and what comes from now on."""
        for forwarder in self._forwarders():
            forwarder.paused = False
        self.run()

    def run(self) -> None:
        """Pass on what may pass now; the proxy calls this when conditions have changed."""
        for forwarder in self._forwarders():
            forwarder.pump()

    def reset(self) -> None:
        """Send RST to the client and drop the server side."""
        self._close(client_with_rst=True)

    def fin(self) -> None:
        """Close the client side cleanly and drop the server side."""
        self._close(client_with_rst=False)

    def half_close(self) -> None:
        """Give the client EOF, and go on passing what it sends."""
        if not self.closed:
            self._pass_fin(self._to_client)

    def greet(self, data: bytes) -> None:
        """
        Send the client these bytes and EOF.

        Raises:
            TypeError: ``data`` is no bytes.
        """
        check_bytes("data", data)
        self._to_client.put(data)
        self._to_client.put(Ending.FIN)

    def dial(self, addresses: Iterable[Address]) -> None:
        """Begin to connect to the server, at the first address that answers, else reset."""
        if self._server is None and not self.closed:
            self._untried = iter(addresses)
            self._dial_next()

    def _pass_ending(self, forwarder: Forwarder, ending: Ending) -> None:
        if ending is Ending.FIN:
            self._pass_fin(forwarder)
        elif forwarder is self._to_client:
            self.reset()
        else:
            self._close(client_with_rst=False, server_with_rst=True)

    def _source_ended(self, forwarder: Forwarder) -> None:
        if forwarder is not self._to_server or self.closed:
            return
        self.client_open = False
        if self._server is None:
            self.fin()
        else:
            self._on_change(self)

    def _sink_died(self, forwarder: Forwarder) -> None:
        other = self._to_client if forwarder is self._to_server else self._to_server
        other.source_broken = True
        self._finish(forwarder)

    def _forwarders(self, direction: Directions = "both") -> tuple[Forwarder, ...]:
        if direction == "both":
            return (self._to_server, self._to_client)
        return (self._to_server if direction == "to_server" else self._to_client,)

    def _has_read(self, forwarder: Forwarder, data: bytes) -> None:
        self._on_bytes(self, "to_server" if forwarder is self._to_server else "to_client", data)

    def _cut(self, cutoff: Cutoff) -> None:
        cutoff.action(self)

    def _pass_fin(self, forwarder: Forwarder) -> None:
        sink = self._client if forwarder is self._to_client else self._server
        try:
            if sink is not None:
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the peer is gone; its own end tells the rest
        self._finish(forwarder)

    def _finish(self, forwarder: Forwarder) -> None:
        forwarder.finish()
        if all(forwarder.done for forwarder in self._forwarders()):
            self.fin()

    def _dial_next(self) -> None:
        for family, address in self._untried:
            self._server = socket.socket(family, socket.SOCK_STREAM)
            self._server.settimeout(0)
            if self._server.connect_ex(address) in {0, errno.EINPROGRESS}:
                self._dialling = True
                self._loop.add_writer(self._server, self._dialled, self._server)
                return
            self._server.close()
        self.reset()

    def _dialled(self, server: socket.socket) -> None:
        self._stop_dialling()
        if server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            server.close()
            self._dial_next()
            return
        _prepare(server)
        self._to_server.attach(sink=server)
        if not self.closed:
            self._to_client.attach(source=server)

    def _stop_dialling(self) -> None:
        if self._dialling and self._server is not None:
            self._loop.remove_writer(self._server)
        self._dialling = False

    def _close(self, *, client_with_rst: bool, server_with_rst: bool = False) -> None:
        if self.closed:
            return
        self.closed, self.client_open = True, False
        self._stop_dialling()
        for forwarder in self._forwarders():
            forwarder.detach()
        _close(self._client, with_rst=client_with_rst)
        if self._server is not None:
            _close(self._server, with_rst=server_with_rst)
        self._on_change(self)


def _prepare(sock: socket.socket) -> None:
    sock.settimeout(0)
    if sock.family != socket.AF_UNIX:
        # Small pieces must leave as they come, or trickling would be undone by Nagle.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _close(sock: socket.socket, *, with_rst: bool) -> None:
    if with_rst and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOTHING)
    sock.close()
