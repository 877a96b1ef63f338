"""The handle on a handler's subscription, which users hold."""

from __future__ import annotations

from asyncnotify._model import SubscriptionStats
from asyncnotify._subscriptions.roster import Roster
from asyncnotify._subscriptions.worker import HandlerWorker


class Subscription:
    """
    A handler that listens on a channel, as returned by ``Listener.listen()``.

    To be used from the event loop of its listener.
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
        """Whether the handler is still going to be called."""
        return self._worker.active

    def stats(self) -> SubscriptionStats:
        """Return what became of this subscription's notifications so far."""
        return self._worker.subscriber.stats()

    async def cancel(self) -> None:
        """
        End this subscription; the channel's other subscriptions go on.

        When it returns, the handler will not be started again, and UNLISTEN has been confirmed
        if this was the channel's last subscription, or the connection is gone. A handler that
        is running at the moment runs to its end. What waited in the buffer is thrown away.
        Idempotent; may be called from the handler itself. Cancelling the call leaves the
        subscription ended.
        """
        self._roster.detach(self._worker.subscriber)
        await self._roster.settled()
