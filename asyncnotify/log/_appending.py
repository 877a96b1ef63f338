"""Appending on a connection of the log's own: calls that meet are sent together."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncnotify._asyncpg.failures import is_refusal
from asyncnotify._errors import ClosedError, ConnectionLostError, own_copy
from asyncnotify._tasks import cancel, start
from asyncnotify.log._held import HeldSession

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncnotify.log._entries import Entry
    from asyncnotify.log._ports import LogSessions

PORTION_COUNT: Final = 1_000
PORTION_BYTES: Final = 1_048_576
"""Entries and bytes that one statement takes; one entry that is larger goes alone."""


class _Group(NamedTuple):
    """What one caller appends with one call: all of it or nothing."""

    entries: Sequence[Entry]
    done: asyncio.Future[None]


class Appender:
    """
    Appends on one connection, which it opens when the first entry comes.

    A call that comes while a statement is in flight waits, and goes with the next one. What waits
    is held by callers that wait for it: there is no other queue.
    """

    def __init__(self, sessions: LogSessions, *, wake: bool) -> None:
        self._held = HeldSession(sessions)
        self._wake = wake
        self._waiting: deque[_Group] = deque()
        self._news = asyncio.Event()
        self._is_closing = False
        self._task = start(self._run(), name="asyncnotify log appender")

    async def append(self, entries: Sequence[Entry]) -> None:
        """
        Append entries, at least one, in one transaction; return once that has committed.

        What the server has certainly not had is sent again, on a new connection. After a cancelled
        call nobody knows whether they were appended.

        Raises:
            ConnectError: There is no connection: nothing was appended.
            ConnectionLostError: The connection died in flight: they may have been appended.
            ClosedError: The log has been closed.
            LogError: As of ``LogSession.fetch()``.
            asyncpg.PostgresError: The server refused them.
        """
        if self._is_closing:
            raise ClosedError(_CLOSED)
        group = _Group(entries, asyncio.get_running_loop().create_future())
        self._waiting.append(group)
        self._news.set()
        await group.done

    async def aclose(self, timeout: float) -> None:
        """Append what has been accepted, within these seconds, and close the connection."""
        self._is_closing = True
        self._news.set()
        try:
            await asyncio.wait({self._task}, timeout=timeout)
        finally:
            await cancel({self._task})

    async def _run(self) -> None:
        try:
            while self._waiting or not self._is_closing:
                self._news.clear()
                if self._waiting:
                    await self._append(self._portion())
                elif not self._is_closing:
                    await self._held.rest()
                    await self._news.wait()  # set, if something came while it rested
            await self._held.part()
        finally:
            self._is_closing = True
            self._held.terminate()
            _fail(self._waiting, ClosedError(_CLOSED))

    def _portion(self) -> list[_Group]:
        """Take what goes with the next statement."""
        groups = [self._waiting.popleft()]
        count, size = _measured(groups[0])
        while self._waiting:
            more, bytes_more = _measured(self._waiting[0])
            count, size = count + more, size + bytes_more
            if count > PORTION_COUNT or size > PORTION_BYTES:
                break
            groups.append(self._waiting.popleft())
        return groups

    async def _append(self, groups: list[_Group]) -> None:
        """Append in one transaction; if the server refuses that, each group in its own."""
        groups = [group for group in groups if not group.done.done()]
        if not groups:
            return
        try:
            entries = [entry for group in groups for entry in group.entries]
            await self._held.run(lambda session: session.append(entries, wake=self._wake))
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers are told
            await self._not_appended(groups, error)
        except BaseException:
            _fail(groups, ConnectionLostError("the log was closed while it appended"))
            raise
        else:
            _succeed(groups)

    async def _not_appended(self, groups: list[_Group], error: Exception) -> None:
        if len(groups) == 1 or not is_refusal(error):
            _fail(groups, error)
            return
        for group in groups:
            await self._append([group])


_CLOSED: Final = "the log has been closed"


def _measured(group: _Group) -> tuple[int, int]:
    return len(group.entries), sum(entry.size for entry in group.entries)


def _succeed(groups: Iterable[_Group]) -> None:
    for group in groups:
        if not group.done.done():
            group.done.set_result(None)


def _fail(groups: Iterable[_Group], error: Exception) -> None:
    for group in groups:
        if not group.done.done():
            group.done.set_exception(own_copy(error))
