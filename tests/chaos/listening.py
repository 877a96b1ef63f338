"""Everything at once: a server, listeners by a DSN and by connect=, consumers, faults."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, Self

import asyncpg

from asyncnotify import ExponentialBackoff, Listener, ListenTimeoutError, Reconnected
from tests.chaos.changes import CHANNELS, Change
from tests.chaos.consumers import Context, handlers
from tests.chaos.faults import FAULTS
from tests.chaos.fences import Fences
from tests.chaos.judge.numbers import Record
from tests.chaos.judge.since import WallClock
from tests.chaos.judge.table import Table
from tests.chaos.sender import Sender
from tests.chaos.stepped_clock import stepping
from tests.chaos.streams import streams
from tests.support.machine import scaled
from tests.support.server_faults import ServerFaults

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncnotify import ConnectionEvent, Gap, Notification
    from asyncnotify.testing.proxy import FaultProxy
    from asyncnotify.testing.server import PostgresServer
    from tests.chaos.consumers import Consumer
    from tests.chaos.faults import Fault

__all__ = ["Chaos"]

_CAP: Final = 0.2
_LIMITS: Final[dict[str, Any]] = {
    "heartbeat": 0.3,
    "heartbeat_timeout": 0.3,
    "connect_timeout": 0.5,
    "backoff": ExponentialBackoff(initial=0.01, cap=_CAP),
}
_FAULTS_BETWEEN_FENCES: Final = 6


class Chaos:
    """Listeners by a DSN, by connect= and past the faulty network, with consumers of every kind."""

    def __init__(
        self,
        server: PostgresServer,
        proxy: FaultProxy,
        chance: random.Random,
        *,
        faults: Sequence[Fault] = FAULTS,
        stepped_clock: bool = False,
    ) -> None:
        self.server = server
        self.proxy = proxy
        self.chance = chance  # of the faults alone: others draw as often as they get to run
        self._chance_of_others = random.Random(chance.random())
        self.clock = WallClock()
        self.sender: Sender = Sender(server.dsn, self._chance_of_others)
        self.table: Table = Table(server.dsn)
        self.consumers: list[Consumer] = []
        self.passing: list[Record] = []
        self.recoveries: list[float] = []
        self._context = Context(self.table, self.sender, self._chance_of_others)
        self.fences = Fences(self._context, self.consumers)
        self._stack = AsyncExitStack()
        self._faults = faults
        self._stepped_clock = stepped_clock
        self._sending: asyncio.Task[None] | None = None
        self._churning: list[asyncio.Task[None]] = []
        self._listeners = self._new_listeners(proxy.proxied_dsn(server.dsn))

    def _new_listeners(self, proxied: str) -> tuple[Listener, ...]:
        async def connect() -> asyncpg.Connection[asyncpg.Record]:
            settings = {"application_name": "asyncnotify"}
            return await asyncpg.connect(proxied, server_settings=settings)

        limits: dict[str, Any] = {**_LIMITS, "on_event": self._note_recovery}
        return (
            Listener(self.server.dsn, **limits),
            Listener(proxied, max_connection_age=0.3, **limits),
            Listener(connect=connect, max_connection_age=0.5, **limits),
        )

    def _note_recovery(self, event: ConnectionEvent) -> None:
        if isinstance(event, Reconnected):
            self.recoveries.append(event.downtime)

    async def __aenter__(self) -> Self:
        """Let everybody listen, and the sender send."""
        async with self._stack:
            await self._begin()
            self._stack = self._stack.pop_all()
        return self

    async def _begin(self) -> None:
        self._stack.callback(self.table.close)
        self._stack.callback(self.sender.close)
        await self.sender.prepare()
        for listener in self._listeners:
            await self._stack.enter_async_context(listener)
            self._stack.push_async_callback(self._cancel_tasks)
            await self.fences.listen(listener)
            for consumer in (*handlers(self._context), *streams(self._context)):
                self.consumers.append(consumer)
                await consumer.start(listener)
        self._sending = asyncio.create_task(self.sender.run())
        if self._stepped_clock:
            steps = stepping(self.clock, self._chance_of_others)
            await self._stack.enter_async_context(steps)
        self._churning = [
            asyncio.create_task(self._churn(listener, random.Random(seed)))
            for seed in range(2)
            for listener in self._listeners
        ]

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _cancel_tasks(self) -> None:
        readers = [consumer.task for consumer in self.consumers]
        tasks = [t for t in (self._sending, *self._churning, *readers) if t is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _churn(self, listener: Listener, chance: random.Random) -> None:
        """Listen for a moment, time and again."""
        while True:
            record = Record(chance.choice(CHANNELS))

            def note(n: Notification[str], record: Record = record) -> None:
                record.saw(Change.of(n).number)

            async def resync(gap: Gap, record: Record = record) -> None:
                record.tell(gap)

            with suppress(ListenTimeoutError):
                subscription = await listener.listen(
                    record.channels[0], note, resync=resync, timeout=1.0
                )
                record.floor = self.sender.begun
                self.passing.append(record)
                await asyncio.sleep(chance.uniform(0.0, 0.3))
                await subscription.cancel()

    async def inject_faults(self, seconds: float, recoveries: int) -> list[Fault]:
        """
        Inject one fault after the other, each kind as often as the others; fences between.

        It ends after so many seconds, once each kind has been injected, and there were so many
        recoveries.
        """
        injected: list[Fault] = []
        ends = time.monotonic() + seconds
        for fault in self._draw_faults():
            await fault(self)
            injected.append(fault)
            await asyncio.sleep(self.chance.uniform(0.02, 0.2))
            if len(injected) % _FAULTS_BETWEEN_FENCES == 0:
                self.proxy.heal()
                await self.fences.compare()
            is_enough = len(injected) >= len(self._faults) and len(self.recoveries) >= recoveries
            if is_enough and time.monotonic() > ends:
                break
        return injected

    def _draw_faults(self) -> Iterator[Fault]:
        while True:
            yield from self.chance.sample(self._faults, len(self._faults))

    async def converge(self) -> None:
        """End every fault and the churn; everybody must soon hear again what is sent."""
        self.proxy.heal()
        for task in self._churning:
            task.cancel()
        await asyncio.wait(self._churning)
        await self.fences.converge(within=_CAP + scaled(2.0))

    async def end(self) -> dict[str, list[int]]:
        """Stop sending; return what was sent, by channel, when everybody has been given it."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait({self._sending})
        await self.fences.compare(last=True)
        return await self.sender.sent()

    async def sessions(self) -> list[int]:
        """Return the pids of the listeners' sessions, in no order; none if nobody answers."""
        with suppress(OSError, asyncpg.PostgresError):
            async with ServerFaults(self.server.dsn) as faults:
                return await faults.sessions()
        return []

    async def for_a_while(self, seconds: float) -> None:
        """Leave a fault in the network for this long."""
        await asyncio.sleep(seconds)
        self.proxy.heal()
