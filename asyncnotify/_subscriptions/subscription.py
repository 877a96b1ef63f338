"""The object that ``listen()`` returns."""

from __future__ import annotations

from asyncnotify._model import SubscriptionStats
from asyncnotify._owner import OfOneProcess
from asyncnotify._subscriptions.roster import Roster
from asyncnotify._subscriptions.worker import HandlerWorker


class Subscription(OfOneProcess):
    """
    A handler that listens on a channel, as returned by ``Listener.listen()``.

    May be used from the event loop of its listener only.
    """

    __slots__ = ("_channel", "_roster", "_worker")

    def __init__(self, roster: Roster, channel: str, worker: HandlerWorker) -> None:
        self._roster = roster
        self._channel = channel
        self._worker = worker

    def __repr__(self) -> str:
        return f"<Subscription channel={self._channel!r} active={self.active}>"

    @property
    def channel(self) -> str:
        """The channel listened on."""
        return self._channel

    @property
    def active(self) -> bool:
        """Whether the handler will still be called in this process: in a fork it will not."""
        return self._worker.active and not self._roster.is_of_other_process

    def stats(self) -> SubscriptionStats:
        """Return a snapshot of the counters of this subscription."""
        return self._worker.subscriber.stats()

    async def cancel(self) -> None:
        """
        End this subscription; the channel's other subscriptions go on.

        When the call returns, the handler will not be called again. If this was the channel's
        last subscription, the server has confirmed UNLISTEN, or the connection is gone. A call
        of the handler that is running runs to its end. What waited in the buffer is discarded.
        Idempotent; may be called from the handler itself. Cancelling the call leaves the
        subscription ended.

        Raises:
            WrongLoopError: The call came from another event loop or process.
        """
        self._roster.detach(self._worker.subscriber)
        await self._roster.settled()
