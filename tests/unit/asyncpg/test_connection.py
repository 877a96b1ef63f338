"""
What asyncnotify needs of asyncpg beyond its documentation.

A failure here means that the installed asyncpg has changed where it promised nothing: the public
callback still serves, slower. That the driver does call the hook is shown against a server.
"""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import pytest

from asyncnotify._asyncpg.connection import (
    RegisteredCallback,
    TransportFlowControl,
    hook_is_intact,
)
from tests.unit.fake_connection import FakeConnection

if TYPE_CHECKING:
    from collections.abc import Callable


def test_r33_the_hook_is_there_and_takes_what_we_expect() -> None:
    """A plain method of (pid, channel, payload)."""
    hook = getattr(asyncpg.Connection, "_process_notification")  # noqa: B009 - no stub knows it
    assert list(inspect.signature(hook).parameters) == ["self", "pid", "channel", "payload"]
    assert not inspect.iscoroutinefunction(hook)
    assert hook_is_intact()


@pytest.mark.parametrize(
    "parameters", ["self, pid, channel", "self, channel, pid, payload", "self, *args"]
)
def test_r33_a_hook_that_has_changed_is_noticed(
    monkeypatch: pytest.MonkeyPatch, parameters: str
) -> None:
    """Then it is not used; nor if it is gone."""
    changed = eval(f"lambda {parameters}: None")  # noqa: S307 - of the test's own text
    for hook in (changed, None, "no function"):
        monkeypatch.setattr(asyncpg.Connection, "_process_notification", hook)
        assert not hook_is_intact()


def test_r33_the_hook_can_be_replaced_on_one_connection() -> None:
    """An instance of our class takes an attribute in front of the method."""
    connection = FakeConnection()
    arrived: list[tuple[int, str, str]] = []
    connection.hand_over_to(lambda pid, channel, payload: arrived.append((pid, channel, payload)))
    connection._process_notification(7, "orders", "1")  # noqa: SLF001 - as asyncpg
    connection.hand_over_to(None)
    connection._process_notification(7, "orders", "2")  # noqa: SLF001 - as asyncpg
    assert arrived == [(7, "orders", "1")]


class Connection:
    """Keeps its callbacks as asyncpg does."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[Any]] = {}

    def call(self, channel: str) -> None:
        """Call what is registered for this channel."""
        for registered in self._listeners.get(channel, ()):
            registered.cb(self, 7, channel, "")


def called_back_by(connection: object, callback: Callable[..., None]) -> RegisteredCallback:
    """Return a callback of this connection."""
    registered = RegisteredCallback.of(cast("Any", connection), callback)
    assert registered is not None
    return registered


def test_r33_a_callback_can_be_registered_by_itself() -> None:
    """Where and how asyncpg keeps its own; LISTEN is given apart from that."""
    assert "_listeners" in asyncpg.Connection.__slots__
    connection, arrived = Connection(), list[object]()
    callback = called_back_by(connection, lambda *args: arrived.append(args[2]))
    callback.add(["a", "b"])
    callback.add(["a"])
    for channel in ("a", "b", "c"):
        connection.call(channel)
    assert arrived == ["a", "b"]
    assert callback.remove(["a", "c"]) == ["a", "c"]
    connection.call("a")
    assert arrived == ["a", "b"]
    assert connection._listeners.keys() == {"b"}  # noqa: SLF001 - as asyncpg


def test_a_callback_of_others_keeps_the_channel() -> None:
    """Only where no other one is left is UNLISTEN due."""
    connection, arrived = Connection(), list[str]()
    ours = called_back_by(connection, lambda *_: arrived.append("ours"))
    others = called_back_by(connection, lambda *_: arrived.append("others"))
    ours.add(["a", "b"])
    others.add(["a"])
    assert ours.remove(["a", "b"]) == ["b"]
    connection.call("a")
    assert arrived == ["others"]


@pytest.mark.parametrize("listeners", [None, []])
def test_callbacks_that_are_kept_otherwise_are_left_to_the_driver(listeners: object) -> None:
    """Then add_listener() registers them."""
    connection: Any = SimpleNamespace(_listeners=listeners)
    assert RegisteredCallback.of(connection, print) is None


@pytest.mark.parametrize(
    "name",
    [
        "add_listener",
        "add_log_listener",
        "add_termination_listener",
        "close",
        "execute",
        "fetch",
        "fetchval",
        "get_server_pid",
        "get_settings",
        "is_closed",
        "is_in_transaction",
        "remove_listener",
        "terminate",
    ],
)
def test_the_methods_we_call_are_there(name: str) -> None:
    """All of them documented."""
    assert callable(getattr(asyncpg.Connection, name))


def test_the_transport_can_be_seen() -> None:
    """Its slot bears the name that pausing and keepalive look for."""
    assert "_transport" in asyncpg.Connection.__slots__


def test_a_transport_that_cannot_be_seen_is_left_alone() -> None:
    """Without it nothing is paused, and everything else works."""

    class Connection:
        _transport = None

    assert TransportFlowControl.of(Connection()) is None  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


class Transport:
    """Reads, pauses, and ends as the test says."""

    def __init__(self) -> None:
        self.closing = self.paused = False

    def is_closing(self) -> bool:
        """Return whether it ends."""
        return self.closing

    def pause_reading(self) -> None:
        """Pause; raises, as asyncio does, once it is closing."""
        assert not self.closing
        self.paused = True

    def resume_reading(self) -> None:
        """Go on; as above."""
        assert not self.closing
        self.paused = False


def test_a_transport_that_is_closing_is_neither_paused_nor_resumed() -> None:
    """It may have begun to close at any time; what is raised then would end up with a consumer."""
    transport = Transport()
    connection: Any = SimpleNamespace(_transport=transport)
    flow = TransportFlowControl.of(connection)
    assert flow is not None
    assert flow.pause()
    states = [transport.paused]
    flow.resume()
    states.append(transport.paused)
    assert states == [True, False]
    assert flow.pause()
    transport.closing = True
    flow.resume()
    assert not flow.pause()
