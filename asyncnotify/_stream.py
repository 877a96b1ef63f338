"""A subscription as an asynchronous iterator."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from asyncnotify._errors import BufferOverflowError
from asyncnotify._model import Gap, Notification, SubscriptionStats

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from asyncnotify._mailbox import Item
    from asyncnotify._registry import Subscriber
    from asyncnotify._subscription import Desk

ItemT_co = TypeVar("ItemT_co", bound=Notification[Any] | Gap, covariant=True)


def _nothing() -> None:
    """Stand in for the taking from a mailbox while there is none."""


class Stream(Generic[ItemT_co]):
    """
    Notifications as an asynchronous iterator, as returned by ``Listener.stream()``.

    ``async for n in listener.stream("orders")`` listens from its first step to its end;
    ``async with listener.stream("orders") as stream`` listens once the block is entered, so
    that nothing sent inside the block is missed. It ends with StopAsyncIteration when the
    channel is unlistened or the listener is closed, after what had been buffered.

    Leaving it by ``break``, by an exception or by cancellation ends the subscription as soon
    as the object is collected; ``aclose()``, or leaving ``async with``, does so at once.

    Waiting for the next item may be cancelled, and loses nothing: the next call gets it.
    Several tasks may take from one stream; each item goes to one of them.
    To be used from the event loop of its listener.
    """

    __slots__ = (
        "__weakref__",
        "_beginners",
        "_begun",
        "_closed",
        "_desk",
        "_find_desk",
        "_gaps",
        "_new_subscriber",
        "_subscriber",
        "_take",
        "_timeout",
    )

    def __init__(
        self,
        find_desk: Callable[[], Desk],
        new_subscriber: Callable[[], Subscriber],
        *,
        gaps: bool,
        timeout: float | None,
    ) -> None:
        self._find_desk = find_desk
        self._new_subscriber = new_subscriber
        self._gaps = gaps
        self._timeout = timeout
        self._desk: Desk | None = None
        self._subscriber: Subscriber | None = None
        self._closed = False
        self._begun = False
        self._beginners = 0
        self._take: Callable[[], Item | None] = _nothing

    def __repr__(self) -> str:
        channels = tuple(self._subscriber.channels) if self._subscriber else "not begun"
        return f"<Stream channels={channels}>"

    async def __aenter__(self) -> Self:
        """
        Begin to listen; returns once the server has confirmed.

        Raises:
            ListenTimeoutError: It did not within the timeout.
            ListenerNotStartedError: The listener has not been started.
            ListenerClosedError: The listener has been closed.
        """
        await self._begin()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT_co:
        """
        Return the next item.

        Raises:
            StopAsyncIteration: The stream has ended.
            BufferOverflowError: The stream is of ``overflow="fail"`` and has overflowed.
            ListenTimeoutError: As for entering the stream, at the first call.
        """
        item = self._take()
        if item is None or item.__class__ is Gap:  # rarely: the hot path ends here
            return await self._next_after(item)
        return cast("ItemT_co", item)

    async def _next_after(self, item: Item | None) -> ItemT_co:
        """Return the item, if it is one for the consumer, or the next one that is."""
        if not self._begun:
            await self._begin()
        if self._subscriber is None:
            raise StopAsyncIteration
        subscriber, mailbox = self._subscriber, self._subscriber.mailbox
        while True:
            if item is None:
                if not await self._something_waits():
                    raise StopAsyncIteration
            elif isinstance(item, Gap):
                subscriber.gaps_taken += 1
                if self._gaps:
                    return cast("ItemT_co", item)
            else:
                return cast("ItemT_co", item)
            item = mailbox.take()

    async def _something_waits(self) -> bool:
        desk, subscriber = self._desk, self._subscriber
        if desk is None or subscriber is None:
            return False
        desk.check_place()
        try:
            return await subscriber.mailbox.wait()
        except BufferOverflowError:
            desk.detach(subscriber)
            raise

    async def aclose(self) -> None:
        """
        End the stream and throw away what it had buffered.

        When it returns, UNLISTEN has been confirmed if this was the channel's last
        subscription, or the connection is gone. Idempotent. Cancelling it leaves the stream
        ended.
        """
        self._closed = True
        if self._desk is not None and self._subscriber is not None:
            self._desk.detach(self._subscriber)
            await self._desk.settled()

    def stats(self) -> SubscriptionStats | None:
        """Return what became of this stream's notifications so far; None before it began."""
        if self._subscriber is None:
            return None
        return self._subscriber.stats()

    async def _begin(self) -> None:
        """Return once listening; if all who wait for that give up, a later call tries again."""
        if self._begun or self._closed:
            return
        desk, subscriber = self._find_desk(), self._subscriber
        if subscriber is None:
            subscriber = self._new_subscriber()
            desk.enlist(subscriber)
            self._desk, self._subscriber = desk, subscriber
        self._beginners += 1
        try:
            await desk.confirmed(subscriber, self._timeout)
        except BaseException:
            if self._nobody_else_begins(subscriber):
                self._subscriber = None
                desk.detach(subscriber)
            raise
        finally:
            self._beginners -= 1
        self._begun = True
        self._take = subscriber.mailbox.take

    def _nobody_else_begins(self, subscriber: Subscriber) -> bool:
        return self._beginners == 1 and not self._begun and self._subscriber is subscriber

    def __del__(self) -> None:
        if self._subscriber is not None and self._desk is not None:
            with contextlib.suppress(Exception):  # the loop may be closed, or the interpreter
                self._desk.forget_soon(self._subscriber)
