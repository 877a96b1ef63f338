"""Unit tests run on an event loop of their own, where time alone decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from tests.unit.clock import JumpingLoop
from tests.unit.fake_server import Stage

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Mapping

    import pytest


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the async tests of this directory on the clock that jumps, whatever others run on."""
    return {"jumping": JumpingLoop}


@pytest_asyncio.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """A fake server and, once the test asks for it, a supervisor; which is ended."""
    made = Stage(monkeypatch)
    yield made
    await made.stop()
