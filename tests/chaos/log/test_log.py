"""The durable log while everything breaks: nothing is lost, doubled or out of order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos.log.program import run_log

if TYPE_CHECKING:
    from asyncnotify.testing.server import PostgresServer

SEED = 20_240_229


@pytest.mark.parametrize(
    ("seconds", "retention", "failover"),
    [
        pytest.param(10, False, False, marks=pytest.mark.timeout(240)),
        pytest.param(10, False, True, marks=pytest.mark.timeout(240)),
        pytest.param(120, False, False, marks=[pytest.mark.soak, pytest.mark.timeout(600)]),
        pytest.param(120, True, False, marks=[pytest.mark.soak, pytest.mark.timeout(600)]),
        pytest.param(120, True, True, marks=[pytest.mark.soak, pytest.mark.timeout(600)]),
    ],
)
async def test_nothing_is_lost_or_doubled(
    own_server: PostgresServer, seconds: float, *, retention: bool, failover: bool
) -> None:
    """
    All comes to all, in one order; again only what follows the last commit of a cursor.

    While the server, the network and the processes that consume are killed; also if events are
    removed seconds after they were committed: then a Gap stands for them, with their number. And if
    a standby takes the place of the server, again and again.
    """
    outcome = await run_log(
        own_server, seconds=seconds, seed=SEED, retention=retention, failover=failover
    )
    assert not outcome.broken, f"{outcome}\n{outcome.broken}"
    assert outcome.faults.total() > 4, outcome
    assert sum(outcome.kills.values()) > 0, outcome
    assert outcome.events > 100, outcome
    assert outcome.sought.seeks + outcome.sought.pauses > 0, outcome
    assert (outcome.emptied > 0) == retention, outcome
    assert (outcome.faults["fail_over"] > 0) == failover, outcome
