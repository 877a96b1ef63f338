"""
Three programs that publish among faults, also through a pooler, and a listener at the server.

One has connections of its own, one makes them by ``connect=``, one borrows them from a pool; all
send in transactions of other connections too. Each call of a notifier has to tell the truth: what
returned has been heard, what raised ConnectError has not; only ConnectionLostError leaves that
open. Beside them two other programs run statements of their own through the same pooler: a
notifier must never run one of those.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, suppress
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
from tests.chaos.judge.since import WallClock
from tests.chaos.other_program import OTHER, SCHEMA, WRONG_ROWS, OtherProgram
from tests.chaos.pooler import pooler_of, restarting
from tests.chaos.sender import WAIT_LIMIT
from tests.chaos.stepped_clock import stepping
from tests.chaos.transactions import FAILURES, KINDS_OF_TRANSACTION
from tests.support.machine import scaled
from tests.support.server_faults import ServerFaults

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Sequence
    from contextlib import AbstractAsyncContextManager

    from asyncnotify.testing.server import PostgresServer
    from tests.chaos.faults import Fault
    from tests.support.pgbouncer import PgBouncer, PoolMode

__all__ = ["PublishingOutcome", "run_publishing"]

_FAULTS: Final[tuple[Fault, ...]] = (
    *(faults.reset, faults.close, faults.half_close, faults.swallow, faults.stutter),
    *(faults.forget, faults.refuse, faults.drop, faults.babble, faults.slow_down),
    *(faults.cut_anywhere, faults.block, faults.terminate, faults.freeze),
)
"""Those that do not end the server: the listener has to hear everything."""

_CHANNEL: Final = "published"
_TASKS: Final = 6
_OTHERS: Final = 2
STATEMENTS: Final = 50
"""Of the other programs, which have to meet those of the notifiers: more than so many."""

RETURNED: Final = 1_000
"""Calls that have returned, at least, so that it means something that none of them was lost."""

_MORE: Final = scaled(30.0)
"""Seconds more, at most, where there were fewer: on a slow machine all takes longer."""

_END_AFTER: Final = 60.0 + _MORE
_LIMITS: Final[dict[str, Any]] = {
    "connect_timeout": 1.0,
    "operation_timeout": 0.6,
    "retry_timeout": 0.4,
    "backoff": ExponentialBackoff(initial=0.01, cap=0.1),
}
_CONNECTIONS: Final = 2
"""From the pooler to the server, for all the programs."""

_AS_OURS: Final[dict[str, Any]] = {"server_settings": {"application_name": "asyncnotify"}}
"""Lets faults find the sessions of connections that the programs make themselves."""


@dataclass(frozen=True, slots=True)
class PublishingOutcome:
    """What became of everything."""

    seed: int
    seconds: float
    pooler: str
    faults: Counter[str]
    ledger: Ledger
    committed: Counter[str]
    """How many transactions were committed, by the driver or SQLAlchemy."""
    foreign_statements: int
    """How many statements of the other programs succeeded."""

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
        counts |= {f"committed by {kind}": count for kind, count in self.committed.items()}
        counts["statements of other programs"] = self.foreign_statements
        counts["of them run by a notifier"] = self.ledger.foreign_rows
        counts["false outcomes"] = len(self.broken)
        return "\n".join([head, *(f"{name:<34}{count:>10,}" for name, count in counts.items())])


class Publishing:
    """The programs, and the faults between them and the server or the pooler."""

    def __init__(
        self, server: PostgresServer, proxy: FaultProxy, pooler: PgBouncer | None, seed: int
    ) -> None:
        self.server = server
        self.proxy = proxy
        self.chance = random.Random(seed)
        self.ledger = Ledger()
        self.injected: list[Fault] = []
        self._dsn = proxy.proxied_dsn((pooler or server).dsn)
        self._faults: Sequence[Fault] = (*_FAULTS, *((restarting(pooler),) if pooler else ()))
        self._is_pooled = pooler is not None
        self._over = False
        self._kinds_of_transaction = itertools.cycle(KINDS_OF_TRANSACTION)
        self.committed: Counter[str] = Counter()
        """How many transactions, by the driver or SQLAlchemy."""
        self._fence = asyncio.Event()
        self.others: list[OtherProgram] = [
            OtherProgram(self._dsn, random.Random(number), is_over=lambda: self._over)
            for number in range(_OTHERS)
        ]

    async def run(self, seconds: float) -> None:
        """Publish among faults for so many seconds, and until the last call has ended."""
        async with AsyncExitStack() as stack:
            listening = await self._listen(stack)
            async with asyncio.TaskGroup() as group:
                for program in (self._own, self._by_connect, self._by_pool):
                    group.create_task(self._program(program.__name__, program()))
                for other in self.others:
                    group.create_task(other.run())
                await self._inject_faults(seconds)
                self._over = True
            await listening.execute("SELECT pg_notify($1, '')", _CHANNEL)
            async with asyncio.timeout(WAIT_LIMIT):
                await self._fence.wait()
            self.ledger.foreign_rows = await listening.fetchval(WRONG_ROWS)

    async def _listen(self, stack: AsyncExitStack) -> asyncpg.Connection[Any]:
        """Listen at the server, by plain asyncpg, past everything."""
        connection = await asyncpg.connect(self.server.dsn)
        stack.callback(connection.terminate)
        await connection.execute(SCHEMA)

        def note(_connection: object, _pid: int, _channel: str, payload: object) -> None:
            if payload:
                self.ledger.heard.append(str(payload))
            else:
                self._fence.set()

        for channel in (_CHANNEL, OTHER):
            await connection.add_listener(channel, note)
        return connection

    @asynccontextmanager
    async def _own(self) -> AsyncGenerator[Notifier]:
        async with Notifier(self._dsn, **_LIMITS) as notifier:
            yield notifier

    @asynccontextmanager
    async def _by_connect(self) -> AsyncGenerator[Notifier]:
        async def connect() -> asyncpg.Connection[asyncpg.Record]:
            return await asyncpg.connect(self._dsn, **_AS_OURS)

        async with Notifier(connect=connect, **_LIMITS) as notifier:
            yield notifier

    @asynccontextmanager
    async def _by_pool(self) -> AsyncGenerator[Notifier]:
        pool = asyncpg.create_pool(self._dsn, min_size=0, max_size=2, **_AS_OURS)
        await pool
        try:
            async with Notifier(pool=pool, **_LIMITS) as notifier:
                yield notifier
        finally:
            pool.terminate()

    async def _program(self, name: str, opened: AbstractAsyncContextManager[Notifier]) -> None:
        async with opened as notifier, asyncio.TaskGroup() as group:
            for number in range(_TASKS):
                group.create_task(self._publish(notifier, f"{name}.{number}"))

    async def _publish(self, notifier: Notifier, name: str) -> None:
        """Make one call after the other, of every kind; note what it tells."""
        chance = random.Random(name)
        number = 0
        while not self._over:
            number += 1
            kinds = (self._one, self._retried, self._many, self._in_transaction)
            (kind,) = chance.choices(kinds, weights=(30, 10, 10, 2))
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
        with suppress(*FAILURES):
            async with (
                asyncio.timeout(2.0),
                next(self._kinds_of_transaction)(self._dsn) as transaction,
            ):
                await notifier.notify(_CHANNEL, payload, connection=transaction.connection)
                if int(payload[-1]) % 2:
                    await transaction.rollback()
                else:
                    outcome = Outcome.IN_DOUBT
                    await transaction.commit()
                    outcome = Outcome.RETURNED
                    self.committed[transaction.library] += 1
        return [Call(payload, outcome, told="it was rolled back, or could not begin")]

    async def _inject_faults(self, seconds: float) -> None:
        """Inject one fault after the other; now and then everything is all right for a while."""
        ends = time.monotonic() + seconds
        while (now := time.monotonic()) < ends or (self._is_too_little and now < ends + _MORE):
            for fault in self.chance.sample(self._faults, len(self._faults)):
                await fault(self)
                self.injected.append(fault)
                await asyncio.sleep(self.chance.uniform(0.02, 0.3))
                if self.chance.random() < 0.5:
                    self.proxy.heal()
        self.proxy.heal()

    @property
    def _is_too_little(self) -> bool:
        """Whether the programs have hardly come to run anything."""
        counts = self.ledger.counts
        kinds = (Outcome.REFUSED, Outcome.IN_DOUBT)
        if counts["returned"] < RETURNED or not all(counts[kind] for kind in kinds):
            return True
        return self._is_pooled and sum(other.succeeded for other in self.others) <= STATEMENTS

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
    server: PostgresServer,
    *,
    seconds: float,
    seed: int,
    pooler: PoolMode | None = None,
    stepped_clock: bool = False,
) -> PublishingOutcome:
    """
    Publish for so many seconds, at least, past faults; return what became of it.

    Args:
        server: Where to; nothing else may use it.
        seconds: How long.
        seed: Which faults are drawn.
        pooler: The mode of a PgBouncer with two connections to the server that all the programs
            share; None for no pooler.
        stepped_clock: Whether to step the wall clock, for which ``with_stepped_clock()`` has to
            have been called.

    Raises:
        TimeoutError: What returned was not all heard in time, or a call did not end.
    """
    began = time.monotonic()
    with pooler_of(server, pooler, connections=_CONNECTIONS) as bouncer:
        async with AsyncExitStack() as stack:
            if stepped_clock:
                await stack.enter_async_context(stepping(WallClock(), random.Random(seed)))
            proxy = await stack.enter_async_context(FaultProxy.for_dsn((bouncer or server).dsn))
            publishing = Publishing(server, proxy, bouncer, seed)
            async with asyncio.timeout(seconds + _END_AFTER):
                await publishing.run(seconds)
    return PublishingOutcome(
        seed=seed,
        seconds=time.monotonic() - began,
        pooler=pooler or "none",
        faults=Counter(fault.__name__ for fault in publishing.injected),
        ledger=publishing.ledger,
        committed=publishing.committed,
        foreign_statements=sum(other.succeeded for other in publishing.others),
    )
