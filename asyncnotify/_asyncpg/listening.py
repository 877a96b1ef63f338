"""The connections on which a listener listens, and the second one that checks a pooler."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncnotify._asyncpg import failures
from asyncnotify._asyncpg.listen_check import ListenCheck
from asyncnotify._asyncpg.publishing import PublishingSession
from asyncnotify._asyncpg.session import ListeningSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify._asyncpg._connecting.dial import Dialer
    from asyncnotify._asyncpg.connection import OnNotification
    from asyncnotify._keepalive import Keepalive


class ListeningConnections:
    """
    Opens sessions that listen.

    Args:
        dialer: Makes the connections.
        keepalive: TCP keepalive for both ends of each connection; None leaves it as it is.
        timeout: Seconds in which the server has to answer each command.
    """

    def __init__(self, dialer: Dialer, keepalive: Keepalive | None, *, timeout: float) -> None:
        self._dialer = dialer
        self._keepalive = keepalive
        self._timeout = timeout
        self.failures = failures
        self._listen_check = ListenCheck(dialer.warnings)  # one for all sessions of a run

    @property
    def target(self) -> str:
        """The server that the sessions connect to, as logs and errors name it."""
        return self._dialer.target

    async def open(
        self,
        *,
        on_notification: OnNotification,
        on_lost: Callable[[], None],
        last_contact: Callable[[], float],
    ) -> ListeningSession:
        """Return a new session. May be cancelled: no connection is left behind."""
        began = asyncio.get_running_loop().time()
        with self._dialer.opening():
            connection = await self._dialer.dial()
            with failures.introducing(connection):
                session = ListeningSession(
                    connection,
                    on_notification=on_notification,
                    on_lost=on_lost,
                    last_contact=last_contact,
                    timeout=self._timeout,
                    listen_check=self._listen_check,
                    wanted=self._dialer.wanted,
                )
                if not await session.introduce(self._keepalive, began=began):
                    session.behind_pooler, session.pid = True, 0
        return session

    async def notify_by_another(self, channel: str, *, timeout: float) -> PublishingSession:
        """Send an empty notification by a second connection, and return that connection."""
        other = PublishingSession(await self._dialer.dial(), timeout=timeout)
        try:
            await other.notify_plainly(channel)
        except BaseException:
            other.terminate()
            raise
        return other
