"""
Everything at once: listeners under faults drawn at random, and a verdict.

    python -m tests.chaos --seconds 120 --seed 7

A sender numbers what it notifies, in one transaction with a row of a table. Several listeners, by
both roads to the driver, hold handlers and streams on several channels; others come and go; some
are slow, or raise. Meanwhile one fault after the other is inflicted on the network, the server and
the event loop. Every number missing must lie inside a Gap; none may come twice, or late; and after
the last fault everybody must soon hear again what is sent.

The seed decides which faults are drawn and when, not what the machine makes of it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import statistics
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import asyncpg

from asyncnotify import (
    ExponentialBackoff,
    Gap,
    Listener,
    ListenTimeoutError,
    Notification,
    Reconnected,
)
from asyncnotify.testing.proxy import FaultProxy
from asyncnotify.testing.server import PostgresServer
from tests.chaos.faults import FAULTS
from tests.chaos.record import ALL, CHANNELS, PATIENCE, Record, Sender
from tests.support.server_faults import ServerFaults

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncnotify import ConnectionEvent, Stream
    from asyncnotify.testing.history import Verdict
    from tests.chaos.faults import Fault

__all__ = ["Chaos", "Outcome", "main", "run"]

CAP = 0.2
LIMITS: dict[str, Any] = {
    "heartbeat": 0.3,
    "heartbeat_timeout": 0.3,
    "connect_timeout": 0.5,
    "backoff": ExponentialBackoff(initial=0.01, cap=CAP),
}
SLOW_BUFFER = 20


class Chaos:
    """A server, listeners by both roads and past the faulty network, and what they saw."""

    def __init__(self, server: PostgresServer, proxy: FaultProxy, chance: random.Random) -> None:
        self.server = server
        self.proxy = proxy
        self.chance = chance
        self.sender: Sender = Sender(server.dsn, chance)
        self.lasting: list[Record] = []
        self.passing: list[Record] = []
        self.recoveries: list[float] = []
        self._tasks: list[asyncio.Task[None]] = []
        proxied = proxy.proxied_dsn(server.dsn)

        async def connect() -> asyncpg.Connection[asyncpg.Record]:
            settings = {"application_name": "asyncnotify"}
            return await asyncpg.connect(proxied, server_settings=settings)

        limits: dict[str, Any] = {**LIMITS, "on_event": self._note_recovery}
        self.listeners: tuple[Listener, ...] = (
            Listener(server.dsn, **limits),
            Listener(proxied, **limits),
            Listener(connect=connect, **limits),
        )

    def _note_recovery(self, event: ConnectionEvent) -> None:
        if isinstance(event, Reconnected):
            self.recoveries.append(event.downtime)

    async def __aenter__(self) -> Self:
        """Let everybody listen, and the sender send."""
        await self.sender.prepare()
        for listener in self.listeners:
            await listener.start()
            await self._subscribe(listener)
        self._tasks.append(asyncio.create_task(self.sender.run()))
        self._churning = [
            asyncio.create_task(self._churn(listener, random.Random(seed)))
            for seed in range(2)
            for listener in self.listeners
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (*self._tasks, *self._churning):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._churning, return_exceptions=True)
        for listener in self.listeners:
            await listener.aclose()

    async def _subscribe(self, listener: Listener) -> None:
        """Listen with handlers, a slow and a failing one among them, and with a stream."""
        for channel in CHANNELS:
            record = Record(channel)
            await listener.listen(channel, record.note, resync=record.note)
            self.lasting.append(record)
        await self._subscribe_slowly(listener, self.chance.choice(CHANNELS))
        await self._subscribe_failing(listener, self.chance.choice(CHANNELS))
        stream = await listener.stream(*CHANNELS, gaps=True).__aenter__()
        self.lasting.append(Record(ALL))
        self._tasks.append(asyncio.create_task(read(stream, self.lasting[-1])))

    async def _subscribe_slowly(self, listener: Listener, channel: str) -> None:
        record = Record(channel)

        async def take_time(n: Notification[str]) -> None:
            record.note(n)
            await asyncio.sleep(0.02)

        await listener.listen(channel, take_time, resync=record.note, buffer=SLOW_BUFFER)
        self.lasting.append(record)

    async def _subscribe_failing(self, listener: Listener, channel: str) -> None:
        record = Record(channel)

        async def fail(n: Notification[str]) -> None:
            record.note(n)
            message = "chaos lets this handler fail"
            raise RuntimeError(message)

        await listener.listen(channel, fail, resync=record.note)
        self.lasting.append(record)

    async def _churn(self, listener: Listener, chance: random.Random) -> None:
        """Listen for a moment, time and again."""
        while True:
            record = Record(chance.choice(CHANNELS))
            with suppress(ListenTimeoutError):
                subscription = await listener.listen(
                    record.channel, record.note, resync=record.note, timeout=1.0
                )
                record.floor = self.sender.begun
                self.passing.append(record)
                await asyncio.sleep(chance.uniform(0.0, 0.3))
                await subscription.cancel()

    async def rage(self, seconds: float) -> list[Fault]:
        """Inflict one fault after the other, each kind as often as the others."""
        inflicted: list[Fault] = []
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for fault in self.chance.sample(FAULTS, len(FAULTS)):
                await fault(self)
                inflicted.append(fault)
                await asyncio.sleep(self.chance.uniform(0.02, 0.2))
        return inflicted

    async def calm(self) -> None:
        """End every fault and the churn; everybody must soon hear again what is sent."""
        self.proxy.heal()
        for task in self._churning:
            task.cancel()
        await asyncio.wait(self._churning)
        fresh = self.sender.begun + 1
        async with asyncio.timeout(CAP + 2.0):
            for record in self.lasting:
                await record.until(fresh)

    async def end(self) -> dict[str, list[int]]:
        """Let the sender end; return what it has sent, once everybody has heard the last of it."""
        self.sender.end()
        await asyncio.wait({self._tasks[-1]})
        sent = await self.sender.sent()
        async with asyncio.timeout(PATIENCE):
            for record in self.lasting:
                await record.until(sent[record.channel][-1])
        return sent

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


async def read(stream: Stream[Notification[str] | Gap], record: Record) -> None:
    """Note what a stream yields."""
    async for item in stream:
        record.note(item)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of everything, summed up over all subscriptions."""

    seed: int
    seconds: float
    faults: Counter[str]
    sent: int
    recoveries: tuple[float, ...]
    verdicts: tuple[tuple[str, Verdict], ...]
    misplaced_starts: int

    @property
    def broken(self) -> list[str]:
        """What does not hold, a line each; empty if all does."""
        lines = [f"{channel}: {verdict}" for channel, verdict in self.verdicts if not verdict.holds]
        if self.misplaced_starts:
            lines.append(f"{self.misplaced_starts} subscriptions did not begin with their Gap")
        return lines

    def __str__(self) -> str:
        """Return the figures, a line each."""
        verdicts = [verdict for _, verdict in self.verdicts]
        counts = {
            "sent": self.sent,
            "subscriptions": len(verdicts),
            "received, over all subscriptions": sum(v.received for v in verdicts),
            "covered by a Gap": sum(len(v.covered) for v in verdicts),
            "untold": sum(len(v.untold) for v in verdicts),
            "duplicated": sum(len(v.duplicated) for v in verdicts),
            "reordered": sum(len(v.reordered) for v in verdicts),
        }
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        head = (
            f"{self.faults.total()} faults of {len(self.faults)} kinds in {self.seconds:.0f} s,"
            f" seed {self.seed}: {kinds}"
        )
        lines = [f"{name:<34}{count:>10,}" for name, count in counts.items()]
        last = f"{'recoveries':<34}{len(self.recoveries):>10,}{_spread(self.recoveries)}"
        return "\n".join([head, *lines, last])


def _spread(seconds: Sequence[float]) -> str:
    if len(seconds) < 2:
        return ""
    p95 = statistics.quantiles(seconds, n=20)[-1]
    median, longest = statistics.median(seconds), max(seconds)
    return f"   median {median:.3f} s, p95 {p95:.3f} s, longest {longest:.3f} s"


async def run(server: PostgresServer, *, seconds: float, seed: int) -> Outcome:
    """
    Inflict faults on a running server for so many seconds, at least; return what became of it.

    Raises:
        TimeoutError: After the last fault somebody did not hear again what is sent.
    """
    began = time.monotonic()
    async with (
        FaultProxy.for_dsn(server.dsn) as proxy,
        Chaos(server, proxy, random.Random(seed)) as chaos,
    ):
        inflicted = await chaos.rage(seconds)
        await chaos.calm()
        sent = await chaos.end()
    records = chaos.lasting + chaos.passing
    return Outcome(
        seed=seed,
        seconds=time.monotonic() - began,
        faults=Counter(fault.__name__ for fault in inflicted),
        sent=len(sent[ALL]),
        recoveries=tuple(chaos.recoveries),
        verdicts=tuple((r.channel, r.verdict(sent[r.channel])) for r in records),
        misplaced_starts=sum(not record.begins_with_its_gap for record in records),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it as a program; return the exit status: 0 if everything holds."""
    logging.getLogger("asyncnotify").addHandler(logging.NullHandler())  # handlers fail on purpose
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Listeners under faults drawn at random, and a verdict.",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=120.0, help="how long (120)")
    length.add_argument("--minutes", type=float, help="how long, for a soak")
    parser.add_argument("--seed", type=int, help="which faults are drawn; a new one by default")
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop")
    options = parser.parse_args(arguments)
    seconds = options.seconds if options.minutes is None else options.minutes * 60
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"chaos for {seconds:g} s, seed {seed}", flush=True)  # noqa: T201 - a program
    with PostgresServer() as server, asyncio.Runner(loop_factory=_loops(options)) as runner:
        outcome = runner.run(run(server, seconds=seconds, seed=seed))
    print(outcome)  # noqa: T201
    for line in outcome.broken:
        print("BROKEN", line)  # noqa: T201
    return 1 if outcome.broken else 0


def _loops(options: argparse.Namespace) -> Any:  # noqa: ANN401 - None, or a factory of loops
    if not options.uvloop:
        return None
    import uvloop

    return uvloop.new_event_loop
