"""A sender without a pause that records what it has sent, on each kind of connection."""

from __future__ import annotations

import abc
import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import asyncpg

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncnotify.testing.fake import FakeServer

NOTED: Final = """
    WITH noted AS (INSERT INTO numbers VALUES ($2) RETURNING 1)
    SELECT pg_notify($1, $2::text) FROM noted
"""
LAST: Final = "SELECT coalesce(max(number), 0) FROM numbers"


class Traffic(abc.ABC):
    """
    A publisher that commits the numbers 1, 2, 3, … on a channel, each with a row of it.

    Attributes:
        last: The last one that is known to have been committed.
        times: When each was known to have been committed.
    """

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._stopping = False
        self.last: int = 0
        self.times: dict[int, datetime] = {}

    async def run(self) -> None:
        """Publish until told to stop."""
        while not self._stopping:
            await self.publish(self.last + 1)
            self.last += 1
            self.times[self.last] = datetime.now(UTC)
            self._news.set()

    def stop(self) -> None:
        """End with the number that is under way."""
        self._stopping = True

    async def reaches(self, number: int) -> None:
        """Return once this number has been committed."""
        while self.last < number:
            self._news.clear()
            await self._news.wait()

    @abc.abstractmethod
    async def publish(self, number: int) -> None:
        """Commit a number."""

    @abc.abstractmethod
    async def read_state(self) -> int:
        """Return the last number that somebody finds who reads the rows now."""


class SqlTraffic(Traffic):
    """Writes rows, and reads them on another connection."""

    def __init__(
        self,
        channel: str,
        writer: asyncpg.Connection[asyncpg.Record],
        reader: asyncpg.Connection[asyncpg.Record],
    ) -> None:
        super().__init__()
        self._channel = channel
        self._writer = writer
        self._reader = reader

    async def publish(self, number: int) -> None:
        """Insert a number and notify, in one statement."""
        await self._writer.execute(NOTED, self._channel, number)

    async def read_state(self) -> int:
        """Return the largest number in the table."""
        number: int = await self._reader.fetchval(LAST)
        return number


class FakeTraffic(Traffic):
    """Has no rows: what has been committed is what somebody would find."""

    def __init__(self, channel: str, fake: FakeServer) -> None:
        super().__init__()
        self._channel = channel
        self._fake = fake
        self._committed = 0

    async def publish(self, number: int) -> None:
        """Notify, and take the turns of the event loop that a round trip takes."""
        self._fake.notify(self._channel, str(number))
        self._committed = number
        for _ in range(3):
            await asyncio.sleep(0)

    async def read_state(self) -> int:
        """Return the number that has been committed last."""
        return self._committed


@asynccontextmanager
async def running(traffic: Traffic) -> AsyncGenerator[Traffic]:
    """Publish for as long as the context lasts."""
    task = asyncio.create_task(traffic.run())
    try:
        yield traffic
    finally:
        traffic.stop()
        await task


@asynccontextmanager
async def connected(dsn: str) -> AsyncGenerator[asyncpg.Connection[asyncpg.Record]]:
    """Hold a plain connection for as long as the context lasts."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def sql_traffic(dsn: str, channel: str) -> AsyncGenerator[Traffic]:
    """Publish for as long as the context lasts, with a table of the numbers."""
    async with connected(dsn) as writer, connected(dsn) as reader:
        await writer.execute("CREATE TABLE numbers (number int)")
        try:
            async with running(SqlTraffic(channel, writer, reader)) as traffic:
                yield traffic
        finally:
            await writer.execute("DROP TABLE numbers")
