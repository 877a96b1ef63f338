"""One run of a listener on a fake server, with a publisher that only records its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asyncnotify._backoff import ExponentialBackoff
from asyncnotify._channels.channel import Channel
from asyncnotify._connection.limits import Limits
from asyncnotify._delivery.buffering import Buffering
from asyncnotify._events import Announcer
from asyncnotify._run.lifetime import Lifetime
from asyncnotify._subscriptions.registration import Registration
from tests.unit.fake_server import FakeConnections, FakeServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify._events import ConnectionEvent
    from asyncnotify._model import Notification

START_TIMEOUT, HEARTBEAT_TIMEOUT = 30.0, 5.0


class FakePublishing:
    """Records how it was ended; takes as long for that as the test says."""

    def __init__(self) -> None:
        self.close_time = 0.0
        self.timeouts: list[float] = []
        self.abandoned = False

    async def aclose(self, timeout: float) -> None:
        """End in good order."""
        self.timeouts.append(timeout)
        await asyncio.sleep(self.close_time)

    def abandon(self) -> None:
        """End at once."""
        self.abandoned = True


class LifetimeHarness:
    """A run that is not started yet, its server and its publisher."""

    def __init__(
        self, *, start_timeout: float | None = START_TIMEOUT, longest_delay: float = 1.0
    ) -> None:
        self.server = FakeServer()
        self.publishing = FakePublishing()
        self.events: list[ConnectionEvent] = []
        self.on_event: Callable[[ConnectionEvent], object] = self.events.append
        self.handled: list[str] = []
        self.handler_time = 0.0
        self.lifetime = Lifetime(
            FakeConnections(self.server),
            self.publishing,
            Limits(
                connect_timeout=10.0,
                heartbeat=10.0,
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                operation_timeout=5.0,
                start_timeout=start_timeout,
                close_timeout=5.0,
            ),
            backoff=ExponentialBackoff(initial=0.1, cap=longest_delay),
            announcer=Announcer("joe@db", self._told),
        )

    def _told(self, event: ConnectionEvent) -> None:
        self.on_event(event)

    @property
    def now(self) -> float:
        """Seconds since the test began."""
        return self.server.now

    def registration(self, channel: str = "orders", **changes: Any) -> Registration:
        """Return a handler that records payloads."""
        fields: dict[str, Any] = {
            "channel": Channel(channel),
            "handler": self._handle,
            "resync": None,
            "buffering": Buffering(100, "drop_oldest", latest=False),
            "concurrency": 1,
            "on_error": None,
        }
        return Registration(**{**fields, **changes})

    async def _handle(self, notification: Notification[str]) -> None:
        await asyncio.sleep(self.handler_time)
        self.handled.append(notification.payload)

    async def start(self, *registrations: Registration) -> Lifetime:
        """Start the run with these handlers; by default with one, on ``orders``."""
        await self.lifetime.start(registrations or (self.registration(),))
        return self.lifetime

    def send(self, *payloads: str) -> None:
        """Let notifications arrive on ``orders``."""
        for payload in payloads:
            self.server.session.notify(7, "orders", payload)
