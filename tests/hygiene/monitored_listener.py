"""A listener whose `health()` is under test, and the keys that its report must have."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

from tests.support.machine import scaled

if TYPE_CHECKING:
    from asyncnotify import EventStream, Listener
    from asyncnotify.testing.proxy import FaultProxy
    from tests.hygiene.secrets_harness import Connection

SLACK: Final = scaled(1.0)  # seconds beyond the heartbeat's timeout; measured: 0.1
LOCAL_KEYS: Final = frozenset(
    {
        "state",
        "generation",
        "backend_pid",
        "connected_since",
        "last_contact_age",
        "heartbeat_round_trip",
        "last_error",
        "channels_desired",
        "channels_confirmed",
        "received",
        "delivered",
        "dropped",
        "gaps",
        "handler_errors",
        "decode_errors",
        "rereads",
        "subscriptions",
    }
)
SERVER_KEYS: Final = frozenset({"queue_usage", "queue_holders", "server_error"})


class MonitoredListener:
    """A listener behind a proxy, whose `health()` is under test."""

    def __init__(
        self, proxy: FaultProxy, root: Connection, listener: Listener, timeout: float
    ) -> None:
        self.proxy = proxy
        self.root = root
        self.listener = listener
        self._timeout = timeout
        self.events: EventStream = listener.events()

    async def health(self, *, server: bool = True) -> dict[str, Any]:
        """Return the health; check that it came in time and that JSON can hold it."""
        began = time.monotonic()
        health = await self.listener.health(server=server)
        assert time.monotonic() - began < self._timeout + SLACK
        json.loads(json.dumps(health, allow_nan=False))
        assert health.keys() == LOCAL_KEYS | (SERVER_KEYS if server else frozenset())
        return health

    async def notify(self, channel: str, payload: str = "") -> None:
        """Commit a notification, past the proxy."""
        await self.root.execute("SELECT pg_notify($1, $2)", channel, payload)

    async def kill(self) -> None:
        """Let the server end the listening session."""
        pid = (await self.health(server=False))["backend_pid"]
        await self.root.execute("SELECT pg_terminate_backend($1)", pid)
