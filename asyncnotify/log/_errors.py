"""
Every exception that the log raises on purpose, besides those of asyncnotify itself.

::

    AsyncNotifyError
    └── LogError
        ├── LogNameError (ValueError)         a name that no log or consumer may have
        ├── EntryError (ValueError)           a key or headers that cannot be stored
        ├── PositionError (ValueError)        a text or a position that is none of this log
        ├── NotInstalledError                 the database has no log of this name
        ├── SchemaVersionError                the log was installed by a newer version
        ├── BucketCountError (ValueError)     a consumer has another number of buckets
        ├── ConsumerLockedError (TimeoutError)  a transaction, as a handler's, holds the consumer
        ├── UnknownConsumerError (LookupError)  no consumer has this name, or it has been dropped
        └── StandbyError                      the server is a standby, which cannot order events
"""

from __future__ import annotations

import functools
from typing import Any, Final

from asyncnotify._errors import AsyncNotifyError

LACKS_PRIVILEGE: Final = (
    "grants(append=…, consume=…) of log {!r} returns the statements that give a role its"
    " rights; install() needs the right to create a schema, or to own the schema asyncnotify"
)
"""What is added to the server's words, which name a schema, a table or a function."""

_IN_ITS_PLACE: Final = {
    "log": ", and the DSN is the second argument",
    "consumer": ", and the channels or the function come after it",
}


class LogError(AsyncNotifyError):
    """The root of every exception that the log raises on purpose."""


class LogNameError(LogError, ValueError):
    """
    A name that no log or consumer may have.

    Attributes:
        name: The name as it was given, whatever its type.
        kind: What was to have the name: ``log`` or ``consumer``.
        reason: What is allowed.
    """

    def __init__(self, name: object, kind: str, reason: str) -> None:
        super().__init__(name, kind, reason)
        self.name = name
        self.kind = kind
        self.reason = reason

    def __str__(self) -> str:
        if isinstance(self.name, str) and "://" not in self.name:
            return f"{self.kind} name {self.name!r:.100}: {self.reason}"
        what = "a URL" if isinstance(self.name, str) else f"of type {type(self.name).__name__}"
        return f"the name of a {self.kind} is {what}: {self.reason}{_IN_ITS_PLACE.get(self.kind)}"


class EntryError(LogError, ValueError):
    """
    A key or headers that cannot be stored with an event. The error does not hold them.

    Attributes:
        part: ``key`` or ``headers``.
        reason: What is wrong.
    """

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(part, reason)
        self.part = part
        self.reason = reason

    def __str__(self) -> str:
        return f"the {self.part} of an event: {self.reason}"


class PositionError(LogError, ValueError):
    """A text that is no position, or a position that this log cannot have given."""


class NotInstalledError(LogError):
    """
    The database has no log of this name: ``install()`` makes it.

    Attributes:
        log: The name of the log.
    """

    def __init__(self, log: str) -> None:
        super().__init__(log)
        self.log = log

    def __str__(self) -> str:
        return f"the database has no log {self.log!r}: install() makes it"


class SchemaVersionError(LogError):
    """
    The log was installed by a newer version of asyncnotify than this one.

    Attributes:
        log: The name of the log.
        installed: The version of the schema in the database.
        known: The newest version that this library knows.
    """

    def __init__(self, log: str, installed: int, known: int) -> None:
        super().__init__(log, installed, known)
        self.log = log
        self.installed = installed
        self.known = known

    def __str__(self) -> str:
        return (
            f"log {self.log!r} has a schema of version {self.installed}, and this asyncnotify"
            f" knows versions up to {self.known}: update asyncnotify"
        )


class BucketCountError(LogError, ValueError):
    """
    A consumer has another number of buckets than was asked for: the first use has fixed it.

    With another number, a key would belong to another bucket, whose cursor stands elsewhere. To
    have another number, take another name, or ``drop()`` the consumer and make it anew.

    Attributes:
        consumer: The name of the consumer.
        wanted: The number that was asked for.
        present: The number that it has.
    """

    def __init__(self, consumer: str, wanted: int, present: int) -> None:
        super().__init__(consumer, wanted, present)
        self.consumer = consumer
        self.wanted = wanted
        self.present = present

    def __str__(self) -> str:
        return (
            f"consumer {self.consumer!r} was made with buckets={self.present}, not {self.wanted},"
            " and the number cannot be changed: use that number, or another name, or drop() the"
            " consumer and create it again with start= where it has to begin"
        )


class UnknownConsumerError(LogError, LookupError):
    """
    The log has no consumer of this name; or it had one, which has been dropped.

    Attributes:
        consumer: The name of the consumer.
    """

    def __init__(self, consumer: str) -> None:
        super().__init__(consumer)
        self.consumer = consumer

    def __str__(self) -> str:
        return f"the log has no consumer {self.consumer!r}"


class ConsumerLockedError(LogError, TimeoutError):
    """
    Another transaction held the consumer until the time for waiting was over: nothing was changed.

    Most often it is that of a handler with ``transactional=True``, which holds the consumer while
    the handler runs. Call again once that has returned. The handler itself must not make the call
    for its own consumer: each would wait for the other.

    Attributes:
        consumer: The name of the consumer.
        waited: Seconds for which the call has waited.
        pid: The backend pid of the transaction's session, as it was found after the wait; None if
            the transaction had ended by then, or belongs to no session, as a prepared one.
        is_serving: Whether that session serves the consumer: then the transaction is its handler's.
    """

    def __init__(self, consumer: str, waited: float, pid: int | None, *, is_serving: bool) -> None:
        super().__init__(consumer)  # OSError would take several arguments for an errno
        self.consumer = consumer
        self.waited = waited
        self.pid = pid
        self.is_serving = is_serving

    def __str__(self) -> str:
        began = f"consumer {self.consumer!r} is not changed: after {self.waited:.3g} s"
        if self.pid is None:
            return f"{began} another transaction still held its row; try again"
        if self.is_serving:
            return (
                f"{began} the transaction of its handler still held its row: try again once the"
                f" handler has returned, or end it by SELECT pg_terminate_backend({self.pid})"
            )
        return (
            f"{began} a transaction of backend {self.pid}, which does not serve it, still held its"
            f" row: end that transaction, or its session by SELECT pg_terminate_backend({self.pid})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # An OSError is made anew of its positional arguments
        make = functools.partial(type(self), is_serving=self.is_serving)
        return make, (self.consumer, self.waited, self.pid)


class StandbyError(LogError):
    """
    The server is a standby in recovery.

    A standby does not know which transactions run on the primary, so a tick taken there would
    lose events for good. The log continues once the server has been promoted.
    """
