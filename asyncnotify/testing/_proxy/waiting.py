"""Waiting until something about the fault proxy's traffic has become true."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class WaitTimeoutError(TimeoutError):
    """What was waited for did not happen within the timeout."""

    def __init__(self, what: str, timeout: float) -> None:
        super().__init__(what, timeout)
        self.what: str = what
        self.timeout: float = timeout

    def __str__(self) -> str:
        return f"{self.what}: not within {self.timeout:g} s"


class ChangeSignal:
    """Wakes the tasks that wait for a fact whenever the fact may have become true."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def set(self) -> None:
        """Let every waiting task check its fact again."""
        self._next.set()
        self._next = asyncio.Event()

    async def until(self, fact: Callable[[], bool], timeout: float, what: str) -> None:
        """
        Wait until ``fact()`` is true, at most ``timeout`` seconds.

        Raises:
            WaitTimeoutError: The fact is still false; the text says ``what`` was waited for.
        """
        try:
            async with asyncio.timeout(timeout):
                while not fact():
                    await self._next.wait()
        except TimeoutError:
            # While the loop was blocked, nobody checked whether the fact had become true.
            if not fact():
                raise WaitTimeoutError(what, timeout) from None
