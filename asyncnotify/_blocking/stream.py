"""A stream for threads, which fetch from the event loop, in batches, what has arrived."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
import weakref
from collections import deque
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from asyncnotify._arguments import check_timeout
from asyncnotify._blocking.gateway import Gateway
from asyncnotify._blocking.portal import Call
from asyncnotify._errors import (
    BufferOverflowError,
    ClosedError,
    NotStartedError,
)
from asyncnotify._model import Gap, Notification, SubscriptionStats
from asyncnotify._subscriptions.batches import Batches
from asyncnotify._subscriptions.stream import Stream

ItemT_co = TypeVar("ItemT_co", bound=Notification[Any] | Gap, covariant=True)

_LAST_LOOK: Final = 0.1
"""Seconds beyond its timeout that get() may take, where something blocks the event loop."""

_ENDED: Final = "the stream has ended"

_streams: weakref.WeakSet[BlockingStream[Any]] = weakref.WeakSet()


class BlockingStream(Generic[ItemT_co]):
    """
    Notifications as an iterator for threads, as returned by ``BlockingListener.stream()``.

    ``for n in listener.stream("orders")`` listens from its first step to its end;
    ``with listener.stream("orders") as stream`` listens once the block is entered, so that
    nothing sent inside the block is missed. The stream ends when the channel is unlistened or the
    listener is closed, after what had been buffered.

    Leaving the loop by ``break`` or by an exception ends the subscription as soon as the object is
    collected; ``close()``, or leaving ``with``, does so at once.

    Waiting for the next item may be interrupted by Ctrl-C, or end by a timeout, and loses nothing:
    the next call gets it. Any number of threads may take from one stream; each item goes to one of
    them. Items that have been fetched, up to 1,000 at once, no longer count as backlog, and are
    still handed out after ``unlisten()``.
    """

    def __init__(self, gateway: Gateway, stream: Stream[ItemT_co], limit: int) -> None:
        self._gateway = gateway
        self._stream = stream
        self._batches: Batches[ItemT_co] = stream.batches(limit)
        self._items: deque[ItemT_co] = deque()
        self._news = threading.Condition()
        self._fetch: Call[list[ItemT_co]] | None = None
        self._waiting = 0
        self._end: BaseException | None = None  # what is raised once all has been handed out
        self._closed = False
        _streams.add(self)

    def __repr__(self) -> str:
        return f"<Blocking{repr(self._stream)[1:]}"

    def __enter__(self) -> Self:
        """
        Begin to listen; return once the server has confirmed.

        Raises:
            ListenTimeoutError: The server did not confirm within the timeout.
            NotStartedError: The listener has not been started.
            AlreadyEnteredError: The stream has been entered before, and is still open.
            ClosedError: The stream or the listener has been closed.
            WrongLoopError: The call came from the event loop's own thread, or another process.
        """
        self._gateway.call(self._stream.__aenter__, undo=lambda stream: stream.aclose())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None or not self._gateway.is_of_other_process:
            self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ItemT_co:
        """
        Return the next item, as ``get()`` does; StopIteration ends the stream.

        Raises:
            StopIteration: The stream has ended.
            BufferOverflowError: The stream is of ``overflow="fail"`` and has overflowed.
            ListenTimeoutError: As for entering the stream, at the first call.
            NotStartedError: As for entering the stream, at the first call.
            ClosedError: As for entering the stream, at the first call.
            WrongLoopError: The call came from the event loop's own thread, or another process.
        """
        try:
            return self._items.popleft()  # nearly always
        except IndexError:
            pass
        try:
            return self._next(None)
        except EOFError:
            raise StopIteration from None
        finally:
            del self  # an exception that somebody keeps must not keep the stream

    def get(self, timeout: float | None = None) -> ItemT_co:
        """
        Return the next item.

        A stream that has not been entered begins at the first call; if that call times out before
        the server has confirmed, the stream has not begun.

        Args:
            timeout: Seconds to wait for the item; 0: do not wait; None: for ever.

        Raises:
            ValueError: ``timeout`` is not a number of seconds.
            TimeoutError: No item came in time. The stream goes on.
            EOFError: The stream has ended.
            BufferOverflowError: The stream is of ``overflow="fail"`` and has overflowed.
            ListenTimeoutError: As for entering the stream, at the first call.
            NotStartedError: As for entering the stream, at the first call.
            ClosedError: As for entering the stream, at the first call.
            WrongLoopError: The call came from the event loop's own thread, or another process.
        """
        check_timeout("timeout", timeout)
        try:
            return self._items.popleft()
        except IndexError:
            pass
        try:
            return self._next(timeout)
        finally:
            del self

    def close(self) -> None:
        """
        End the stream and throw away what it had buffered; threads that wait for an item return.

        When the call returns, UNLISTEN has been confirmed if this was the channel's last
        subscription, or the connection is gone. Idempotent. An interrupted call leaves the stream
        ended.

        Raises:
            WrongLoopError: The call came from the event loop's own thread, or another process.
        """
        self._gateway.check_owner()
        self._closed = True
        self._items.clear()
        with contextlib.suppress(ClosedError, NotStartedError):
            self._gateway.call(self._stream.aclose)
        with self._news:
            self._news.notify_all()

    def stats(self) -> SubscriptionStats | None:
        """Return what happened to this stream's notifications so far; None before it began."""
        return self._gateway.look(self._stream.stats)

    async def _fetch_the_rest(self) -> None:
        """Fetch all that is buffered, once no more can arrive. Called in the event loop."""
        try:
            async for batch in self._batches:
                self._take_in(batch)
        except BufferOverflowError as error:
            self._end = error
        except ClosedError:
            pass  # the stream had not begun
        else:
            self._end = EOFError("the listener has been closed")

    # -- inside -------------------------------------------------------------------------------

    def _next(self, timeout: float | None) -> ItemT_co:
        try:
            self._gateway.check_owner()  # before a lock, which a fork may have left locked
            deadline = None if timeout is None else time.monotonic() + timeout
            with self._news:
                self._waiting += 1
                try:
                    return self._awaited(deadline)
                finally:
                    self._waiting -= 1
                    if not self._waiting:
                        self._stop_fetching()
        finally:
            del self

    def _awaited(self, deadline: float | None) -> ItemT_co:
        """Wait for an item. The thread that finds that nothing is being fetched begins to fetch."""
        fetch: Call[list[ItemT_co]] | None = None
        try:
            while True:
                with contextlib.suppress(IndexError):
                    return self._items.popleft()
                self._check_end(fetch)
                fetch = self._fetch or self._begin_to_fetch()
                if not self._news.wait(_remaining(deadline)):
                    self._look_once_more(fetch)
        finally:
            del self, fetch

    def _check_end(self, fetch: Call[list[ItemT_co]] | None) -> None:
        """Raise what ends the stream, or what fetching raised."""
        try:
            if self._closed:
                raise EOFError(_ENDED)
            if fetch is not None and fetch.outcome.done():
                self._check(fetch.outcome)
            if self._end is not None:
                raise self._end.with_traceback(None)
        finally:
            del self

    def _check(self, outcome: Future[list[ItemT_co]]) -> None:
        """Raise what fetching raised."""
        error = outcome.exception()
        if isinstance(error, StopAsyncIteration):
            self._end = EOFError(_ENDED)
        elif error is not None:
            raise error

    def _begin_to_fetch(self) -> Call[list[ItemT_co]]:
        fetch = Call(functools.partial(anext, self._batches))
        fetch.outcome.add_done_callback(self._fetched)
        self._fetch = self._gateway.portal.begin(fetch)
        return fetch

    def _look_once_more(self, fetch: Call[list[ItemT_co]]) -> None:
        """Raise TimeoutError, unless an item is there that only has to be fetched."""
        if self._waiting == 1:
            self._stop_fetching()  # it looks into the mailbox before it stops
            deadline = time.monotonic() + _LAST_LOOK
            while not self._items and not fetch.outcome.done():
                if not self._news.wait(_remaining(deadline)):
                    break
            if fetch.outcome.done() and not _was_cancelled(fetch.outcome):
                return
        if not self._items and not (fetch.outcome.done() and self._waiting > 1):
            del self, fetch
            msg = "no notification came in time"
            raise TimeoutError(msg)

    def _stop_fetching(self) -> None:
        """Leave what has not arrived yet to the mailbox, which keeps to its own rules."""
        fetch, self._fetch = self._fetch, None
        if fetch is not None:
            with contextlib.suppress(ClosedError):
                self._gateway.portal.abandon(fetch)

    def _fetched(self, outcome: Future[list[ItemT_co]]) -> None:
        """Add what was fetched, whether or not a thread still waits for it."""
        self._take_in(outcome.result() if outcome.exception() is None else [])
        with self._news:
            if self._fetch is not None and self._fetch.outcome is outcome:
                self._fetch = None
            self._news.notify_all()

    def _take_in(self, batch: list[ItemT_co]) -> None:
        if not self._closed:
            self._items.extend(batch)

    def _forget_items(self) -> None:
        """In a fork: drop the items, which the parent process hands out."""
        self._items = deque()


async def fetch_the_rest(stream: BlockingStream[Any]) -> None:
    """Fetch all that is buffered, once no more can arrive. Called in the event loop."""
    await stream._fetch_the_rest()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def _was_cancelled(outcome: Future[Any]) -> bool:
    return isinstance(outcome.exception(), ClosedError)


def _remaining(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _forked() -> None:
    for stream in list(_streams):
        stream._forget_items()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
