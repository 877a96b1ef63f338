"""
The durable log under faults drawn at random, and a verdict: ``python -m tests.chaos --log``.

Twelve writers append in transactions that are slow, roll back and have savepoints. Three durable
consumers, and one in buckets, are processes of their own, which are killed by SIGKILL and started
again; readers read on from stored positions; the cursor of another consumer is moved, and the
consumer paused. Meanwhile faults are injected into the network and the server, which is killed,
too. With ``--failover`` it has a standby, which takes its place. With ``--retention`` events are
removed seconds after they were committed.

At the end each consumer and each reader must have had all that was committed, in the one order:
``tests/chaos/judge/log_history.py`` says what may come again, and what a Gap has to stand for.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.chaos.judge.log_history import judge_history, judge_keys, order_of
from tests.chaos.judge.log_seeks import judge_seeks
from tests.chaos.log.chaos import LogChaos
from tests.chaos.log.failover import Servers
from tests.chaos.log.outcome import LogOutcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncnotify.testing.server import PostgresServer
    from tests.chaos.faults import Fault

__all__ = ["run_log"]


async def run_log(
    server: PostgresServer,
    *,
    seconds: float,
    seed: int,
    retention: bool = False,
    failover: bool = False,
) -> LogOutcome:
    """
    Inject faults into a running server for so many seconds; return what became of the log.

    Args:
        server: It is killed, too.
        seconds: For how long; the end takes longer.
        seed: Says which faults are drawn.
        retention: Events are removed seconds after they were committed.
        failover: The server has a standby, and they exchange their places.

    Raises:
        TimeoutError: Somebody did not get to the end, though nothing was broken any more.
    """
    began = time.monotonic()
    async with (
        Servers(server, has_standby=failover) as servers,
        LogChaos(servers, random.Random(seed), seconds=seconds, retention=retention) as chaos,
    ):
        injected = await chaos.inject_faults()
        await chaos.end()
        version = servers.primary.version
    return _judge(chaos, injected, version, seed=seed, seconds=time.monotonic() - began)


def _judge(
    chaos: LogChaos,
    injected: Sequence[Fault],
    version: str,
    *,
    seed: int,
    seconds: float,
) -> LogOutcome:
    order = order_of([*chaos.histories, chaos.sought.history, chaos.bucketed])
    ledger = chaos.ledger
    lost = sorted(ledger.committed - order.places.keys())
    return LogOutcome(
        server=version,
        seed=seed,
        seconds=seconds,
        faults=Counter(fault.__name__.lstrip("_") for fault in injected),
        kills=chaos.kills,
        transactions=ledger.transactions,
        events=len(order.names) + len(lost),
        emptied=chaos.emptied,
        streams=chaos.streams,
        verdicts=[
            *(judge_history(history, order, lost) for history in chaos.histories),
            judge_keys(chaos.bucketed, order, lost),
        ],
        sought=judge_seeks(chaos.sought.history, order),
        contradictions=order.faults,
        made_up=sorted(order.places.keys() - ledger.committed - ledger.doubtful),
    )
