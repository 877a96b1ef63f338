"""What is shown, as frozen values."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from asyncnotify.ext.reporting import ServiceReport
from asyncnotify.log import ConsumerStatus, LogStatus

FORMAT: Final = 1
"""The version of the JSON; it grows when a field changes its meaning or goes away."""


@dataclass(frozen=True, slots=True)
class LockWaiter:
    """
    A session that has, or waits for, the lock that each commit with a NOTIFY takes.

    Attributes:
        pid: Its backend pid.
        granted: Whether it has the lock; otherwise it waits.
        database: Its database; None where the role may not see it.
        application_name: What it calls itself.
        wait_event: What it waits for.
        seconds: How long its transaction has been open.
    """

    pid: int
    granted: bool
    database: str | None
    application_name: str | None
    wait_event: str | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class PossibleListener:
    """
    A session that looks as if it listens: a guess, because the server does not tell who does.

    Attributes:
        pid: Its backend pid.
        database: Its database.
        application_name: What it calls itself.
        state: Of the session, as ``pg_stat_activity`` has it.
        seconds: How long it has been in that state.
        reason: Why it is taken for a listener.
    """

    pid: int
    database: str | None
    application_name: str | None
    state: str | None
    seconds: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """
    What the server tells.

    Attributes:
        version: Of PostgreSQL.
        database: The database looked at: notifications do not leave it.
        is_standby: Whether the server is in recovery.
        uptime: Seconds since it was started.
        queue_usage: How full the notification queue of the whole server is, from 0 to 1.
        sees_all: Whether the role sees what other roles do; otherwise sessions are missing here,
            and it needs ``pg_monitor``.
        lock: The sessions at the lock of NOTIFY, those that have it first.
        possible_listeners: Sessions that look as if they listen, without those of services that
            report; at most 50.
    """

    version: str
    database: str
    is_standby: bool
    uptime: float
    queue_usage: float
    sees_all: bool
    lock: tuple[LockWaiter, ...]
    possible_listeners: tuple[PossibleListener, ...]

    @property
    def lock_waiters(self) -> int:
        """How many sessions wait for the lock of NOTIFY."""
        return sum(not one.granted for one in self.lock)


@dataclass(frozen=True, slots=True)
class ChannelFigures:
    """
    A channel of a service.

    Attributes:
        channel: Its name.
        rate: Notifications a second, delivered; None while that is not known.
        subscriptions: How many handlers and streams there are.
        delivered: Notifications delivered so far.
        backlog: What waits in their buffers.
        dropped: Notifications lost because a buffer was full.
        gaps: Gaps so far.
        errors: Calls of handlers that raised, and payloads that could not be decoded.
    """

    channel: str
    rate: float | None
    subscriptions: int
    delivered: int
    backlog: int
    dropped: int
    gaps: int
    errors: int


@dataclass(frozen=True, slots=True)
class ServiceFigures:
    """
    A service that reports.

    Attributes:
        report: Its newest report.
        received_rate: Notifications a second that arrive; None while that is not known.
        delivered_rate: Notifications a second that its handlers and streams get.
        silent_for: Seconds since that report arrived.
        is_silent: Whether that is longer than it should be: what is shown of it is old.
        channels: Its channels, the busiest first.
    """

    report: ServiceReport
    received_rate: float | None
    delivered_rate: float | None
    silent_for: float
    is_silent: bool
    channels: tuple[ChannelFigures, ...]


@dataclass(frozen=True, slots=True)
class LogFigures:
    """
    A durable log.

    Attributes:
        name: Its name.
        status: What it tells; None where that could not be read.
        rate: Events a second, appended; None while that is not known.
        error: Why it could not be read.
    """

    name: str
    status: LogStatus | None
    rate: float | None = None
    error: str | None = None

    @property
    def consumers(self) -> tuple[ConsumerStatus, ...]:
        """The consumers of the log, and each bucket of those that are split."""
        return () if self.status is None else self.status.consumers


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    What happens now.

    Attributes:
        taken_at: When it was taken, in UTC.
        state: ``"connected"``, or ``"reconnecting"``: then what is here is the last that was known.
        stale_for: Seconds since the server answered last; 0 while it does.
        error: What went wrong; None if nothing did. While the state is ``"connected"``, only the
            services could not be asked.
        server: What the server tells; None before its first answer.
        services: The services that report, by name, host and process.
        logs: The durable logs of the database, by name.
    """

    taken_at: datetime
    state: str
    stale_for: float
    error: str | None
    server: ServerFigures | None
    services: tuple[ServiceFigures, ...]
    logs: tuple[LogFigures, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it: ``format`` is the version of this form."""
        server = None if self.server is None else asdict(self.server)
        if server is not None and self.server is not None:
            server["lock_waiters"] = self.server.lock_waiters
        return {
            "format": FORMAT,
            "taken_at": self.taken_at.isoformat(),
            "state": self.state,
            "stale_for": self.stale_for,
            "error": self.error,
            "server": server,
            "services": [_service(service) for service in self.services],
            "logs": [_log(log) for log in self.logs],
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """Return all of it as JSON, in ASCII. Raises nothing."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)


def _service(service: ServiceFigures) -> dict[str, Any]:
    values = asdict(service)
    report = values.pop("report")
    return {**report, **values}


def _log(log: LogFigures) -> dict[str, Any]:
    status = log.status
    values: dict[str, Any] = {"name": log.name, "rate": log.rate, "error": log.error}
    if status is not None:
        values |= {
            "events": status.events,
            "size": status.size,
            "kept_since": status.kept_since.isoformat(),
        }
    values["consumers"] = [
        {
            "name": one.name,
            "bucket": one.bucket,
            "buckets": one.buckets,
            "lag_events": one.lag_events,
            "lag_seconds": one.lag_seconds,
            "is_served": one.is_served,
            "is_paused": one.is_paused,
            "dead_letters": one.dead_letters,
            "holds_retention": one.holds_retention,
        }
        for one in log.consumers
    ]
    return values
