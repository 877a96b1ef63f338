"""A history on the server in memory: writers of every kind, and sessions that are lost."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from asyncnotify.log import Log
from asyncnotify.testing.fake import FakeServer
from tests.log.fake_connection import FakeConnection
from tests.log.test_history import (
    LAST,
    READERS,
    WRITERS,
    append_last,
    consuming,
    resuming,
    without_doubles,
)
from tests.log.writers import Writer, judge

if TYPE_CHECKING:
    from asyncnotify.log import Event


class History:
    """Runs writers, and loses one session of the logs after another, until all is written."""

    def __init__(self, fake: FakeServer, seed: int) -> None:
        self._fake = fake
        self._seed = seed
        self._random = random.Random(seed)
        self.committed: list[list[str]] = []
        self.lost = 0
        self._writing: list[FakeConnection] = []

    async def _write(self, number: int) -> list[str]:
        connection: Any = FakeConnection(self._fake)
        self._writing.append(connection)
        writer = Writer(number, connection, self._seed)
        await writer.run()
        await connection.close()
        return writer.committed

    async def _kill(self) -> None:
        while True:
            # Not the writers', who would not know what has committed
            writing = {connection.get_server_pid() for connection in self._writing}
            if pids := [pid for pid in self._fake.pids if pid not in writing]:
                self._fake.lose(self._random.choice(pids))
                self.lost += 1
            await asyncio.sleep(self._random.random() / 20)

    async def run(self) -> None:
        """Write all; the last event comes last."""
        async with asyncio.TaskGroup() as group:
            killer = group.create_task(self._kill())
            writers = [group.create_task(self._write(number)) for number in range(WRITERS)]
            self.committed = [await writer for writer in writers]
            killer.cancel()
        async with Log("orders", self._fake.dsn) as log:
            await append_last(log)


@pytest.fixture
def fake() -> FakeServer:
    """A server in memory."""
    return FakeServer()


@pytest_asyncio.fixture(params=range(2))
async def history(request: pytest.FixtureRequest, fake: FakeServer) -> History:
    """A history, with another seed each time."""
    async with Log("orders", fake.dsn) as log:
        await log.install()
    return History(fake, request.param)


async def test_readers_whose_sessions_are_lost_see_all_in_one_order(
    fake: FakeServer, history: History
) -> None:
    """0 missing, 0 twice, 0 inversions, one order for three readers."""
    async with Log("orders", fake.dsn, poll=0.2) as log, asyncio.TaskGroup() as group:
        readers = [group.create_task(resuming(log, n)) for n in range(READERS)]
        await history.run()
        found = [await reader for reader in readers]
    judge(history.committed, [seen for seen, _ in found])
    assert history.lost > 5


async def test_consumers_whose_sessions_are_lost_see_all_in_one_order(
    fake: FakeServer, history: History
) -> None:
    """0 missing, 0 inversions, one order; only what was not committed comes again."""
    async with asyncio.TaskGroup() as group:
        consumers = [group.create_task(consuming(fake.dsn, n)) for n in range(READERS)]
        await history.run()
        found = [await consumer for consumer in consumers]
    judge(history.committed, [without_doubles(seen) for seen in found])


async def test_what_a_transactional_handler_appends_is_there_once(
    fake: FakeServer, history: History
) -> None:
    """0 missing, 0 doubles, 0 inversions in what two logs in turn project into."""
    done = asyncio.Event()

    async def project(event: Event[str], connection: Any) -> None:
        await logs[0].append("effects", event.payload, connection=connection)
        if event.payload == LAST:
            done.set()

    logs = [Log("orders", fake.dsn, poll=0.2) for _ in range(2)]
    for log in logs:
        log.on("projection", "things", transactional=True)(project)
    async with logs[0], logs[1]:
        await history.run()
        await done.wait()
    async with Log("orders", fake.dsn) as log, log.read("effects", after="start") as stream:
        effects = [event.payload async for event in stream.until_end()]
    assert effects.pop() == LAST
    judge(history.committed, [effects])
