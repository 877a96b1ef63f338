"""
Under a tracing agent everything works, and what is ours leaves no span and no breadcrumb.

What sends in a request is noted in the trace of that request, or not at all; and nothing that
outlives a request is in its trace. An agent replaces functions for a whole process, so each has a
process of its own, in which everything is tried.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.machine import scaled
from tests.tracing.agents import AGENTS
from tests.tracing.uses import USES

LIMIT: Final = scaled(50.0)
"""Seconds for all uses; they take 5."""

PROGRAM: Final = f"""
import sys
sys.path.append({str(Path(__file__).parents[2])!r})  # behind the installed asyncnotify
from tests.tracing.program import main
main(*sys.argv[1:])
"""

_outcomes: Final[dict[str, dict[str, list[str]]]] = {}
"""By agent and use, what was found wrong."""


def is_installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def go(agent: str, dsn: str) -> dict[str, list[str]]:
    """Try each use under this agent."""
    command = [sys.executable, "-c", PROGRAM, agent, dsn]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(line) for line in ended.stdout.splitlines())


@pytest.fixture
def outcomes(request: pytest.FixtureRequest, agent: str) -> dict[str, list[str]]:
    """What was found wrong with each use: they are tried once."""
    module, _ = AGENTS[agent]
    if not is_installed(module):
        pytest.skip(f"{module} is not installed")
    if agent not in _outcomes:
        _outcomes[agent] = go(agent, request.getfixturevalue("dsn"))
    return _outcomes[agent]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("agent", AGENTS)
def test_r60_every_kind_can_be_gone_and_leaves_no_trace(
    outcomes: dict[str, list[str]], agent: str, use: str
) -> None:
    """It works; heartbeats, LISTEN and connections are noted nowhere, and no request is kept."""
    assert outcomes[use] == []
