"""The incidents of a log for threads: they arrive in the event loop's, and are read in others."""

from __future__ import annotations

from asyncnotify._blocking.announcing import BlockingAnnouncedStream, Relay
from asyncnotify._blocking.gateway import Gateway
from asyncnotify._blocking.waiting import News
from asyncnotify._events import is_closed
from asyncnotify.log._incidents import Incident


class BlockingIncidentStream(BlockingAnnouncedStream[Incident]):
    """
    The incidents of a log as an iterator for threads, as returned by ``BlockingLog.incidents()``.

    It begins with the first one after the call and ends after ``Closed``. It holds the newest 1,000
    for a reader that is slow. Any number of threads may read one stream; each incident goes to one
    of them. Waiting may be interrupted by Ctrl-C, or end by a timeout, and loses nothing.
    """

    def __init__(self, gateway: Gateway, news: News) -> None:
        super().__init__(gateway, news, is_closed, "the log")


class IncidentRelay(Relay[Incident]):
    """Passes each incident on: to streams, then to the caller's ``on_incident``."""

    def stream(self, gateway: Gateway) -> BlockingIncidentStream:
        """Return a new stream of the incidents from here on."""
        stream = BlockingIncidentStream(gateway, self.news)
        self.add(stream)
        return stream
