"""Ports for programs that are about to start: nobody else gets them until then."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["kept_port"]


@contextlib.contextmanager
def kept_port() -> Generator[int]:
    """
    Have a port of 127.0.0.1 on which one program may listen, and start again, in the block.

    It is bound, and not listened on: the system gives it to nobody who asks for any port, as the
    other tests do all the time, and a server gets it that asks for this one.
    """
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        port: int = keeper.getsockname()[1]
        if sys.platform != "linux":  # elsewhere two sockets may not share an address so
            keeper.close()
        yield port
