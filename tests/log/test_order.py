"""One order for all who read, whatever the transactions of those who append do."""

from __future__ import annotations

import asyncio
import random
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.log.conftest import Reader, append

if TYPE_CHECKING:
    import asyncpg

    from tests.log.conftest import Connect

WRITERS: Final = 8
READERS: Final = 3
TRANSACTIONS: Final = 60


class Writer:
    """Appends in transactions that wait, roll back and have savepoints; keeps what committed."""

    def __init__(self, number: int, connection: asyncpg.Connection[Any], seed: int) -> None:
        self.number = number
        self.committed: list[str] = []
        self._connection = connection
        self._random = random.Random(f"{seed} {number}")
        self._count = 0

    async def run(self) -> None:
        """Run all transactions."""
        for _ in range(TRANSACTIONS):
            transaction = self._connection.transaction()
            await transaction.start()
            sent = await self._some()
            if self._random.random() < 0.5:
                sent += await self._savepoint()
            if self._random.random() < 0.3:
                await self._connection.execute("SELECT pg_sleep(random() / 20)")
            sent += await self._some()
            if self._random.random() < 0.2:
                await transaction.rollback()
            else:
                await transaction.commit()
                self.committed += sent

    async def _some(self) -> list[str]:
        sent: list[str] = []
        for _ in range(self._random.randrange(4)):
            sent.append(f"{self.number}:{self._count}")
            self._count += 1
            await append(self._connection, sent[-1])
        return sent

    async def _savepoint(self) -> list[str]:
        savepoint = self._connection.transaction()
        await savepoint.start()
        sent = await self._some()
        if self._random.random() < 0.5:
            await savepoint.rollback()
            return []
        await savepoint.commit()
        return sent


async def read_until(reader: Reader, finished: asyncio.Event) -> list[str]:
    """Read until nothing new is to come."""
    read: list[str] = []
    while not finished.is_set():
        read += await reader.payloads()
    return read + await reader.payloads()


@pytest.mark.parametrize("seed", range(3))
async def test_all_readers_see_all_that_committed_in_one_order(
    reader: Reader, connect: Connect, seed: int
) -> None:
    """0 missing, 0 twice, 0 inversions of one writer's events, and the same order for three."""
    finished = asyncio.Event()
    async with asyncio.TaskGroup() as group:

        async def write(number: int) -> Writer:
            async with connect() as connection:
                writer = Writer(number, connection, seed)
                await writer.run()
                return writer

        async def read() -> list[str]:
            async with connect() as connection:
                return await read_until(Reader(connection), finished)

        readers = [group.create_task(read()) for _ in range(READERS)]
        writers = [group.create_task(write(number)) for number in range(WRITERS)]
        committed = [(await writer).committed for writer in writers]
        finished.set()
    first, *others = [task.result() for task in readers]
    assert sorted(first) == sorted(chain.from_iterable(committed))
    for number, sent in enumerate(committed):
        assert [payload for payload in first if payload.startswith(f"{number}:")] == sent
    assert all(other == first for other in others)


async def test_a_transaction_that_stays_open_delays_its_own_events_only(
    reader: Reader, connect: Connect
) -> None:
    """Others' events, older and newer, are read while it is open; its own come when it commits."""
    async with connect() as slow, connect() as fast:
        async with slow.transaction():
            await append(fast, "1")
            await append(slow, "slow")
            await append(fast, "2")
            assert await reader.payloads() == ["1", "2"]
            await append(fast, "3")
            assert await reader.payloads() == ["3"]
        await append(fast, "4")
        assert await reader.payloads() == ["slow", "4"]


async def test_what_was_rolled_back_is_no_hole(reader: Reader, connect: Connect) -> None:
    """A rolled back transaction leaves nothing, and its ids are no hole for readers."""
    async with connect() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await append(connection, "gone")
        await transaction.rollback()
        await append(connection, "there")
        assert await reader.payloads() == ["there"]


async def test_channels_are_chosen_at_the_server(reader: Reader, connect: Connect) -> None:
    """A reader of some channels gets their events, late ones too, in the common order."""
    async with connect() as slow, connect() as fast:
        some = Reader(fast, channels=["a", "b"])
        async with slow.transaction():
            await append(slow, "a1", channel="a")
            await append(slow, "c1", channel="c")
            await append(fast, "b1", channel="b")
            await append(fast, "c2", channel="c")
            assert await some.payloads() == ["b1"]
        assert await some.payloads() == ["a1"]
        assert await reader.payloads() == ["b1", "c2", "a1", "c1"]
