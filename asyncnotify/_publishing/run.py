"""One run of a notifier: a publisher, its task, and the event loop and process they belong to."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from asyncnotify._owner import Owner
from asyncnotify._publishing.publisher import Publisher
from asyncnotify._tasks import cancel, start

if TYPE_CHECKING:
    from collections.abc import Generator

    from asyncnotify._publishing.limits import PublishingLimits
    from asyncnotify._publishing.ports import PublishingConnections


class PublishingRun:
    """
    Runs a publisher in the event loop of the caller, until it is ended.

    Attributes:
        is_starting: It was begun by a ``start()``, and none has succeeded yet: the last one that
            fails ends it.

    Raises:
        WrongLoopError: No event loop of asyncio runs here.
    """

    def __init__(self, connections: PublishingConnections, limits: PublishingLimits) -> None:
        self.owner = Owner()
        self.is_starting: bool = False
        self._calls = 0
        self.publisher = Publisher(
            connections,
            timeout=limits.operation_timeout,
            queue=limits.queue,
            max_age=limits.max_connection_age,
        )
        self._task = start(self.publisher.run(), name="asyncnotify publisher")

    @property
    def has_ended(self) -> bool:
        """Whether nothing is sent any more, and the connection is closed."""
        return self._task.done()

    @property
    def is_unclosed(self) -> bool:
        """Whether the run goes on, in this process, and nobody has closed it."""
        is_over = self._task.done() or self.owner.loop.is_closed()
        return not (is_over or self.publisher.is_closing or self.owner.is_other_process)

    @contextlib.contextmanager
    def in_use(self) -> Generator[None]:
        """Let nobody's failed ``start()`` end it while a call that waits now and then runs."""
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    @property
    def is_used(self) -> bool:
        """Whether calls are in flight, or somebody ends it."""
        return bool(self._calls) or self.publisher.is_closing or self.publisher.is_used

    def abandon(self) -> None:
        """End at once: what still waits gets a ClosedError. To be called in its event loop."""
        self.publisher.abandon()
        self._task.cancel()

    async def end(self, seconds: float) -> None:
        """Send what was accepted, close the connection, and end; after these seconds at once."""
        self.publisher.close(seconds)
        try:
            await asyncio.wait({self._task}, timeout=seconds)
        finally:
            await cancel({self._task})
