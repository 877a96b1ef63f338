"""Telling a callback and streams what happens."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import weakref
from collections import deque
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Final, Generic, Self, TypeVar

from asyncnotify._arguments import check_ran
from asyncnotify._logs import WarningLimit
from asyncnotify._owner import OfOneProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify._logs import Log

ItemT = TypeVar("ItemT")

KEPT: Final = 1_000
"""Items that a stream keeps for a slow reader."""

_BLOCKING: Final = 1.0
"""Seconds for which a callback may block the event loop unnoticed."""


class AnnouncedStream(OfOneProcess, Generic[ItemT]):
    """
    What is announced, as an asynchronous iterator; up to the item that is the last.

    Args:
        is_last: Returns whether no item follows this one.
        check_owner: Raises where the stream may not be read.
    """

    def __init__(
        self, is_last: Callable[[ItemT], bool], check_owner: Callable[[], None] = lambda: None
    ) -> None:
        self._is_last = is_last
        self._check_owner = check_owner
        self._items: deque[ItemT] = deque(maxlen=KEPT)
        self._readers: list[asyncio.Future[None]] = []
        self._ended = False
        self._process = os.getpid()

    def _leave_to_parent(self) -> None:
        """In a fork, forget what another process has been told: it reads that itself."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._items.clear()
            self._readers.clear()

    def _put(self, item: ItemT) -> None:
        """Add an item. Never waits and never fails."""
        self._leave_to_parent()
        if self._ended:
            return
        self._items.append(item)
        self._ended = self._is_last(item)
        readers, self._readers = self._readers, []
        for reader in readers:
            with contextlib.suppress(RuntimeError):  # its loop has been closed
                reader.get_loop().call_soon_threadsafe(_wake, reader)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT:
        """
        Return the next one. Cancelling it loses nothing.

        Raises:
            StopAsyncIteration: The listener, or the log, has been closed.
            WrongLoopError: It runs in another event loop or process.
        """
        self._leave_to_parent()
        while not self._items:
            if self._ended:
                raise StopAsyncIteration
            self._check_owner()
            reader = asyncio.get_running_loop().create_future()
            try:
                self._readers.append(reader)
                await reader
            finally:
                if reader in self._readers:
                    self._readers.remove(reader)
        item = self._items[0]
        del self._items[0]  # no call: a signal handler may raise after each, and lose the item
        return item


def _wake(reader: asyncio.Future[None]) -> None:
    if not reader.done():
        reader.set_result(None)


class Audience(Generic[ItemT]):
    """
    The callback and the streams that are told. Whatever the callback does, the streams are.

    Args:
        callback: Called with each item, if there is one.
        option: Under which name it was given, such as ``on_event``.
        iterate: How to iterate over the same, such as ``listener.events()``.
        goes_on: What goes on when the callback raises, such as ``the listener``.
        target: The server, for log records.
        log: Where it is logged.
    """

    def __init__(
        self,
        callback: Callable[[ItemT], object] | None,
        *,
        option: str,
        iterate: str,
        goes_on: str,
        target: str,
        log: Log,
    ) -> None:
        self._callback = callback
        self._option = option
        self._iterate = iterate
        self._goes_on = goes_on
        self._target = target
        self._logger = log
        self._streams: weakref.WeakSet[AnnouncedStream[ItemT]] = weakref.WeakSet()
        self._warnings = WarningLimit()

    def add(self, stream: AnnouncedStream[ItemT]) -> None:
        """Tell this stream too, as long as somebody holds it."""
        self._streams.add(stream)

    def put(self, item: ItemT) -> None:
        """Tell the streams."""
        for stream in tuple(self._streams):
            stream._put(item)  # noqa: SLF001 - not for users # pyright: ignore[reportPrivateUsage]

    def tell(self, item: ItemT) -> None:
        """Tell all; what the callback raises is logged."""
        self.put(item)
        if self._callback is not None:
            self._call(self._callback, item)

    def _call(self, callback: Callable[[ItemT], object], item: ItemT) -> None:
        option, target = self._option, self._target
        began = monotonic()
        try:
            # Empty, as that of tasks: else some incidents had the user and trace of one request
            _check_ran(option, Context().run(callback, item))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            log = self._logger
            log.exception("%s raised; %s goes on", option, self._goes_on, target=target)
        if (took := monotonic() - began) > _BLOCKING:
            text = (
                "%s blocked the event loop for %.1f s, in which nothing else ran in it: hand what"
                " takes long to a task or a thread, or iterate over %s"
            )
            arguments = (option, took, self._iterate)
            log = self._logger
            log.warning(self._warnings, "blocks", text, *arguments, target=target)


def _check_ran(option: str, result: object) -> None:
    """Raise TypeError for what a callback has returned of which nothing has run, or ever will."""
    check_ran(option, result)
    if inspect.iscoroutine(result):
        result.close()
        msg = f"{option} returned a coroutine, which nobody awaits: make a task of it"
        raise TypeError(msg)
