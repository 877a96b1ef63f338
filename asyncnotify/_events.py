"""The events of a listener's connection, and how they are logged and reported."""

import asyncio
import contextlib
import logging
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

from asyncnotify._errors import describe_error

_REPEAT_INTERVAL: Final = 60.0
"""Seconds during which the same cause is logged at INFO, after it was logged at WARNING: a server
that is down for an hour must not fill the log."""

logger = logging.getLogger("asyncnotify.connection")


@dataclass(frozen=True, slots=True)
class Connected:
    """
    The first connection is made and LISTEN is in force.

    Attributes:
        channels: How many channels are being listened on.
        backend_pid: The backend pid of the connection.
    """

    channels: int
    backend_pid: int


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """
    The connection was lost; notifications are missed until LISTEN is in force again.

    Attributes:
        cause: What went wrong, if known; a server that closes a connection seldom says why.
        backend_pid: The backend pid of the lost connection.
    """

    cause: BaseException | None
    backend_pid: int


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    """
    An attempt to connect failed; the next one is due.

    Attributes:
        attempt: How many attempts have failed in this outage.
        delay: Seconds until the next one.
        cause: Why the last one failed.
        needs_repair: Whether retrying will not help until the cause is fixed, such as a wrong
            password.
    """

    attempt: int
    delay: float
    cause: BaseException
    needs_repair: bool = False


@dataclass(frozen=True, slots=True)
class Reconnected:
    """
    A new connection is made, and LISTEN is in force again for every channel.

    Attributes:
        downtime: Seconds from the loss to this event.
        attempts: How many attempts it took.
        channels: How many channels are being listened on.
        backend_pid: The backend pid of the new connection.
    """

    downtime: float
    attempts: int
    channels: int
    backend_pid: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The listener has been closed. The last event of a run, sent exactly once."""


ConnectionEvent: TypeAlias = Connected | ConnectionLost | RetryScheduled | Reconnected | Closed

OnEvent: TypeAlias = Callable[[ConnectionEvent], object]
"""What ``on_event=`` takes: a plain function, called with each event."""


class EventStream:
    """
    Connection events as an asynchronous iterator, as returned by ``Listener.events()``.

    Begins with the first event after the call and ends after ``Closed``. Keeps the newest 1,000
    events for a slow reader. May be read in the event loop of the listener only.
    """

    def __init__(self, check_owner: Callable[[], None] = lambda: None) -> None:
        self._check_owner = check_owner
        self._events: deque[ConnectionEvent] = deque(maxlen=1_000)
        self._readers: list[asyncio.Future[None]] = []
        self._ended = False

    def _put(self, event: ConnectionEvent) -> None:
        """Add an event. Never waits and never fails."""
        if self._ended:
            return
        self._events.append(event)
        self._ended = isinstance(event, Closed)
        readers, self._readers = self._readers, []
        for reader in readers:
            with contextlib.suppress(RuntimeError):  # its loop has been closed
                reader.get_loop().call_soon_threadsafe(_wake, reader)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ConnectionEvent:
        """
        Return the next event. Cancelling it loses nothing.

        Raises:
            StopAsyncIteration: The listener has been closed.
            WrongLoopError: The listener runs in another event loop or process.
        """
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            self._check_owner()
            reader = asyncio.get_running_loop().create_future()
            self._readers.append(reader)
            try:
                await reader
            finally:
                if reader in self._readers:
                    self._readers.remove(reader)
        return self._events.popleft()


def _wake(reader: asyncio.Future[None]) -> None:
    if not reader.done():
        reader.set_result(None)


class Announcer:
    """Reports connection events to the log, to a callback and to event streams."""

    def __init__(self, target: str, callback: OnEvent | None) -> None:
        self._target = target
        self._callback = callback
        self._streams: weakref.WeakSet[EventStream] = weakref.WeakSet()
        self.check_owner: Callable[[], None] | None = None  # of the present run
        self._warned: dict[str, float] = {}  # causes, and until when each is an INFO

    def stream(self) -> EventStream:
        """Return a new stream of the events from here on."""
        stream = EventStream(self._check_owner)
        self._streams.add(stream)
        return stream

    def _check_owner(self) -> None:
        if self.check_owner is not None:
            self.check_owner()

    def announce(self, event: ConnectionEvent) -> None:
        """Report an event everywhere; what the callback raises is logged."""
        self._log(event)
        for stream in tuple(self._streams):
            stream._put(event)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        if self._callback is not None:
            try:
                self._callback(event)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:
                logger.exception("on_event raised; the listener goes on")

    def _log(self, event: ConnectionEvent) -> None:
        level, text = describe_event(event, self._target)
        cause = describe_error(getattr(event, "cause", None))
        if level >= logging.WARNING:
            now = time.monotonic()
            warned = self._warned = {c: end for c, end in self._warned.items() if now < end}
            if cause in warned:
                level = logging.INFO
            else:
                warned[cause] = now + _REPEAT_INTERVAL
        logger.log(level, text)


def describe_event(event: ConnectionEvent, target: str) -> tuple[int, str]:
    """Return the level and the line with which an event is logged."""
    match event:
        case Connected(channels, pid):
            return logging.INFO, f"listening on {_channels(channels)} at {target} (backend {pid})"
        case ConnectionLost(cause, pid):
            return logging.WARNING, (
                f"the connection to {target} (backend {pid}) was lost: {describe_error(cause)};"
                " notifications are missed until LISTEN is in force again; reconnecting"
            )
        case RetryScheduled(attempt, delay, cause, needs_repair):
            level = logging.WARNING if needs_repair else logging.INFO
            hint = "; retrying will not help until this is fixed" if needs_repair else ""
            return level, (
                f"attempt {attempt} to connect to {target} failed: {describe_error(cause)}{hint};"
                f" next attempt in {delay:.2f} s"
            )
        case Reconnected(downtime, attempts, channels, pid):
            return logging.INFO, (
                f"listening again on {_channels(channels)} at {target} (backend {pid}) after"
                f" {downtime:.3f} s and {attempts} attempt{'s' if attempts != 1 else ''};"
                " each subscription gets a Gap"
            )
        case Closed():
            return logging.INFO, f"the listener of {target} is closed"


def _channels(count: int) -> str:
    return f"{count} channel{'s' if count != 1 else ''}"
