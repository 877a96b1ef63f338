"""What arrives at the server itself, of what was sent through a pooler."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tests.network.observed_listener import WAIT_LIMIT

if TYPE_CHECKING:
    import asyncpg

    from asyncnotify import Listener, Notification

CHANNEL: Final = "orders"
OTHER_CHANNEL: Final = "people"
THEIRS: Final = "theirs"
"""What other programs store; a notification on this channel ran a statement of ours with it."""

_FENCE: Final = "fence"


class Arrivals:
    """Channels and payloads, heard past the pooler on all the channels that matter."""

    def __init__(self, server: asyncpg.Connection[asyncpg.Record]) -> None:
        self.server = server
        self._fence = asyncio.Event()
        self._pairs: list[tuple[str, str]] = []

    async def listen(self, listener: Listener) -> None:
        """Listen, by a listener that no pooler concerns."""
        for channel in (CHANNEL, OTHER_CHANNEL, THEIRS, _FENCE):
            await listener.listen(channel, self._note)

    def _note(self, notification: Notification[str]) -> None:
        if notification.channel == _FENCE:
            self._fence.set()
        else:
            self._pairs.append((notification.channel, notification.payload))

    async def complete(self) -> list[tuple[str, str]]:
        """Return them once everything that was committed has come."""
        self._fence.clear()
        await self.server.execute(f"NOTIFY {_FENCE}")
        async with asyncio.timeout(WAIT_LIMIT):
            await self._fence.wait()
        return self._pairs
