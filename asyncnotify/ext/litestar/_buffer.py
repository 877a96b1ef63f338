"""What waits for the plugin of Litestar."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Buffer(Generic[T]):
    """
    Items in their order, and at most so many: who puts one more waits.

    Args:
        limit: How many items.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[T] = deque()
        self._is_closed = False
        self._has_changed = asyncio.Event()

    async def put(self, item: T) -> None:
        """Add an item; nothing if the buffer has been closed."""
        while len(self._items) >= self._limit and not self._is_closed:
            await self._change()
        if not self._is_closed:
            self._items.append(item)
            self._changed()

    async def get(self) -> T | None:
        """Return the next item; None if the buffer has been closed."""
        while not self._items:
            if self._is_closed:
                return None
            await self._change()
        item = self._items.popleft()
        self._changed()
        return item

    def close(self) -> None:
        """Let nobody wait any more. What is in the buffer is dropped."""
        self._is_closed = True
        self._items.clear()
        self._changed()

    async def _change(self) -> None:
        await self._has_changed.wait()

    def _changed(self) -> None:
        """Wake all who wait now; those who come later wait for the next change."""
        self._has_changed.set()
        self._has_changed = asyncio.Event()
