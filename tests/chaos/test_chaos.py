"""Everything at once: whatever breaks, nothing is lost without being told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from asyncnotify.testing._server.errors import BinariesNotFoundError
from tests.chaos import program as chaos
from tests.chaos.pooler import pooler_of
from tests.chaos.publishing import RETURNED, STATEMENTS, run_publishing
from tests.support.pgbouncer import PoolMode

if TYPE_CHECKING:
    from asyncnotify.testing.server import PostgresServer

ROOT = Path(__file__).parents[2]
SEED = 20_240_229
KINDS = 18
NOT_INSTALLED = ("--eager needs Python", "libfaketime is not installed", "BinariesNotFoundError")
"""What the program says where something is missing that it needs."""


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
    outcome = await chaos.run(own_server, seconds=seconds, seed=SEED, recoveries=recoveries)
    assert not outcome.broken, outcome.broken
    assert len(outcome.faults) == KINDS
    assert sum(len(verdict.covered) for _, verdict in outcome.verdicts) > recoveries
    assert outcome.fences >= 3, outcome
    assert outcome.failed_resyncs > recoveries, outcome
    assert outcome.rereads > 10, outcome


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
    assert outcome.committed.keys() == {"asyncpg", "psycopg", "sqlalchemy"}, outcome
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
    """
    Each call tells what became of it, and runs no statement of another program.

    Three programs share two connections to the server with two others, which prepare statements.
    The pooler is restarted, too.
    """
    try:
        outcome = await run_publishing(own_server, seconds=seconds, seed=SEED, pooler=mode)
    except BinariesNotFoundError as error:
        pytest.skip(str(error))
    assert not outcome.broken, outcome.broken
    assert outcome.ledger.counts["returned"] >= RETURNED
    assert outcome.foreign_statements > STATEMENTS, outcome
    assert outcome.faults["restart_pooler"], outcome


@pytest.mark.timeout(120)
async def test_r17_r46_nothing_is_lost_in_silence_behind_a_pooler_of_sessions(
    own_server: PostgresServer,
) -> None:
    """Of three listeners two connect through a PgBouncer, which is restarted, too."""
    try:
        with pooler_of(own_server, "session", connections=60) as pooler:
            outcome = await chaos.run(own_server, seconds=8, seed=SEED, pooler=pooler)
    except BinariesNotFoundError as error:
        pytest.skip(str(error))
    assert not outcome.broken, outcome.broken
    assert len(outcome.faults) == KINDS + 1
    assert outcome.fences >= 3, outcome


@pytest.mark.parametrize("options", [(), ("--pooler=transaction",)], ids=["listeners", "pooler"])
@pytest.mark.parametrize("variant", ["--eager", "--stepped-clock"])
@pytest.mark.timeout(120)
def test_r46_r47_r51_all_holds_with_eager_tasks_and_with_a_stepped_clock(
    variant: str, options: tuple[str, ...]
) -> None:
    """The program ends with success, as it does only if each verdict holds."""
    path = os.pathsep.join([*sys.path, str(ROOT)])  # where the tests are
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "tests.chaos", variant, *options, "--seconds=5", f"--seed={SEED}"],
        env=environment,
        capture_output=True,
        check=False,
        text=True,
    )
    if any(words in ran.stderr for words in NOT_INSTALLED):
        pytest.skip(ran.stderr.splitlines()[-1])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "faults of" in ran.stdout
