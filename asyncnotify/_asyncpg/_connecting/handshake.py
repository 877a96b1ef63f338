"""
Checking what a peer says until it has accepted the session.

The driver's reader never ends on a message of type zero: five zero bytes from whatever answers at
the port would hang the event loop, and with it every deadline. And it waits for the rest of a
message whatever length the peer has named. So until the server is ready for the first query, each
message is looked at before the driver reads it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable

_HEADER: Final = 5
"""Bytes of a message's type and length."""

_LONGEST: Final = 1 << 20
"""Bytes that a message may have before the session is accepted. A server sends some hundred."""

_READY: Final = b"Z"


class Frames:
    """The messages in what a server sends, as far as their types and lengths."""

    def __init__(self) -> None:
        self._header = b""
        self._unread = 0  # bytes of the present message

    def read(self, data: bytes) -> bool:
        """
        Look at what has arrived; return whether the server is ready for a query.

        Raises:
            ValueError: This is not PostgreSQL's protocol.
        """
        position = 0
        while position < len(data):
            if self._unread:
                read = min(self._unread, len(data) - position)
                self._unread -= read
            else:
                read = min(_HEADER - len(self._header), len(data) - position)
                if self._is_ready(data[position : position + read]):
                    return True
            position += read
        return False

    def _is_ready(self, data: bytes) -> bool:
        self._header += data
        kind, length = self._header[:1], int.from_bytes(self._header[1:])
        complete = len(self._header) == _HEADER
        if not kind.isalpha() or (complete and not _HEADER - 1 <= length <= _LONGEST):
            msg = "what answers does not speak the protocol of PostgreSQL"
            raise ValueError(msg)
        if complete:
            self._header = b""
            self._unread = length - (_HEADER - 1)
        return complete and kind == _READY


class HandshakeGuard(asyncio.Protocol):
    """
    Stands in front of the driver's protocol until the server is ready for a query.

    Args:
        inner: The driver's protocol.
        refuse: Called with the reason before a connection is ended.
    """

    def __init__(self, inner: Any, refuse: Callable[[Exception], None]) -> None:
        self.inner = inner
        self._refuse = refuse
        self._frames = Frames()
        self._transport: Any = None

    @classmethod
    def install(cls, transport: Any, refuse: Callable[[Exception], None]) -> None:
        """Put a guard in front of the protocol that a transport has now."""
        guard = cls(transport.get_protocol(), refuse)
        guard._transport = transport
        transport.set_protocol(guard)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass on what is right; end the connection at what is not."""
        try:
            ready = self._frames.read(data)
        except ValueError as error:
            self._refuse(error)
            self._transport.abort()
            return
        if ready:
            self._transport.set_protocol(self.inner)
        self.inner.data_received(data)
        if data == b"N":  # perhaps the answer that there is no TLS: another protocol follows
            asyncio.get_running_loop().call_soon(self._follow)

    def _follow(self) -> None:
        """Stand in front of the protocol by which the driver has replaced this one."""
        # The driver has run meanwhile: the byte woke its task, in this turn and before this call
        if self._transport.get_protocol() is not self and not self._transport.is_closing():
            self.install(self._transport, self._refuse)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return cast("bool | None", self.inner.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self.inner.resume_writing()
