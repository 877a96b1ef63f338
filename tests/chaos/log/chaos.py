"""Everything at once: a server, writers, consumers in processes that are killed, and readers."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import asyncpg

from asyncnotify import AsyncNotifyError
from asyncnotify.log import Log
from tests.chaos.faults import FAULTS
from tests.chaos.judge.log_history import History, Rule
from tests.chaos.log.database import (
    answered,
    committed,
    connected,
    end_writers,
    farthest_behind,
    read_effects,
    watch_cursors,
    without_effect,
)
from tests.chaos.log.process import BUCKETS, LIMITS, LOG
from tests.chaos.log.processes import Killed
from tests.chaos.log.readers import LAST, SOUGHT, Reader, Sought
from tests.chaos.log.recorded import ends_with, entries_in
from tests.chaos.log.writers import APPLICATION, SCHEMA, WRITERS, Ledger, Writer
from tests.chaos.sender import LOST
from tests.support.server_faults import ServerFaults

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from asyncnotify.testing.proxy import FaultProxy
    from asyncnotify.testing.server import PostgresServer
    from tests.chaos.faults import Fault, Target
    from tests.chaos.log.failover import Servers

__all__ = ["LogChaos"]

_RULES: Final = {"plain": Rule.COMMITTED, "batches": Rule.BATCHES}
_SHARED: Final = ("transactional", "transactional 2", "bucketed", "bucketed 2")
"""Two processes of one name: one waits until the other dies, or they share the buckets."""

_HEALED_AFTER: Final = 3
"""Faults; some hold a connection for ever, and with it a lock."""

_NO_PROGRESS: Final = 60.0
"""Seconds in which somebody has to get on, once nothing is broken any more."""

_FAR: Final = 10_000
"""Events behind, at which writers pause: they outrun a consumer that commits each one by itself."""

_MORE: Final = 90.0
"""Seconds more, at most, where little has happened in the time that was given."""

_QUICK: Final[dict[str, Any]] = {"retention": timedelta(seconds=3), "ring": 4}


class LogChaos:
    """
    A log with all who append to it, read it and consume it.

    Attributes:
        ledger: What was appended.
        histories: What each has seen; complete after ``end()``.
        bucketed: The same of the one whose buckets processes share: in order by key only.
        sought: The consumer whose cursor is moved.
        emptied: How many partitions retention has emptied.
    """

    def __init__(
        self,
        servers: Servers,
        chance: random.Random,
        *,
        seconds: float,
        retention: bool,
    ) -> None:
        self._servers = servers
        self.chance = chance  # of the faults alone
        self.ledger = Ledger()
        self.histories: list[History] = []
        self.bucketed = History("bucketed", Rule.ONCE)
        self.emptied = 0
        self._seconds = seconds
        self._retention = retention
        self._lives = (0.2, 1.5) if seconds < 60 else (1.0, 7.0)
        self._others = random.Random(chance.random())
        self._direct, self._proxied = servers.dsn, servers.proxied_dsn
        self._log = Log(LOG, self._proxied, **LIMITS)
        self._operator = Log(LOG, self._direct, **LIMITS)
        self._appending = Log(LOG, connect=self._connect_to_append, **LIMITS)
        self._folder = tempfile.TemporaryDirectory(prefix="asyncnotify-chaos-")
        self._stack = AsyncExitStack()
        self._killed: dict[str, Killed] = {}
        self._writers: list[Writer] = []
        self._readers: list[Reader] = []
        self._writing: list[asyncio.Task[None]] = []
        self._reading: list[asyncio.Task[None]] = []
        self._disturbing: list[asyncio.Task[None]] = []
        self._failed: asyncio.Future[None] | None = None
        self.sought = Sought(self._proxied, self._others, expires=retention)

    @property
    def server(self) -> PostgresServer:
        """The server that takes writes."""
        return self._servers.primary

    @property
    def proxy(self) -> FaultProxy:
        """What leads to it."""
        return self._servers.proxy

    async def _connect_to_append(self) -> asyncpg.Connection[Any]:
        settings = {"application_name": APPLICATION}
        return await asyncpg.connect(self._proxied, timeout=2.0, server_settings=settings)

    async def __aenter__(self) -> Self:
        """Install the log, and begin to append and to consume."""
        async with self._stack:
            await self._begin()
            self._stack = self._stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _begin(self) -> None:
        self._stack.callback(self._folder.cleanup)
        await self._operator.install(**(_QUICK if self._retention else {}))
        for log in (self._log, self._operator, self._appending):
            await self._stack.enter_async_context(log)
        self._stack.push_async_callback(self._cancel_tasks)
        async with connected(self._direct) as connection:
            await connection.execute(SCHEMA)
        for name in (*_RULES, "transactional", SOUGHT):
            async with self._operator.consumer(name):
                pass  # before anything is appended, so that all is kept for it
        async with self._operator.consumer("bucketed", buckets=BUCKETS):
            pass
        self._begin_to_consume()
        self._begin_to_read()
        self._begin_to_append()

    def _begin_to_consume(self) -> None:
        for name in (*_RULES, *_SHARED):
            path = Path(self._folder.name, name)
            kind = name.partition(" ")[0]
            killed = Killed(kind, self._proxied, path, self._others, self._lives)
            self._killed[name] = killed
            self._start(killed.run(), self._disturbing)
        for name, rule in _RULES.items():
            self.histories.append(History(name, rule))
        cursors = {history.name: history.cursors for history in self.histories}
        self._start(watch_cursors(self._direct, cursors), self._disturbing)

    def _begin_to_read(self) -> None:
        expiring = self._retention
        for name, channel, rest in (
            ("reader", None, 0.2),
            ("reader of a", "a", 0.5),
            ("slow reader", None, 8.0 if expiring else 2.0),
        ):
            reader = Reader(name, self._log, self._others, channel, rest)
            self._readers.append(reader)
            self.histories.append(reader.history)
            self._start(reader.run(), self._reading)
        self._start(self.sought.run(), self._reading)
        pace = min(5.0, self._seconds / 10)
        self._start(self.sought.disturb(self._operator, pace), self._disturbing)
        if expiring:
            self._start(self._expire(), self._disturbing)

    def _begin_to_append(self) -> None:
        for number in range(WRITERS):
            dsn = self._proxied if number % 2 else self._direct
            writer = Writer(*(number, dsn, self._appending, self.ledger, self._others), pause=0.15)
            self._writers.append(writer)
            self._start(writer.run(), self._writing)
        self._start(self._pace_writers(), self._disturbing)

    def _start(self, work: Coroutine[Any, Any, None], tasks: list[asyncio.Task[None]]) -> None:
        tasks.append(asyncio.create_task(work))

    async def _cancel_tasks(self) -> None:
        tasks = [*self._writing, *self._reading, *self._disturbing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pace_writers(self) -> None:
        """Let consumers keep up: else the end would take longer than all that came before."""
        while True:
            with suppress(*LOST, TimeoutError):
                behind = await farthest_behind(self._direct, except_for=SOUGHT)
                for writer in self._writers:
                    if behind > _FAR:
                        writer.pause()
                    else:
                        writer.resume()
            await asyncio.sleep(1.0)

    async def _expire(self) -> None:
        """Remove old events all the time."""
        while True:
            with suppress(AsyncNotifyError, asyncpg.PostgresError):
                self.emptied += await self._operator.expire()
            await asyncio.sleep(0.3)

    # -- faults -------------------------------------------------------------------------------

    async def inject_faults(self) -> list[Fault]:
        """
        Inject one fault after the other, each kind as often as the others.

        Raises:
            Exception: That of somebody who has ended.
        """
        injected: list[Fault] = []
        ends = time.monotonic() + self._seconds
        for fault in self._draw_faults():
            await fault(self)
            injected.append(fault)
            await asyncio.sleep(self.chance.uniform(0.05, 0.6))
            if len(injected) % _HEALED_AFTER == 0:
                self._servers.heal()
                await asyncio.sleep(self.chance.uniform(0.0, 1.0))
            self._check_tasks()
            now = time.monotonic()
            if now > ends and (self._is_enough or now > ends + _MORE):
                break
        return injected

    @property
    def _is_enough(self) -> bool:
        """Whether something can be judged; a slow machine takes longer than it is given."""
        return sum(self.kills.values()) > 2 and self.sought.is_disturbed

    def _draw_faults(self) -> Iterator[Fault]:
        faults: list[Fault] = [*FAULTS]
        if self._servers.has_standby:
            yield self._fail_over  # a slow machine may come to few of the others
            faults += [self._fail_over] * 2
        while True:
            yield from self.chance.sample(faults, len(faults))

    async def _fail_over(self, _: Target) -> None:
        """Kill the server, and let the standby take its place."""
        await self._servers.fail_over()

    def _check_tasks(self) -> None:
        """Raise what has ended a task that is not to end."""
        for task in (*self._writing, *self._reading, *self._disturbing):
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error

    async def sessions(self) -> list[int]:
        """Return the pids of the log's sessions, in no order; none if nobody answers."""
        with suppress(*LOST, TimeoutError):
            async with ServerFaults(self._direct) as faults:
                return await faults.sessions()
        return []

    async def for_a_while(self, seconds: float) -> None:
        """Leave a fault in the network for this long."""
        await asyncio.sleep(seconds)
        self.proxy.heal()

    # -- the end ------------------------------------------------------------------------------

    @property
    def kills(self) -> dict[str, int]:
        """How many processes were killed, by name."""
        return {name: killed.kills for name, killed in self._killed.items()}

    @property
    def streams(self) -> int:
        """How many streams the readers have read with."""
        return sum(reader.streams for reader in self._readers)

    async def end(self) -> None:
        """
        Heal everything, append the last event, and wait until everybody has had it.

        Raises:
            TimeoutError: Somebody does not get on.
        """
        self._servers.heal()
        for killed in self._killed.values():
            killed.spare()
        await self._end_writing()
        await self.sought.leave_alone(self._operator)
        await self._operator.append("a", LAST, key="a/last")
        self.ledger.committed.add(LAST)
        await self._until_all_have_all()
        for history in self.histories:
            if history.name in _RULES:
                history.entries += entries_in(self._killed[history.name].path)
        self.histories.append(await read_effects(self._direct, "transactional"))
        self.bucketed = await read_effects(self._direct, "bucketed")

    async def _end_writing(self) -> None:
        """Let no transaction be open, and learn which were committed."""
        for writer in self._writers:
            writer.stop()
        await asyncio.gather(*self._writing)
        await self._appending.aclose()
        await answered(lambda: end_writers(self._direct))
        self.ledger.committed |= await answered(lambda: committed(self._direct))

    async def _until_all_have_all(self) -> None:
        """Wait as long as anybody gets on."""
        progress, since = -1, time.monotonic()
        while behind := await self._behind():
            if (now := self._progress()) != progress:
                progress, since = now, time.monotonic()
            elif time.monotonic() - since > _NO_PROGRESS:
                message = f"nobody gets on, and these are behind: {', '.join(behind)}"
                raise TimeoutError(message)
            await asyncio.sleep(0.1)
            self._check_tasks()

    async def _behind(self) -> list[str]:
        """Return who has not had the last event."""
        behind = [n for n in _RULES if not ends_with(self._killed[n].path, LAST)]
        behind += await answered(lambda: without_effect(self._direct, LAST))
        names = [*(reader.history.name for reader in self._readers), SOUGHT]
        return behind + [n for n, task in zip(names, self._reading, strict=True) if not task.done()]

    def _progress(self) -> int:
        """Return a number that grows when somebody has seen something."""
        sizes = [killed.size for killed in self._killed.values()]
        histories = [*(reader.history for reader in self._readers), self.sought.history]
        return sum(sizes) + sum(len(history.entries) for history in histories)
