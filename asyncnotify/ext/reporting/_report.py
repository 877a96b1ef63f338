"""What a service tells of itself: values, and how they go through a payload."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any, Final, TypeVar

from asyncnotify import State

T = TypeVar("T")

VERSION: Final = 1
"""Of the format. Readers ignore reports of another one, and fields that they do not know."""

MOST_BYTES: Final = 7_900
"""Of a payload; the server takes 7,999."""

LONGEST_TEXT: Final = 200
"""Characters of a text in a report."""

_MOST: Final = 2**63 - 1
_REPORT: Final = "report"
_GOODBYE: Final = "goodbye"


@dataclass(frozen=True, slots=True)
class ChannelReport:
    """
    What became of the notifications of one channel in one service.

    Attributes:
        channel: The name; of a stream that has several channels, the first names.
        subscriptions: How many handlers and streams there are.
        delivered: Notifications handed to them.
        backlog: Notifications and Gaps that wait in their buffers now.
        dropped: Notifications lost because a buffer was full.
        gaps: Gaps so far, those at the start included.
        errors: Calls of handlers that raised, and payloads that could not be decoded.
    """

    channel: str
    subscriptions: int = 0
    delivered: int = 0
    backlog: int = 0
    dropped: int = 0
    gaps: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class ServiceReport:
    """
    One report of a service: the counters of its listener, since that was started.

    What a report says is not proved: any role that may connect to the database may notify.

    Attributes:
        id: Drawn at random when the service began to report.
        name: The name that the service has given itself.
        host: The name of its machine.
        pid: Its process.
        backend_pid: The backend pid of its listening connection; None if that is not known.
        version: Of asyncnotify.
        every: Seconds from one report to the next.
        uptime: Seconds since the service began to report, by its monotonic clock: rates are
            differences divided by the difference of these.
        state: What the listener is doing.
        received: Notifications that arrived from the server.
        delivered: Notifications handed to handlers and streams.
        backlog: Notifications and Gaps that wait in buffers now.
        dropped: Notifications lost because a buffer was full.
        gaps: Gaps emitted, over all subscriptions.
        errors: Calls of handlers that raised, and payloads that could not be decoded.
        reconnects: Connections reopened after a loss.
        round_trip: Seconds that the server took to answer the last heartbeat; None before the
            first.
        heartbeat_age: Seconds since that answer.
        connected_for: Seconds since the present connection began to listen.
        channel_count: On how many channels the service listens.
        more: How many entries of ``channels`` did not fit into the payload.
        channels: The channels, the busiest first.
    """

    id: str
    name: str
    host: str
    pid: int
    backend_pid: int | None
    version: str
    every: float
    uptime: float
    state: State
    received: int
    delivered: int
    backlog: int
    dropped: int
    gaps: int
    errors: int
    reconnects: int
    round_trip: float | None
    heartbeat_age: float | None
    connected_for: float | None
    channel_count: int
    more: int
    channels: tuple[ChannelReport, ...]


@dataclass(frozen=True, slots=True)
class Goodbye:
    """A service has stopped reporting, in good order."""

    id: str


def payload_of(report: ServiceReport) -> str:
    """Return a report as a payload that the server takes: channels that do not fit are counted."""
    values = asdict(report)
    channels = values.pop("channels")
    # ASCII alone, in which a character is a byte; an array comes last, to be cut where it must
    head = _dumped({"v": VERSION, "kind": _REPORT, **values, "more": report.more + len(channels)})
    room = MOST_BYTES - len(head) - len(',"channels":[]')
    taken: list[str] = []
    for channel in map(_dumped, channels):
        room -= len(channel) + 1
        if room < 0:
            break
        taken.append(channel)
    left_out = report.more + len(channels) - len(taken)
    head = _dumped({"v": VERSION, "kind": _REPORT, **values, "more": left_out})
    return f'{head[:-1]},"channels":[{",".join(taken)}]}}'


def payload_of_goodbye(service: str) -> str:
    """Return what a service sends when it stops reporting."""
    return _dumped({"v": VERSION, "kind": _GOODBYE, "id": service})


def _dumped(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def parsed(payload: str) -> ServiceReport | Goodbye | None:
    """Return what a payload tells; None if it is none of ours, or of another version."""
    try:
        values = json.loads(payload)
        if not isinstance(values, dict) or values.get("v") != VERSION:
            return None
        if values.get("kind") == _GOODBYE:
            return Goodbye(_text(values["id"]))
        return _report(values) if values.get("kind") == _REPORT else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None  # anybody may notify


def _report(values: Mapping[str, Any]) -> ServiceReport:
    channels = values["channels"]
    return ServiceReport(
        **{
            field.name: _KINDS[field.type](values[field.name])
            for field in fields(ServiceReport)
            if field.name != "channels"
        },
        channels=tuple(map(_channel, _items(channels))),
    )


def _channel(values: Mapping[str, Any]) -> ChannelReport:
    return ChannelReport(**{f.name: _KINDS[f.type](values[f.name]) for f in fields(ChannelReport)})


def _items(value: object) -> Iterable[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise ValueError
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise ValueError
    return value


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError
    if not isfinite(value) or not 0 <= value <= _MOST:
        raise ValueError
    return float(value)


def _optional(kind: Callable[[object], T]) -> Callable[[object], T | None]:
    return lambda value: None if value is None else kind(value)


_KINDS: Final[dict[object, Callable[[Any], Any]]] = {
    str: _text,
    int: _count,
    float: _seconds,
    State: State,
    int | None: _optional(_count),
    float | None: _optional(_seconds),
}
"""How the value of a field is checked, by its annotation."""
