"""Time limits fit the machine: they are scaled by one factor, which is measured once and shown."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support import machine
from tests.support.machine import MOST, VARIABLE, described, scaled, share, slowness

if TYPE_CHECKING:
    import pytest

LIMIT = 40.0


def test_the_factor_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is 1 at least; and what else runs later changes nothing of it."""
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.delenv(VARIABLE)
    factor = slowness()
    assert 1 <= factor <= MOST
    monkeypatch.setattr(machine, "_load", lambda: factor * 2)
    assert slowness() == factor
    assert scaled(LIMIT) == LIMIT * factor


def test_a_busy_machine_has_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many times as processes wait for each core; there is a bound."""
    monkeypatch.setenv(VARIABLE, "1")
    for load, factor in ((4.0, 4.0), (1_000.0, MOST)):
        monkeypatch.delenv(VARIABLE)
        monkeypatch.setattr(machine, "_measured", lambda: 1.5)
        monkeypatch.setattr(machine, "_load", lambda load=load: load)
        assert slowness() == factor
        assert described().startswith(f"time limits: {factor:g} times as long")


def test_the_factor_may_be_set_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """And child processes have the same."""
    monkeypatch.setenv(VARIABLE, "2.5")
    assert scaled(LIMIT) == 2.5 * LIMIT
    program = f"import os; print(os.environ[{VARIABLE!r}])"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert child.stdout.strip() == b"2.5"


def test_the_processes_of_the_run_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its share of the machine; but not where the factor was set by hand."""
    cores = os.cpu_count() or 1
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setattr(machine, "_load", lambda: 1.0)
    for given, factor in ((False, 4.0), (True, 1.0)):
        monkeypatch.setenv(VARIABLE, "1")
        monkeypatch.setattr(machine, "_GIVEN", given)
        share(3 * cores)
        assert slowness() == factor


def test_the_limit_of_each_test_is_scaled(request: pytest.FixtureRequest) -> None:
    """The one that pytest-timeout keeps, too."""
    marker = request.node.get_closest_marker("timeout")
    assert marker.args == (scaled(float(request.config.getini("timeout"))),)
