"""What a log tells of itself: values for those who operate it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from asyncnotify.log._values import Event, Position


@dataclass(frozen=True, slots=True)
class ConsumerStatus:
    """
    Where a durable consumer stands; or one of its buckets, if it is split.

    Attributes:
        name: Its name.
        bucket: Which of its buckets, from 0 on.
        buckets: How many it has; 1: it is not split.
        position: The place in the log behind which it goes on.
        lag_events: How many events, of any channel, and of any bucket, it has before it: exact at
            the end of a tick, within one more by what it has had of that.
        lag_seconds: How long the oldest of them has been there to be consumed; 0 without any.
        pid: The backend pid of the session that has served it last.
        is_served: Whether that session is still there.
        is_paused: Whether it has been paused.
        dead_letters: How many events it could not handle.
        committed_at: When its cursor moved last.
        holds_retention: Whether no other consumer is further behind, so that it decides which
            events are kept beyond the retention.
    """

    name: str
    bucket: int
    buckets: int
    position: Position
    lag_events: int
    lag_seconds: float
    pid: int | None
    is_served: bool
    is_paused: bool
    dead_letters: int
    committed_at: datetime
    holds_retention: bool


@dataclass(frozen=True, slots=True)
class WriterStatus:
    """
    The oldest transaction of the server that has written.

    Its events come when it commits, and a partition that it has appended to is emptied after that.
    Sessions of other roles are seen by members of ``pg_monitor`` only.

    Attributes:
        pid: The backend pid; None for a prepared transaction.
        prepared: The identifier of a prepared transaction, or None.
        database: Where it runs.
        age: For how long it has been open.
    """

    pid: int | None
    prepared: str | None
    database: str | None
    age: timedelta


@dataclass(frozen=True, slots=True)
class LogStatus:
    """
    The state of a log.

    Attributes:
        name: The name of the log.
        version: The version of its schema.
        end: The place behind all events that are committed.
        events: How many events have been appended in all, and committed.
        kept_since: All events that were committed later than this are still there.
        size: Bytes of the events that are kept, with their indexes.
        retention: How long events are kept at least.
        limit: How long they are kept at most where a consumer is behind; None: forever.
        consumers: The durable consumers, by name, and each bucket of those that are split.
        oldest_writer: The oldest transaction that has written, of those that the owner of the log
            may see; None without any.
    """

    name: str
    version: int
    end: Position
    events: int
    kept_since: datetime
    size: int
    retention: timedelta
    limit: timedelta | None
    consumers: tuple[ConsumerStatus, ...]
    oldest_writer: WriterStatus | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """
    An event that a consumer could not handle.

    Attributes:
        consumer: The name of the consumer.
        event: The event, its payload as text; without headers, if those cannot be decoded.
        attempts: How often it was tried.
        error: What was raised at last, in one line.
        died_at: When.
    """

    consumer: str
    event: Event[str]
    attempts: int
    error: str
    died_at: datetime
