"""A history: writers of every kind, and readers that are stopped, killed and resumed."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

import pytest

from asyncnotify import ConnectionLostError
from asyncnotify.log import Event, Log, Position
from tests.log.writers import Writer, judge

if TYPE_CHECKING:
    from asyncnotify.log._names import Names
    from tests.log.conftest import Connect, Connection

pytestmark = pytest.mark.needs_server("processes, and a server that is killed")

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


async def consuming(dsn: str, seed: object) -> list[str]:
    """Consume to the last event under one name, by many consumers one after the other."""
    chance = random.Random(f"{seed}")
    seen: list[str] = []
    async with Log("orders", dsn, poll=0.2) as log:
        while not seen or seen[-1] != LAST:
            count = chance.randrange(1, 40)
            async with log.consumer(f"consumer {seed}") as consumer:
                async for event in consumer:
                    seen.append(event.payload)
                    count -= 1
                    if not count or event.payload == LAST:
                        break
    return seen[:-1]


def without_doubles(seen: list[str]) -> list[str]:
    """Return what was seen, each event where it came first; check that only stretches recur."""
    first: list[str] = []
    places: dict[str, int] = {}
    before = -1
    for payload in seen:
        place = places.get(payload)
        if place is None:
            assert before == len(first) - 1, "an event was skipped after a stretch that came again"
            place = places[payload] = len(first)
            first.append(payload)
        else:
            assert place <= before + 1, "an event was skipped where a stretch came again"
        before = place
    return first


class History:
    """Runs writers, and one who kills the log's sessions, until all is written."""

    def __init__(self, dsn: str, admin: Connection, connect: Connect, seed: int) -> None:
        self._dsn = dsn
        self._admin = admin
        self._connect = connect
        self._seed = seed
        self.committed: list[list[str]] = []

    async def _write(self, number: int) -> list[str]:
        async with self._connect() as connection:
            writer = Writer(number, connection, self._seed)
            await writer.run()
            return writer.committed

    async def run(self) -> None:
        """Write all; the last event comes last."""
        async with asyncio.TaskGroup() as group:
            killer = group.create_task(killing(self._admin))
            writers = [group.create_task(self._write(number)) for number in range(WRITERS)]
            self.committed = [await writer for writer in writers]
            killer.cancel()
        async with Log("orders", self._dsn) as log:
            await append_last(log)


@pytest.fixture(params=range(2))
def history(
    request: pytest.FixtureRequest, dsn: str, installed: Names, admin: Connection, connect: Connect
) -> History:
    """A history, with another seed each time."""
    return History(dsn, admin, connect, request.param)


async def test_readers_that_are_killed_and_resumed_see_all_in_one_order(
    dsn: str, history: History
) -> None:
    """0 missing, 0 twice, 0 inversions, one order for three readers, whatever is killed."""
    async with Log("orders", dsn, poll=0.2) as log, asyncio.TaskGroup() as group:
        readers = [group.create_task(resuming(log, n)) for n in range(READERS)]
        await history.run()
        found = [await reader for reader in readers]
    judge(history.committed, [seen for seen, _ in found])
    assert all(resumed > 5 for _, resumed in found)


async def test_consumers_that_are_killed_and_resumed_see_all_in_one_order(
    dsn: str, history: History
) -> None:
    """0 missing, 0 inversions, one order; only what was not committed comes again."""
    async with asyncio.TaskGroup() as group:
        consumers = [group.create_task(consuming(dsn, n)) for n in range(READERS)]
        await history.run()
        found = [await consumer for consumer in consumers]
    judge(history.committed, [without_doubles(seen) for seen in found])


async def test_what_a_transactional_handler_writes_is_there_once(
    dsn: str, history: History, admin: Connection, connect: Connect
) -> None:
    """0 missing, 0 doubles, 0 inversions in the table that two processes in turn project into."""
    await admin.execute(
        "CREATE TABLE effects (n bigint GENERATED ALWAYS AS IDENTITY, payload text)"
    )
    done = asyncio.Event()

    async def project(event: Event[str], connection: Connection) -> None:
        await connection.execute("INSERT INTO effects (payload) VALUES ($1)", event.payload)
        if event.payload == LAST:
            done.set()

    logs = [Log("orders", dsn, poll=0.2) for _ in range(2)]
    for log in logs:
        log.on("projection", transactional=True)(project)
    async with logs[0], logs[1]:
        await history.run()
        await done.wait()
    effects = [row[0] for row in await admin.fetch("SELECT payload FROM effects ORDER BY n")]
    assert effects.pop() == LAST
    judge(history.committed, [effects])


async def append_last(log: Log) -> None:
    """Append the last event, for certain: again if the connection was lost while it was sent."""
    while True:
        try:
            await log.append("things", LAST)
        except ConnectionLostError:
            continue
        return
