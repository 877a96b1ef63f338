"""A roster without a connection: a server that confirms what is desired when the test says so."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from asyncnotify._delivery.bounded import BoundedMailbox
from asyncnotify._delivery.registry import Listen, Registry, Subscriber
from asyncnotify._delivery.router import Router
from asyncnotify._model import Notification, State
from asyncnotify._owner import Owner
from asyncnotify._subscriptions.roster import Roster
from asyncnotify._subscriptions.worker import HandlerWorker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable


class FakeStatus:
    """What is known of the connection."""

    def __init__(self) -> None:
        self.state = State.CONNECTED
        self.last_error: Exception | None = None


class RosterHarness:
    """
    A roster, and the server that its registry agrees with.

    It stands for the session loop as well: while ``confirms`` is true, each change is confirmed
    in the next turn of the event loop.
    """

    def __init__(self) -> None:
        self.router = Router(asyncio.get_running_loop())
        self.registry = Registry(self.router)
        self.owner = Owner()
        self.status = FakeStatus()
        self.roster = Roster(self.registry, self, self.status, self.owner)
        self.confirms = True
        self.refused: dict[str, Exception] = {}
        self.listening: set[str] = set()
        self.handled: list[str] = []
        self._agreed = asyncio.Event()

    # -- the roster's side ------------------------------------------------------------------------

    def notice_change(self) -> None:
        """Confirm what is desired in the next turn of the loop, unless the server is silent."""
        self._agreed.clear()
        if self.confirms:
            asyncio.get_running_loop().call_soon(self.confirm)

    async def settled(self) -> None:
        """Return once the server agrees."""
        if not self.registry.is_settled:
            await self._agreed.wait()

    # -- the test's side --------------------------------------------------------------------------

    def confirm(self) -> None:
        """Let the server do all that it has been asked for."""
        for channel, error in self.refused.items():
            self.registry.refuse(channel, error)
        for step in self.registry.steps(100):
            self.registry.performed(step)
            if isinstance(step, Listen):
                self.listening.update(step.channels)
            else:
                self.listening.difference_update(step.channels)
        self._agreed.set()

    def send(self, channel: str, payload: str) -> None:
        """Let a notification arrive, if the server listens on the channel."""
        if channel in self.listening:
            self.router.on_notification(7, channel, payload)

    def subscriber(self, *channels: str) -> Subscriber:
        """Return a subscriber with an empty mailbox, which is not registered."""
        label = channels[0] if len(channels) == 1 else None
        box = BoundedMailbox(100, "drop_oldest", channel=label, source=self.router)
        return Subscriber(channels, box)

    def worker(
        self, channel: str, handler: Callable[[Notification[Any]], object] | None = None
    ) -> HandlerWorker:
        """Return a worker that is not served yet; by default it records payloads."""
        return HandlerWorker(
            self.subscriber(channel),
            handler or self._handle,
            resync=None,
            on_error=None,
            concurrency=1,
        )

    def _handle(self, notification: Notification[str]) -> None:
        self.handled.append(notification.payload)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Serve workers by tasks; end them all at the end."""
        async with asyncio.TaskGroup() as group:
            self.roster.open(group)
            try:
                yield
            finally:
                self.roster.close(discard=True)
