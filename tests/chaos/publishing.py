"""
Three programs that publish among faults, also through a pooler, and a listener at the server.

Each call of a notifier has to tell the truth: what returned has been heard, what raised
ConnectError has not; only ConnectionLostError leaves that open. Beside them another program runs
statements of its own through the same pooler: a notifier must never run one of those.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from asyncnotify import (
    ConnectError,
    ConnectionLostError,
    ExponentialBackoff,
    Notifier,
    NotifyTimeoutError,
)
from asyncnotify.testing.proxy import FaultProxy
from tests.chaos import faults
from tests.chaos.judge.publishing import Call, Ledger, Outcome
from tests.chaos.sender import LOST, PATIENCE
from tests.support.pgbouncer import PgBouncer
from tests.support.server_faults import ServerFaults

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator

    from asyncnotify.testing.server import PostgresServer
    from tests.chaos.faults import Fault
    from tests.support.pgbouncer import PoolMode

__all__ = ["PublishingOutcome", "run_publishing"]

_FAULTS: Final[tuple[Fault, ...]] = (
    *(faults.reset, faults.close, faults.half_close, faults.swallow, faults.stutter),
    *(faults.forget, faults.refuse, faults.drop, faults.babble, faults.slow_down),
    *(faults.cut_anywhere, faults.block, faults.terminate, faults.freeze),
)
"""Those that do not end the server: the listener has to hear everything."""

_CHANNEL: Final = "published"
_PROGRAMS: Final = 3
_TASKS: Final = 6
_END_AFTER: Final = 60.0
_LIMITS: Final[dict[str, Any]] = {
    "connect_timeout": 1.0,
    "operation_timeout": 0.6,
    "retry_timeout": 0.4,
    "backoff": ExponentialBackoff(initial=0.01, cap=0.1),
}
_POOL: Final = {"default_pool_size": "2", "query_wait_timeout": "2", "max_client_conn": "100"}
"""Two connections for all the programs."""

_FOREIGN: Final = "INSERT INTO foreign_rows VALUES ($1, $2)"
"""Takes two texts, as notifying does: it can be executed in its place."""


@dataclass(frozen=True, slots=True)
class PublishingOutcome:
    """What became of everything."""

    seed: int
    seconds: float
    pooler: str
    faults: Counter[str]
    ledger: Ledger

    @property
    def broken(self) -> list[str]:
        """What does not hold, a line each; empty if all does."""
        return self.ledger.false

    def __str__(self) -> str:
        """Return the figures, a line each."""
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        head = (
            f"{self.faults.total()} faults of {len(self.faults)} kinds in {self.seconds:.0f} s,"
            f" pooler: {self.pooler}, seed {self.seed}: {kinds}"
        )
        counts = {**self.ledger.counts, "heard": len(self.ledger.heard)}
        counts["false outcomes"] = len(self.broken)
        return "\n".join([head, *(f"{name:<34}{count:>10,}" for name, count in counts.items())])


class Publishing:
    """The programs, and the faults between them and the server or the pooler."""

    def __init__(self, server: PostgresServer, proxy: FaultProxy, dsn: str, seed: int) -> None:
        self.server = server
        self.proxy = proxy
        self.chance = random.Random(seed)
        self.ledger = Ledger()
        self.injected: list[Fault] = []
        self._dsn = proxy.proxied_dsn(dsn)
        self._over = False
        self._fence = asyncio.Event()

    async def run(self, seconds: float) -> None:
        """Publish among faults for so many seconds, and until the last call has ended."""
        async with AsyncExitStack() as stack:
            listening = await self._listen(stack)
            async with asyncio.TaskGroup() as group:
                for program in range(_PROGRAMS):
                    group.create_task(self._program(program))
                group.create_task(self._other_program())
                await self._inject_faults(seconds)
                self._over = True
            await listening.execute("SELECT pg_notify($1, '')", _CHANNEL)
            async with asyncio.timeout(PATIENCE):
                await self._fence.wait()
            self.ledger.foreign_rows = await listening.fetchval(
                "SELECT count(*) FROM foreign_rows WHERE first <> 'other program'"
            )

    async def _listen(self, stack: AsyncExitStack) -> asyncpg.Connection[Any]:
        """Listen at the server, by plain asyncpg, past everything."""
        connection = await asyncpg.connect(self.server.dsn)
        stack.callback(connection.terminate)
        await connection.execute("CREATE TABLE foreign_rows (first text, second text)")

        def note(_connection: object, _pid: int, _channel: str, payload: object) -> None:
            if payload:
                self.ledger.heard.append(str(payload))
            else:
                self._fence.set()

        await connection.add_listener(_CHANNEL, note)
        return connection

    async def _program(self, program: int) -> None:
        async with Notifier(self._dsn, **_LIMITS) as notifier, asyncio.TaskGroup() as group:
            for number in range(_TASKS):
                group.create_task(self._publish(notifier, f"{program}.{number}"))

    async def _publish(self, notifier: Notifier, name: str) -> None:
        """Make one call after the other, of every kind; note what it tells."""
        chance = random.Random(name)
        number = 0
        while not self._over:
            number += 1
            kinds = (self._one, self._retried, self._many, self._in_transaction)
            (kind,) = chance.choices(kinds, weights=(30, 10, 10, 1))
            call = await kind(notifier, f"{name} {number}")
            self.ledger.calls += call
            await asyncio.sleep(chance.choice((0, 0.001, 0.01)))

    async def _one(self, notifier: Notifier, payload: str) -> list[Call]:
        outcome, told = await _outcome(notifier.notify(_CHANNEL, payload))
        return [Call(payload, outcome, told=told)]

    async def _retried(self, notifier: Notifier, payload: str) -> list[Call]:
        outcome, told = await _outcome(notifier.notify(_CHANNEL, payload, retry=True))
        return [Call(payload, outcome, repeats=True, told=told)]

    async def _many(self, notifier: Notifier, payload: str) -> list[Call]:
        payloads = [f"{payload}{letter}" for letter in "abc"]
        pairs = [(_CHANNEL, payload) for payload in payloads]
        outcome, told = await _outcome(notifier.notify_many(pairs))
        return [Call(payload, outcome, told=told) for payload in payloads]

    async def _in_transaction(self, notifier: Notifier, payload: str) -> list[Call]:
        """Send within a transaction, which commits or rolls back."""
        outcome = Outcome.REFUSED
        with suppress(*LOST):
            async with asyncio.timeout(2.0):
                connection = await asyncpg.connect(self._dsn, statement_cache_size=0)
                try:
                    await connection.execute("BEGIN")
                    await notifier.notify(_CHANNEL, payload, connection=connection)
                    if int(payload[-1]) % 2:
                        await connection.execute("ROLLBACK")
                    else:
                        outcome = Outcome.IN_DOUBT
                        await connection.execute("COMMIT")
                        outcome = Outcome.RETURNED
                finally:
                    connection.terminate()
        return [Call(payload, outcome, told="it was rolled back, or could not begin")]

    async def _other_program(self) -> None:
        """Be another program: with prepared statements, on connections that come and go."""
        while not self._over:
            with suppress(*LOST):
                connection = await asyncpg.connect(self._dsn, timeout=1.0)
                try:
                    for _ in range(20):
                        await connection.execute(_FOREIGN, "other program", "row", timeout=1.0)
                        await asyncio.sleep(0.005)
                finally:
                    connection.terminate()
            await asyncio.sleep(0.02)

    async def _inject_faults(self, seconds: float) -> None:
        """Inject one fault after the other; now and then everything is all right for a while."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for fault in self.chance.sample(_FAULTS, len(_FAULTS)):
                await fault(self)
                self.injected.append(fault)
                await asyncio.sleep(self.chance.uniform(0.02, 0.3))
                if self.chance.random() < 0.5:
                    self.proxy.heal()
        self.proxy.heal()

    async def sessions(self) -> list[int]:
        """Return the pids of the programs' sessions."""
        async with ServerFaults(self.server.dsn) as server_faults:
            return await server_faults.sessions()

    async def for_a_while(self, seconds: float) -> None:
        """Leave a fault in the network for this long."""
        await asyncio.sleep(seconds)
        self.proxy.heal()


async def _outcome(call: Awaitable[object]) -> tuple[Outcome, str]:
    try:
        await call
    except ConnectionLostError as error:
        return Outcome.IN_DOUBT, repr(error)
    except (ConnectError, NotifyTimeoutError) as error:
        return Outcome.REFUSED, repr(error)
    except Exception as error:  # noqa: BLE001 - the judge will say so
        return Outcome.UNEXPECTED, repr(error)
    return Outcome.RETURNED, ""


async def run_publishing(
    server: PostgresServer, *, seconds: float, seed: int, pooler: PoolMode | None = None
) -> PublishingOutcome:
    """
    Publish for so many seconds, at least, past faults; return what became of it.

    Args:
        server: Where to; nothing else may use it.
        seconds: How long.
        seed: Which faults are drawn.
        pooler: The mode of a PgBouncer with two connections to the server that all the programs
            share; None for no pooler.

    Raises:
        TimeoutError: What returned was not all heard in time, or a call did not end.
    """
    began = time.monotonic()
    with _pooler(server, pooler) as dsn:
        async with FaultProxy.for_dsn(dsn) as proxy:
            publishing = Publishing(server, proxy, dsn, seed)
            async with asyncio.timeout(seconds + _END_AFTER):
                await publishing.run(seconds)
    return PublishingOutcome(
        seed=seed,
        seconds=time.monotonic() - began,
        pooler=pooler or "none",
        faults=Counter(fault.__name__ for fault in publishing.injected),
        ledger=publishing.ledger,
    )


@contextmanager
def _pooler(server: PostgresServer, mode: PoolMode | None) -> Generator[str]:
    """Yield where the programs connect to."""
    if mode is None:
        yield server.dsn
        return
    with PgBouncer(server, pool_mode=mode, settings=_POOL) as bouncer:
        yield bouncer.dsn
