"""Connection events for threads: what a BlockingListener makes of a relay."""

from __future__ import annotations

import pytest

from asyncnotify import Closed, Connected
from asyncnotify._blocking.events import EventRelay
from asyncnotify._blocking.gateway import Gateway


async def end(_: float) -> None:
    """End nothing."""


def test_the_last_event_is_closed_and_the_error_names_the_listener() -> None:
    """A program that waits for an event that cannot come is told why."""
    relay = EventRelay(None)
    stream = relay.stream(Gateway(end, close_timeout=1.0))
    for event in (Connected(1, 7), Closed(), Connected(1, 8)):
        relay(event)
    assert list(stream) == [Connected(1, 7), Closed()]
    with pytest.raises(EOFError, match="the listener has been closed"):
        stream.get(0)
