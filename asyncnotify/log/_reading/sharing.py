"""Sessions that all readers of a log share: each is borrowed for one query."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from asyncnotify.log._ports import LogSession, LogSessions, Statement

_MOST: Final = 4
"""Connections at once: a server does as many things as it has processors."""


class SharedSessions:
    """
    Runs queries on up to four connections; one who finds all of them in use waits for one.

    Connections that are idle are kept, the one used last first; those of a pool are given back.
    """

    def __init__(self, sessions: LogSessions) -> None:
        self._sessions = sessions
        self._idle: list[LogSession] = []
        self._free = asyncio.Semaphore(_MOST)
        self._is_closed = False
        self._losses = 0

    @property
    def losses(self) -> int:
        """How many connections have been lost. The next one may lead to another server."""
        idle, self._idle = self._idle, []
        self._idle = [session for session in idle if not self._is_lost(session)]
        return self._losses

    def _is_lost(self, session: LogSession) -> bool:
        """Return whether an idle session has ended; its connection is then closed, and counted."""
        if session.lost:
            session.terminate()  # so far only the server has ended it
            self._losses += 1
            return True
        return False

    async def fetch(self, statement: Statement, /, *arguments: object) -> Sequence[Any]:
        """Return the rows of the answer; raises as opening a session and ``fetch()`` on it do."""
        async with self._borrowed() as session:
            return await session.fetch(statement, *arguments)

    @asynccontextmanager
    async def _borrowed(self) -> AsyncGenerator[LogSession]:
        async with self._free:
            session = await self._session()
            try:
                yield session
            except BaseException:
                if session.lost:
                    self._losses += 1
                    await self._sessions.close(session)
                else:
                    await self._put_back(session)
                raise
            await self._put_back(session)

    async def _session(self) -> LogSession:
        while self._idle:
            session = self._idle.pop()
            if not self._is_lost(session):
                return session
        return await self._sessions.open()

    async def _put_back(self, session: LogSession) -> None:
        if self._sessions.keep and not self._is_closed:
            self._idle.append(session)
        else:
            await self._sessions.close(session)

    def terminate(self) -> None:
        """Drop what is idle now."""
        for session in self._idle:
            session.terminate()

    async def aclose(self) -> None:
        """Close what is idle now, and the others when they are put back."""
        self._is_closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*map(self._sessions.close, idle))
