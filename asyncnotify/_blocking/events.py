"""Connection events for threads: they arrive in the event loop's thread, and are read in others."""

from __future__ import annotations

import os
from collections import deque
from typing import Final, Self

from asyncnotify._arguments import check_timeout
from asyncnotify._blocking.gateway import Gateway
from asyncnotify._blocking.waiting import Instances, News, deadline_after, taking_from
from asyncnotify._events import Closed, ConnectionEvent, OnEvent
from asyncnotify._owner import OfOneProcess

_KEPT: Final = 1_000
"""Events that a stream keeps for a slow reader, as EventStream does."""


class BlockingEventStream(OfOneProcess):
    """
    Connection events as an iterator for threads, as returned by ``BlockingListener.events()``.

    It begins with the first event after the call and ends after ``Closed``. It holds the
    newest 1,000 events for a reader that is slow.

    Waiting for the next event may be interrupted by Ctrl-C, or end by a timeout, and loses
    nothing. Any number of threads may read one stream; each event goes to one of them. In a fork it
    brings the events of that process alone.
    """

    def __init__(self, gateway: Gateway, news: News) -> None:
        self._gateway = gateway
        self._news = news
        self._events: deque[ConnectionEvent] = deque(maxlen=_KEPT)
        self._taking = taking_from(self._events)
        self._ended = False
        self._process = os.getpid()

    def _leave_to_parent(self) -> None:
        """In a fork, forget what another process has been told: it reads that itself."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._events.clear()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ConnectionEvent:
        """
        Return the next event; StopIteration ends the stream.

        Raises:
            StopIteration: The listener has been closed.
            WrongLoopError: The call came from the thread of an event loop, or another process.
        """
        try:
            return self.get()
        except EOFError:
            raise StopIteration from None

    def get(self, timeout: float | None = None) -> ConnectionEvent:
        """
        Return the next event.

        Args:
            timeout: Seconds to wait for the event; 0: do not wait; None: forever.

        Raises:
            TimeoutError: No event came in time. The stream continues.
            EOFError: The listener has been closed.
            WrongLoopError: The call came from the thread of an event loop, or another process.
            ValueError: ``timeout`` is not a number of seconds.
        """
        check_timeout("timeout", timeout)
        self._gateway.check_owner()
        self._leave_to_parent()
        deadline = deadline_after(timeout)
        while True:
            try:
                for event in self._taking:
                    return event
            except IndexError:
                pass
            self._wait(deadline)

    def _wait(self, deadline: float | None) -> None:
        if not self._news.wait(lambda: bool(self._events) or self._ended, deadline):
            msg = "no event came within the timeout= of get()"
            raise TimeoutError(msg)
        if self._ended and not self._events:
            msg = "the listener has been closed"
            raise EOFError(msg)

    def _put(self, event: ConnectionEvent) -> None:
        """Add an event. Called in the event loop."""
        self._leave_to_parent()
        if not self._ended:
            self._events.append(event)
            self._ended = isinstance(event, Closed)


class EventRelay:
    """
    Passes each connection event on: to event streams, then to the caller's ``on_event``.

    Args:
        on_event: The caller's function, which is called in the event loop's thread.
    """

    def __init__(self, on_event: OnEvent | None) -> None:
        self._on_event = on_event
        self._news = News()
        self._streams: Instances[BlockingEventStream] = Instances()

    def stream(self, gateway: Gateway) -> BlockingEventStream:
        """Return a new stream of the events from here on."""
        stream = BlockingEventStream(gateway, self._news)
        self._streams.add(stream)
        return stream

    def __call__(self, event: ConnectionEvent) -> object:
        """Pass one event on; return what ``on_event`` returns, or raise what it raises."""
        for stream in self._streams:
            stream._put(event)  # noqa: SLF001 - not for users # pyright: ignore[reportPrivateUsage]
        self._news.wake()
        return None if self._on_event is None else self._on_event(event)
