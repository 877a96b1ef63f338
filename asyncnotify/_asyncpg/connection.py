"""Our class of connection, and the reading side of a connection's transport."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, cast

import asyncpg

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    OnNotification = Callable[[int, str, str], None]


class HookedConnection(asyncpg.Connection):
    """An asyncpg connection that hands notifications over without registered callbacks."""

    def hand_over_to(self, on_notification: OnNotification | None) -> None:
        """Let the driver call this for each notification; None: throw them away."""
        # An attribute of the instance, in front of the class's method: no call in between
        self._process_notification = on_notification or _throw_away


def _throw_away(pid: int, channel: str, payload: str) -> None:
    pass


def as_hooked(connection: asyncpg.Connection[Any]) -> HookedConnection | None:
    """Return the connection if it is of our class."""
    # not isinstance(): asyncpg's metaclass says yes for every asyncpg.Connection
    ours = issubclass(type(connection), HookedConnection)
    return cast("HookedConnection", connection) if ours else None


def hook_is_intact() -> bool:
    """Return whether asyncpg still has the private hook that the fast road rests on."""
    hook = getattr(asyncpg.Connection, "_process_notification", None)
    return callable(hook) and list(inspect.signature(hook).parameters) == [
        "self",
        "pid",
        "channel",
        "payload",
    ]


class TransportFlowControl:
    """Pausing and resuming the reading of one connection."""

    def __init__(self, transport: asyncio.ReadTransport) -> None:
        self._transport = transport

    @classmethod
    def of(cls, connection: asyncpg.Connection[Any]) -> TransportFlowControl | None:
        """Return that of a connection; None where asyncpg no longer lets its transport be seen."""
        transport = getattr(connection, "_transport", None)
        able = hasattr(transport, "pause_reading") and hasattr(transport, "is_closing")
        return cls(transport) if transport is not None and able else None

    def pause(self) -> bool:
        """Stop reading; return False if the transport is closing."""
        if self._transport.is_closing():
            return False
        self._transport.pause_reading()
        return True

    def resume(self) -> None:
        """Read again."""
        if not self._transport.is_closing():
            self._transport.resume_reading()
