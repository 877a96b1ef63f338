"""
PostgreSQL LISTEN/NOTIFY for asyncio.

A listener reconnects automatically, checks that the server still listens for its session, and
reports every point at which notifications may be missing. Start with ``Listener``.
"""

from asyncnotify._backoff import ExponentialBackoff
from asyncnotify._blocking.events import BlockingEventStream
from asyncnotify._blocking.listener import BlockingListener
from asyncnotify._blocking.notifier import BlockingNotifier
from asyncnotify._blocking.stream import BlockingStream
from asyncnotify._blocking.subscription import BlockingSubscription
from asyncnotify._channels.channel import Channel
from asyncnotify._errors import (
    AlreadyEnteredError,
    AsyncNotifyError,
    BufferOverflowError,
    ChannelDirectionError,
    ChannelNameError,
    ClosedError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    ConnectTimeoutError,
    ListenTimeoutError,
    NotifyTimeoutError,
    NotStartedError,
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
    Replaced,
    RetryScheduled,
)
from asyncnotify._keepalive import Keepalive
from asyncnotify._listener import Listener
from asyncnotify._model import (
    Gap,
    GapReason,
    Notification,
    Reread,
    State,
    Stats,
    SubscriptionStats,
)
from asyncnotify._notifier import Notifier
from asyncnotify._subscriptions.batches import Batches
from asyncnotify._subscriptions.stream import Stream
from asyncnotify._subscriptions.subscription import Subscription

__version__ = "0.1.0"

__all__ = [
    "AlreadyEnteredError",
    "AsyncNotifyError",
    "Batches",
    "BlockingEventStream",
    "BlockingListener",
    "BlockingNotifier",
    "BlockingStream",
    "BlockingSubscription",
    "BufferOverflowError",
    "Channel",
    "ChannelDirectionError",
    "ChannelNameError",
    "Closed",
    "ClosedError",
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
    "NotStartedError",
    "Notification",
    "Notifier",
    "NotifyTimeoutError",
    "PayloadDecodeError",
    "PayloadError",
    "PayloadTooLargeError",
    "PoolerError",
    "Reconnected",
    "Replaced",
    "Reread",
    "RetryScheduled",
    "State",
    "Stats",
    "Stream",
    "Subscription",
    "SubscriptionStats",
    "WrongLoopError",
]

for _public in map(globals().__getitem__, __all__):
    if isinstance(_public, type):
        _public.__module__ = __name__  # the name in tracebacks, pickles and docs
