"""Where a Listener and a Notifier get their connections to the fake server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncnotify.testing._fake.failures import FakeFailures
from asyncnotify.testing._fake.sessions import ListeningSession, PublishingSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify.testing._fake.state import State


async def dialled(state: State, timeout: float) -> None:
    """Return once the server takes a connection, within this many seconds."""
    try:
        async with asyncio.timeout(timeout):
            with state.connecting():
                await asyncio.sleep(state.delay)
                await state.until(lambda: not state.frozen)
    except TimeoutError:
        msg = f"{state.name} did not answer within {timeout:g} s"
        raise TimeoutError(msg) from None
    if (refused := state.refused) is not None:
        msg = f"{state.name} refuses connections"
        raise refused(msg)


class FakeListening:
    """Opens sessions that listen."""

    def __init__(self, state: State, connect_timeout: float, timeout: float) -> None:
        self._state = state
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self.failures: FakeFailures = FakeFailures()
        self.target: str = state.name

    async def open(
        self,
        *,
        on_notification: Callable[[int, str, str], None],
        on_lost: Callable[[], None],
        last_contact: Callable[[], float],  # noqa: ARG002 - the deadlines here are exact
    ) -> ListeningSession:
        """Return a new session."""
        await dialled(self._state, self._connect_timeout)
        return ListeningSession(
            self._state, self._timeout, on_notification=on_notification, on_lost=on_lost
        )

    async def notify_by_another(self, channel: str, *, timeout: float) -> PublishingSession:
        """Send an empty notification by a second connection, and return that connection."""
        await dialled(self._state, self._connect_timeout)
        other = PublishingSession(self._state, timeout)
        await other.notify_plainly(channel)
        return other


class FakePublishing:
    """Opens connections on which notifications are sent."""

    def __init__(
        self, state: State, connect_timeout: float, on_open: Callable[[int], None] | None
    ) -> None:
        self._state = state
        self._connect_timeout = connect_timeout
        self._on_open = on_open
        self.failures: FakeFailures = FakeFailures()
        self.target: str = state.name

    async def open(self) -> PublishingSession:
        """Return a connection, whose commands have no deadline of their own."""
        await dialled(self._state, self._connect_timeout)
        session = PublishingSession(self._state, None)
        if self._on_open is not None:
            self._on_open(session.pid)
        return session
