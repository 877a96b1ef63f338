"""
The loggers of asyncnotify. All of its log lines go through here.

Arguments that are texts are escaped, because many of them are not ours. A WARNING has to name the
limit that it is subject to, so that no trouble that repeats itself fills a log.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import TYPE_CHECKING, Final, TypedDict, Unpack

from asyncnotify._escaping import escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable

_INTERVAL: Final = 60.0
"""Seconds during which the same trouble is logged at INFO, after it was logged at WARNING: a server
that is down for an hour must not fill the log."""

_MOST: Final = 10
"""Different troubles of one limit that are a WARNING within the interval. Who answers at the port
may give another reason each time."""

_CALLER: Final = 3
"""Frames from the logger's own to the one that logs."""


class WarningLimit:
    """
    Says which troubles are to be logged at WARNING; what exceeds the limit is not.

    Each trouble has a key. The same one is a WARNING once in the interval, and ``most`` different
    ones are.

    Args:
        interval: Seconds; ``math.inf`` for what is said once.
        most: How many different ones.
        beyond: The level of what exceeds the limit.
        clock: Returns seconds that pass evenly; None: the monotonic clock.
    """

    def __init__(
        self,
        interval: float = _INTERVAL,
        *,
        most: int = _MOST,
        beyond: int = logging.INFO,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._interval = interval
        self.beyond = beyond
        self._most = most
        self._clock = clock
        self._until: dict[Hashable, float] = {}

    def allows(self, key: Hashable) -> bool:
        """Return whether this trouble is a WARNING now; if so, it is none for the interval."""
        now = time.monotonic() if self._clock is None else self._clock()
        self._until = {one: until for one, until in self._until.items() if now < until}
        if key in self._until or len(self._until) >= self._most:
            return False
        self._until[key] = now + self._interval
        return True

    def forget(self, key: Hashable) -> None:
        """Let this trouble be a WARNING again, because its cause is gone."""
        self._until.pop(key, None)


class Fields(TypedDict, total=False):
    """
    What log records of asyncnotify have besides the text, for those who log objects and not lines.

    Each record has all of them: None where a field says nothing.

    Attributes:
        channel: The channel of the subscription.
        attempt: How many attempts to connect have failed.
        delay: Seconds until the next attempt.
        pid: The backend pid: of the connection, or of the session that sent a notification.
        target: The server, as ``user@host:port/database``.
    """

    channel: str | None
    attempt: int
    delay: float
    pid: int
    target: str


_NO_FIELDS: Final = dict.fromkeys(Fields.__annotations__)


class Log:
    """A logger each of whose lines is one line, whatever the arguments hold."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"asyncnotify.{name}")

    def debug(self, text: str, *args: object, **fields: Unpack[Fields]) -> None:
        """Log at DEBUG."""
        self._log(logging.DEBUG, text, args, fields)

    def info(self, text: str, *args: object, **fields: Unpack[Fields]) -> None:
        """Log at INFO."""
        self._log(logging.INFO, text, args, fields)

    def warning(
        self,
        limit: WarningLimit,
        key: Hashable,
        text: str,
        *args: object,
        **fields: Unpack[Fields],
    ) -> None:
        """Log at WARNING; where the limit does not allow this key, at the limit's lower level."""
        level = logging.WARNING if limit.allows(key) else limit.beyond
        self._log(level, text, args, fields)

    def error(
        self,
        text: str,
        *args: object,
        exc_info: BaseException | None = None,
        **fields: Unpack[Fields],
    ) -> None:
        """Log at ERROR, with the traceback of an exception if one is given."""
        self._log(logging.ERROR, text, args, fields, exc_info)

    def exception(self, text: str, *args: object, **fields: Unpack[Fields]) -> None:
        """Log at ERROR, with the traceback of the exception that is being handled."""
        self._log(logging.ERROR, text, args, fields, sys.exception())

    def critical(
        self,
        text: str,
        *args: object,
        exc_info: BaseException | None = None,
        **fields: Unpack[Fields],
    ) -> None:
        """Log at CRITICAL, with the traceback of an exception if one is given."""
        self._log(logging.CRITICAL, text, args, fields, exc_info)

    def _log(
        self,
        level: int,
        text: str,
        args: tuple[object, ...],
        fields: Fields,
        exc_info: BaseException | None = None,
    ) -> None:
        if self._logger.isEnabledFor(level):
            plain = (_plain(arg) for arg in args)
            extra = {**_NO_FIELDS, **{name: _plain(value) for name, value in fields.items()}}
            self._logger.log(
                level, text, *plain, exc_info=exc_info, stacklevel=_CALLER, extra=extra
            )


@contextlib.contextmanager
def silenced() -> Generator[None]:
    """Log nothing below CRITICAL while this is entered: a program shows the same on a screen."""
    logger = logging.getLogger("asyncnotify")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _plain(value: object) -> object:
    """Return what keeps a record one line, also where a formatter shows the fields."""
    return escaped(value) if isinstance(value, str) else value
