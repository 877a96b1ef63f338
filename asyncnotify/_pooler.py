"""
Whether a connection pooler in the path lets notifications through.

Asking the server proves nothing: in transaction mode LISTEN is accepted, a NOTIFY on the same
connection arrives, and ``pg_listening_channels()`` may say yes. What proves it is a NOTIFY from
a second connection that arrives while the first one idles.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Final

from asyncnotify._asyncpg.session import PublishingSession
from asyncnotify._errors import PoolerError
from asyncnotify._events import describe_error

if TYPE_CHECKING:
    from asyncnotify._asyncpg.dial import Dialer
    from asyncnotify._asyncpg.session import ListeningSession

logger = logging.getLogger("asyncnotify.connection")

_PATIENCE: Final = 2.0
"""Seconds for having a notification sent, and again for its arrival; both take milliseconds."""


class PoolerProof:
    """Tries out whether notifications arrive through a pooler."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._possible = True

    async def prove(self, session: ListeningSession) -> None:
        """
        Return if a notification sent by another connection arrives on this one.

        Where no second connection can be had, a warning says so, and it is not tried again.

        Raises:
            PoolerError: It does not arrive.
        """
        if not self._possible:
            return
        channel = f"asyncnotify_probe_{secrets.token_hex(8)}"
        arrived = session.expect(channel)
        try:
            await session.listen([channel])
            sent = await self._notify_from_elsewhere(channel)
            if sent:
                await asyncio.wait({arrived}, timeout=_PATIENCE)
            await session.unlisten([channel])
            if sent and not arrived.done():
                raise PoolerError(_refusal(self._dialer.target))
        finally:
            arrived.cancel()

    async def _notify_from_elsewhere(self, channel: str) -> bool:
        notifying = asyncio.create_task(self._notify(channel), name="asyncnotify pooler probe")
        try:
            await asyncio.wait({notifying}, timeout=_PATIENCE)
        finally:
            notifying.cancel()
            await asyncio.wait({notifying}, timeout=_PATIENCE)
        error = None if notifying.cancelled() else notifying.exception()
        if error is not None or notifying.cancelled():
            self._possible = False
            logger.warning(
                "a connection pooler stands before %s, and whether it delivers notifications could"
                " not be tried out, because there is no second connection: %s",
                self._dialer.target,
                describe_error(error) if error else f"none within {_PATIENCE:g} s",
            )
        return self._possible

    async def _notify(self, channel: str) -> None:
        other = PublishingSession(await self._dialer.dial(), timeout=_PATIENCE)
        try:
            await other.notify_plainly(channel)
        finally:
            await other.close(_PATIENCE)


def _refusal(target: str) -> str:
    return (
        f"{target} is a connection pooler in transaction or statement mode (such as PgBouncer with"
        " pool_mode = transaction): it accepts LISTEN, but never delivers a notification. Connect"
        " to PostgreSQL itself, or through a pool with pool_mode = session"
    )
