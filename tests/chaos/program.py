"""
Everything at once: listeners under faults drawn at random, and a verdict.

    python -m tests.chaos --seconds 120 --seed 7

A sender numbers what it notifies, in one transaction with a change of a row. Several listeners, by
a DSN and connect=, hold handlers and streams of every kind; some are slow, or raise, or
leave, and their resync fails now and then. Meanwhile one fault after the other is injected into the
network, the server and the event loop.

Every number missing must lie inside a Gap, whose since is early enough; none may come twice, or
late; what consumers keep by resync and handler must equal the table at every fence; and after the
last fault everybody must soon hear again what is sent.

With ``--publishing`` it judges notifiers instead, each call by what became of it, with
``--pooler transaction`` the same through a PgBouncer, and with ``--pooler session --listening``
listeners that connect through that; with ``--log`` the durable log. ``--uvloop``, ``--eager`` and
``--stepped-clock`` choose the loop, the tasks and the clock; ``--pg 13``, or the environment
variable ``ASYNCNOTIFY_PG_BIN``, the server.

The seed decides which faults are drawn and when, not what the machine makes of it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from asyncnotify.testing.proxy import FaultProxy
from asyncnotify.testing.server import PostgresServer
from tests.chaos.faults import FAULTS
from tests.chaos.judge.since import late
from tests.chaos.listening import Chaos
from tests.chaos.log.program import run_log
from tests.chaos.outcome import Outcome
from tests.chaos.pooler import pooler_of, restarting
from tests.chaos.publishing import run_publishing
from tests.chaos.stepped_clock import with_stepped_clock
from tests.chaos.variants import add_variants, loop_factory
from tests.support.server_programs import VERSIONS, programs_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.chaos.faults import Fault
    from tests.chaos.log.outcome import LogOutcome
    from tests.chaos.publishing import PublishingOutcome
    from tests.support.pgbouncer import PgBouncer

__all__ = ["main", "run"]

_CONNECTIONS = 60
"""From the pooler to the server: for each session of a listener one, also if it is being left."""


async def run(
    server: PostgresServer,
    *,
    seconds: float,
    seed: int,
    recoveries: int = 0,
    pooler: PgBouncer | None = None,
    stepped_clock: bool = False,
) -> Outcome:
    """
    Inject faults into a running server for so many seconds, at least; return what became of it.

    It goes on until listeners have recovered so many times: a busy machine takes longer for them.

    Two of three listeners connect through the pooler, if there is one; it has to be of mode
    ``session``. The clock can be stepped only where ``with_stepped_clock()`` has been called.

    Raises:
        TimeoutError: Somebody did not hear again what is sent.
    """
    began = time.monotonic()
    faults = (*FAULTS, *((restarting(pooler),) if pooler else ()))
    chance = random.Random(seed)
    async with (
        FaultProxy.for_dsn((pooler or server).dsn) as proxy,
        Chaos(server, proxy, chance, faults=faults, stepped_clock=stepped_clock) as chaos,
    ):
        injected = await chaos.inject_faults(seconds, recoveries)
        await chaos.converge()
        sent = await chaos.end()
    return _judge(chaos, injected, sent, seed=seed, seconds=time.monotonic() - began)


def _judge(
    chaos: Chaos,
    injected: Sequence[Fault],
    sent: Mapping[str, Sequence[int]],
    *,
    seed: int,
    seconds: float,
) -> Outcome:
    lasting = [(c, record) for c in chaos.consumers if c.numbered for record in c.records]
    verdicts = [(c.name, record.verdict(sent)) for c, record in lasting]
    verdicts += [(str(record.channels), record.verdict(sent)) for record in chaos.passing]
    late_ones: list[str] = []
    judged = 0
    for (consumer, record), (_, verdict) in zip(lasting, verdicts, strict=False):
        if consumer.prompt:
            judged += len(verdict.covered)
            late_ones += late(record, verdict.covered, chaos.sender.committed_by, chaos.clock)
    records = [record for c in chaos.consumers for record in c.records] + chaos.passing
    return Outcome(
        seed=seed,
        seconds=seconds,
        faults=Counter(fault.__name__ for fault in injected),
        sent=sum(map(len, sent.values())),
        recoveries=tuple(chaos.recoveries),
        verdicts=tuple(verdicts),
        misplaced_starts=sum(not record.begins_with_its_gap for record in records),
        rereads=sum(record.rereads for record in records),
        fences=chaos.fences.passed,
        consumers=len(chaos.consumers),
        failed_resyncs=sum(consumer.failures for consumer in chaos.consumers),
        wrong_rows=tuple(chaos.fences.wrong),
        gaps_judged=judged,
        late_since=tuple(late_ones),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it as a program; return the exit status: 0 if everything holds."""
    logging.getLogger("asyncnotify").addHandler(logging.NullHandler())  # handlers fail on purpose
    options = _options(arguments)
    if options.stepped_clock:
        with_stepped_clock(sys.argv[1:] if arguments is None else arguments)
    seconds = options.seconds if options.minutes is None else options.minutes * 60
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"chaos for {seconds:g} s, seed {seed}", flush=True)  # noqa: T201 - a program
    programs = programs_of(options.pg) if options.pg else None
    with (
        PostgresServer(bin_dir=programs) as server,
        asyncio.Runner(loop_factory=loop_factory(options)) as runner,
    ):
        outcome = runner.run(_chosen(options, server, seconds, seed))
    print(outcome)  # noqa: T201 - the result
    for line in outcome.broken:
        print("BROKEN", line)  # noqa: T201 - the result
    return 1 if outcome.broken else 0


async def _chosen(
    options: argparse.Namespace, server: PostgresServer, seconds: float, seed: int
) -> Outcome | PublishingOutcome | LogOutcome:
    if options.log:
        return await run_log(
            server,
            seconds=seconds,
            seed=seed,
            retention=options.retention,
            failover=options.failover,
        )
    if options.publishing or (options.pooler and not options.listening):
        return await run_publishing(
            server,
            seconds=seconds,
            seed=seed,
            pooler=options.pooler,
            stepped_clock=options.stepped_clock,
        )
    with pooler_of(server, options.pooler, connections=_CONNECTIONS) as pooler:
        return await run(
            server,
            seconds=seconds,
            seed=seed,
            pooler=pooler,
            stepped_clock=options.stepped_clock,
        )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.listening and options.pooler != "session":
        parser.error("--listening goes with --pooler session: LISTEN needs that mode")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Listeners under faults drawn at random, and a verdict.",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=120.0, help="how long (120)")
    length.add_argument("--minutes", type=float, help="how long, for a soak")
    parser.add_argument("--seed", type=int, help="which faults are drawn; a new one by default")
    parser.add_argument("--publishing", action="store_true", help="judge notifiers instead")
    parser.add_argument(
        "--pooler",
        choices=("session", "transaction", "statement"),
        help="judge notifiers through a PgBouncer of this mode",
    )
    parser.add_argument(
        "--listening",
        action="store_true",
        help="with --pooler session: judge listeners through it",
    )
    parser.add_argument("--log", action="store_true", help="judge the durable log instead")
    parser.add_argument(
        "--retention",
        action="store_true",
        help="with --log: remove events seconds after they were committed",
    )
    parser.add_argument(
        "--failover",
        action="store_true",
        help="with --log: the server has a standby, and is killed, and the standby promoted",
    )
    parser.add_argument("--pg", choices=VERSIONS, help="the version of PostgreSQL")
    add_variants(parser)
    return parser
