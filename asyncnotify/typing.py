"""
The types of what callers give: functions and options, for annotations of their own.

::

    from asyncnotify.typing import Handler, ListenOptions

    async def listen_to_all(handler: Handler[str], **options: Unpack[ListenOptions]) -> None:
        for channel in ("orders", "users"):
            await listener.listen(channel, handler, **options)

The functions: ``Handler``, ``Resync``, ``OnError`` and ``OnEvent`` are called back, ``Middleware``
with a ``CallNext``; ``Connect`` makes a connection, ``Backoff`` returns delays. ``Dsn`` is a URL,
as a str or an object, ``Ssl`` what ``ssl=`` takes, also a function that returns a context, and
``Overflow`` a choice of three words.

The options are TypedDicts, in which nothing is required: ``HandlerOptions`` is what ``on()`` takes
by keyword, ``ListenOptions`` what ``listen()`` takes, ``StreamOptions`` what ``stream()`` takes
besides ``gaps``, and ``SubscriptionOptions`` what all three take. The methods of Listener and of
BlockingListener take the same.
"""

from typing import TypedDict

from asyncnotify._asyncpg._connecting.dial import Connect, Ssl
from asyncnotify._asyncpg._parameters.dsn import Dsn
from asyncnotify._backoff import Backoff
from asyncnotify._delivery.bounded import Overflow
from asyncnotify._events import OnEvent
from asyncnotify._subscriptions.callbacks import Handler, OnError, Resync
from asyncnotify._subscriptions.middleware import CallNext, Middleware

__all__ = [
    "Backoff",
    "CallNext",
    "Connect",
    "Dsn",
    "Handler",
    "HandlerOptions",
    "ListenOptions",
    "Middleware",
    "OnError",
    "OnEvent",
    "Overflow",
    "Resync",
    "Ssl",
    "StreamOptions",
    "SubscriptionOptions",
]


class SubscriptionOptions(TypedDict, total=False):
    """
    What every subscription may be given.

    Attributes:
        on_error: Called with what was raised for a notification, and with that notification.
        buffer: How many notifications may wait.
        overflow: What to do when more wait.
        latest: Keep only the newest notification that waits, instead of a buffer.
    """

    on_error: OnError | None
    buffer: int | None
    overflow: Overflow | None
    latest: bool


class HandlerOptions(SubscriptionOptions, total=False):
    """
    What ``on()`` takes.

    Attributes:
        resync: Called with a Gap wherever notifications may be missing.
        concurrency: How many calls of the handler may run at once.
        slow_after: Seconds after which a warning names a function that has not returned.
    """

    resync: Resync | None
    concurrency: int
    slow_after: float | None


class ListenOptions(HandlerOptions, total=False):
    """
    What ``listen()`` takes.

    Attributes:
        timeout: Seconds to wait for the server to confirm; None: forever.
    """

    timeout: float | None


class StreamOptions(SubscriptionOptions, total=False):
    """
    What ``stream()`` takes besides ``gaps``.

    Attributes:
        timeout: Seconds to wait for the server to confirm; None: forever.
    """

    timeout: float | None
