"""A history: writers of every kind, and readers that are stopped, killed and resumed."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

import pytest

from asyncnotify import ConnectionLostError
from asyncnotify.log import Log, Position
from tests.log.writers import Writer, judge

if TYPE_CHECKING:
    from asyncnotify.log._names import Names
    from tests.log.conftest import Connect, Connection

WRITERS: Final = 6
READERS: Final = 3
LAST: Final = "the last"
KILL: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'asyncnotify' AND datname = current_database()
    ORDER BY random() LIMIT 1
"""


async def resuming(log: Log, seed: object) -> tuple[list[str], int]:
    """Read to the last event by many readers, each of which begins where the one before ended."""
    chance = random.Random(f"{seed}")
    seen: list[str] = []
    after: str | None = None
    resumed = 0
    while not seen or seen[-1] != LAST:
        begin = "start" if after is None else Position.parse(after)
        count = chance.randrange(1, 40)
        async with log.read(after=begin) as stream:  # type: ignore[arg-type]
            while count and (not seen or seen[-1] != LAST):
                event = await anext(stream)
                seen.append(event.payload)
                after = str(event.position)
                count -= 1
        resumed += 1
    return seen[:-1], resumed


async def killing(admin: Connection) -> None:
    """End one of the log's sessions after another."""
    while True:
        await admin.execute(KILL)
        await admin.execute("SELECT pg_sleep(random() / 5)")


@pytest.mark.parametrize("seed", range(2))
async def test_readers_that_are_killed_and_resumed_see_all_in_one_order(
    dsn: str, installed: Names, admin: Connection, connect: Connect, seed: int
) -> None:
    """0 missing, 0 twice, 0 inversions, one order for three readers, whatever is killed."""
    async with Log("orders", dsn, poll=0.2) as log, asyncio.TaskGroup() as group:

        async def write(number: int) -> list[str]:
            async with connect() as connection:
                writer = Writer(number, connection, seed)
                await writer.run()
                return writer.committed

        readers = [group.create_task(resuming(log, (seed, n))) for n in range(READERS)]
        killer = group.create_task(killing(admin))
        writers = [group.create_task(write(number)) for number in range(WRITERS)]
        committed = [await writer for writer in writers]
        killer.cancel()
        await append_last(log)
        found = [await reader for reader in readers]
    judge(committed, [seen for seen, _ in found])
    assert all(resumed > 5 for _, resumed in found)


async def append_last(log: Log) -> None:
    """Append the last event, for certain: again if the connection was lost while it was sent."""
    while True:
        try:
            await log.append("things", LAST)
        except ConnectionLostError:
            continue
        return
