"""How incidents of readers and consumers are logged, and reported to those who act on them."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Final

from asyncnotify import Gap, GapReason
from asyncnotify._announcing import Audience
from asyncnotify._errors import describe_error, without_frames
from asyncnotify._logs import Log, WarningLimit
from asyncnotify.log._incidents import (
    DeadLettered,
    EventsExpired,
    HandlerEnded,
    IncidentStream,
    Interrupted,
    Resumed,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify.log._incidents import Incident, OnIncident
    from asyncnotify.log._values import Position
    from asyncnotify.log._walk.cursor import Expired

log = Log("log")

NEEDS_REPAIR: Final = "; retrying will not help until this is fixed"


class Reporter:
    """
    Reports the incidents of readers and consumers of a log, as long as it runs in an event loop.

    Args:
        name: Of the log.
        target: The server, for log records.
        callback: The caller's, if any.

    Attributes:
        readers: Reports what happens to the readers.
    """

    def __init__(self, name: str, target: str, callback: OnIncident | None) -> None:
        self._name = name
        self._target = target
        self._audience: Audience[Incident] = Audience(
            callback,
            option="on_incident",
            iterate="log.incidents()",
            goes_on="the log",
            target=target,
            log=log,
        )
        self._consumers: weakref.WeakValueDictionary[str, Reports] = weakref.WeakValueDictionary()
        self._interrupted: set[Reports] = set()
        self.readers: Reports = Reports(self, None, f"a reader of log {name!r}")

    def stream(self, check_owner: Callable[[], None]) -> IncidentStream:
        """Return a new stream of the incidents from here on."""
        stream = IncidentStream(check_owner)
        self._audience.add(stream)
        return stream

    def of_consumer(self, consumer: str) -> Reports:
        """Return what reports of the consumer of this name: one for all that serve it here."""
        reports = self._consumers.get(consumer)
        if reports is None:
            reports = Reports(self, consumer, f"consumer {consumer!r} of log {self._name!r}")
            self._consumers[consumer] = reports
        return reports

    def tell(self, incident: Incident) -> None:
        """Tell those who want to act on it."""
        self._audience.tell(incident)

    def interrupted(self, reports: Reports, incident: Interrupted, *, is_new: bool) -> None:
        """Log an interruption, each attempt of it; tell of it if it is new."""
        self._interrupted.add(reports)
        cause = describe_error(incident.cause)
        repair = NEEDS_REPAIR if incident.needs_repair else ""
        when = f"in {incident.delay:.2f} s" if incident.delay else "at once"
        log.warning(
            reports.warnings,
            (type(incident.cause), incident.needs_repair),
            "%s is interrupted, and tried again %s: %s%s",
            reports.subject,
            when,
            cause,
            repair,
            target=self._target,
            delay=incident.delay,
        )
        if is_new:
            self.tell(incident)

    def resumed(self, reports: Reports, incident: Resumed) -> None:
        """Log the end of an outage, and tell of it."""
        self._interrupted.discard(reports)
        downtime = incident.downtime
        log.info("%s goes on after %.3f s", reports.subject, downtime, target=self._target)
        self.tell(incident)

    def expired(self, reports: Reports, incident: EventsExpired, number: str) -> None:
        """Log a loss, and tell of it."""
        text = "%s missed events that retention removed before they were read: %s"
        log.warning(
            reports.warnings,
            EventsExpired,
            text,
            reports.subject,
            number,
            target=self._target,
        )
        self.tell(incident)


class Reports:
    """
    What happens to one consumer, by all its buckets; or to all readers.

    Whoever is interrupted, is forgotten when collected. Those that are interrupted at the same
    time have one outage, which ends when something succeeds and none of them is left.

    Args:
        reporter: Logs, and tells.
        consumer: Its name; None for readers.
        subject: How log lines name it.

    Attributes:
        subject: The same.
        warnings: Which of its log lines are warnings: the trouble of one consumer hides no other's.
        has_succeeded: Whether one of them has had an answer of the server: it knew the password.
    """

    def __init__(self, reporter: Reporter, consumer: str | None, subject: str) -> None:
        self._reporter = reporter
        self._consumer = consumer
        self.subject = subject
        self.warnings: WarningLimit = WarningLimit()
        self.has_succeeded: bool = False
        self._interrupted: weakref.WeakSet[object] = weakref.WeakSet()
        self._since: float | None = None
        self._kinds: set[tuple[type, bool]] = set()

    def interrupted(
        self, source: object, error: BaseException, delay: float, *, needs_repair: bool
    ) -> None:
        """Report that something was interrupted, and is tried again after so many seconds."""
        without_frames(error)
        self._interrupted.add(source)
        if self._since is None:
            self._since = time.monotonic()
        kind = (type(error), needs_repair)
        is_new = kind not in self._kinds
        self._kinds.add(kind)
        incident = Interrupted(self._consumer, error, delay, needs_repair)
        self._reporter.interrupted(self, incident, is_new=is_new)

    def succeeded(self, source: object) -> None:
        """Note that something is not interrupted; report the end of the outage, if it is that."""
        self.has_succeeded = True
        if self._since is None:
            return
        self._interrupted.discard(source)
        if not self._interrupted:
            downtime, self._since = time.monotonic() - self._since, None
            self._kinds.clear()
            self._reporter.resumed(self, Resumed(self._consumer, downtime))

    def gone(self, source: object) -> None:
        """Note that something does not try any more: the outage does not wait for it."""
        self._interrupted.discard(source)

    def expired(self, expired: Expired) -> Gap:
        """Report events that were removed unread; return the Gap that says so at their place."""
        since, dropped = expired.since, expired.dropped
        incident = EventsExpired(self._consumer, since, dropped)
        self._reporter.expired(self, incident, expired.number)
        return Gap(None, GapReason.EXPIRED, since, dropped)

    def buried(self, position: Position, attempts: int, error: str) -> None:
        """Report a dead letter."""
        if self._consumer is not None:
            log.error("event at %s is a dead letter of %s", position, self.subject)
            self._reporter.tell(DeadLettered(self._consumer, position, attempts, error))

    def unexpected(self, subject: str, error: BaseException) -> None:
        """Log an error that nobody has thought of: with its traceback, and so once a minute."""
        if self.warnings.allows(("unexpected", type(error))):
            log.error("%s is interrupted by an unexpected error", subject, exc_info=error)

    def handler_ended(self, bucket: int | None, cause: BaseException) -> None:
        """Report that a handler is not called any more."""
        if self._consumer is not None:
            self._reporter.tell(HandlerEnded(self._consumer, bucket, cause))
