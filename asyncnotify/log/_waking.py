"""Waking those who read, after a commit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncnotify._errors import describe_error
from asyncnotify._logs import Log
from asyncnotify._tasks import cancel, start
from asyncnotify.log._held import HeldSession
from asyncnotify.log._ports import Statement
from asyncnotify.log._schema.cursors import HAS_ROOM

if TYPE_CHECKING:
    from asyncnotify.log._names import Names
    from asyncnotify.log._ports import LogSession, LogSessions

log = Log("log")


class Waker:
    """
    Sends a notification for all calls that have come since the last one was sent.

    The last call counts: one that comes while a notification is in flight has another one sent,
    because that one may have been seen before its commit. A failure is logged, not raised: those
    who read look for new events by themselves, if later.
    """

    def __init__(self, sessions: LogSessions, names: Names) -> None:
        self._held = HeldSession(sessions)
        self._names = names
        self._is_wanted = False
        self._is_closing = False
        self._news = asyncio.Event()
        self._task = start(self._run(), name="asyncnotify log waker")

    def wake(self) -> None:
        """Have a notification sent. Never waits."""
        self._is_wanted = True
        self._news.set()

    async def aclose(self, timeout: float) -> None:
        """Send what is to be sent, within these seconds."""
        self._is_closing = True
        self._news.set()
        try:
            await asyncio.wait({self._task}, timeout=timeout)
        finally:
            await cancel({self._task})

    async def _run(self) -> None:
        try:
            while await self._work_comes():
                self._is_wanted = False
                try:
                    await self._held.run(self._notify)
                    if not self._is_wanted:
                        await self._held.rest()
                except Exception as error:  # noqa: BLE001 - readers look by themselves as well
                    log.info(
                        "the NOTIFY that wakes the readers of log %r was not sent, and they find"
                        " the events when they poll: %s",
                        self._names.log,
                        describe_error(error),
                    )
            await self._held.part()
        finally:
            self._held.terminate()

    async def _notify(self, session: LogSession) -> None:
        notify = f"pg_catalog.pg_notify('{self._names.wake_channel}', '')"
        await session.execute(Statement("wake", f"SELECT {notify} WHERE {HAS_ROOM}"))

    async def _work_comes(self) -> bool:
        while not self._is_wanted and not self._is_closing:
            self._news.clear()
            await self._news.wait()
        return self._is_wanted
