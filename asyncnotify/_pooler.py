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

from asyncnotify._asyncpg.failures import is_truncated_status
from asyncnotify._asyncpg.publishing import PublishingSession
from asyncnotify._errors import PoolerError
from asyncnotify._events import describe_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify._asyncpg.dial import Dialer
    from asyncnotify._asyncpg.session import ListeningSession

logger = logging.getLogger("asyncnotify.connection")

_PATIENCE: Final = 2.0
"""Seconds for having a notification sent, and again for its arrival; both take milliseconds."""


class PoolerProof:
    """Tries out whether notifications arrive through a pooler, beside whatever else is done."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._warned = False

    async def begin(self, session: ListeningSession) -> PoolerTrial:
        """Listen on a channel of its own, and have it notified by a second connection."""
        channel = f"asyncnotify_probe_{secrets.token_hex(8)}"
        arrived = session.expect(channel)
        try:
            await session.listen([channel])
        except Exception as error:
            if not is_truncated_status(error):
                raise
            await session.empty_queue(error)
            await session.listen([channel])
        return PoolerTrial(self, channel, arrived)

    async def notify(self, channel: str) -> PublishingSession:
        """Send the notification by a second connection, and return that."""
        other = PublishingSession(await self._dialer.dial(), timeout=_PATIENCE)
        try:
            await other.notify_plainly(channel)
        except BaseException:
            other.terminate()
            raise
        return other

    def warn(self, why: str) -> None:
        """Say, once, that the proof could not be had; it is tried again later."""
        if not self._warned:
            self._warned = True
            logger.warning(
                "a connection pooler stands before %s, and whether it delivers notifications could"
                " not be tried out, because there is no second connection: %s",
                self._dialer.target,
                why,
            )

    @property
    def refusal(self) -> PoolerError:
        """What a pooler that does not deliver deserves."""
        return PoolerError(_refusal(self._dialer.target))


class PoolerTrial:
    """One notification on its way from a second connection, through the pooler, to the first."""

    def __init__(self, proof: PoolerProof, channel: str, arrived: asyncio.Future[None]) -> None:
        self._proof = proof
        self._channel = channel
        self._arrived = arrived
        self._task = asyncio.create_task(self._run(), name="asyncnotify pooler probe")

    async def _run(self) -> bool:
        """Return False if the notification was sent and has not arrived."""
        try:
            async with asyncio.timeout(_PATIENCE):
                other = await self._proof.notify(self._channel)
        except Exception as error:  # noqa: BLE001 - whatever it is, it proves nothing
            self._proof.warn(describe_error(error))
            return True
        try:
            await asyncio.wait({self._arrived}, timeout=_PATIENCE)
            arrived = self._arrived.done()
        except BaseException:
            other.terminate()
            raise
        await other.close(_PATIENCE)
        return arrived

    @property
    def done(self) -> bool:
        """Whether it is over."""
        return self._task.done()

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        """Call this when it is over."""
        self._task.add_done_callback(lambda _: callback())

    async def finished(self) -> None:
        """Return when it is over. Cancelling it gives the trial up."""
        try:
            await asyncio.wait({self._task})
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Give it up."""
        self._task.cancel()
        self._arrived.cancel()

    async def conclude(self, session: ListeningSession) -> None:
        """
        Listen no more on the channel of the trial.

        Raises:
            PoolerError: The notification has not arrived.
        """
        delivers = self._task.cancelled() or self._task.result()
        self._arrived.cancel()
        await session.unlisten([self._channel])
        if not delivers:
            raise self._proof.refusal


def _refusal(target: str) -> str:
    return (
        f"{target} is a connection pooler in transaction or statement mode (such as PgBouncer with"
        " pool_mode = transaction): it accepts LISTEN, but never delivers a notification. Connect"
        " to PostgreSQL itself, or through a pool with pool_mode = session"
    )
