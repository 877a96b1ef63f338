"""A session that sends the next query of a walk while the last answer is still handled."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._tasks import retrieve, sealed, start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncnotify._tasks import Sealed
    from asyncnotify.log._ports import LogSession, LogSessions, SessionTransaction, Statement

_TURNS: Final = 2
"""Of the event loop, in which a statement is sent: one for the task that waits for the answer, and
one for that which a session runs under its deadline."""


class AheadSession:
    """
    A session, as those who serve a consumer use it: one thing at a time.

    While the client makes events of one answer, and the user handles them, the server reads what
    comes next. Whatever else is asked of the session waits until that has been answered.

    Args:
        session: The session.
    """

    def __init__(self, session: LogSession) -> None:
        self._session = session
        self._expected: tuple[object, ...] = ()
        self._answer: asyncio.Task[Sealed[Sequence[Any]]] | None = None

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be gone, or the server has ended it."""
        return self._session.lost

    @property
    def connection(self) -> Any:  # noqa: ANN401 - as LogSession
        """What a transactional handler is called with."""
        return self._session.connection

    def terminate(self) -> None:
        """Drop the connection at once, without waiting for anything."""
        self._session.terminate()
        if self._answer is not None:
            self._answer.cancel()

    async def expect(self, *query: Any) -> None:  # noqa: ANN401 - as LogSession.fetch()
        """Send the query of which the answer will be wanted. Raises nothing of it."""
        await self._settled()
        self._expected = query
        asking = sealed(partial(self._session.fetch, *query))
        self._answer = start(asking, name="asyncnotify log ahead")
        self._answer.add_done_callback(retrieve)
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def fetch(self, statement: Statement, /, *arguments: Any) -> Sequence[Any]:  # noqa: ANN401 - as LogSession
        """Return the rows of the answer, which may be there already; raises as the session."""
        answer = self._answer
        if answer is None or self._expected != (statement, *arguments):
            await self._settled()
            return await self._session.fetch(statement, *arguments)
        self._answer, self._expected = None, ()
        return (await answer).open()

    async def execute(self, statement: Statement, /) -> None:
        """Do what needs no argument and has no answer; raises as the session."""
        await self._settled()
        await self._session.execute(statement)

    async def begin(self) -> SessionTransaction:
        """Begin a transaction; raises as the session."""
        await self._settled()
        return await self._session.begin()

    async def close(self, sessions: LogSessions) -> None:
        """Give the session back to where it came from; raises as ``LogSessions.close()``."""
        try:
            await self._settled()
        except BaseException:
            self.terminate()
            raise
        finally:
            await sessions.close(self._session)

    async def _settled(self) -> None:
        """Return once nothing is asked of the session."""
        if self._answer is not None and not self._answer.done():
            await asyncio.wait({self._answer})
