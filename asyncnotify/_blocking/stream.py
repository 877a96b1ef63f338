"""A stream for threads, which fetch from the event loop, in batches, what has arrived."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections import deque
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from asyncnotify._arguments import check_timeout
from asyncnotify._blocking.call import Call
from asyncnotify._blocking.gateway import Gateway, awaitable
from asyncnotify._blocking.waiting import Instances, News, Outcome, deadline_after, taking_from
from asyncnotify._errors import (
    BufferOverflowError,
    ClosedError,
    NotStartedError,
    WrongLoopError,
)
from asyncnotify._model import Gap, Notification, SubscriptionStats
from asyncnotify._owner import OfOneProcess
from asyncnotify._subscriptions.batches import Batches
from asyncnotify._subscriptions.stream import Stream, at_hand, end_of

ItemT_co = TypeVar("ItemT_co", bound=Notification[Any] | Gap, covariant=True)

_LAST_LOOK: Final = 1.0
"""Seconds beyond its timeout that get() may take, where something blocks the event loop or other
processes keep it from running."""

_ENDED: Final = "the stream has ended"

_streams: Final[Instances[BlockingStream[Any]]] = Instances()


class BlockingStream(OfOneProcess, Generic[ItemT_co]):
    """
    Notifications as an iterator for threads, as returned by ``BlockingListener.stream()``.

    ``for n in listener.stream("orders")`` listens from its first step to its end;
    ``with listener.stream("orders") as stream`` listens once the block is entered, so that
    nothing sent inside the block is missed. The stream ends when the channel is unlistened, the
    listener is closed, or its ``end_streams()`` is called; after what had been buffered.

    Leaving the loop by ``break`` or by an exception ends the subscription as soon as the object is
    collected; ``close()``, or leaving ``with``, does so at once.

    Waiting for the next item may end by a timeout, or by what a signal handler raises at whatever
    point, such as Ctrl-C or the time limit of a job, and loses nothing: the next call gets the
    item. Any number of threads may take from one stream; each item goes to one of them. Items that
    have been fetched, up to 1,000 at once, no longer count as backlog, and are still handed out
    after ``unlisten()``.
    """

    def __init__(self, gateway: Gateway, stream: Stream[ItemT_co], limit: int) -> None:
        self._gateway = gateway
        self._stream = stream
        self._limit = limit
        self._batches: Batches[ItemT_co] = stream.batches(limit)
        self._items: deque[ItemT_co] = deque()
        self._taking = taking_from(self._items)
        self._news = News()
        self._lock = threading.RLock()  # held while fetching is begun or stopped
        self._fetch: Call[list[ItemT_co]] | None = None
        self._waiting: set[int] = set()  # threads; one whose wait was broken off removes itself
        self._end: BaseException | None = None  # what is raised once all has been handed out
        self._closed = False
        self._has_told_end = False  # whether a thread has met the end
        self._inherited = False  # by a fork of the process that made it
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
            WrongLoopError: The call came from the thread of an event loop, or another process.
        """
        self._gateway.call(self._stream.__aenter__, undo=lambda stream: stream.aclose())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None or not self._inherited:
            self.close()

    def __iter__(self) -> Self:
        """
        Return the stream itself: what has been taken does not come again.

        Raises:
            ClosedError: The stream has been closed, or iterated to its end.
        """
        if self._closed or self._has_told_end:
            raise end_of(self._stream)
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
            WrongLoopError: The call came from the thread of an event loop, or another process.
        """
        try:
            for item in self._taking:  # nearly always
                return item
        except IndexError:
            pass
        try:
            return self.get()
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
            timeout: Seconds to wait for the item; 0: do not wait; None: forever.

        Raises:
            ValueError: ``timeout`` is not a number of seconds.
            TimeoutError: No item came in time. The stream continues.
            EOFError: The stream has ended.
            BufferOverflowError: The stream is of ``overflow="fail"`` and has overflowed.
            ListenTimeoutError: As for entering the stream, at the first call.
            NotStartedError: As for entering the stream, at the first call.
            ClosedError: As for entering the stream, at the first call.
            WrongLoopError: The call came from the thread of an event loop, or another process.
        """
        check_timeout("timeout", timeout)
        deadline = deadline_after(timeout)
        try:
            while True:
                try:
                    for item in self._taking:
                        return item
                except IndexError:
                    pass
                self._wait(deadline)
        finally:
            del self

    def close(self) -> None:
        """
        End the stream and throw away what it had buffered; threads that wait for an item return.

        When the call returns, UNLISTEN has been confirmed if this was the channel's last
        subscription, or the connection is gone. Idempotent. An interrupted call leaves the stream
        ended. In the thread of an event loop, where a ``__del__`` may run, it only begins this.

        Raises:
            WrongLoopError: The call came from another process.
        """
        self._gateway.check_process()
        self._closed = True
        self._items.clear()
        try:
            with contextlib.suppress(ClosedError, NotStartedError):
                self._gateway.end(self._stream.aclose)
        finally:
            self._news.wake()

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
        except (ClosedError, WrongLoopError):
            pass  # the stream had not begun, or is of an earlier run or another process
        else:
            self._end = EOFError("the listener has been closed")

    # -- inside -------------------------------------------------------------------------------

    def _wait(self, deadline: float | None) -> None:
        """Return when an item may be there; raise what ends the stream, or TimeoutError."""
        failure: BaseException | None = None
        try:
            self._gateway.check_owner()
            self._waiting.add(threading.get_ident())
            self._check_end()
            if not self._items:
                failure = self._failure_of_fetching(deadline)
                self._check_end()  # closing the listener breaks off fetching, once that is over
                if failure is not None and not self._items:
                    raise failure
        finally:
            self._leave()
            del self, failure

    def _failure_of_fetching(self, deadline: float | None) -> BaseException | None:
        """Wait until an item may be there, or fetching has failed: return what it raised."""
        fetch: Call[list[ItemT_co]] | None = None
        try:
            fetch = self._fetching()
            if not self._news.wait(functools.partial(self._is_settled, fetch), deadline):
                self._look_once_more(fetch)
            return self._failure_of(fetch.outcome)
        except ClosedError as error:  # the listener was closed since its end was looked for
            return error.with_traceback(None)
        finally:
            del self, fetch

    def _failure_of(self, outcome: Outcome[list[ItemT_co]]) -> BaseException | None:
        failure = outcome.exception() if outcome.done() else None
        if not isinstance(failure, StopAsyncIteration):
            return failure
        self._end = EOFError(_ENDED)
        return None

    def _is_settled(self, fetch: Call[list[ItemT_co]]) -> bool:
        return bool(self._items) or self._closed or fetch.outcome.done()

    def _leave(self) -> None:
        with self._lock:
            self._waiting.discard(threading.get_ident())
            if not self._waiting:
                self._stop_fetching()

    def _check_end(self) -> None:
        """Raise what ends the stream, once all that it brought has been taken."""
        end = EOFError(_ENDED) if self._closed else self._end
        try:
            # The last items are added before the end is set: look for them after it
            if end is not None and not self._items:
                if isinstance(end, EOFError):
                    self._has_told_end = True
                raise end.with_traceback(None)
        finally:
            del self, end

    def _fetching(self) -> Call[list[ItemT_co]]:
        """Return what is being fetched. The thread that finds that nothing is begins to fetch."""
        with self._lock:
            fetch = self._fetch
            if fetch is None or fetch.outcome.done():
                fetch = Call(functools.partial(anext, self._batches))
                fetch.outcome.add_done_callback(self._fetched)
                self._fetch = fetch
            # also what was begun before: that may have been interrupted on its way to the loop
            return self._gateway.portal.begin(fetch)

    def _look_once_more(self, fetch: Call[list[ItemT_co]]) -> None:
        """Raise TimeoutError, unless an item is there that only has to be fetched."""
        try:
            with self._lock:
                alone = len(self._waiting) == 1
                if alone:
                    self._stop_fetching()
            if alone:
                looked = functools.partial(self._is_settled, self._looking())
                self._news.wait(looked, deadline_after(_LAST_LOOK))
                del looked
            if not self._items and not (fetch.outcome.done() and not _was_cancelled(fetch.outcome)):
                msg = f"{self!r} got no item within the timeout= of get()"
                raise TimeoutError(msg)
        finally:
            del self, fetch

    def _looking(self) -> Call[list[ItemT_co]]:
        """Begin to take what waits: fetching may have been stopped while it waited for its turn."""
        look = Call(awaitable(functools.partial(at_hand, self._stream, self._limit)))
        look.outcome.add_done_callback(self._fetched)
        return self._gateway.portal.begin(look)

    def _stop_fetching(self) -> None:
        """Leave what has not arrived yet to the mailbox, which keeps to its own rules."""
        fetch, self._fetch = self._fetch, None
        if fetch is not None:
            with contextlib.suppress(ClosedError):
                self._gateway.portal.abandon(fetch)

    def _fetched(self, outcome: Outcome[list[ItemT_co]]) -> None:
        """Add what was fetched, whether or not a thread still waits for it."""
        self._take_in([] if outcome.exception() is not None else outcome.result())
        self._news.wake()

    def _take_in(self, batch: list[ItemT_co]) -> None:
        self._items.extend(batch)
        if self._closed:  # maybe since: who closes it clears them afterwards
            self._items.clear()

    def _renew(self) -> None:
        """In a fork: drop the items, which the parent process hands out, and its threads."""
        self._inherited = True
        self._items.clear()
        self._waiting.clear()
        self._fetch = None
        self._lock = threading.RLock()


async def fetch_the_rest(stream: BlockingStream[Any]) -> None:
    """Fetch all that is buffered, once no more can arrive. Called in the event loop."""
    await stream._fetch_the_rest()  # noqa: SLF001 - not for users # pyright: ignore[reportPrivateUsage]


def _was_cancelled(outcome: Outcome[Any]) -> bool:
    return isinstance(outcome.exception(), ClosedError)


def _forked() -> None:
    for stream in _streams:
        stream._renew()  # noqa: SLF001 - not for users # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
