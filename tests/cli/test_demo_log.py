"""The demo of the durable log as users run it, and whether its verdict can be negative."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest

from asyncnotify.cli import main
from asyncnotify.cli.demo import durable, scenario
from asyncnotify.cli.demo.shop import Count, Shop
from asyncnotify.cli.demo.writer import connected
from asyncnotify.testing._server.wrapper import states
from tests.support.commands import wait_for
from tests.support.demo_runs import Run, assert_nothing_left, outcome_of, started

if TYPE_CHECKING:
    from asyncnotify.testing.server import PostgresServer

HURRIED = """
import sys
from asyncnotify.cli import main
from asyncnotify.cli.demo import scenario
scenario.DOWN = scenario.WRITING_TIME = 0.1
sys.exit(main(["demo", "log"]))
"""


def assert_no_consumer_left(said: str) -> None:
    """Check that the processes are gone that have consumed."""
    assert_nothing_left(said)
    pids = {int(pid) for pid in re.findall(r"named mailer, process (\d+)", said)}
    assert pids
    assert not pids & states().keys()


@pytest.fixture(scope="module")
def whole_run(template: PostgresServer) -> Run:
    """The demo in a pipe, without pauses for reading."""
    with started("-c", HURRIED) as process:
        return outcome_of(process)


def test_it_ends_with_0_lost_and_0_doubled(whole_run: Run) -> None:
    """By the rows: a mail for each order, though the consumer and the server were killed."""
    assert (whole_run.status, whole_run.err) == (0, ""), whole_run
    figures = whole_run.figures
    [orders], [mails, promised] = (
        figures["orders, each with its event"],
        figures["mails, by the consumer"],
    )
    assert orders == mails == promised > 0
    assert figures["orders lost"] == figures["mails doubled"] == [0, 0]
    assert "KEPT: 0 lost, 0 doubled" in whole_run.out
    assert len(re.findall(r"breaking +kill -9 \d+, the consumer", whole_run.out)) == 2
    assert len(re.findall(r"breaking +kill -9 \d+, the postmaster", whole_run.out)) == 2


def test_it_explains_itself_and_leaves_nothing(whole_run: Run) -> None:
    """First which lines of a program it stands for, in the end what to do next."""
    explained, _, shown = whole_run.out.partition("making a PostgreSQL server")
    assert 'log.append("orders", str(number), connection=connection)' in explained
    assert "transactional=True" in explained
    assert "What to do next" in shown
    assert "docs/log.md" in shown
    assert_no_consumer_left(whole_run.out)


@pytest.mark.usefixtures("template")
def test_ctrl_c_ends_it_and_its_consumers() -> None:
    """With status 130, without a traceback."""
    with started("-c", HURRIED) as process:
        said = wait_for(process.stdout, "the consumer that serves")
        process.send_signal(signal.SIGINT)
        run = outcome_of(process, said)
    assert run.status == 130, run
    assert run.err == "\ninterrupted; the server is gone, and nothing is left behind\n"
    assert_no_consumer_left(run.out)


@pytest.fixture
def hurried(template: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A demo without pauses for reading."""
    monkeypatch.setattr(scenario, "DOWN", 0.1)
    monkeypatch.setattr(scenario, "WRITING_TIME", 0.1)
    return monkeypatch


def test_it_fails_when_a_mail_is_lost_or_doubled(
    hurried: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One row too few, or too many, makes it end with status 1."""
    count = Shop.count

    async def count_what_is_false(self: Shop) -> Count:
        async with connected(self.dsn) as connection:
            await connection.execute("DELETE FROM mails WHERE number = 2")
            await connection.execute("INSERT INTO mails (number) SELECT max(number) FROM orders")
        return await count(self)

    hurried.setattr(Shop, "count", count_what_is_false)
    assert main(["demo", "log"]) == 1
    assert capsys.readouterr().out.endswith("BROKEN: 1 orders lost\n  1 mails doubled\n")


def test_it_fails_when_no_consumer_runs(
    hurried: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process that ends by itself makes it end with status 1, instead of waiting for ever."""
    hurried.setattr(durable, "MAILER", "no_such_module")
    assert main(["demo", "log"]) == 1
    assert re.search(r"consumer process \d+ has ended with status 1", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("count", "problems"),
    [
        (Count(orders=3, mails=3), []),
        (Count(), ["no order was committed"]),
        (Count(orders=3, mails=4, doubled=1, late=1), ["1 mails doubled", "1 mails out of order"]),
        (
            Count(orders=3, mails=3, lost=1, made_up=1),
            ["1 orders lost", "1 mails without an order"],
        ),
    ],
)
def test_each_broken_promise_is_named(count: Count, problems: list[str]) -> None:
    """What the rows come to that they should not."""
    assert count.problems() == problems
