"""A history in which the server is killed again and again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from asyncnotify import ConnectError, ConnectionLostError
from asyncnotify.log import Event, Log

if TYPE_CHECKING:
    from asyncnotify.testing.server import PostgresServer

pytestmark = pytest.mark.needs_server("processes that are killed")

EVENTS_BETWEEN: Final = 60
BACKLOG: Final = 300
"""Events that writers may be ahead of those who read: so the end comes soon."""
WRITERS: Final = 3
LAST: Final = "end"


class CrashingHistory:
    """Writers that go on through crashes: what was appended for certain, and what perhaps."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.certain: dict[int, list[str]] = {n: [] for n in range(WRITERS)}
        self.in_doubt: set[str] = set()
        self.read: list[str] = []
        self.handled: set[str] = set()
        self.done = asyncio.Event()
        self._news = asyncio.Event()

    async def write(self, writer: int) -> None:
        """Append one event after another until told to stop."""
        count = 0
        while not self.done.is_set():
            await self._room()
            payload = f"{writer}:{count}"
            count += 1
            try:
                await self._log.append("things", payload)
            except ConnectError:
                await asyncio.sleep(0)  # nothing was appended: the server is starting
            except (ConnectionLostError, asyncpg.PostgresError):
                self.in_doubt.add(payload)
            else:
                self.certain[writer].append(payload)

    async def _room(self) -> None:
        """Return once those who read are not far behind."""
        while self.count - min(len(self.read), len(self.handled)) > BACKLOG:
            self._news.clear()
            await self._news.wait()

    async def all_read(self) -> None:
        """Return once the reader and the handler have had the last event."""
        while self.read[-1:] != [LAST] or LAST not in self.handled:
            self._news.clear()
            await self._news.wait()

    def note_read(self, payload: str) -> None:
        """Note an event of the reader's."""
        self.read.append(payload)
        self._news.set()

    def note_handled(self, payload: str) -> None:
        """Note an event of the handler's; its transaction may still be lost."""
        self.handled.add(payload)
        self._news.set()

    @property
    def count(self) -> int:
        """How many events were appended for certain."""
        return sum(map(len, self.certain.values()))

    def judge(self, seen: list[str]) -> None:
        """Check one sequence: all that is certain, once, in order; perhaps some in doubt."""
        assert len(set(seen)) == len(seen), "an event came twice"
        surely = [payload for payload in seen if payload not in self.in_doubt]
        for writer, sent in self.certain.items():
            assert [p for p in surely if p.startswith(f"{writer}:")] == sent
        assert len(surely) == self.count


@pytest.mark.parametrize(
    "kills", [4, pytest.param(300, marks=[pytest.mark.soak, pytest.mark.timeout(1_800)])]
)
async def test_nothing_is_lost_or_doubled_while_the_server_is_killed(
    own_server: PostgresServer, kills: int
) -> None:
    """By kill -9, many times: a reader sees all once, a transactional handler writes all once."""
    async with Log("orders", own_server.dsn, poll=0.2) as log:
        await log.install()
        await make_table(own_server.dsn)
        history = CrashingHistory(log)

        @log.on("projection", transactional=True)
        async def project(event: Event[str], connection: asyncpg.Connection[Any]) -> None:
            await connection.execute("INSERT INTO effects (payload) VALUES ($1)", event.payload)
            history.note_handled(event.payload)

        async def reading() -> None:
            async for event in log.read(after="start"):
                history.note_read(event.payload)

        await log.start()
        reader = asyncio.ensure_future(reading())
        writers = [asyncio.ensure_future(history.write(n)) for n in range(WRITERS)]
        for _ in range(kills):
            target = history.count + EVENTS_BETWEEN
            while history.count < target:
                await asyncio.wait(writers, timeout=0.01)
                assert not any(writer.done() for writer in writers), "a writer has failed"
            await asyncio.to_thread(own_server.kill)
            await asyncio.to_thread(own_server.start)
        history.done.set()
        await asyncio.gather(*writers)
        await log.append("things", LAST)
        await history.all_read()
    await reader
    effects = await effects_in(own_server.dsn)
    history.judge(history.read[:-1])
    assert effects == history.read


async def make_table(dsn: str) -> None:
    """Make the table that the handler writes to."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE effects (n serial, payload text)")
    await connection.close()


async def effects_in(dsn: str) -> list[str]:
    """Return what the handler has written, once it has been closed: its last call has ended."""
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch("SELECT payload FROM effects ORDER BY n")
    await connection.close()
    return [row[0] for row in rows]
