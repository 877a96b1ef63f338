"""Unit tests run on an event loop of their own, where time alone decides."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest_asyncio

from asyncnotify.testing.clock import VirtualTimeLoop
from tests.conftest import with_tasks_of
from tests.unit.fake_server import SupervisorHarness
from tests.unit.worker_harness import WorkerHarness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    import pytest


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the async tests of this directory on the clock that jumps, whatever others run on."""
    return {"jumping": with_tasks_of(config, VirtualTimeLoop)}


@pytest_asyncio.fixture
async def harness(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SupervisorHarness]:
    """A fake server and, once the test asks for it, a supervisor; which is ended."""
    made = SupervisorHarness(monkeypatch)
    yield made
    await made.stop()


@pytest_asyncio.fixture
async def workers() -> AsyncIterator[WorkerHarness]:
    """Workers, all of which have ended when the test has."""
    made = WorkerHarness()
    yield made
    made.slow_calls.stop()
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)
