"""Everything at once: whatever breaks, nothing is lost without being told."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest

from asyncnotify.testing._server.errors import BinariesNotFoundError
from tests.chaos import program as chaos
from tests.chaos.publishing import run_publishing
from tests.support.pgbouncer import PoolMode

if TYPE_CHECKING:
    from asyncnotify.testing.server import PostgresServer

SEED = 20_240_229
KINDS = 18


@pytest.mark.parametrize(
    ("seconds", "recoveries"),
    [
        pytest.param(20, 20, marks=pytest.mark.timeout(120)),
        pytest.param(150, 150, marks=[pytest.mark.soak, pytest.mark.timeout(400)]),
    ],
)
async def test_r17_r46_nothing_is_lost_in_silence(
    own_server: PostgresServer, seconds: float, recoveries: int
) -> None:
    """
    Each missing number lies in a Gap of early since; what consumers keep equals the table.

    Under every fault at random, with handlers and resyncs that fail; and no number comes twice
    or late.
    """
    outcome = await chaos.run(own_server, seconds=seconds, seed=SEED)
    assert not outcome.broken, outcome.broken
    assert len(outcome.faults) == KINDS
    assert len(outcome.recoveries) >= recoveries, outcome
    assert sum(len(verdict.covered) for _, verdict in outcome.verdicts) > recoveries
    assert outcome.fences >= 3, outcome
    assert outcome.failed_resyncs > recoveries, outcome


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(8, marks=pytest.mark.timeout(120)),
        pytest.param(150, marks=[pytest.mark.soak, pytest.mark.timeout(400)]),
    ],
)
async def test_r47_each_call_of_a_notifier_tells_what_became_of_it(
    own_server: PostgresServer, seconds: float
) -> None:
    """What returned has arrived, what raised ConnectError has not; the rest is said to be open."""
    outcome = await run_publishing(own_server, seconds=seconds, seed=SEED)
    assert not outcome.broken, outcome.broken
    assert min(outcome.ledger.counts[kind] for kind in ("returned", "not sent", "in doubt")) > 0


@pytest.mark.parametrize("mode", get_args(PoolMode))
@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(8, marks=pytest.mark.timeout(120)),
        pytest.param(100, marks=[pytest.mark.soak, pytest.mark.timeout(300)]),
    ],
)
async def test_r47_the_same_holds_behind_a_pooler(
    own_server: PostgresServer, seconds: float, mode: PoolMode
) -> None:
    """Three programs share two connections to the server with a fourth that prepares statements."""
    try:
        outcome = await run_publishing(own_server, seconds=seconds, seed=SEED, pooler=mode)
    except BinariesNotFoundError as error:
        pytest.skip(str(error))
    assert not outcome.broken, outcome.broken
    assert outcome.ledger.counts["returned"] > 1_000
