"""One order for all who read, whatever the transactions of those who append do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import pytest

from tests.log.conftest import Reader, append
from tests.log.writers import Writer, judge

if TYPE_CHECKING:
    from tests.log.conftest import Connect

WRITERS: Final = 8
READERS: Final = 3


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
    judge(committed, [task.result() for task in readers])


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
