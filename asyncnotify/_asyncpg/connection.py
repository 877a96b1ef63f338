"""A connection class without callbacks for each notification, and pausing the reading."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, cast

import asyncpg
from asyncpg import connection as _connections

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    OnNotification = Callable[[int, str, str], None]


class HookedConnection(asyncpg.Connection):
    """An asyncpg connection that passes notifications on without registered callbacks."""

    def hand_over_to(self, on_notification: OnNotification | None) -> None:
        """Let the driver call this for each notification; None: discard them."""
        # The protocol calls _process_notification of the connection, a private method of asyncpg.
        # An attribute of the instance hides the method of the class, and saves one call
        self._process_notification = on_notification or _discard


def _discard(pid: int, channel: str, payload: str) -> None:
    pass


def as_hooked(connection: asyncpg.Connection[Any]) -> HookedConnection | None:
    """Return the connection if it is a HookedConnection, else None."""
    # not isinstance(): asyncpg's metaclass makes that true for every asyncpg.Connection
    ours = issubclass(type(connection), HookedConnection)
    return cast("HookedConnection", connection) if ours else None


def hook_is_intact() -> bool:
    """Return whether asyncpg still has the private method that HookedConnection replaces."""
    hook = getattr(asyncpg.Connection, "_process_notification", None)
    return callable(hook) and list(inspect.signature(hook).parameters) == [
        "self",
        "pid",
        "channel",
        "payload",
    ]


class RegisteredCallback:
    """
    A callback of a connection that is not hooked, for any channels; it sends no LISTEN.

    ``add_listener()`` registers after its LISTEN: what comes in between is lost.
    """

    def __init__(self, listeners: dict[str, set[Any]], registered: Any) -> None:
        self._listeners = listeners
        self._registered = registered

    @classmethod
    def of(
        cls, connection: asyncpg.Connection[Any], callback: Callable[..., object]
    ) -> RegisteredCallback | None:
        """Return the one of a connection; None if asyncpg does not show where callbacks are."""
        listeners = getattr(connection, "_listeners", None)
        kind: Any = getattr(_connections, "_Callback", None)
        if not isinstance(listeners, dict) or not hasattr(kind, "from_callable"):
            return None
        return cls(listeners, kind.from_callable(callback))

    def add(self, channels: Sequence[str]) -> None:
        """Have it called for these channels as well."""
        for channel in channels:
            self._listeners.setdefault(channel, set()).add(self._registered)

    def remove(self, channels: Sequence[str]) -> list[str]:
        """Have it called for these no more; return those on which nobody else listens here."""
        for channel in channels:
            if callbacks := self._listeners.get(channel):
                callbacks.discard(self._registered)
                if not callbacks:
                    del self._listeners[channel]
        return [channel for channel in channels if channel not in self._listeners]


class TransportFlowControl:
    """Pausing and resuming the reading of one connection."""

    def __init__(self, transport: asyncio.ReadTransport) -> None:
        self._transport = transport

    @classmethod
    def of(cls, connection: asyncpg.Connection[Any]) -> TransportFlowControl | None:
        """Return the flow control of a connection; None if asyncpg does not show its transport."""
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
