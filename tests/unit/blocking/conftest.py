"""An event loop in a thread, and which threads there are."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from asyncnotify._blocking.call import Call
from asyncnotify._blocking.portal import Portal

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = 20.0


def threads() -> list[str]:
    """Return the names of the threads of ours."""
    return [t.name for t in threading.enumerate() if t.name == "asyncnotify"]


@pytest.fixture(scope="module")
def portal() -> Iterator[Portal]:
    """A real event loop in a thread: worker threads wake no loop whose clock jumps."""
    portal = Portal()
    portal.launch()
    yield portal
    portal.begin(Call(portal.stop))
    portal.join(TIMEOUT)
