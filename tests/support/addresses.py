"""Names that lead to addresses of ours, and addresses where nobody answers."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Generator


@contextmanager
def resolving(**hosts: list[str]) -> Generator[None]:
    """Let each of these names (``_`` stands for a dot) have these addresses, in this order."""
    real = socket.getaddrinfo
    names = {name.replace("_", "."): addresses for name, addresses in hosts.items()}

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        found: list[Any] = []
        for address in names.get(host, [host]):
            found += real(address, *args, **kwargs)
        return found

    with mock.patch.object(socket, "getaddrinfo", getaddrinfo):
        yield


@contextmanager
def unanswered(address: str, port: int) -> Generator[None]:
    """Let nobody answer at this address and port: what connects there hangs, as in a black hole."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen(0)
        waiting: list[socket.socket] = []
        try:
            while _answers(address, port, family, waiting):
                pass  # until the queue of those who wait to be accepted is full
            yield
        finally:
            for sock in waiting:
                sock.close()


def _answers(address: str, port: int, family: int, waiting: list[socket.socket]) -> bool:
    sock = socket.socket(family)
    waiting.append(sock)
    sock.settimeout(0.1)
    try:
        sock.connect((address, port))
    except TimeoutError:
        return False
    return True
