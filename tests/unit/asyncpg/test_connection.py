"""
What asyncnotify needs of asyncpg beyond its documentation.

A failure here means that the installed asyncpg has changed where it promised nothing: the public
road still serves, slower. That the driver does call the hook is shown against a server.
"""

from __future__ import annotations

import inspect

import asyncpg
import pytest

from asyncnotify._asyncpg.connection import TransportFlowControl, hook_is_intact
from tests.unit.fake_connection import FakeConnection


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
    connection._process_notification(7, "orders", "1")  # noqa: SLF001
    connection.hand_over_to(None)
    connection._process_notification(7, "orders", "2")  # noqa: SLF001
    assert arrived == [(7, "orders", "1")]


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
