"""Go every road under one agent: ``python -m tests.tracing.program AGENT DSN``, for a test."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import traceback
from typing import TYPE_CHECKING

from tests.tracing.agents import AGENTS

if TYPE_CHECKING:
    from tests.tracing.agents import Agent


def main(name: str, dsn: str) -> None:
    """Switch the agent on; then write a line of JSON for each road."""
    agent = AGENTS[name][1]()
    # After the agent: what they import is what it replaces functions of
    roads = importlib.import_module("tests.tracing.roads")
    for road in roads.ROADS:
        print(json.dumps([road, tried(road, agent, dsn)]), flush=True)  # noqa: T201 - the result


def tried(name: str, agent: Agent, dsn: str) -> list[str]:
    """Go one road; return what is wrong with it."""
    roads = importlib.import_module("tests.tracing.roads")
    trial = importlib.import_module("tests.tracing.trial").Trial(agent, name, dsn)
    try:
        ended = roads.ROADS[name](trial)
        if ended is not None:
            asyncio.run(asyncio.wait_for(ended, roads.WAIT_LIMIT))
    except Exception:  # noqa: BLE001 - whatever it is, the test shows it
        trial.wrong.append(traceback.format_exc())
    agent.take()
    return list(trial.wrong)


if __name__ == "__main__":
    main(*sys.argv[1:])
