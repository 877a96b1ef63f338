"""The log and its peers: what starts them, fills them, and how they append."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from asyncnotify.testing.server import PostgresServer
from benchmarks import programs
from benchmarks.environment import per_item
from benchmarks.launcher import PeerError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.environment import Environment
    from benchmarks.programs import Program
    from benchmarks.results import Figures

OURS: Final = "asyncnotify log"
PGMQ: Final = "pgmq"
PGQUEUER: Final = "pgqueuer"
PROCRASTINATE: Final = "procrastinate"
OLD_SNAPSHOT: Final = ", old snapshot"
"""Behind the name of one that was measured beside such a snapshot."""

_WITHIN: Final = 120.0
_FILL_TIME: Final = 1_800.0
_POLL: Final = 0.05
_SETTINGS: Final = {"max_connections": "300", "shared_buffers": "512MB"}
_OTHERS: Final = """
    SELECT count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> ALL($1)
"""
_WRITTEN: Final = """
    SELECT coalesce(sum(n_tup_ins), 0)::int8 AS added,
        coalesce(sum(n_tup_upd + n_tup_del), 0)::int8 AS dead
    FROM pg_stat_user_tables
    WHERE schemaname || '.' || relname ~ $1
"""


@dataclass(frozen=True, slots=True)
class Queue:
    """
    A library that keeps events in tables.

    Attributes:
        name: What stands in the table.
        program: What runs it.
        tables: A regular expression for the names of the tables that hold events.
        fraction: How many events it gets, of those that others get: it would take too long.
        most: The most that it takes at once.
    """

    name: str
    program: Program
    tables: str
    fraction: float = 1.0
    most: int = 1_000

    def share(self, count: int, batch: int) -> int:
        """Return how many of so many events it gets: some whole batches."""
        return max(int(count * self.fraction) // batch, 2) * batch


def queues() -> dict[str, Queue]:
    """Return the log and its peers, by their names."""
    packaged = programs.packaged
    all_of_them = (
        Queue(OURS, programs.python("asyncnotify_log"), r"^asyncnotify\.bench_events_"),
        Queue(PGMQ, packaged("pgmq_queue", "pgmq"), r"^pgmq\.q_bench$"),
        Queue(PGQUEUER, packaged("pgqueuer_jobs", "pgqueuer"), r"\.pgqueuer$", 0.2),
        Queue(
            PROCRASTINATE,
            packaged("procrastinate_jobs", "procrastinate"),
            r"\.procrastinate_jobs$",
            0.02,
            100,
        ),
    )
    return {queue.name: queue for queue in all_of_them}


@dataclass(frozen=True, slots=True)
class Bench:
    """
    A server for the log and its peers, and two connections to it.

    Attributes:
        environment: The options of this run.
        server: The server.
        admin: A connection.
        other: A second one.
        statements: What peers have said of how they append.
    """

    environment: Environment
    server: PostgresServer
    admin: asyncpg.Connection[Any]
    other: asyncpg.Connection[Any]
    statements: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def dsn(self) -> str:
        """The way to the server, for all without a question about TLS."""
        return f"{self.server.dsn}?sslmode=disable"

    async def ask(
        self,
        queue: Queue,
        workload: str,
        *,
        event: str = "done",
        within: float = _WITHIN,
        **arguments: object,
    ) -> Figures:
        """Return what a peer says at its end."""
        async with queue.program.start(self.dsn, workload=workload, **arguments) as peer:
            return await peer.receive(event, within)

    async def fill(self, queue: Queue, count: int, *, wake: str = "false") -> None:
        """Let a peer have so many events and no others; have tables cleaned up and analyzed."""
        await self.ask(queue, "fill", within=_FILL_TIME, count=count, wake=wake)
        await self.admin.execute("VACUUM ANALYZE")

    async def statement(self, queue: Queue, payload: str, *, wake: str = "true") -> str:
        """Return the SQL that appends a payload, which is SQL as well."""
        known = queue.name, wake
        if known not in self.statements:
            said: Any = await self.ask(queue, "statement", event="statement", wake=wake)
            self.statements[known] = said["sql"]
        return self.statements[known].replace("<payload>", f"({payload})")

    async def consume(
        self, queue: Queue, workload: str, count: int, batch: int, skip: int = 0
    ) -> Figures:
        """Return what it costs to consume so many events that are there, in microseconds each."""
        figures = await self.ask(queue, workload, count=count, batch=batch, skip=max(skip, batch))
        received = int(figures["received"])
        if received < count - batch:
            message = f"received {received:,} of {count:,}"
            raise PeerError(message)
        return {"rate": received / figures["wall"], **per_item(figures, received)}

    async def count_dead(self) -> None:
        """Begin to count dead rows."""
        await self.other.execute("SELECT pg_stat_reset()")

    async def dead_rows(self, queue: Queue, least: int) -> int:
        """Return how many versions of rows have died, once the server tells of so many new ones."""
        await self._alone()
        async with asyncio.timeout(_WITHIN):
            while True:
                row = await self.other.fetchrow(_WRITTEN, queue.tables)
                if row is not None and row["added"] >= least:
                    return int(row["dead"])
                await asyncio.sleep(_POLL)

    async def _alone(self) -> None:
        """Return once no other session is there: each tells what it has done at its end."""
        own = [self.admin.get_server_pid(), self.other.get_server_pid()]
        async with asyncio.timeout(_WITHIN):
            while await self.other.fetchval(_OTHERS, own):  # noqa: ASYNC110 - a server's table
                await asyncio.sleep(_POLL)


@contextlib.asynccontextmanager
async def set_up(environment: Environment, *, fsync: str = "on") -> AsyncGenerator[Bench]:
    """Run a server for the log and its peers."""
    with PostgresServer(settings={**_SETTINGS, "fsync": fsync}) as server:
        connect = functools.partial(asyncpg.connect, server.dsn)
        admin, other = await connect(), await connect()
        try:
            yield Bench(environment, server, admin, other)
        finally:
            admin.terminate()
            other.terminate()
