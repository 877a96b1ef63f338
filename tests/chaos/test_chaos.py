"""Everything at once: whatever breaks, nothing is lost without being told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos import program as chaos

if TYPE_CHECKING:
    from asyncnotify.testing.server import PostgresServer

SEED = 20_240_229
KINDS = 18


@pytest.mark.parametrize(
    ("seconds", "recoveries"),
    [
        (20, 40),
        pytest.param(150, 400, marks=[pytest.mark.soak, pytest.mark.timeout(240)]),
    ],
)
async def test_r17_nothing_is_lost_in_silence(
    own_server: PostgresServer, seconds: float, recoveries: int
) -> None:
    """Under every fault at random, each missing number lies in a Gap; none comes twice or late."""
    outcome = await chaos.run(own_server, seconds=seconds, seed=SEED)
    assert not outcome.broken, outcome.broken
    assert len(outcome.faults) == KINDS
    assert len(outcome.recoveries) >= recoveries, outcome
    assert sum(len(verdict.covered) for _, verdict in outcome.verdicts) > recoveries
