"""Those who append, in transactions of every kind, and what they know to have been committed."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from asyncnotify import AsyncNotifyError, ConnectError
from tests.chaos.sender import LOST

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator, Sequence

    from asyncnotify.log import Log

__all__ = ["APPLICATION", "CHANNELS", "SCHEMA", "WRITERS", "Ledger", "Writer"]

WRITERS: Final = 12
CHANNELS: Final = ("a", "b", "c")
APPLICATION: Final = "chaos writer"
_SHARED: Final = 6
"""Keys that all writers append events of."""

_OWN: Final = 3
"""Keys of one writer."""

_TIMEOUT: Final = 4.0
_PAUSE: Final = 0.05

SCHEMA: Final = """
    CREATE TABLE counters (key text PRIMARY KEY, n int NOT NULL) WITH (fillfactor = 50);
    CREATE TABLE sent (name text NOT NULL);
    CREATE TABLE effects (
        n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        consumer text, name text, epoch int, tick bigint, id bigint
    );
"""
"""``counters`` numbers the events of a key: its row is locked to the commit, so the numbers are in
the order of the commits. ``sent`` has a row for each event, written in its (sub)transaction."""

_COUNT: Final = """
    INSERT INTO counters AS c VALUES ($1, $2)
    ON CONFLICT (key) DO UPDATE SET n = c.n + $2 RETURNING n
"""
_NOTE: Final = "INSERT INTO sent SELECT unnest($1::text[])"


@dataclass(slots=True)
class Ledger:
    """
    What was appended.

    Attributes:
        committed: Names of events that are there for certain.
        doubtful: Names of those that may be there: the answer was lost.
        transactions: How many committed for certain, by kind.
    """

    committed: set[str] = field(default_factory=set[str])
    doubtful: set[str] = field(default_factory=set[str])
    transactions: dict[str, int] = field(default_factory=dict[str, int])

    def count(self, kind: str) -> None:
        """Count a transaction, or the end of one."""
        self.transactions[kind] = self.transactions.get(kind, 0) + 1


class Writer:
    """
    Appends until told to stop.

    Two of them hold each transaction open for long; two append without a transaction of their own.
    """

    def __init__(
        self,
        number: int,
        dsn: str,
        log: Log,
        ledger: Ledger,
        chance: random.Random,
        *,
        pause: float,
    ) -> None:
        self._number = number
        self._dsn = dsn
        self._log = log
        self._ledger = ledger
        self._chance = chance
        self._pause = pause
        self._is_slow = number < 2
        self._has_transactions = number < WRITERS - 2
        self._generation = 0
        self._count = 0
        self._stopping = False
        self._may_append = asyncio.Event()
        self._may_append.set()

    def stop(self) -> None:
        """Stop after the transaction that is under way."""
        self._stopping = True
        self._may_append.set()

    def pause(self) -> None:
        """Append nothing more after the transaction that is under way, until ``resume()``."""
        if not self._stopping:
            self._may_append.clear()

    def resume(self) -> None:
        """Append again, after ``pause()``."""
        self._may_append.set()

    async def run(self) -> None:
        """Append; go on after each loss of the connection."""
        while not self._stopping:
            if not self._has_transactions:
                await self._append_without()
                continue
            try:
                async with self._connection() as connection:
                    while not self._stopping:
                        await self._transaction(connection)
                        await self._rest()
            except (*LOST, TimeoutError):
                self._ledger.count("lost")
                await asyncio.sleep(_PAUSE)

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[asyncpg.Connection[Any]]:
        connection = await asyncpg.connect(
            self._dsn,
            timeout=_TIMEOUT,
            command_timeout=_TIMEOUT,
            server_settings={"application_name": APPLICATION},
        )
        try:
            yield connection
        finally:
            connection.terminate()

    async def _rest(self) -> None:
        await asyncio.sleep(self._chance.uniform(0.0, 2 * self._pause))
        await self._may_append.wait()

    # -- in transactions ----------------------------------------------------------------------

    async def _transaction(self, connection: asyncpg.Connection[Any]) -> None:
        """Append in one transaction, which may have savepoints, take long, and roll back."""
        transaction = connection.transaction()
        await transaction.start()
        for _ in range(self._chance.randrange(1, 4)):
            await self._some(connection)
            if self._chance.random() < 0.3:
                await self._savepoint(connection)
        if self._is_slow:
            await asyncio.sleep(self._chance.uniform(0.2, 2.0))
            await self._some(connection)
        if self._chance.random() < 0.15:
            await transaction.rollback()
            self._ledger.count("rolled back")
            return
        await transaction.commit()
        self._ledger.count("committed")

    async def _savepoint(self, connection: asyncpg.Connection[Any]) -> None:
        savepoint = connection.transaction()
        await savepoint.start()
        await self._some(connection)
        if self._chance.random() < 0.5:
            await savepoint.rollback()
            self._ledger.count("savepoints rolled back")
        else:
            await savepoint.commit()

    async def _some(self, connection: asyncpg.Connection[Any]) -> None:
        """Append an event, or many, of one key."""
        count = 1 if self._chance.random() < 0.8 else self._chance.randrange(2, 60)
        channel, key = self._key()
        last = await connection.fetchval(_COUNT, key, count)
        names = [f"{key} {n}" for n in range(last - count + 1, last + 1)]
        await connection.execute(_NOTE, names)
        await self._append(channel, key, names, connection)

    def _key(self) -> tuple[str, str]:
        """Draw a key: one writer in a slow transaction would hold up all others of a shared one."""
        channel = self._chance.choice(CHANNELS)
        if self._chance.random() < 0.2 and not self._is_slow:
            return channel, f"{channel}/shared{self._chance.randrange(_SHARED)}"
        return channel, f"{channel}/w{self._number}.{self._chance.randrange(_OWN)}"

    async def _append(
        self, channel: str, key: str, names: Sequence[str], connection: object
    ) -> None:
        if len(names) == 1:
            payload = self._payload(names[0])
            await self._log.append(channel, payload, key=key, connection=connection)
        else:
            events = [(channel, self._payload(name), key) for name in names]
            await self._log.append_many(events, connection=connection)

    def _payload(self, name: str) -> str:
        return f"{name}\n{'x' * 20_000}" if self._chance.random() < 0.01 else name

    # -- without ------------------------------------------------------------------------------

    async def _append_without(self) -> None:
        """Append on the log's own connection: begin a key anew when an answer was lost."""
        channel = self._chance.choice(CHANNELS)
        key = f"{channel}/own{self._number}.{self._generation}"
        count = 1 if self._chance.random() < 0.7 else self._chance.randrange(2, 30)
        names = [f"{key} {n}" for n in range(self._count + 1, self._count + count + 1)]
        self._count += count
        try:
            await self._append(channel, key, names, None)
        except ConnectError:
            self._ledger.count("lost")
            await asyncio.sleep(_PAUSE)  # nothing was appended: the server is not there
        except (AsyncNotifyError, asyncpg.PostgresError):
            self._ledger.doubtful.update(names)
            self._ledger.count("in doubt")
            self._generation += 1
        else:
            self._ledger.committed.update(names)
            self._ledger.count("of the log's own")
        await self._rest()
