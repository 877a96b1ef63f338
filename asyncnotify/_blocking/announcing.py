"""What is announced in the event loop's thread, for other threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Generic, Self, TypeVar

from asyncnotify._announcing import KEPT
from asyncnotify._arguments import check_timeout
from asyncnotify._blocking.gateway import Gateway
from asyncnotify._blocking.waiting import Instances, News, deadline_after, taking_from
from asyncnotify._owner import OfOneProcess

ItemT = TypeVar("ItemT")


class BlockingAnnouncedStream(OfOneProcess, Generic[ItemT]):
    """
    What is announced, as an iterator for threads; up to the item that is the last.

    Args:
        gateway: To the event loop.
        news: Wakes those who wait.
        is_last: Returns whether no item follows this one.
        what: What has been closed when no item comes any more, such as ``the listener``.
    """

    def __init__(
        self, gateway: Gateway, news: News, is_last: Callable[[ItemT], bool], what: str
    ) -> None:
        self._gateway = gateway
        self._news = news
        self._is_last = is_last
        self._what = what
        self._items: deque[ItemT] = deque(maxlen=KEPT)
        self._taking = taking_from(self._items)
        self._ended = False
        self._process = os.getpid()

    def _leave_to_parent(self) -> None:
        """In a fork, forget what another process has been told: it reads that itself."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._items.clear()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ItemT:
        """
        Return the next one; StopIteration ends the stream.

        Raises:
            StopIteration: The listener, or the log, has been closed.
            WrongLoopError: The call came from the thread of an event loop, or another process.
        """
        try:
            return self.get()
        except EOFError:
            raise StopIteration from None

    def get(self, timeout: float | None = None) -> ItemT:
        """
        Return the next one.

        Args:
            timeout: Seconds to wait for it; 0: do not wait; None: forever.

        Raises:
            TimeoutError: None came in time. The stream continues.
            EOFError: The listener, or the log, has been closed.
            WrongLoopError: The call came from the thread of an event loop, or another process.
            ValueError: ``timeout`` is not a number of seconds.
        """
        check_timeout("timeout", timeout)
        self._gateway.check_owner()
        self._leave_to_parent()
        deadline = deadline_after(timeout)
        while True:
            try:
                for item in self._taking:
                    return item
            except IndexError:
                pass
            self._wait(deadline)

    def _wait(self, deadline: float | None) -> None:
        if not self._news.wait(lambda: bool(self._items) or self._ended, deadline):
            msg = "nothing came within the timeout= of get()"
            raise TimeoutError(msg)
        if self._ended and not self._items:
            msg = f"{self._what} has been closed"
            raise EOFError(msg)

    def _put(self, item: ItemT) -> None:
        """Add an item. Called in the event loop."""
        self._leave_to_parent()
        if not self._ended:
            self._items.append(item)
            self._ended = self._is_last(item)


class Relay(Generic[ItemT]):
    """
    Passes what is announced on: to streams, then to the caller's function.

    Args:
        callback: The caller's function, which is called in the event loop's thread.
    """

    def __init__(self, callback: Callable[[ItemT], object] | None) -> None:
        self._callback = callback
        self.news = News()
        self._streams: Instances[BlockingAnnouncedStream[ItemT]] = Instances()

    def add(self, stream: BlockingAnnouncedStream[ItemT]) -> None:
        """Pass on to this stream too, as long as somebody holds it."""
        self._streams.add(stream)

    def put(self, item: ItemT) -> None:
        """Pass one item on to the streams."""
        for stream in self._streams:
            stream._put(item)  # noqa: SLF001 - not for users # pyright: ignore[reportPrivateUsage]
        self.news.wake()

    def __call__(self, item: ItemT) -> object:
        """Pass one item on; return what the function returns, or raise what it raises."""
        self.put(item)
        return None if self._callback is None else self._callback(item)
