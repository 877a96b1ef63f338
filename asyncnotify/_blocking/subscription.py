"""The handle of a handler's subscription, for threads."""

from __future__ import annotations

import contextlib

from asyncnotify._blocking.gateway import Gateway
from asyncnotify._errors import ClosedError
from asyncnotify._model import SubscriptionStats
from asyncnotify._subscriptions.subscription import Subscription


class BlockingSubscription:
    """
    A handler that listens on a channel, as returned by ``BlockingListener.listen()``.

    To be used from any thread, except from the event loop's own.
    """

    __slots__ = ("_gateway", "_subscription")

    def __init__(self, gateway: Gateway, subscription: Subscription) -> None:
        self._gateway = gateway
        self._subscription = subscription

    def __repr__(self) -> str:
        return f"<Blocking{repr(self._subscription)[1:]}"

    @property
    def channel(self) -> str:
        """The channel listened on."""
        return self._subscription.channel

    @property
    def active(self) -> bool:
        """Whether the handler is still going to be called."""
        return self._subscription.active

    def stats(self) -> SubscriptionStats:
        """Return what became of this subscription's notifications so far."""
        return self._gateway.look(self._subscription.stats)

    def cancel(self) -> None:
        """
        End this subscription; the channel's other subscriptions go on.

        When it returns, the handler will not be started again, and UNLISTEN has been confirmed
        if this was the channel's last subscription, or the connection is gone. A handler that
        is running at the moment runs to its end. What waited in the buffer is thrown away.
        Idempotent; may be called from the handler itself. Interrupting the call leaves the
        subscription ended.

        Raises:
            WrongLoopError: This is the event loop's own thread, or another process.
        """
        if self.active:
            with contextlib.suppress(ClosedError):
                self._gateway.call(self._subscription.cancel)
