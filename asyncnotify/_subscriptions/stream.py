"""A subscription as an asynchronous iterator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self

from asyncnotify._arguments import check_count
from asyncnotify._channels.channel import Channel
from asyncnotify._errors import AlreadyEnteredError, ClosedError
from asyncnotify._model import Gap, Notification, SubscriptionStats
from asyncnotify._owner import OfOneProcess
from asyncnotify._subscriptions.batches import DEFAULT_BATCH, Batches, ItemT_co
from asyncnotify._subscriptions.callbacks import OnError
from asyncnotify._subscriptions.reading import Beginning, Enlist, Phase, Reading, names

if TYPE_CHECKING:
    from asyncnotify._delivery.mailbox import Mailbox
    from asyncnotify._subscriptions.decoding import Taken


class _Use(Enum):
    """What users have done with a stream as a whole."""

    FREE = auto()
    """Nothing, or they iterate it."""
    ENTERED = auto()
    """It is in an ``async with``."""
    CLOSED = auto()
    """They have closed it."""


_NOT_READY: Final[Any] = object()
"""What ``take()`` returns before the stream has begun."""


def _not_ready() -> Any:  # noqa: ANN401 - it is no item
    return _NOT_READY


class Stream(OfOneProcess, Generic[ItemT_co]):
    """
    Notifications as an asynchronous iterator, as returned by ``Listener.stream()``.

    ``async for n in listener.stream("orders")`` listens from its first step to its end;
    ``async with listener.stream("orders") as stream`` listens once the block is entered, so
    that nothing sent inside the block is missed. When the channel is unlistened, the listener
    is closed, or its ``end_streams()`` is called, it ends with StopAsyncIteration, after the
    buffered items.

    Leaving the loop by ``break``, an exception or cancellation ends the subscription as soon
    as the stream is garbage-collected; a stored exception does not keep it alive.
    ``aclose()``, or leaving ``async with``, ends it at once.

    Waiting for the next item may be cancelled without losing it: the next call gets it.
    Several tasks may take from one stream; each item goes to one of them.
    Use a stream only in the event loop of its listener.
    """

    # Its coroutines let go of ``self`` before they end: whoever keeps an exception keeps the
    # frames that it has passed through, and those that called them, with all that they hold.

    __slots__ = ("__weakref__", "_loop", "_mailbox", "_state", "_take", "_use")

    def __init__(
        self,
        enlist: Enlist,
        channels: tuple[Channel[Any], ...],
        *,
        gaps: bool,
        on_error: OnError | None,
        timeout: float | None,
    ) -> None:
        self._state: Beginning | Reading = Beginning(
            enlist, channels, gaps=gaps, on_error=on_error, timeout=timeout
        )
        self._use = _Use.FREE
        self._take: Callable[[], Taken | None] = _not_ready
        self._mailbox: Mailbox
        self._loop: asyncio.AbstractEventLoop

    def __repr__(self) -> str:
        return f"<Stream of {self._name} {self._phase}>"

    @property
    def _name(self) -> str:
        return names(self._state.channels)

    @property
    def _phase(self) -> Phase:
        return Phase.CLOSED if self._use is _Use.CLOSED else self._state.phase

    async def __aenter__(self) -> Self:
        """
        Begin to listen; returns once the server has confirmed.

        Raises:
            ListenTimeoutError: It did not within the timeout.
            NotStartedError: The listener has not been started.
            AlreadyEnteredError: The stream has been entered before, and is still open.
            ClosedError: The stream or the listener has been closed.
            WrongLoopError: The call came from another event loop or process.
        """
        try:
            self._check_enterable()
            self._use = _Use.ENTERED
            try:
                self._read_from(await self._state.ready())
            except BaseException:
                if self._use is _Use.ENTERED:
                    self._use = _Use.FREE  # it may be tried again
                raise
            if self._phase is Phase.CLOSED:  # by another task, meanwhile
                raise end_of(self)
            return self
        finally:
            del self

    def _check_enterable(self) -> None:
        if self._phase in {Phase.CLOSED, Phase.ENDED}:
            raise end_of(self)
        if self._use is _Use.ENTERED:
            msg = (
                f"the stream of {self._name} has been entered already: leave the `async with` that"
                " it is in, or make another stream with listener.stream()"
            )
            raise AlreadyEnteredError(msg)

    @property
    def _how_ended(self) -> str:
        is_closed = self._use is _Use.CLOSED
        return f"{self._name} {'has been closed' if is_closed else self._state.how_ended}"

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        """
        Return the stream itself: what has been taken does not come again.

        Raises:
            ClosedError: The stream has been closed, or iterated to its end.
        """
        if self._use is _Use.CLOSED or self._state.has_told_end:
            raise end_of(self)
        return self

    async def __anext__(self) -> ItemT_co:
        """
        Return the next item.

        Raises:
            StopAsyncIteration: The stream has ended.
            BufferOverflowError: The stream is of ``overflow="fail"`` and has overflowed.
            ListenTimeoutError: As for entering the stream, at the first call.
            NotStartedError: As for entering the stream, at the first call.
            ClosedError: As for entering the stream, at the first call.
            WrongLoopError: The call came from another event loop or process.
        """
        item: Any = self._take()
        if item.__class__ is Notification:  # nearly always: the hot path ends here
            return item  # type: ignore[return-value]  # cast() would be a call for each one
        if item is None and (arrival := self._mailbox.next_arrival(self._loop)) is not None:
            try:
                await arrival
            except BaseException as error:
                mailbox, state = self._mailbox, self._state
                del self
                _give_up(mailbox, arrival, state, error)
                raise
            item = self._take()
            if item.__class__ is Notification:
                return item  # type: ignore[return-value]  # as above
        try:
            if item is _NOT_READY:
                self._read_from(await self._state.ready())
            reading: Any = self._state
            if item.__class__ is Gap:
                reading.subscriber.gaps_taken += 1
                if reading.wants_gaps:
                    return item  # type: ignore[return-value] # pyright: ignore[reportReturnType] # as above
            found: ItemT_co = await reading.next()
            return found
        finally:
            del self, item  # which may be an error, whose traceback leads to this frame

    def _read_from(self, reading: Reading) -> None:
        """Take from what the server has confirmed."""
        if self._state is not reading:
            self._loop = asyncio.get_running_loop()
            self._mailbox = reading.mailbox
            self._state = reading
            self._take = reading.take

    def batches(self, limit: int = DEFAULT_BATCH) -> Batches[ItemT_co]:
        """
        Return the stream as an asynchronous iterator of lists: of all that waits, in order.

        For those who want many at once: a list costs a fraction of as many single steps. Each
        has one item at least. It ends as the stream does, and cancelling loses nothing.

        Args:
            limit: Items in one list, at most.

        Raises:
            ValueError: ``limit`` is not a whole number, at least 1.
            ClosedError: The stream has been closed, or iterated to its end.
        """
        check_count("limit", limit)
        aiter(self)  # refuses
        return Batches(self._next_batch, limit)

    async def _next_batch(self, limit: int) -> list[ItemT_co]:
        try:
            reading = await self._state.ready()
            self._read_from(reading)
            return await reading.next_batch(limit)
        finally:
            del self

    def _at_hand(self, limit: int) -> list[ItemT_co]:
        return self._state.at_hand(limit)

    async def aclose(self) -> None:
        """
        End the stream and throw away what it had buffered.

        When it returns, UNLISTEN has been confirmed if this was the channel's last
        subscription, or the connection is gone. Idempotent. Cancelling it leaves the stream
        ended.

        Raises:
            WrongLoopError: The call came from another event loop or process.
        """
        self._use = _Use.CLOSED
        await self._state.close()

    def stats(self) -> SubscriptionStats | None:
        """Return what became of this stream's notifications so far; None before it began."""
        return self._state.stats()

    def __del__(self) -> None:
        self._state.forget()


def end_of(stream: Stream[Any]) -> ClosedError:
    """Return the error for a use of a stream that has ended."""
    how = stream._how_ended  # noqa: SLF001 - not for users # pyright: ignore[reportPrivateUsage]
    return ClosedError(f"the stream of {how}; make another with listener.stream()")


def at_hand(stream: Stream[ItemT_co], limit: int) -> list[ItemT_co]:
    """Return what waits, so many at most, without waiting at all; nothing before it began."""
    return stream._at_hand(limit)  # noqa: SLF001 - not for users # pyright: ignore[reportPrivateUsage]


def _give_up(
    mailbox: Mailbox,
    arrival: asyncio.Future[None],
    reading: Any,  # noqa: ANN401 - a Reading: before it there is no mailbox
    error: BaseException,
) -> None:
    """Wait no more. Raise WrongLoopError where asyncio refuses a future of another loop."""
    mailbox.give_up(arrival)
    if isinstance(error, RuntimeError):
        reading.check_owner()
