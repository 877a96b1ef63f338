"""
Every exception that asyncnotify raises on purpose.

::

    AsyncNotifyError
    ├── ChannelNameError (ValueError)          a name that no channel can have
    ├── ChannelDirectionError (TypeError)      a Channel that only sends, or only receives
    ├── PayloadError (ValueError)              a payload that cannot be sent
    │   └── PayloadTooLargeError               … because of its size
    ├── PayloadDecodeError (ValueError)        a payload that its Channel cannot decode
    ├── ConnectError (ConnectionError)         no connection could be made
    │   ├── ConfigurationError (ValueError)    … and retrying will not help
    │   ├── ConnectTimeoutError (TimeoutError) … in the time allowed
    │   └── PoolerError                        … except through a pooler that delivers nothing
    ├── ConnectionLostError (ConnectionError)  the connection was lost during a call
    ├── ListenTimeoutError (TimeoutError)      listen() was not confirmed in time
    ├── NotifyTimeoutError (TimeoutError)      notify() waited too long behind other calls
    ├── BufferOverflowError                    a subscription with overflow="fail" was too slow
    ├── NotStartedError (RuntimeError)         start() has not been called
    ├── ClosedError (RuntimeError)             the listener, notifier or stream has been closed
    ├── AlreadyEnteredError (RuntimeError)     a stream is entered a second time
    └── WrongLoopError (RuntimeError)          called from a foreign event loop, thread or process

No message and no attribute holds a password, a DSN or a payload.
"""

from __future__ import annotations

import copy
import errno
import os
import traceback
from contextlib import suppress
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Final

from asyncnotify._escaping import escaped

if TYPE_CHECKING:
    from types import TracebackType

CLOSED: Final = "the listener is closed; start() starts it again"
"""What calls say that need a listener that runs."""

_LONGEST_TEXT: Final = 500
"""Characters of what another program says in one line."""

_NAMES: Final = (str, int, NoneType)
"""What is shown of a wrong name: anything else may be a payload, in the place of the channel."""

_LONGEST_CHAIN: Final = 10
"""Causes of an error that are looked at."""

_PACKAGE: Final = str(Path(__file__).parent)

_CALLERS: Final = "_asyncnotify_callers"


class AsyncNotifyError(Exception):
    """The root of every exception that asyncnotify raises on purpose."""

    def __str__(self) -> str:
        return escaped(super().__str__())


class ChannelNameError(AsyncNotifyError, ValueError):
    """
    A channel name that PostgreSQL refuses, or truncates without an error.

    Attributes:
        channel: The name as it was given, whatever its type.
        reason: What is wrong with the name, and the limit if it is too long.
    """

    def __init__(self, channel: object, reason: str) -> None:
        super().__init__(channel, reason)
        self.channel = channel
        self.reason = reason

    def __str__(self) -> str:
        shown = f" {self.channel!r:.100}" if isinstance(self.channel, _NAMES) else ""
        return escaped(f"channel name{shown} {self.reason}")


class ChannelDirectionError(AsyncNotifyError, TypeError):
    """
    A Channel that can only send was to receive, or one that can only receive was to send.

    Attributes:
        channel: The name of the channel.
        missing: The argument that the Channel was made without: ``"encode"`` or ``"decode"``.
    """

    def __init__(self, channel: str, missing: str) -> None:
        super().__init__(channel, missing)
        self.channel = channel
        self.missing = missing

    def __str__(self) -> str:
        verb = "sent" if self.missing == "encode" else "received"
        return (
            f"nothing can be {verb} on channel {self.channel!r}: it was made without"
            f" {self.missing}="
        )


class PayloadError(AsyncNotifyError, ValueError):
    """
    A payload that cannot be sent. The error does not hold the payload.

    Attributes:
        channel: The channel that the payload was for.
        reason: What is wrong with the payload.
    """

    def __init__(self, channel: str, reason: str) -> None:
        super().__init__(channel, reason)
        self.channel = channel
        self.reason = reason

    def __str__(self) -> str:
        return escaped(f"payload for channel {self.channel!r} {self.reason}")


class PayloadTooLargeError(PayloadError):
    """
    The encoded payload does not fit in one NOTIFY, or exceeds what its Channel compresses.

    Attributes:
        channel: The channel that the payload was for.
        size: The size of the payload in bytes, as UTF-8.
        limit: The largest size in bytes that is allowed: 7,999 for the server.
    """

    def __init__(self, channel: str, size: int, limit: int) -> None:
        reason = f"is {size} bytes; at most {limit} are allowed: send a key to what is in a table"
        super().__init__(channel, reason)
        BaseException.__init__(self, channel, size, limit)
        self.size = size
        self.limit = limit


class PayloadDecodeError(AsyncNotifyError, ValueError):
    """
    A payload that arrived cannot be decoded by its Channel. The error does not hold the payload.

    ``__cause__`` is the exception of the decoder, if the decoder raised one; its text may quote
    the payload.

    Attributes:
        channel: The channel that the payload arrived on.
        reason: What is wrong with the payload.
    """

    def __init__(self, channel: str, reason: str) -> None:
        super().__init__(channel, reason)
        self.channel = channel
        self.reason = reason

    def __str__(self) -> str:
        return escaped(f"payload on channel {self.channel!r} {self.reason}")


class ConnectError(AsyncNotifyError, ConnectionError):
    """
    No connection could be made, or LISTEN was refused on every one.

    ``__cause__`` is the last exception of the driver.
    """


class ConfigurationError(ConnectError, ValueError):
    """No connection can be made with these arguments; retrying will not help."""


class ConnectTimeoutError(ConnectError, TimeoutError):
    """No connection could be made in the time allowed; ``__cause__`` is the last failure."""


class PoolerError(ConnectError):
    """
    A connection pooler in transaction or statement mode is in front of the server.

    Such a pooler accepts LISTEN and never delivers a notification. Connect to PostgreSQL itself,
    or to a pool in session mode. The same error is raised for a multiplexer that gives all
    connections one backend, such as PGlite behind its socket server.
    """


class ConnectionLostError(AsyncNotifyError, ConnectionError):
    """
    The connection was lost while a call was waiting for the server's answer.

    The server may or may not have done what the call asked for.
    """


class ListenTimeoutError(AsyncNotifyError, TimeoutError):
    """
    The server did not confirm LISTEN in time; the whole subscription has been withdrawn.

    Attributes:
        channels: The channels that were asked for.
        timeout: How long the call waited, in seconds.
    """

    def __init__(self, channels: tuple[str, ...], timeout: float, state: str) -> None:
        super().__init__(channels)  # OSError would take several arguments for an errno
        BaseException.__init__(self, channels, timeout, state)
        self.channels = channels
        self.timeout = timeout
        self.state = state

    def __str__(self) -> str:
        names = ", ".join(repr(channel) for channel in self.channels)
        return (
            f"not listening on {names} after {self.timeout:g} s: the listener is {self.state};"
            " the subscription has been withdrawn"
        )


class NotifyTimeoutError(AsyncNotifyError, TimeoutError):
    """A notification was not sent: its call waited too long behind other calls."""


class BufferOverflowError(AsyncNotifyError):
    """
    A subscription with ``overflow="fail"`` fell behind by more than its buffer; it has ended.

    Attributes:
        limit: The size of the buffer, in notifications.
        dropped: How many notifications did not fit when it ended.
    """

    def __init__(self, limit: int, dropped: int) -> None:
        super().__init__(limit, dropped)
        self.limit = limit
        self.dropped = dropped

    def __str__(self) -> str:
        return (
            f"the consumer fell behind: its buffer of {self.limit} notifications overflowed"
            f" by {self.dropped}; the subscription has ended"
        )


class NotStartedError(AsyncNotifyError, RuntimeError):
    """The call needs a running listener: ``async with listener`` or ``await listener.start()``."""


class ClosedError(AsyncNotifyError, RuntimeError):
    """The listener, notifier or stream has been closed."""


class AlreadyEnteredError(AsyncNotifyError, RuntimeError):
    """The stream has been entered before, by an ``async with`` that has not ended."""


class WrongLoopError(AsyncNotifyError, RuntimeError):
    """
    The call came from an event loop, a thread or a process that does not own the connection.

    A listener belongs to the event loop and to the process that started it.
    """


def mark_as_callers(error: BaseException) -> None:
    """Note that a function of the caller's has raised this: its text may hold anything."""
    with suppress(AttributeError, TypeError):  # of a class that takes no attributes
        setattr(error, _CALLERS, True)


def place_of(error: BaseException) -> str:
    """Return the file and the line where an error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"


def cannot_connect(target: str, cause: Exception, *, is_permanent: bool) -> ConnectError:
    """
    Return the error for a call that waits for a connection, with its cause.

    Args:
        target: The server, as messages name it.
        cause: What connecting has raised.
        is_permanent: Whether retrying will not help until something is fixed.
    """
    is_mistake = is_permanent and isinstance(cause, ValueError | TypeError | OverflowError)
    kind = ConfigurationError if is_mistake else ConnectError
    error = kind(f"cannot connect to {target}: {describe_error(cause)}")
    error.__cause__ = cause
    return error


def describe_error(error: BaseException | None) -> str:
    """
    Return one line that describes an error: what the server or the system said, and no secret.

    The text of what a function of the caller's has raised may hold the DSN or a password, whatever
    the type of the error. So only that part of it is told which is the server's or the system's;
    where there is none, the place.
    """
    if error is None:
        return "the connection ended"
    name, is_callers = escaped(type(error).__name__), getattr(error, _CALLERS, False)
    text = _text_of_others(error) if is_callers else _text_of(error)
    if text:
        return f"{name}: {text}"
    return f"{name} at {escaped(place_of(error))}" if is_callers else name


def _text_of(error: BaseException) -> str:
    """Return the first line of an error's text."""
    try:
        text = escaped(str(error).partition("\n")[0])
    except Exception:  # noqa: BLE001 - ``__str__`` of a foreign class may raise anything
        return ""
    ours = isinstance(error, AsyncNotifyError)
    return text if ours or len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def _text_of_others(error: BaseException) -> str:
    """Return the part of an error's text that the code that raised it did not write."""
    if getattr(error, "severity", None) is not None:  # the driver made it of a server's answer
        return _text_of(error)
    if any(kind.__module__ == "ssl" for kind in type(error).__mro__):
        reason = str(getattr(error, "reason", None) or "")  # OpenSSL's name of it
        return reason if reason.isidentifier() else ""
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number is not None and number in errno.errorcode else ""


def without_frames(error: BaseException) -> None:
    """
    Forget through which calls an error and its causes have passed, up to one of the caller's.

    That a server refuses a connection is no defect, and the fifty lines of the driver's frames
    would hide what is to be read. Where a function of the caller's has failed, its frames tell.
    """
    link: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if link is None:
            break
        is_callers = getattr(link, _CALLERS, False)
        link.__traceback__ = _without_ours(link.__traceback__) if is_callers else None
        link = None if is_callers else link.__cause__ or link.__context__


def without_our_frames(error: BaseException) -> None:
    """Forget through which of our calls an error of a function of the caller's has passed."""
    error.__traceback__ = _without_ours(error.__traceback__)


def _without_ours(frames: TracebackType | None) -> TracebackType | None:
    """Return the frames from the first one on that is not in this package."""
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        frames = frames.tb_next
    return frames


def own_copy(error: BaseException) -> BaseException:
    """Return a copy of an error for one more caller, with notes and a traceback of its own."""
    copied = copy.copy(error)
    copied.__cause__ = error.__cause__
    copied.__notes__ = list(getattr(error, "__notes__", ()))
    return copied
