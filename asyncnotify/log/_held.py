"""A session that is held as long as there is work for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from asyncnotify._errors import ConnectionLostError
from asyncnotify._tasks import sealed, start
from asyncnotify.log._sessions import is_unsent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asyncnotify.log._ports import LogSession, LogSessions, Queries, Statement

_MOST_UNSENT: Final = 3
"""Sessions that may end before anything is sent on them, until the caller is told."""

T = TypeVar("T")


async def until_sent(attempt: Callable[[], Awaitable[T]]) -> T:
    """Try, and try again if a session had ended before the server had the statement."""
    for _ in range(_MOST_UNSENT - 1):
        try:
            return await attempt()
        except Exception as error:
            if not is_unsent(error):
                raise
    return await attempt()


class UntilSent:
    """
    Queries each of which is sent, whether sessions have ended while they were idle or not.

    A task sends them, in an empty context: a session that is opened for one outlives the request
    in which that is asked, and must not be in its trace.
    """

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def fetch(self, statement: Statement, /, *arguments: Any) -> Sequence[Any]:  # noqa: ANN401 - as the driver
        """Return the rows of the answer; raises as those of ``queries`` do."""

        def fetch() -> Awaitable[Sequence[Any]]:
            return until_sent(lambda: self._queries.fetch(statement, *arguments))

        return (await start(sealed(fetch), name="asyncnotify log query")).open()


class HeldSession:
    """
    A session that is opened when there is work, and held until it is given back.

    Args:
        sessions: Opens it.
    """

    def __init__(self, sessions: LogSessions) -> None:
        self._sessions = sessions
        self._session: LogSession | None = None

    async def run(self, work: Callable[[LogSession], Awaitable[T]]) -> T:
        """
        Return what the work on the session returns.

        The work is done again, on a new session, if the server has certainly not had it.

        Raises:
            Exception: As of opening a session, and of the work.
        """
        return await until_sent(lambda: self._run(work))

    async def _run(self, work: Callable[[LogSession], Awaitable[T]]) -> T:
        if self._session is None or self._session.lost:
            await self._drop()
            self._session = await self._sessions.open(own=False)
        try:
            return await work(self._session)
        except ConnectionLostError:
            await self._drop()
            raise

    async def _drop(self) -> None:
        self.terminate()
        await self.part()

    async def rest(self) -> None:
        """Give the session back if such sessions are not kept: there is nothing to be done."""
        if not self._sessions.keep:
            await self.part()

    async def part(self) -> None:
        """Give the session back in good order."""
        session, self._session = self._session, None
        if session is not None:
            await self._sessions.close(session)

    def terminate(self) -> None:
        """Drop the connection at once."""
        if self._session is not None:
            self._session.terminate()
