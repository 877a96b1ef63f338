from __future__ import annotations

import pytest

from asyncnotify._model import Gap, GapReason, Notification
from asyncnotify._subscriptions.batches import DEFAULT_BATCH, Batches

FIRST = Notification("orders", "1", 7)
GAP = Gap("orders", GapReason.RECONNECT)


class FakeStream:
    """Returns prepared lists, then ends; records the limits that it is asked for."""

    def __init__(self, *batches: list[Notification[str] | Gap], end: BaseException) -> None:
        self._batches = list(batches)
        self._end = end
        self.limits: list[int] = []

    async def next_batch(self, limit: int) -> list[Notification[str] | Gap]:
        """Return the next list, or raise."""
        self.limits.append(limit)
        if not self._batches:
            raise self._end
        return self._batches.pop(0)


async def test_lists_come_as_the_stream_returns_them() -> None:
    """Each step asks for one list, with the same limit, and adds and drops nothing."""
    stream = FakeStream([GAP, FIRST], [FIRST], end=StopAsyncIteration())
    assert [batch async for batch in Batches(stream.next_batch, 50)] == [[GAP, FIRST], [FIRST]]
    assert stream.limits == [50, 50, 50]


async def test_an_error_of_the_stream_is_raised_by_the_step() -> None:
    """What the stream raises is neither wrapped nor taken for the end."""
    error = ValueError("no good")
    batches = Batches(FakeStream(end=error).next_batch, DEFAULT_BATCH)
    with pytest.raises(ValueError, match="no good") as raised:
        await anext(batches)
    assert raised.value is error


async def test_iteration_can_be_resumed_after_a_break() -> None:
    """An iterator of lists is its own iterator: a second loop goes on where the first one ended."""
    stream = FakeStream([FIRST], [GAP], end=StopAsyncIteration())
    batches = Batches(stream.next_batch, 10)
    async for _ in batches:
        break
    assert [batch async for batch in batches] == [[GAP]]
