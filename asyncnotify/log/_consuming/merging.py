"""The events of several buckets for one who iterates them."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from asyncnotify._owner import Owner
from asyncnotify._tasks import cancel, start
from asyncnotify.log._consuming.serving import BusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncnotify import Gap
    from asyncnotify.log._consuming.feed import Feed, Leave
    from asyncnotify.log._consuming.sharing import Served, Sharing
    from asyncnotify.log._reading.decoding import Decoded
    from asyncnotify.log._values import Position


class _Source:
    """
    A bucket that is served: it reads a portion ahead, and the next once that is done with.

    Attributes:
        feed: Gives the bucket's events, and moves its cursor.
        found: The portion.
        is_released: It ends, or has ended.
        is_busy: The user handles the portion.
    """

    def __init__(self, feed: Feed, on_found: Callable[[_Source], None]) -> None:
        self.feed = feed
        self.found: Sequence[Decoded] | Gap = ()
        self.is_released = False
        self.is_busy: bool = False
        self._on_found = on_found
        self._done = asyncio.Event()
        self.task = start(self._run(), name="asyncnotify log bucket")

    async def _run(self) -> bool:
        try:
            while True:
                self.found = await self.feed.next()
                self._done.clear()
                self._on_found(self)
                await self._done.wait()
        except BusyError:
            return True
        finally:
            self.is_released = True
            await self.feed.aclose()

    def release(self) -> None:
        """End now, or once what was given to the user is done with."""
        if not self.is_released:
            self.is_released = True
            if not self.is_busy:
                self.task.cancel()

    async def is_current(self) -> bool:
        """Return whether the portion may be given: a seek may have come since it was read."""
        # Twice: it may be released while the server is asked
        return not self.is_released and await self.feed.holds() and not self.is_released

    def give(self) -> Sequence[Decoded] | Gap:
        """Return the portion, which the user handles now."""
        self.is_busy = True
        return self.found

    def go_on(self) -> None:
        """Read the next portion: this one is done with, and the cursor has been moved."""
        was_busy, self.is_busy = self.is_busy, False
        self.found = ()
        if not self.is_released:
            self._done.set()
        elif was_busy:  # else it is ending already
            self.task.cancel()


class MergedFeed:
    """
    Gives the events of those buckets of a consumer that this process serves, as a Feed does.

    Each portion is of one bucket; what is moved is the cursor of that whose portion came last.
    Buckets that have events take turns.

    Args:
        feeds: Makes the Feed of the bucket of a number.
        sharing: Makes what keeps the share, with a function that begins to serve a bucket.
        leave: As of a Feed.
    """

    def __init__(
        self,
        feeds: Callable[[int], Feed],
        sharing: Callable[[Callable[[int], Served]], Sharing],
        leave: Leave,
    ) -> None:
        self._leave = leave
        self._feeds = feeds
        self._first = feeds(0)
        self._sharing = sharing(self._begin)
        self._running: asyncio.Task[None] | None = None
        self._found: deque[_Source] = deque()
        self._given: _Source | None = None
        self._news = asyncio.Event()
        self._is_closed = False
        self._owner = Owner()

    @property
    def is_serving(self) -> bool:
        """Whether this process serves one of the buckets now, as far as it knows."""
        return self._sharing.is_serving

    async def ready(self) -> None:
        """Return once the consumer is in the database; raises as ``Feed.ready()``."""
        await self._first.ready()

    async def next(self) -> Sequence[Decoded] | Gap:
        """Return the next events of a bucket; none once it is closed. As ``Feed.next()``."""
        await self.ready()
        given, self._given = self._given, None
        if given is not None:
            given.go_on()
        while not self._is_closed:
            self._run()
            while self._found:
                source = self._found[0]
                is_current = await source.is_current()
                self._found.popleft()
                if is_current:
                    self._given = source
                    return source.give()
                source.go_on()
            self._news.clear()
            await self._news.wait()
        return ()

    def _run(self) -> None:
        """Have the share kept; raise what has ended that."""
        if self._running is None:
            self._running = start(self._sharing.run(), name="asyncnotify log buckets")
            self._running.add_done_callback(lambda _: self._news.set())
        elif self._running.done():
            running, self._running = self._running, None
            running.result()

    async def commit(self, position: Position) -> bool:
        """Move the cursor of the bucket whose events came last; as ``Feed.commit()``."""
        return self._given is not None and await self._given.feed.commit(position)

    async def bury(self, position: Position, attempts: int, error: str) -> bool:
        """Keep an event of that bucket as a dead letter; as ``Feed.bury()``."""
        return self._given is not None and await self._given.feed.bury(position, attempts, error)

    async def aclose(self) -> None:
        """Give all buckets back to whoever shares them."""
        self._is_closed = True
        self._news.set()
        self._sharing.stop()
        if self._given is not None:
            self._given.go_on()
        if self._running is not None:
            try:
                await asyncio.wait({self._running})
            finally:
                await cancel({self._running})

    def forget(self) -> None:
        """Give all buckets back, from whatever thread, without waiting; as ``Feed.forget()``."""
        if not self._owner.is_other_process:
            with suppress(RuntimeError):  # the loop is closed
                self._owner.loop.call_soon_threadsafe(self._begin_to_close)

    def _begin_to_close(self) -> None:
        self._leave(self.aclose())

    def _begin(self, number: int) -> Served:
        return _Source(self._feeds(number), self._on_found)

    def _on_found(self, source: _Source) -> None:
        self._found.append(source)
        self._news.set()
