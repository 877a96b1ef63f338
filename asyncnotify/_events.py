"""The events of a listener's connection, and how they are logged and reported."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from asyncnotify._announcing import AnnouncedStream, Audience
from asyncnotify._errors import describe_error
from asyncnotify._logs import Fields, Log, WarningLimit

log = Log("connection")


@dataclass(frozen=True, slots=True)
class Connected:
    """
    The first connection is made and LISTEN is in effect.

    Attributes:
        channels: How many channels are being listened on.
        backend_pid: The backend pid of the connection; 0 if a pooler hides it.
    """

    channels: int
    backend_pid: int


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """
    The connection was lost; notifications are missed until LISTEN is in effect again.

    Attributes:
        cause: What went wrong, if known; a server that closes a connection rarely says why.
        backend_pid: The backend pid of the lost connection; 0 if a pooler hides it.
    """

    cause: BaseException | None
    backend_pid: int

    def __repr__(self) -> str:
        return without_words(self)


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

    def __repr__(self) -> str:
        return without_words(self)


@dataclass(frozen=True, slots=True)
class Reconnected:
    """
    A new connection is made, and LISTEN is in effect again for every channel.

    Attributes:
        downtime: Seconds from the loss to this event.
        attempts: How many attempts it took.
        channels: How many channels are being listened on.
        backend_pid: The backend pid of the new connection; 0 if a pooler hides it.
    """

    downtime: float
    attempts: int
    channels: int
    backend_pid: int


@dataclass(frozen=True, slots=True)
class Replaced:
    """
    A new connection has taken the place of one that had reached ``max_connection_age``.

    Nothing was missed: there is no Gap.

    Attributes:
        channels: How many channels are being listened on.
        backend_pid: The backend pid of the new connection; 0 if a pooler hides it.
        previous_backend_pid: The backend pid of the connection that it replaces.
    """

    channels: int
    backend_pid: int
    previous_backend_pid: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The listener, or the log, has been closed. The last event of a run, sent exactly once."""


def without_words(event: Any) -> str:  # noqa: ANN401 - a dataclass of events
    """Return the repr of an event. The cause may be an error of the caller's, with any text."""
    shown: list[str] = []
    for field in fields(event):
        value = getattr(event, field.name)
        is_error = isinstance(value, BaseException)
        shown.append(f"{field.name}={f'<{describe_error(value)}>' if is_error else repr(value)}")
    return f"{type(event).__name__}({', '.join(shown)})"


ConnectionEvent: TypeAlias = (
    Connected | ConnectionLost | RetryScheduled | Reconnected | Replaced | Closed
)
"""Any of the connection events."""

OnEvent: TypeAlias = Callable[[ConnectionEvent], object]
"""What ``on_event=`` takes: a plain function, called with each event."""


class EventStream(AnnouncedStream[ConnectionEvent]):
    """
    Connection events as an asynchronous iterator, as returned by ``Listener.events()``.

    Begins with the first event after the call and ends after ``Closed``. Keeps the newest 1,000
    events for a slow reader. May be read in the event loop of the listener only. In a fork it
    brings the events of that process alone.
    """

    def __init__(self, check_owner: Callable[[], None] = lambda: None) -> None:
        super().__init__(is_closed, check_owner)


def is_closed(event: object) -> bool:
    """Return whether this is the last event."""
    return isinstance(event, Closed)


class Announcer:
    """Reports connection events to the log, to a callback and to event streams."""

    def __init__(
        self, target: str, callback: OnEvent | None, start_timeout: float | None = None
    ) -> None:
        self._target = target
        limit = "" if start_timeout is None else f" for {start_timeout:g} s"
        self._keeps_trying = f"; start() keeps trying{limit}"
        self._is_starting = True
        self._audience: Audience[ConnectionEvent] = Audience(
            callback,
            option="on_event",
            iterate="listener.events()",
            goes_on="the listener",
            target=target,
            log=log,
        )
        self.check_owner: Callable[[], None] | None = None  # of the present run
        self._warnings = WarningLimit()

    def stream(self) -> EventStream:
        """Return a new stream of the events from here on."""
        stream = EventStream(self._check_owner)
        self._audience.add(stream)
        return stream

    def _check_owner(self) -> None:
        if self.check_owner is not None:
            self.check_owner()

    def end_streams(self) -> None:
        """End the streams that wait for events of a run that has never begun."""
        self._audience.put(Closed())

    def announce(self, event: ConnectionEvent) -> None:
        """Log an event, and tell of it; what the callback raises is logged."""
        self._log(event)
        self._audience.tell(event)

    def _log(self, event: ConnectionEvent) -> None:
        keeps_trying = self._keeps_trying if self._is_starting else ""
        self._is_starting = isinstance(event, Closed) or (
            self._is_starting and not isinstance(event, Connected)
        )
        level, text = describe_event(event, self._target, keeps_trying)
        if level >= logging.WARNING:
            cause = describe_error(getattr(event, "cause", None))
            log.warning(self._warnings, cause, "%s", text, **self._fields(event))
        else:
            log.info("%s", text, **self._fields(event))

    def _fields(self, event: ConnectionEvent) -> Fields:
        fields = Fields(target=self._target)
        if isinstance(event, RetryScheduled):
            fields["attempt"], fields["delay"] = event.attempt, event.delay
        elif not isinstance(event, Closed):
            fields["pid"] = event.backend_pid
        return fields


def describe_event(event: ConnectionEvent, target: str, keeps_trying: str = "") -> tuple[int, str]:
    """
    Return the level and the line with which an event is logged.

    Args:
        event: What has happened.
        target: The server, as logs name it.
        keeps_trying: For how long ``start()`` keeps trying; empty if it has succeeded.
    """
    match event:
        case Connected(channels, pid):
            return logging.INFO, f"listening on {_channels(channels)} at {target}{_backend(pid)}"
        case ConnectionLost(cause, pid):
            return logging.WARNING, (
                f"the connection to {target}{_backend(pid)} was lost: {describe_error(cause)};"
                " notifications are missed until LISTEN is in effect again; reconnecting"
            )
        case RetryScheduled():
            return _describe_retry(event, target, keeps_trying)
        case Reconnected(downtime, attempts, channels, pid):
            return logging.INFO, (
                f"listening again on {_channels(channels)} at {target}{_backend(pid)} after"
                f" {downtime:.3f} s and {attempts} attempt{'s' if attempts != 1 else ''};"
                " each subscription gets a Gap"
            )
        case Replaced(channels, pid, previous):
            return logging.INFO, (
                f"listening on {_channels(channels)} at {target}{_backend(pid)} in place of the"
                f" connection before{_backend(previous)}, because of its age; nothing was missed"
            )
        case Closed():
            return logging.INFO, f"the listener of {target} is closed"


def _describe_retry(event: RetryScheduled, target: str, keeps_trying: str) -> tuple[int, str]:
    # Who waits for start() is not to wait without a word
    keeps_trying = keeps_trying if event.attempt == 1 else ""
    level = logging.WARNING if event.needs_repair or keeps_trying else logging.INFO
    repair = "; retrying will not help until this is fixed" if event.needs_repair else ""
    return level, (
        f"attempt {event.attempt} to connect to {target} failed:"
        f" {describe_error(event.cause)}{repair}{keeps_trying}; next attempt in {event.delay:.2f} s"
    )


def _backend(pid: int) -> str:
    return f" (backend {pid})" if pid else ""


def _channels(count: int) -> str:
    return f"{count} channel{'s' if count != 1 else ''}"
