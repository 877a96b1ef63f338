"""
PostgreSQL LISTEN/NOTIFY for asyncio.

It tells you when you may have missed something, proves that it is still delivering, and comes
back by itself. ``Listener`` is where to begin.
"""

from asyncnotify._backoff import ExponentialBackoff
from asyncnotify._blocking_listener import BlockingListener
from asyncnotify._blocking_notifier import BlockingNotifier
from asyncnotify._blocking_stream import BlockingStream
from asyncnotify._blocking_subscription import BlockingSubscription
from asyncnotify._channel import Channel
from asyncnotify._errors import (
    AsyncNotifyError,
    BufferOverflowError,
    ChannelNameError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    ConnectTimeoutError,
    ListenerClosedError,
    ListenerNotStartedError,
    ListenTimeoutError,
    PayloadDecodeError,
    PayloadError,
    PayloadTooLargeError,
    PoolerError,
    WrongLoopError,
)
from asyncnotify._events import (
    Closed,
    Connected,
    ConnectionEvent,
    ConnectionLost,
    EventStream,
    Reconnected,
    RetryScheduled,
)
from asyncnotify._keepalive import Keepalive
from asyncnotify._listener import Listener
from asyncnotify._model import Gap, GapReason, Notification, State, Stats, SubscriptionStats
from asyncnotify._notifier import Notifier
from asyncnotify._stream import Batches, Stream
from asyncnotify._subscription import Subscription

__all__ = [
    "AsyncNotifyError",
    "Batches",
    "BlockingListener",
    "BlockingNotifier",
    "BlockingStream",
    "BlockingSubscription",
    "BufferOverflowError",
    "Channel",
    "ChannelNameError",
    "Closed",
    "ConfigurationError",
    "ConnectError",
    "ConnectTimeoutError",
    "Connected",
    "ConnectionEvent",
    "ConnectionLost",
    "ConnectionLostError",
    "EventStream",
    "ExponentialBackoff",
    "Gap",
    "GapReason",
    "Keepalive",
    "ListenTimeoutError",
    "Listener",
    "ListenerClosedError",
    "ListenerNotStartedError",
    "Notification",
    "Notifier",
    "PayloadDecodeError",
    "PayloadError",
    "PayloadTooLargeError",
    "PoolerError",
    "Reconnected",
    "RetryScheduled",
    "State",
    "Stats",
    "Stream",
    "Subscription",
    "SubscriptionStats",
    "WrongLoopError",
]
