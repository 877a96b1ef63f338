"""What a stream brings, in lists."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, Self, TypeVar

from asyncnotify._model import Gap, Notification

ItemT_co = TypeVar("ItemT_co", bound=Notification[Any] | Gap, covariant=True)

DEFAULT_BATCH: Final = 1_000
"""Notifications in one batch, at most: enough to make the taking cost next to nothing."""


class Batches(Generic[ItemT_co]):
    """Lists of what a stream brings, as returned by ``Stream.batches()``."""

    __slots__ = ("_limit", "_next_batch")

    def __init__(self, next_batch: Callable[[int], Awaitable[list[ItemT_co]]], limit: int) -> None:
        self._next_batch = next_batch
        self._limit = limit

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[ItemT_co]:
        """
        Return all that waits, at least one item.

        Raises:
            StopAsyncIteration: The stream has ended.
            BufferOverflowError: The stream is of ``overflow="fail"`` and has overflowed.
            ListenTimeoutError: As for entering the stream, at the first call.
            NotStartedError: As for entering the stream, at the first call.
            ClosedError: As for entering the stream, at the first call.
            WrongLoopError: The call came from another event loop or process.
        """
        try:
            return await self._next_batch(self._limit)
        finally:
            del self  # an exception that somebody keeps must not keep the stream
