"""Our class of connection, and the reading side of a connection's transport."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    OnNotification = Callable[[int, str, str], None]


class HookedConnection(asyncpg.Connection):
    """An asyncpg connection that hands notifications over without registered callbacks."""

    on_notification: OnNotification | None = None

    def _process_notification(self, pid: int, channel: str, payload: str) -> None:
        if self.on_notification is not None:
            self.on_notification(pid, channel, payload)


def hook_is_intact() -> bool:
    """Return whether asyncpg still has the private hook that the fast road rests on."""
    hook = getattr(asyncpg.Connection, "_process_notification", None)
    return callable(hook) and list(inspect.signature(hook).parameters) == [
        "self",
        "pid",
        "channel",
        "payload",
    ]


class TransportFlow:
    """Pausing and resuming the reading of one connection."""

    def __init__(self, transport: asyncio.ReadTransport) -> None:
        self._transport = transport

    @classmethod
    def of(cls, connection: asyncpg.Connection[Any]) -> TransportFlow | None:
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
