"""The command ``top``: what it adds to asyncnotify.top, which has tests of its own."""

from __future__ import annotations

import json
import os

import pytest

from tests.support.commands import TIME_LIMIT, on_terminal, ran, shown_until

QUICK = ("top", "--once", "--every", "0.2")


def test_once_as_json(dsn: str) -> None:
    """One object, on standard output."""
    run = ran(*QUICK, "--json", dsn=dsn)
    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout)["state"] == "connected"


def test_once_as_a_table(dsn: str) -> None:
    """Within 80 columns."""
    run = ran(*QUICK, dsn=dsn)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("asyncnotify top")
    assert max(map(len, run.stdout.splitlines())) <= 80


def test_the_screen_ends_by_q(dsn: str) -> None:
    """On a terminal the command shows a screen, and leaves it when asked to."""
    with on_terminal("top", dsn=dsn) as (process, terminal):
        shown_until(terminal, "notify lock")
        os.write(terminal, b"q")
        assert "Traceback" not in shown_until(terminal, "no such word")
        assert process.wait(TIME_LIMIT) == 0


@pytest.mark.parametrize(
    ("arguments", "problem"), [(["--json"], "--json needs --once"), (["--every", "0"], "0.2")]
)
def test_wrong_arguments(arguments: list[str], problem: str) -> None:
    """With status 2."""
    run = ran("top", *arguments)
    assert run.returncode == 2
    assert problem in run.stderr
