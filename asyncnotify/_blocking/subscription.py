"""The subscription of a handler, for threads."""

from __future__ import annotations

import contextlib

from asyncnotify._blocking.gateway import Gateway
from asyncnotify._errors import ClosedError
from asyncnotify._model import SubscriptionStats
from asyncnotify._owner import OfOneProcess
from asyncnotify._subscriptions.subscription import Subscription


class BlockingSubscription(OfOneProcess):
    """
    A handler that listens on a channel, as returned by ``BlockingListener.listen()``.

    Any thread but the event loop's own may use it.
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
        """Whether the handler will still be called in this process: in a fork it will not."""
        return self._subscription.active

    def stats(self) -> SubscriptionStats:
        """Return what became of this subscription's notifications so far."""
        return self._gateway.look(self._subscription.stats)

    def cancel(self) -> None:
        """
        End this subscription; the channel's other subscriptions go on.

        When the call returns, the handler will not be called again. If this was the channel's
        last subscription, the server has confirmed UNLISTEN, or the connection is gone. A call
        of the handler that is running runs to its end. What waited in the buffer is discarded.
        Idempotent; may be called from the handler itself. An interrupted call leaves the
        subscription ended. In the thread of an event loop, where a ``__del__`` may run, it only
        begins this.

        Raises:
            WrongLoopError: The call came from another process.
        """
        self._gateway.check_process()
        if self.active:
            with contextlib.suppress(ClosedError):
                self._gateway.end(self._subscription.cancel)


async def withdraw(subscription: BlockingSubscription) -> None:
    """Cancel a subscription that its caller never got. Called in the event loop."""
    await subscription._subscription.cancel()  # noqa: SLF001 - not for users # pyright: ignore[reportPrivateUsage]
