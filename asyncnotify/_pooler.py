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
"""Seconds in which the proof must arrive; where it does, it takes milliseconds."""


async def prove_delivery(session: ListeningSession, dialer: Dialer, *, timeout: float) -> None:
    """
    Return if a notification sent by another connection arrives on this one.

    Raises:
        PoolerError: It does not.
    """
    channel = f"asyncnotify_probe_{secrets.token_hex(8)}"
    arrived = session.expect(channel)
    try:
        await session.listen([channel])
        if not await _notify_from_elsewhere(channel, dialer, timeout=timeout):
            return
        await asyncio.wait({arrived}, timeout=_PATIENCE)
        if not arrived.done():
            raise PoolerError(_refusal(dialer.target))
        await session.unlisten([channel])
    finally:
        arrived.cancel()


async def _notify_from_elsewhere(channel: str, dialer: Dialer, *, timeout: float) -> bool:
    """Notify from a second connection; return False where that cannot be had."""
    try:
        other = PublishingSession(await dialer.dial(), timeout=timeout)
    except Exception as error:  # noqa: BLE001 - whatever it is, it proves nothing
        logger.warning(
            "a connection pooler stands before %s, and whether it delivers notifications could"
            " not be tried out, because there is no second connection: %s",
            dialer.target,
            describe_error(error),
        )
        return False
    try:
        await other.notify_plainly(channel)
    finally:
        await other.close(timeout)
    return True


def _refusal(target: str) -> str:
    return (
        f"{target} is a connection pooler in transaction or statement mode (such as PgBouncer with"
        " pool_mode = transaction): it accepts LISTEN, but never delivers a notification. Connect"
        " to PostgreSQL itself, or through a pool with pool_mode = session"
    )
