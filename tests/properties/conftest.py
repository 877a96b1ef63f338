"""What is tried in many orders, or interrupted at each point, runs on the clock that jumps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncnotify.testing.clock import VirtualTimeLoop
from tests.conftest import with_tasks_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    import pytest


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the async tests of this directory on the clock that jumps, whatever others run on."""
    return {"jumping": with_tasks_of(config, VirtualTimeLoop)}
