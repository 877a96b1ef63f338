"""
What chaos sends, and what its subscriptions saw.

Each number is written into a table in the transaction that notifies it, so that the table holds
exactly what was sent, whatever became of the connection.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import asyncpg

from asyncnotify import Gap, GapReason, Notification
from asyncnotify.testing.history import GAP, GapMark, Verdict, judge

if TYPE_CHECKING:
    import random

__all__ = ["ALL", "CHANNELS", "PATIENCE", "Record", "Sender"]

CHANNELS = ("orders", "stock", "people", "prices")
"""What is notified on."""

ALL = "all"
"""Stands for all of them."""

PATIENCE = 10.0
"""Seconds after which what should have happened has not."""

_LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Sender:
    """
    Numbers what it sends, and writes each number into a table in the same transaction.

    So the table holds exactly what was sent, whatever became of the connection.
    """

    def __init__(self, dsn: str, chance: random.Random) -> None:
        self._dsn = dsn
        self._chance = chance
        self._ended = asyncio.Event()
        self.begun: int = 0

    async def prepare(self) -> None:
        """Make the table."""
        connection = await asyncpg.connect(self._dsn)
        try:
            await connection.execute("CREATE TABLE sent (number int PRIMARY KEY, channel text)")
        finally:
            connection.terminate()

    async def run(self) -> None:
        """Send until told to end, over as many connections as it takes."""
        while not self._ended.is_set():
            with suppress(*_LOST):
                await self._send_on(await asyncpg.connect(self._dsn, timeout=PATIENCE))
            await asyncio.sleep(0.01)

    async def _send_on(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        try:
            while not self._ended.is_set():
                await self._send(connection, self._chance.choice(CHANNELS))
                await asyncio.sleep(0.001)
            for channel in CHANNELS:  # the last on each channel is one that must arrive
                await self._send(connection, channel)
        finally:
            connection.terminate()

    async def _send(self, connection: asyncpg.Connection[asyncpg.Record], channel: str) -> None:
        self.begun += 1
        await connection.execute(
            "WITH row AS (INSERT INTO sent VALUES ($1, $2) RETURNING *)"
            " SELECT pg_notify(channel, number::text) FROM row",
            self.begun,
            channel,
            timeout=PATIENCE,
        )

    def end(self) -> None:
        """Let it end, with a last notification on each channel."""
        self._ended.set()

    async def sent(self) -> dict[str, list[int]]:
        """Return what was sent, by channel; on all of them under ALL."""
        connection = await asyncpg.connect(self._dsn)
        try:
            rows = await connection.fetch("SELECT number, channel FROM sent ORDER BY number")
        finally:
            connection.terminate()
        sent: dict[str, list[int]] = {channel: [] for channel in (*CHANNELS, ALL)}
        for row in rows:
            sent[row["channel"]].append(row["number"])
            sent[ALL].append(row["number"])
        return sent


class Record:
    """
    What one subscription saw, in order.

    ``floor`` is the last number begun when it was told that it listens: every later one has to
    arrive, or to lie in a gap other than the one at the start.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.floor = 0
        self._seen: list[int | GapMark] = []
        self._reasons: list[GapReason] = []
        self._news = asyncio.Event()

    def note(self, item: Notification[str] | Gap) -> None:
        """Note what the subscription was given next."""
        if isinstance(item, Notification):
            self._seen.append(int(item.payload))
            self._news.set()
            return
        if self._reasons:
            self._seen.append(GAP)
        self._reasons.append(item.reason)

    async def until(self, number: int) -> None:
        """Wait until this number has come, or a later one."""
        while self._latest() < number:
            self._news.clear()
            await self._news.wait()

    def _latest(self) -> int:
        last = self._seen[-1] if self._seen else GAP
        return last if isinstance(last, int) else 0

    @property
    def begins_with_its_gap(self) -> bool:
        """Whether the first gap is that of the start, and no other is."""
        first, *others = self._reasons or [GapReason.START]
        return first is GapReason.START and GapReason.START not in others

    def verdict(self, sent: list[int]) -> Verdict:
        """Judge it by what was sent on its channel while it listened."""
        numbers = {item for item in self._seen if isinstance(item, int)}
        last = max(numbers, default=0)
        due = {number for number in sent if self.floor < number <= last}
        return judge(due | (numbers & set(sent)), self._seen)
