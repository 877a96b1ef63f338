from __future__ import annotations

import os
import socket
import warnings
from functools import partial
from typing import TYPE_CHECKING

import pytest

from asyncnotify._asyncpg._connecting.forks import (
    leave_connection_to_parent,
    leave_socket_to_parent,
    leave_transport_to_parent,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two sockets that are connected to each other."""
    one, other = socket.socketpair()
    for sock in (one, other):
        sock.settimeout(10)  # nothing else ends a fork that waits
    with one, other:
        yield one, other


class Transport:
    """Stands for a transport, or for a connection that has one."""

    def __init__(self, sock: socket.socket | None) -> None:
        self._sock = sock
        self._transport = self

    def get_extra_info(self, name: str) -> socket.socket | None:
        """Return the socket, as a transport does until it is closed."""
        assert name == "socket"
        return self._sock


def holds_in_fork(fact: Callable[[], bool]) -> bool:
    """Return whether this is so in a forked process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside other threads
        child = os.fork()
    if not child:
        try:
            os._exit(not fact())
        finally:
            os._exit(2)  # the copy of a test run must not go on
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, 1}
    return code == 0


def test_a_forks_copy_is_at_its_end(pair: Pair) -> None:
    """Nothing can be read or written there, in any way of having it closed; the parent goes on."""
    one, other = pair
    transport = Transport(one)
    for leave in (
        partial(leave_socket_to_parent, one),
        partial(leave_transport_to_parent, transport),
        partial(leave_connection_to_parent, transport),
    ):
        leave()
        other.send(b"to the parent")
        assert holds_in_fork(lambda: one.recv(1) == b"")
        assert one.recv(13) == b"to the parent"


def test_a_fork_of_a_fork_keeps_no_copy_either(pair: Pair) -> None:
    """Neither of what its parent inherited, nor of what that opened itself."""
    one, other = pair
    leave_socket_to_parent(one)

    def opens_its_own() -> bool:
        leave_socket_to_parent(other)
        return holds_in_fork(lambda: one.recv(1) == other.recv(1) == b"")

    assert holds_in_fork(opens_its_own)


def test_the_other_end_sees_that_the_parent_has_closed(pair: Pair) -> None:
    """Though a fork still lives, which had copies of both."""
    one, other = pair
    leave_socket_to_parent(one)
    ready, go = os.pipe(), os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        os.write(ready[1], b"1")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    one.close()
    assert other.recv(1) == b""
    os.write(go[1], b"1")
    os.waitpid(child, 0)
    for number in (*ready, *go):
        os.close(number)


def test_a_number_that_is_used_again_is_left_alone(pair: Pair) -> None:
    """What got the number of a socket that has been closed is whole in a fork."""
    one, other = pair
    gone = Transport(None)
    leave_socket_to_parent(one)
    leave_transport_to_parent(gone)
    number = one.fileno()
    one.close()
    again = os.dup2(other.fileno(), number)
    assert holds_in_fork(lambda: os.fstat(again).st_ino == os.fstat(other.fileno()).st_ino)
    os.close(again)


def test_a_connection_without_a_transport_is_none() -> None:
    """There is nothing to close, as with a class that only looks like asyncpg's."""
    thing = Transport(None)
    leave_connection_to_parent(thing)
    leave_connection_to_parent(test_a_connection_without_a_transport_is_none)
    assert holds_in_fork(lambda: True)
