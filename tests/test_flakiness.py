"""What nox is told of a run, so that a test that passes the second time only is not hidden."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import outcome_of
from tests.support import machine
from tests.support.small_project import make_project

if TYPE_CHECKING:
    from pathlib import Path

FAILS_FIRST = """
from pathlib import Path

import pytest


@pytest.mark.parametrize("case", ["a b::c"])
def test_that_fails_first(case):
    trace = Path(__file__).with_suffix(".ran")
    ran_before = trace.exists()
    trace.touch()
    assert ran_before


def test_that_passes():
    pass
"""

HANGS = """
import asyncio
import time

import pytest


@pytest.mark.asyncio
@pytest.mark.timeout(3)
@pytest.mark.parametrize("others", [0, 1])
async def test_that_hangs(others):
    async def turn():
        while True:
            time.sleep(0.01)  # most signals come here, and so in this task
            await asyncio.sleep(0)

    tasks = [asyncio.ensure_future(turn()) for _ in range(others)]
    await asyncio.Event().wait()


def test_that_passes():
    pass
"""


def report(node_id: str, when: Any, outcome: Any) -> pytest.TestReport:
    """Return what pytest says of one part of a test."""
    return pytest.TestReport(node_id, ("", 0, ""), {}, outcome, None, when)


def test_a_test_whose_fixture_raises_afterwards_has_not_passed() -> None:
    """Nor has one that was skipped, or failed as it was meant to."""
    reports = {
        "passed": [report("good", "call", "passed"), report("leaves", "call", "passed")],
        "error": [report("leaves", "teardown", "failed")],
        "failed": [report("bad", "call", "failed")],
        "skipped": [report("absent", "setup", "skipped")],
        "": [report("good", "setup", "passed")],
    }
    failed = ["bad", "leaves"]
    assert outcome_of(reports, 1) == {"exit_status": 1, "passed": ["good"], "failed": failed}


def test_a_run_in_which_nothing_passed_has_an_outcome_too() -> None:
    """Such as one that found no test."""
    assert outcome_of({}, 5) == {"exit_status": 5, "passed": [], "failed": []}


def run_pytest(folder: Path, *options: str) -> dict[str, object]:
    """Run pytest in a folder with the project's own conftest; return the outcome it wrote."""
    outcome = folder / "outcome.json"
    command = (
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:anyio",
        "-p",
        "no:faker",
        f"--outcome={outcome}",
        *options,
    )
    environment = {**os.environ, machine.VARIABLE: "1"}  # for tests that are to hang for a moment
    limit = machine.scaled(60.0)
    subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, check=False, timeout=limit
    )
    found: dict[str, object] = json.loads(outcome.read_text(encoding="utf-8"))
    return found


def test_what_passes_in_the_second_run_only_is_told_by_its_id(tmp_path: Path) -> None:
    """The first run leaves it out, spread over processes; the second runs nothing else."""
    make_project(tmp_path, FAILS_FIRST)
    first = run_pytest(tmp_path, "--numprocesses=2")
    flaky = ["test_file.py::test_that_fails_first[a b::c]"]
    passes = ["test_file.py::test_that_passes"]
    assert first == {"exit_status": 1, "passed": passes, "failed": flaky}
    second = run_pytest(tmp_path, "--last-failed")
    assert second == {"exit_status": 0, "passed": flaky, "failed": []}


@pytest.mark.parametrize("options", [(), ("--uvloop",)], ids=["asyncio", "uvloop"])
def test_a_test_that_hangs_is_ended_wherever_the_signal_comes(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Also in a task that nobody waits for, which keeps what the signal handler raises."""
    if options:
        pytest.importorskip("uvloop")
    make_project(tmp_path, HANGS)
    outcome = run_pytest(tmp_path, *options)
    assert outcome["exit_status"] == 1
    assert outcome["passed"] == ["test_file.py::test_that_passes"]
