"""Try every use under one agent: ``python -m tests.tracing.program AGENT DSN``, for a test."""

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
    """Switch the agent on; then write a line of JSON for each use."""
    agent = AGENTS[name][1]()
    # After the agent: what they import is what it replaces functions of
    uses = importlib.import_module("tests.tracing.uses")
    for use in uses.USES:
        print(json.dumps([use, tried(use, agent, dsn)]), flush=True)  # noqa: T201 - the result


def tried(name: str, agent: Agent, dsn: str) -> list[str]:
    """Try one use; return what is wrong with it."""
    uses = importlib.import_module("tests.tracing.uses")
    traced = importlib.import_module("tests.tracing.traced_use").TracedUse(agent, name, dsn)
    try:
        ended = uses.USES[name](traced)
        if ended is not None:
            asyncio.run(asyncio.wait_for(ended, uses.WAIT_LIMIT))
    except Exception:  # noqa: BLE001 - whatever it is, the test shows it
        traced.wrong.append(traceback.format_exc())
    agent.take()
    return list(traced.wrong)


if __name__ == "__main__":
    main(*sys.argv[1:])
