"""Appending events, in a transaction of the caller's or of the log's own."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any, TypeVar, overload
from uuid import UUID

from asyncnotify import Channel
from asyncnotify._asyncpg.transactions import Call
from asyncnotify._notes import note_count
from asyncnotify.log._calls import append_call, append_within
from asyncnotify.log._entries import Entry, entry_of
from asyncnotify.log._methods.running import Running
from asyncnotify.log._portions import in_portions
from asyncnotify.log._ports import LogTransaction

T = TypeVar("T")


class Appending(Running):
    """The methods that append events, and wake those who read them."""

    @overload
    async def append(
        self,
        channel: str,
        payload: str = "",
        *,
        key: str | None = ...,
        headers: Mapping[str, str] | None = ...,
        connection: object = ...,
    ) -> UUID: ...

    @overload
    async def append(
        self,
        channel: Channel[T],
        payload: T,
        *,
        key: str | None = ...,
        headers: Mapping[str, str] | None = ...,
        connection: object = ...,
    ) -> UUID: ...

    async def append(
        self,
        channel: str | Channel[Any],
        payload: object = "",
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        connection: object = None,
    ) -> UUID:
        """
        Append an event; return its id.

        With ``connection`` the event is part of the caller's transaction: it is there once that
        commits, and never if that rolls back. Without, the call returns once the event has been
        committed; calls that meet share a transaction, and each gets the result of its own.

        After a cancelled call without ``connection`` nobody knows whether the event was appended.

        Args:
            channel: A name, or a Channel, which encodes the payload.
            payload: A text, or what the Channel encodes; up to 256 MB. One that compresses takes
                256 KiB.
            key: What the event is about, up to 1,024 bytes.
            headers: Texts by name, up to 64 KiB in all.
            connection: An asyncpg Connection (also one acquired from a pool), SQLAlchemy's
                AsyncConnection or AsyncSession, or psycopg's AsyncConnection. There is no deadline
                but those of the connection.

        Raises:
            ChannelNameError: The name is empty, over 63 bytes, or holds NUL or a lone surrogate.
            EntryError: The key or the headers cannot be stored.
            PayloadError: The payload cannot be encoded, or holds NUL or a lone surrogate.
            PayloadTooLargeError: The payload is too large.
            TypeError: ``connection`` is of another kind.
            NotInstalledError: The database has no such log.
            ConnectError: There is no connection: nothing was appended.
            ConnectionLostError: The connection died in flight: it may have been appended.
            StandbyError: The server is a standby.
            ClosedError: The log has been closed meanwhile.
            WrongLoopError: The call came from another event loop or process.
            Exception: What the server, or the driver of ``connection``, raises.
        """
        entry = entry_of(channel, payload, key, headers)
        await self._append([entry], connection)
        return entry.id

    async def append_many(
        self,
        events: Iterable[tuple[Any, ...]] | AsyncIterable[tuple[Any, ...]],
        *,
        connection: object = None,
    ) -> int:
        """
        Append many events, in their order; return how many.

        One statement for up to 1,000 events or 1 MiB. Without ``connection`` each of these is a
        transaction; the first failure ends the call, and a note on the exception says how many
        events have been appended before. After a cancelled call nobody knows whether the last of
        them was.

        Args:
            events: An iterable, or an asynchronous one, of tuples: channel and payload, and then
                the key and the headers where there are any, as ``append()`` takes them.
            connection: As for ``append()``: all events are part of its transaction.

        Raises:
            TypeError: ``events`` cannot be iterated over, or an element is not such a tuple.
            Exception: As of ``append()``, and what ``events`` raised.
        """
        appended = 0
        try:
            async for portion in in_portions(events):
                await self._append(portion, connection)
                appended += len(portion)
        except BaseException as error:
            note_count(error, appended, "events before it have been appended")
            raise
        return appended

    async def wake(self) -> None:
        """
        Wake those who read the log, by a NOTIFY; for use after a commit with ``wake="after"``.

        Returns at once: the notification is sent by a task, calls that meet send one.

        Raises:
            WrongLoopError: The call came from another event loop or process.
        """
        self._running().wake_readers()

    # -- inside -------------------------------------------------------------------------------

    async def _append(self, entries: list[Entry], connection: object) -> None:
        if connection is None:
            await self.append_entries(entries)
        else:
            await self.append_within(connection, entries)

    async def append_within(self, connection: object, entries: list[Entry]) -> None:
        """Append entries in the transaction of the caller's connection."""
        if isinstance(connection, LogTransaction):
            self.append_in(connection, entries)
        else:
            await append_within(connection, self._names, self.call_for(entries))

    def append_in(self, transaction: LogTransaction, entries: list[Entry]) -> None:
        """Append entries in a transaction at another source than PostgreSQL."""
        transaction.append(self.name, entries, wake=self._options.wake == "commit")

    def call_for(self, entries: list[Entry]) -> Call:
        """Return the call that appends entries in a transaction of the caller's."""
        return append_call(self._names, entries, wake=self._options.wake == "commit")

    async def append_entries(self, entries: list[Entry]) -> None:
        """Append entries on a connection of the log's own."""
        runtime = self._running()
        await runtime.appender().append(entries)
        if self._options.wake == "after":
            runtime.wake_readers()
