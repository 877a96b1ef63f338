"""What all workloads share: the server, the connections to it, and the timeouts."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from asyncnotify.testing.server import PostgresServer
from benchmarks.launcher import PeerError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from benchmarks.programs import Program
    from benchmarks.results import Figures

T = TypeVar("T")

NUMBERS = "lpad(number::text, 32, '0')"
"""Payloads of 32 bytes, each of them once."""

START_TIME = 60.0
"""Seconds for a peer to be ready: some listen on 10,000 channels, one by one."""

_MICRO = 1e6
_QUIET_TIME = 10.0
_POLL = 0.01
_OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> ALL($1)
"""
_TERMINATE = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> ALL($1)
"""


@dataclass(slots=True)
class Environment:
    """
    What a workload runs in: the server, two connections to it, and the options of this run.

    Attributes:
        server: The PostgreSQL of this run.
        sender: A connection for the notifications that peers receive.
        killer: A second one.
        rounds: How often each peer is measured.
        quick: Whether to take smaller numbers.
        progress: Called with a line about what runs now.
        pythons: Further interpreters, by their version.
        large: Whether to take the largest numbers as well.
    """

    server: PostgresServer
    sender: asyncpg.Connection[Any]
    killer: asyncpg.Connection[Any]
    rounds: int
    quick: bool
    progress: Callable[[str], None]
    pythons: Mapping[str, str] = field(default_factory=dict)
    large: bool = False

    @property
    def dsn(self) -> str:
        """The database in which everything happens, for all without a question about TLS."""
        return f"{self.server.dsn}?sslmode=disable"

    def sized(self, full: T, quick: T) -> T:
        """Return the first, or the second in a quick run."""
        return quick if self.quick else full

    async def send(self, count: int, payload: str = NUMBERS) -> None:
        """Send a burst in one transaction; ``payload`` is SQL, in which ``number`` counts."""
        await self.sender.execute(
            f"SELECT count(pg_notify('bench', {payload}))"  # noqa: S608 - SQL of ours
            f" FROM generate_series(1, {count}) AS number"
        )

    async def quiet(self) -> None:
        """Return once nobody else is connected any more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_QUIET_TIME):
                while await self.sender.fetchval(_OTHERS, self._own_pids):  # noqa: ASYNC110
                    await asyncio.sleep(_POLL)

    async def kill_others(self) -> None:
        """Terminate every session that is not ours."""
        await self.killer.execute(_TERMINATE.replace("$1", f"'{{{self._own_list}}}'"))

    @property
    def _own_pids(self) -> list[int]:
        return [self.sender.get_server_pid(), self.killer.get_server_pid()]

    @property
    def _own_list(self) -> str:
        return ",".join(map(str, self._own_pids))

    async def burst(
        self,
        program: Program,
        count: int,
        *,
        payload: str = NUMBERS,
        within: float = 30.0,
        **arguments: object,
    ) -> Figures:
        """Return what a burst costs a peer, each notification, in microseconds."""
        await self.quiet()
        async with program.start(self.dsn, count=count, **arguments) as peer:
            await peer.receive("ready", START_TIME)
            await self.send(count, payload)
            done = await peer.receive("done", within)
        received = done["received"] + done.get("dropped", 0)
        if received != count:
            message = f"received {received:,} of {count:,}"
            raise PeerError(message)
        return per_item(done, count)


def per_item(done: Mapping[str, float], count: int) -> Figures:
    """Return what a peer has measured, in microseconds for each of its items."""
    figures = {name: float(value) for name, value in done.items()}
    for name in ("cpu", "wall", "decoding"):
        if name in figures:
            figures[name] *= _MICRO / count
    return figures


@contextlib.asynccontextmanager
async def set_up(
    *,
    rounds: int,
    quick: bool,
    progress: Callable[[str], None],
    pythons: Mapping[str, str],
    large: bool = False,
) -> AsyncGenerator[Environment]:
    """Run a server, with two connections to it."""
    progress("starting PostgreSQL")
    with PostgresServer(settings={"max_connections": "200"}) as server:
        sender, killer = await asyncpg.connect(server.dsn), await asyncpg.connect(server.dsn)
        try:
            yield Environment(server, sender, killer, rounds, quick, progress, pythons, large)
        finally:
            sender.terminate()
            killer.terminate()
