"""The values that users see: Notification, Gap, Reread and the statistics."""

import os
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    NamedTuple,
    Self,
    TypeVar,
    dataclass_transform,
    final,
)

SHOW_PAYLOADS: Final = "ASYNCNOTIFY_SHOW_PAYLOADS"
"""An environment variable."""

T_co = TypeVar("T_co", covariant=True)

if TYPE_CHECKING:
    # mypy loses the payload's type of a generic NamedTuple, in `case Notification(payload=key)` and
    # after isinstance(). A tuple of unknown length whose fields are a frozen dataclass's keeps it.
    @dataclass_transform(frozen_default=True)
    class _NamedTuple(tuple[Any, ...]):
        __slots__ = ()
        _fields: tuple[str, ...]

        def __new__(cls, *fields: Any, **named: Any) -> Self: ...  # noqa: ANN401 - of any type
        def _asdict(self) -> dict[str, Any]: ...
        def _replace(self, **changes: Any) -> Self: ...  # noqa: ANN401 - of any type
else:
    _NamedTuple = NamedTuple


class Notification(_NamedTuple, Generic[T_co]):
    """
    One notification, as the server sent it.

    A named tuple, because one is made for each notification: a frozen dataclass takes
    three times as long to make. The repr leaves the payload out, so that a notification can be
    logged. Where the environment variable ASYNCNOTIFY_SHOW_PAYLOADS is set, and not to 0, the repr
    shows it: for tests, whose failing assertions have to be read.

    Attributes:
        channel: The channel on which the notification was sent.
        payload: What was sent; the empty string if there was no payload.
        pid: The backend pid of the session that sent the notification. Not a proof of the
            sender: any role that may connect to the database may notify.
    """

    channel: str
    payload: T_co
    pid: int

    @property
    def context(self) -> str | None:
        """What it was sent with, by ``Channel(…, context=…)``, where a handler gets it; or None."""
        return None

    def __repr__(self) -> str:
        if os.environ.get(SHOW_PAYLOADS, "0") not in {"", "0"}:
            shown = f"payload={self.payload!r}"
            return f"Notification(channel={self.channel!r}, {shown}, pid={self.pid})"
        size = f" of {len(self.payload)} characters" if isinstance(self.payload, str) else ""
        return f"Notification(channel={self.channel!r}, payload=<hidden{size}>, pid={self.pid})"

    __sentry_repr__ = __repr__
    """Sentry's SDK sends the local variables of frames, and would send a tuple by its elements."""


class NotificationInContext(Notification[T_co]):
    """A notification with what it was sent with. Only handlers get one: it takes a dict."""

    @property
    def context(self) -> str | None:
        """What it was sent with; None of one that ``_replace()`` has made."""
        return self.__dict__.get("context")


def in_context(notification: Notification[T_co], context: str) -> Notification[T_co]:
    """Return the same notification with what it was sent with."""
    made: NotificationInContext[T_co] = tuple.__new__(NotificationInContext, notification)
    made.__dict__["context"] = context
    return made


class GapReason(StrEnum):
    """Why notifications may be missing at this position."""

    START = "start"
    """The subscription begins here; what was sent before did not reach it."""
    RECONNECT = "reconnect"
    """The connection was lost and reopened; notifications sent in between did not arrive."""
    OVERFLOW = "overflow"
    """The consumer was too slow and its buffer was full; ``dropped`` says how many were lost."""
    UNDECODABLE = "undecodable"
    """A payload could not be decoded, so its content is unknown. ``on_error`` got the error."""
    REREAD = "reread"
    """A payload says "read again": the channel's ``decode`` returned a Reread. The sender left out
    changes; ``dropped`` is their number, if the payload has it."""
    UNLISTENED = "unlistened"
    """The server no longer listened for this connection; LISTEN has been repeated."""
    EXPIRED = "expired"
    """Of a log only: events were removed by retention before they were read."""


@dataclass(frozen=True, slots=True)
class Gap:
    """
    Notifications may be missing at exactly this position of a subscription.

    A Gap is delivered only when LISTEN is in effect again, so that state read at a Gap is complete.
    A Gap never overtakes notifications that were received earlier.

    Attributes:
        channel: The channel concerned; None for all channels of a stream that has several.
        reason: Why notifications may be missing.
        since: When delivery was last known to be good: an aware UTC datetime by this machine's
            clock, never later than the first lost notification was sent; None at the start, and if
            it is unknown. Nothing committed before it is missing; for ``REREAD`` that holds if the
            payload is sent in the transaction of the changes that it reports. Rows stamped by
            ``now()`` carry the time at which their transaction began and the server's clock: allow
            for your longest transaction and for the difference of the clocks.
        dropped: How many notifications were lost: exact for an overflow; for ``REREAD`` how many
            changes the sender left out, as it says; for ``EXPIRED`` how many events of the log were
            removed before they were read, if that is known exactly: not by a reader or consumer of
            some channels only, nor by one that begins, or has lost its connection, between events
            that were committed together. Otherwise None, because the number is unknown.
    """

    channel: str | None
    reason: GapReason
    since: datetime | None = None
    dropped: int | None = None


_MOST_COUNTED: Final = 2**63 - 1
"""What PostgreSQL counts to."""


@final
@dataclass(frozen=True, slots=True)
class Reread:
    """
    What ``decode`` of a Channel returns for a payload that says "read again".

    The notification is replaced by a Gap with reason ``REREAD``. For senders that cannot send each
    change: there are too many, or one is too large for a payload.

    Attributes:
        count: How many changes the sender left out; None if it does not say.

    Raises:
        ValueError: The count is not a whole number, 0 to 2**63 - 1. So a payload with another one
            is a payload that cannot be decoded.
    """

    count: int | None = None

    def __post_init__(self) -> None:
        if self.count is not None and not _is_count(self.count):
            msg = "count must be a whole number, 0 to 2**63 - 1, or None"
            raise ValueError(msg)


def _is_count(value: object) -> bool:
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return 0 <= value <= _MOST_COUNTED


class State(StrEnum):
    """What a listener is doing."""

    NEW = "new"
    """Not started."""
    CONNECTING = "connecting"
    """Started; the first connection is being made."""
    CONNECTED = "connected"
    """Connected, and the server has confirmed LISTEN for every channel asked for at that time."""
    RECONNECTING = "reconnecting"
    """The connection was lost; a new one is being made."""
    DEGRADED = "degraded"
    """As RECONNECTING, but the server refuses the connection, for a reason such as a wrong
    password: retrying will not help until this is fixed. Attempts go on, at the longest delay."""
    CLOSING = "closing"
    """Handlers are finishing what is buffered."""
    CLOSED = "closed"
    """Closed; may be started again."""


@dataclass(frozen=True, slots=True)
class SubscriptionStats:
    """
    What became of the notifications of one subscription, since it began.

    Attributes:
        channels: The channels of the subscription.
        backlog: Notifications and gaps that wait in the buffer now.
        delivered: Notifications handed to the handler, or taken from the stream.
        dropped: Notifications lost because the buffer was full.
        conflated: Notifications replaced by a newer one (``latest=True``).
        handler_errors: Calls of the handler that raised.
        resync_errors: Calls of ``resync`` that raised.
        decode_errors: Payloads that could not be decoded.
        gaps: Gaps so far, the one at the start included, whether the consumer sees them or not.
        rereads: Payloads that said "read again".
    """

    channels: tuple[str, ...]
    backlog: int
    delivered: int
    dropped: int
    conflated: int
    handler_errors: int
    resync_errors: int
    decode_errors: int
    gaps: int
    rereads: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """
    A snapshot of a listener's counters, since it was started.

    Attributes:
        state: What the listener is doing.
        received: Notifications that arrived from the server.
        delivered: Notifications handed to handlers and streams; one that went to three
            subscriptions counts three times.
        dropped: Notifications lost because a buffer was full.
        handler_errors: Calls of handlers and of ``resync`` that raised.
        decode_errors: Payloads that could not be decoded.
        rereads: Payloads that said "read again", over all subscriptions.
        gaps: Gaps emitted, over all subscriptions.
        reconnects: Connections reopened after a loss.
        connected_since: When the present connection began to listen; None without a connection.
        last_heartbeat: When the server last answered a heartbeat; None before the first.
        heartbeat_round_trip: Seconds that this answer took.
        subscriptions: The counters of each subscription that is open now.
    """

    state: State = State.NEW
    received: int = 0
    delivered: int = 0
    dropped: int = 0
    handler_errors: int = 0
    decode_errors: int = 0
    rereads: int = 0
    gaps: int = 0
    reconnects: int = 0
    connected_since: datetime | None = None
    last_heartbeat: datetime | None = None
    heartbeat_round_trip: float | None = None
    subscriptions: tuple[SubscriptionStats, ...] = ()
