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

EVENTS_BETWEEN: Final = 60
WRITERS: Final = 3


class CrashingHistory:
    """Writers that go on through crashes: what was appended for certain, and what perhaps."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.certain: dict[int, list[str]] = {n: [] for n in range(WRITERS)}
        self.in_doubt: set[str] = set()
        self.done = asyncio.Event()

    async def write(self, writer: int) -> None:
        """Append one event after another until told to stop."""
        count = 0
        while not self.done.is_set():
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
        connection = await asyncpg.connect(own_server.dsn)
        await connection.execute("CREATE TABLE effects (n serial, payload text)")
        history = CrashingHistory(log)
        read: list[str] = []

        @log.on("projection", transactional=True)
        async def project(event: Event[str], connection: asyncpg.Connection[Any]) -> None:
            await connection.execute("INSERT INTO effects (payload) VALUES ($1)", event.payload)

        async def reading() -> None:
            async for event in log.read(after="start"):
                read.append(event.payload)
                if event.payload == "end":
                    return

        await log.start()
        reader = asyncio.ensure_future(reading())
        writers = [asyncio.ensure_future(history.write(n)) for n in range(WRITERS)]
        for _ in range(kills):
            target = history.count + EVENTS_BETWEEN
            while history.count < target:
                await asyncio.wait(writers, timeout=0.01)
            await asyncio.to_thread(own_server.kill)
            await asyncio.to_thread(own_server.start)
        history.done.set()
        await asyncio.gather(*writers)
        await log.append("things", "end")
        await reader
        connection = await asyncpg.connect(own_server.dsn)
        query = "SELECT payload FROM effects ORDER BY n"
        effects: list[str] = []
        while effects[-1:] != ["end"]:
            effects = [row[0] for row in await connection.fetch(query)]
        await connection.close()
    history.judge([payload for payload in read if payload != "end"])
    assert effects == read
