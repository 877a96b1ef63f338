"""The durable logs of this database: lag, retention that is held up, dead letters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from asyncnotify.doctor._checks._common import fine, first_of
from asyncnotify.doctor._findings import Finding, Severity
from asyncnotify.log._names import Names, check_log_name
from asyncnotify.log._operating import Operations
from asyncnotify.log._walk.walk import SqlQueries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncnotify.doctor._server import Server
    from asyncnotify.log import ConsumerStatus, LogStatus

NAME: Final = "log"

_LATE: Final = 60.0
"""Seconds of lag."""

_OLD_WRITER: Final = timedelta(minutes=10)
_ASK: Final = "SELECT pg_catalog.to_regclass('asyncnotify.logs') IS NOT NULL"
_NAMES: Final = "SELECT name FROM asyncnotify.logs ORDER BY name"


async def look(server: Server) -> list[Finding]:
    """Ask each log for its state, without giving it a tick: nothing is written."""
    if not await server.value(_ASK):
        return [fine(NAME, "no log is installed in this database")]
    findings: list[Finding] = []
    for row in await server.fetch(_NAMES):
        names = Names(check_log_name(row["name"]))
        findings += _of(await Operations(SqlQueries(server), names).last_status())
    return findings or [fine(NAME, "no log is installed in this database")]


def _of(status: LogStatus) -> list[Finding]:
    told = f"log {status.name}: {status.events} events, {status.size // 1024} kB"
    found = [*_consumers(status), *_retention(status), *_writer(status)]
    return found or [fine(NAME, f"the log {status.name} is in good order", told)]


def _consumers(status: LogStatus) -> Iterator[Finding]:
    late = [one for one in status.consumers if one.lag_seconds > _LATE and not one.is_paused]
    if late:
        title = f"consumers of the log {status.name} are behind"
        cure = "start the process that serves it; or see in its log what its handler waits for"
        yield Finding(NAME, Severity.WARNING, title, first_of([_behind(one) for one in late]), cure)
    paused = [one.name for one in status.consumers if one.is_paused]
    if paused:
        title = f"consumers of the log {status.name} are paused"
        cure = "Log.resume(name), when that is no longer wanted"
        yield Finding(NAME, Severity.INFO, title, first_of(paused), cure)
    dead = [one for one in status.consumers if one.dead_letters]
    if dead:
        title = f"the log {status.name} has events that a consumer could not handle"
        lines = [f"consumer {one.name}: {one.dead_letters} dead letters" for one in dead]
        cure = (
            "Log.dead_letters() shows their errors; then Log.retry(letter) or Log.discard(letter)"
        )
        yield Finding(NAME, Severity.WARNING, title, first_of(lines), cure)


def _behind(one: ConsumerStatus) -> str:
    served = f"served by backend {one.pid}" if one.is_served else "served by nobody"
    bucket = f" bucket {one.bucket}" if one.buckets > 1 else ""
    lag = f"{one.lag_events} events, {one.lag_seconds:.0f} s behind"
    return f"consumer {one.name}{bucket}: {lag}, {served}"


def _retention(status: LogStatus) -> Iterator[Finding]:
    # Events go in whole partitions, so that older ones than the retention are kept in good order
    limit = status.retention.total_seconds()
    holders = [one for one in status.consumers if one.holds_retention and one.lag_seconds > limit]
    if holders:
        kept = datetime.now(UTC) - status.kept_since
        title = f"the log {status.name} keeps events for {kept}, longer than its retention"
        lines = [
            f"retention is {status.retention}",
            *(f"held by: {_behind(one)}" for one in holders),
        ]
        cure = "serve that consumer, or remove it by Log.drop(name)"
        yield Finding(NAME, Severity.WARNING, title, first_of(lines), cure)


def _writer(status: LogStatus) -> Iterator[Finding]:
    writer = status.oldest_writer
    if writer is not None and writer.age > _OLD_WRITER:
        who = f"prepared transaction {writer.prepared}" if writer.prepared else f"pid {writer.pid}"
        title = f"events of an old transaction may still come to the log {status.name}"
        told = (f"{who} in database {writer.database}, open for {writer.age}",)
        cure = "end it: COMMIT or ROLLBACK (PREPARED), or SELECT pg_terminate_backend(pid)"
        yield Finding(NAME, Severity.WARNING, title, told, cure)
