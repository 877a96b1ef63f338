"""What happens to readers and consumers of a log, as values for those who want to act on it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from asyncnotify import Closed
from asyncnotify._announcing import AnnouncedStream
from asyncnotify._events import is_closed, without_words
from asyncnotify.log._values import Position


@dataclass(frozen=True, slots=True)
class Interrupted:
    """
    A consumer, or reading, is interrupted, and tried again until it succeeds; nothing is lost.

    Reported when it begins, and again within the same outage for an error of another type.

    Attributes:
        consumer: The name of the consumer, with all of its buckets that this process serves; None:
            the readers of this log, ``read()``, together.
        cause: What went wrong.
        delay: Seconds until the next attempt.
        needs_repair: Whether retrying will not help until the cause is fixed, such as a wrong
            password.
    """

    consumer: str | None
    cause: BaseException
    delay: float
    needs_repair: bool = False

    def __repr__(self) -> str:
        return without_words(self)


@dataclass(frozen=True, slots=True)
class Resumed:
    """
    What was interrupted goes on: behind the event that was read, or committed, last.

    Also reported when the server is reached again, and another process serves the consumer by now.

    Attributes:
        consumer: As of ``Interrupted``.
        downtime: Seconds from the first interruption to this.
    """

    consumer: str | None
    downtime: float


@dataclass(frozen=True, slots=True)
class EventsExpired:
    """
    Retention removed events before they were read, as the ``Gap`` at their place says too.

    Reported at least once for each: to a consumer again if the connection is lost before the cursor
    is moved.

    Attributes:
        consumer: The name of the consumer; None: a reader.
        since: When what is missing began, by the server's clock; None: not known.
        dropped: How many events; None: not known exactly, as for some channels of the log.
    """

    consumer: str | None
    since: datetime | None
    dropped: int | None


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """
    A consumer could not handle an event, which is kept as a dead letter; it goes on behind it.

    Reported at least once for each: again if the connection is lost before the cursor is moved.

    Attributes:
        consumer: The name of the consumer.
        position: The place of the event in the log.
        attempts: How often the handler was called with it.
        error: Type and text of the last error, as in ``DeadLetter``.
    """

    consumer: str
    position: Position
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class HandlerEnded:
    """
    A handler is not called any more, until the log is started anew: events wait for it.

    Attributes:
        consumer: The name of the consumer.
        bucket: Which of its buckets is not served any more by this process; None: none of it is.
        cause: The error of the handler, for ``Retry(then="stop")``; or what retrying will not help
            against, such as an UnknownConsumerError.
    """

    consumer: str
    bucket: int | None
    cause: BaseException

    def __repr__(self) -> str:
        return without_words(self)


Incident: TypeAlias = Interrupted | Resumed | EventsExpired | DeadLettered | HandlerEnded | Closed
"""What ``on_incident=`` is called with, and what ``incidents()`` yields."""

OnIncident: TypeAlias = Callable[[Incident], object]
"""What ``on_incident=`` takes: a plain function, called with each incident."""


class IncidentStream(AnnouncedStream[Incident]):
    """
    The incidents of a log as an asynchronous iterator, as returned by ``Log.incidents()``.

    Begins with the first one after the call and ends after ``Closed``. Keeps the newest 1,000 for a
    slow reader. May be read in the event loop of the log only.
    """

    def __init__(self, check_owner: Callable[[], None]) -> None:
        super().__init__(is_closed, check_owner)
