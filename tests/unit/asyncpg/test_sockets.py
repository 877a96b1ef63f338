from __future__ import annotations

import logging
import select
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify._asyncpg.sockets import Arrivals, check_keepalive, keep_alive, server_settings
from asyncnotify._keepalive import Keepalive

if TYPE_CHECKING:
    from collections.abc import Callable

KEEPALIVE = Keepalive(idle=11, interval=3, count=5, user_timeout=17)


class FakeSocket:
    """Records options; may refuse them."""

    def __init__(self, family: socket.AddressFamily, error: OSError | None = None) -> None:
        self.family = family
        self.options: dict[tuple[int, int], int] = {}
        self._error = error

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """Set an option."""
        if self._error is not None:
            raise self._error
        self.options[level, option] = value


def connection_on(sock: FakeSocket | None) -> Any:
    """Return what is looked at of a connection."""
    extras = {"socket": sock}
    get_extra_info: Callable[[str], FakeSocket | None] = extras.get
    return SimpleNamespace(_transport=SimpleNamespace(get_extra_info=get_extra_info))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_every_option_that_the_platform_knows_is_set(family: socket.AddressFamily) -> None:
    """SO_KEEPALIVE first of all; TCP_USER_TIMEOUT is in milliseconds."""
    sock = FakeSocket(family)
    keep_alive(connection_on(sock), KEEPALIVE)
    assert sock.options[socket.SOL_SOCKET, socket.SO_KEEPALIVE] == 1
    expected = {"TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 5, "TCP_USER_TIMEOUT": 17_000}
    for name, value in expected.items():
        option = getattr(socket, name, None)
        assert option is None or sock.options[socket.IPPROTO_TCP, option] == value


def test_a_platform_without_an_option_goes_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has no TCP_USER_TIMEOUT, for example."""
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT", raising=False)
    sock = FakeSocket(socket.AF_INET)
    keep_alive(connection_on(sock), KEEPALIVE)
    assert 17_000 not in sock.options.values()


def test_a_unix_socket_is_left_alone() -> None:
    """So is a connection that has no transport or socket any more."""
    sock = FakeSocket(socket.AF_UNIX)
    keep_alive(connection_on(sock), KEEPALIVE)
    assert sock.options == {}
    keep_alive(connection_on(None), KEEPALIVE)
    without_transport: Any = SimpleNamespace()
    keep_alive(without_transport, KEEPALIVE)


def test_an_option_that_the_system_refuses_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """The connection works without it: a line at DEBUG says which one."""
    caplog.set_level(logging.DEBUG)
    keep_alive(connection_on(FakeSocket(socket.AF_INET, OSError("not supported"))), KEEPALIVE)
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert "not supported" in caplog.text


def test_the_server_is_given_the_same_times() -> None:
    """In the units of its settings: seconds, and the user timeout with its unit."""
    assert server_settings(KEEPALIVE) == {
        "tcp_keepalives_idle": "11",
        "tcp_keepalives_interval": "3",
        "tcp_keepalives_count": "5",
        "tcp_user_timeout": "17s",
    }


@pytest.mark.parametrize("keepalive", [True, 30, {"idle": 11}, Keepalive])
def test_what_is_no_keepalive_is_refused(keepalive: object) -> None:
    """Before anything connects, with the type that was given; None leaves the sockets alone."""
    with pytest.raises(TypeError, match=f"not of type {type(keepalive).__name__}"):
        check_keepalive(keepalive)
    check_keepalive(None)


@pytest.mark.skipif(not hasattr(select, "poll"), reason="the system has no poll()")
def test_what_has_arrived_is_known_without_reading_it() -> None:
    """Bytes, the end, and a transport that is closing already."""
    ours, theirs = socket.socketpair()
    transport = SimpleNamespace(get_extra_info={"socket": ours}.get, is_closing=lambda: False)
    connection: Any = SimpleNamespace(_transport=transport)
    with ours, theirs:
        arrivals = Arrivals.of(connection)
        assert arrivals is not None
        assert not arrivals.wait()
        theirs.send(b"x")
        assert arrivals.wait()
        assert ours.recv(10) == b"x"
        assert not arrivals.wait()
        theirs.close()
        assert (arrivals.wait(), arrivals.have_ended) == (True, False)
        transport.is_closing = lambda: True
        assert (arrivals.wait(), arrivals.have_ended) == (True, True)
    assert Arrivals.of(connection) is None
    without_transport: Any = SimpleNamespace()
    assert Arrivals.of(without_transport) is None


@pytest.mark.skipif(not hasattr(select, "poll"), reason="the system has no poll()")
@pytest.mark.parametrize("is_end", [True, False])
async def test_what_arrives_unasked_is_read_before_anything_is_sent(*, is_end: bool) -> None:
    """It is the end of the session, or something else: then the session can be used."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        closing = iter([False, is_end, is_end])
        transport = SimpleNamespace(get_extra_info={"socket": ours}.get)
        transport.is_closing = lambda: next(closing)
        connection: Any = SimpleNamespace(_transport=transport)
        arrivals = Arrivals.of(connection)
        assert arrivals is not None
        assert await arrivals.read() is is_end
