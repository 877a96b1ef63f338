"""What stands in which table, as texts; how it is drawn is the screen's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Final

from asyncnotify._escaping import escaped
from asyncnotify.top import _texts as texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asyncnotify.log import ConsumerStatus
    from asyncnotify.top._model import (
        ChannelFigures,
        LogFigures,
        ServerFigures,
        ServiceFigures,
        Snapshot,
    )

WIDE: Final = 120
"""Columns of a terminal from which on there is room for more columns of a table."""

_FULL: Final = 0.5
"""Of the queue: from here on PostgreSQL itself warns."""


@dataclass(frozen=True, slots=True)
class Column:
    """
    A column of a table.

    Attributes:
        title: Its heading.
        width: Of a column of figures; None: a text, which shares what room there is.
        wide: Whether only a wide terminal shows it.
    """

    title: str
    width: int | None = None
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of a row, escaped; and whether it needs attention."""

    cells: tuple[str, ...]
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A table: its columns, its rows, and how many rows there are besides."""

    columns: Sequence[Column]
    rows: list[Row] = field(default_factory=list)
    more: int = 0


def sections_of(snapshot: Snapshot) -> list[Section]:
    """Return the tables that have rows; those of services and channels come first."""
    sections = [
        _services(snapshot.services),
        _channels(snapshot.services),
        _logs(snapshot.logs),
    ]
    if snapshot.server is not None:
        sections += [_lock(snapshot.server), _listeners(snapshot.server)]
    return [section for section in sections if section.rows]


def server_line(server: ServerFigures | None) -> tuple[str, bool]:
    """Return what there is to be said of the server in one line, and whether it is bad."""
    if server is None:
        return "the server has not answered yet", True
    holders = len(server.lock) - server.lock_waiters
    lock = f"{holders} hold, {server.lock_waiters} wait" if server.lock else "free"
    parts = [
        f"queue {texts.percentage(server.queue_usage)}",
        f"notify lock: {lock}",
        f"guessed listeners: {len(server.possible_listeners)}",
        f"up {texts.duration(server.uptime)}",
        *(["standby"] if server.is_standby else []),
        *([] if server.sees_all else ["sees its own role only: grant pg_monitor"]),
    ]
    return "   ".join(parts), server.queue_usage >= _FULL or server.lock_waiters > 0


def _services(services: Sequence[ServiceFigures]) -> Section:
    columns = (
        Column("SERVICE"),
        Column("HOST", wide=True),
        Column("PID", 8, wide=True),
        Column("BACKEND", 8, wide=True),
        Column("STATE", 12),
        Column("IN/S", 7),
        Column("OUT/S", 7, wide=True),
        Column("LATENCY", 9),
        Column("BACKLOG", 7),
        Column("DROPS", 6),
        Column("GAPS", 6),
        Column("ERRORS", 6, wide=True),
        Column("RECON", 5),
    )
    names = _names(services)
    return Section(columns, [_service(one, names) for one in services])


def _names(services: Sequence[ServiceFigures]) -> dict[str, str]:
    """Return how each service is called, by its id: with its process where several have a name."""
    times = Counter(service.report.name for service in services)
    return {
        report.id: escaped(report.name) + f" {report.pid}" * (times[report.name] > 1)
        for report in (service.report for service in services)
    }


def _service(service: ServiceFigures, names: Mapping[str, str]) -> Row:
    report = service.report
    state = f"silent {texts.duration(service.silent_for)}" if service.is_silent else report.state
    return Row(
        (
            names[report.id],
            escaped(report.host),
            str(report.pid),
            texts.UNKNOWN if report.backend_pid is None else str(report.backend_pid),
            str(state),
            texts.rate(service.received_rate),
            texts.rate(service.delivered_rate),
            texts.latency(report.round_trip),
            texts.count(report.backlog),
            texts.count(report.dropped),
            texts.count(report.gaps),
            texts.count(report.errors),
            texts.count(report.reconnects),
        ),
        is_bad=service.is_silent or report.state != "connected",
    )


def _channels(services: Sequence[ServiceFigures]) -> Section:
    columns = (
        Column("CHANNEL"),
        Column("OF SERVICE"),
        Column("OUT/S", 7),
        Column("TOTAL", 7, wide=True),
        Column("BACKLOG", 7),
        Column("DROPS", 6),
        Column("GAPS", 6),
        Column("ERRORS", 6),
    )
    found = [(service, channel) for service in services for channel in service.channels]
    found.sort(key=lambda pair: _activity(pair[1]), reverse=True)
    names = _names(services)
    rows = [_channel(names[service.report.id], service, channel) for service, channel in found]
    return Section(columns, rows, sum(service.report.more for service in services))


def _activity(channel: ChannelFigures) -> tuple[float, int, int]:
    return channel.rate or 0.0, channel.backlog, channel.delivered


def _channel(name: str, service: ServiceFigures, channel: ChannelFigures) -> Row:
    cells = (
        escaped(channel.channel),
        name,
        texts.UNKNOWN if service.is_silent else texts.rate(channel.rate),
        texts.count(channel.delivered),
        texts.count(channel.backlog),
        texts.count(channel.dropped),
        texts.count(channel.gaps),
        texts.count(channel.errors),
    )
    return Row(cells)


def _logs(logs: Sequence[LogFigures]) -> Section:
    columns = (
        Column("LOG, CONSUMER"),
        Column("STATE", 18),
        Column("EVENTS/S", 8),
        Column("EVENTS", 7),
        Column("BEHIND", 7),
        Column("SINCE", 7),
        Column("DEAD", 5),
    )
    return Section(columns, [row for log in logs for row in _log(log)])


def _log(log: LogFigures) -> Iterator[Row]:
    status, nothing = log.status, ("", "", "")
    if status is None:
        yield Row((escaped(log.name), "cannot be read", "", "", *nothing), is_bad=True)
        return
    size = texts.size(status.size)
    yield Row((escaped(log.name), size, texts.rate(log.rate), texts.count(status.events), *nothing))
    for name, buckets in groupby(status.consumers, key=lambda one: one.name):
        yield _consumer(name, list(buckets))


def _consumer(name: str, buckets: list[ConsumerStatus]) -> Row:
    served = sum(one.is_served for one in buckets)
    paused = any(one.is_paused for one in buckets)
    state = "paused" if paused else "served" if served else "not served"
    if 0 < served < len(buckets):
        state = f"{served} of {len(buckets)} served"
    behind = max(one.lag_events for one in buckets)
    return Row(
        (
            f"  {escaped(name)}",
            state,
            "",
            "",
            texts.count(behind),
            texts.duration(max(one.lag_seconds for one in buckets)),
            texts.count(sum(one.dead_letters for one in buckets)),
        ),
        is_bad=served < len(buckets) and not paused,
    )


def _lock(server: ServerFigures) -> Section:
    columns = (
        Column("LOCK OF NOTIFY"),
        Column("BACKEND", 8),
        Column("OF DATABASE"),
        Column("APPLICATION"),
        Column("WAITS FOR"),
        Column("SINCE", 7),
    )
    rows = [
        Row(
            (
                "has it" if one.granted else "waits",
                str(one.pid),
                _said(one.database),
                _said(one.application_name),
                _said(one.wait_event),
                texts.duration(one.seconds),
            ),
            is_bad=not one.granted,
        )
        for one in server.lock
    ]
    return Section(columns, rows)


def _listeners(server: ServerFigures) -> Section:
    columns = (
        Column("MAY LISTEN, A GUESS"),
        Column("BACKEND", 8),
        Column("APPLICATION"),
        Column("STATE", 12),
        Column("SINCE", 7),
    )
    rows = [
        Row(
            (
                one.reason,
                str(one.pid),
                _said(one.application_name),
                _said(one.state),
                texts.duration(one.seconds),
            )
        )
        for one in server.possible_listeners
    ]
    return Section(columns, rows)


def _said(text: str | None) -> str:
    return escaped(text) if text else texts.UNKNOWN
