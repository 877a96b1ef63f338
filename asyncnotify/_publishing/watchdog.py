"""A deadline for calls that nearly always end in time: one timer for many calls."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING

from asyncnotify._tasks import READ_GRACE

if TYPE_CHECKING:
    from collections.abc import Callable


class Watchdog:
    """
    Calls ``on_overdue`` when a call that has begun has not ended after some seconds.

    No call starts or cancels a timer. When the one timer fires, it looks at the call of that
    moment, and is set again for that call's deadline.
    """

    def __init__(self, seconds: float, on_overdue: Callable[[], None]) -> None:
        self._seconds = seconds
        self._on_overdue = on_overdue
        self._clock = asyncio.get_running_loop().time
        self._began: float | None = None
        self._due = 0.0
        self._extended: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """A call begins. One call at a time."""
        self._began = self._clock()
        if self._timer is None:
            self._look_in(self._seconds)

    @property
    def is_busy(self) -> bool:
        """Whether something has begun and not ended."""
        return self._began is not None

    def end(self) -> None:
        """The call has ended."""
        self._began = None

    def stop(self) -> None:
        """Cancel the timer."""
        self.end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_in(self, seconds: float) -> None:
        self._due = self._clock() + seconds
        self._timer = self._after(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._began is None:
            return
        remaining = self._began + self._seconds - self._clock()
        blocked = self._clock() - self._due > READ_GRACE and self._extended != self._began
        if remaining > 0:
            self._look_in(remaining)
        elif blocked:
            self._extended = self._began  # once: the answer may need another round trip
            self._look_in(self._seconds)
        else:
            self._timer = self._after(READ_GRACE, self._report_overdue, self._began)

    def _after(
        self, seconds: float, function: Callable[..., None], *arguments: object
    ) -> asyncio.TimerHandle:
        """Set a timer in an empty context: set again and again, it would keep the first call's."""
        loop = asyncio.get_running_loop()
        return loop.call_later(seconds, function, *arguments, context=Context())

    def _report_overdue(self, began: float) -> None:
        self._timer = None
        if self._began == began:
            self._on_overdue()
        elif self._began is not None:
            self._look()
