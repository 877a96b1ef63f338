"""Sends numbered notifications, each in one transaction with the change that it tells."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from tests.chaos.changes import CHANNELS, FENCE, MARKS, Change
from tests.support.machine import scaled

if TYPE_CHECKING:
    import random

__all__ = ["LOST", "WAIT_LIMIT", "Sender"]

WAIT_LIMIT: Final = scaled(10.0)
"""Seconds after which what should have happened has not."""

LOST: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises when the server has gone."""

_SCHEMA: Final = """
    CREATE TABLE sent (number int PRIMARY KEY, channel text);
    CREATE TABLE things (channel text, key int, number int, PRIMARY KEY (channel, key));
"""
_PUT: Final = """
    WITH note AS (INSERT INTO sent VALUES ($1, $2)), change AS (
        INSERT INTO things VALUES ($2, $3, $1), ($2, -1, $1)
        ON CONFLICT (channel, key) DO UPDATE SET number = $1
    ) SELECT pg_notify($2, $4)
"""
_REMOVE: Final = """
    WITH note AS (INSERT INTO sent VALUES ($1, $2)), change AS (
        INSERT INTO things VALUES ($2, -1, $1)
        ON CONFLICT (channel, key) DO UPDATE SET number = $1
    ), removal AS (DELETE FROM things WHERE channel = $2 AND key = $3) SELECT pg_notify($2, $4)
"""


class Sender:
    """
    Sends one notification after the other, over as many connections as it takes.

    The number is written down in the same transaction: so the server knows exactly what was
    sent, whatever became of the connection.
    """

    def __init__(self, dsn: str, chance: random.Random) -> None:
        self._dsn = dsn
        self._chance = chance
        self._connection: asyncpg.Connection[Any] | None = None
        self.begun: int = 0
        self.committed_by: dict[int, float] = {}
        """By number: a time of the monotonic clock that is later than the commit."""
        self.pause = asyncio.Lock()
        """While somebody holds it, nothing is being sent."""

    async def prepare(self) -> None:
        """Make the tables."""
        await (await self._connected()).execute(_SCHEMA)

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            async with self.pause:
                with suppress(*LOST):
                    await self._send()
            await asyncio.sleep(0.001 if self._connection else 0.01)

    async def _send(self) -> None:
        channel = self._chance.choice(CHANNELS)
        self.begun += 1
        change = Change.draw(self.begun, self._chance)
        payload = change.payload()
        if channel in MARKS and self._chance.random() < 0.1:
            payload = MARKS[channel] + payload
        statement = _REMOVE if change.removed else _PUT
        await self._execute(statement, change.number, channel, change.key, payload)
        self.committed_by[change.number] = time.monotonic()

    async def fence(self) -> None:
        """Send a fence, again if it cannot be known whether it was sent."""
        while True:
            with suppress(*LOST):
                await self._execute("SELECT pg_notify($1, '')", FENCE)
                return
            await asyncio.sleep(0.01)

    async def sent(self) -> dict[str, list[int]]:
        """Return the numbers sent, by channel. To be called when no fault is left."""
        rows = await (await self._connected()).fetch("SELECT * FROM sent ORDER BY number")
        sent: dict[str, list[int]] = {channel: [] for channel in CHANNELS}
        for row in rows:
            sent[row["channel"]].append(row["number"])
        return sent

    async def _execute(self, statement: str, *arguments: object) -> None:
        connection = await self._connected()
        try:
            await connection.execute(statement, *arguments, timeout=WAIT_LIMIT)
        except BaseException:
            self.close()
            raise

    async def _connected(self) -> asyncpg.Connection[Any]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._dsn, timeout=WAIT_LIMIT)
        return self._connection

    def close(self) -> None:
        """Leave the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
