"""Connection events for threads: they arrive in the event loop's thread, and are read in others."""

from __future__ import annotations

from asyncnotify._blocking.announcing import BlockingAnnouncedStream, Relay
from asyncnotify._blocking.gateway import Gateway
from asyncnotify._blocking.waiting import News
from asyncnotify._events import ConnectionEvent, is_closed


class BlockingEventStream(BlockingAnnouncedStream[ConnectionEvent]):
    """
    Connection events as an iterator for threads, as returned by ``BlockingListener.events()``.

    It begins with the first event after the call and ends after ``Closed``. It holds the
    newest 1,000 events for a reader that is slow.

    Waiting for the next event may be interrupted by Ctrl-C, or end by a timeout, and loses
    nothing. Any number of threads may read one stream; each event goes to one of them. In a fork it
    brings the events of that process alone.
    """

    def __init__(self, gateway: Gateway, news: News) -> None:
        super().__init__(gateway, news, is_closed, "the listener")


class EventRelay(Relay[ConnectionEvent]):
    """Passes each connection event on: to event streams, then to the caller's ``on_event``."""

    def stream(self, gateway: Gateway) -> BlockingEventStream:
        """Return a new stream of the events from here on."""
        stream = BlockingEventStream(gateway, self.news)
        self.add(stream)
        return stream
