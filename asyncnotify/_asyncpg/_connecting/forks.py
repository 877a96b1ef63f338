"""
Sockets that a fork must not keep.

A forked process has copies of the sockets of its parent. As long as one of them is open, the
server does not see that the parent has died: its backend listens on, and once nobody reads what it
sends, it keeps the notification queue of the whole server from being emptied.
"""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T")

_inherited: Final[dict[int, Callable[[], int]]] = {}
"""By file descriptor: what returns the descriptor as long as the socket is open."""


def leave_socket_to_parent(sock: socket.socket) -> None:
    """Have forks close their copy of this socket, as long as it is open here."""
    _register(sock, lambda sock: sock)


def leave_connection_to_parent(connection: object) -> None:
    """Have forks close their copy of the socket of this connection of asyncpg's."""
    _register(connection, lambda connection: _socket_of(getattr(connection, "_transport", None)))


def leave_transport_to_parent(transport: object) -> None:
    """Have forks close their copy of the socket of this transport."""
    _register(transport, _socket_of)


def _socket_of(transport: Any) -> object:
    return None if transport is None else transport.get_extra_info("socket")


def _register(owner: T, socket_of: Callable[[T], object]) -> None:
    """Keep how the number of a socket is found, by that number: a closed one's is used again."""
    reference = weakref.ref(owner)

    def number() -> int:
        living = reference()
        sock = None if living is None else socket_of(living)
        return getattr(sock, "fileno", _none)()

    if (present := number()) >= 0:
        _inherited[present] = number


def _none() -> int:
    return -1


def _close_copies() -> None:
    """In a fork: let every copy be the end of a connection that has ended."""
    numbers = [number for number, present in list(_inherited.items()) if present() == number]
    _inherited.clear()
    if numbers:
        with contextlib.suppress(OSError):  # no descriptor is left
            _end_all(numbers)


def _end_all(numbers: list[int]) -> None:
    # Not closed: another file would get the number, which objects of the parent still use
    ended, other = socket.socketpair()
    other.close()
    with ended:
        for number in numbers:
            os.dup2(ended.fileno(), number, inheritable=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_copies)
