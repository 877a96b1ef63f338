"""What users see of the public aliases and options. Checked by mypy and pyright, never run."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, assert_type

from asyncnotify import (
    BlockingListener,
    BlockingStream,
    BlockingSubscription,
    Channel,
    ConnectionEvent,
    ExponentialBackoff,
    Gap,
    Listener,
    Notification,
    Notifier,
    Stream,
    Subscription,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import asyncpg

    from asyncnotify.typing import (
        Backoff,
        Connect,
        Handler,
        HandlerOptions,
        ListenOptions,
        OnError,
        OnEvent,
        Overflow,
        Resync,
        Ssl,
        StreamOptions,
        SubscriptionOptions,
    )

T = TypeVar("T")

listener = Listener()
blocking = BlockingListener()


# -- functions ------------------------------------------------------------------------------------


async def on_number(n: Notification[int]) -> None:
    """Handle a number."""


def on_text(n: Notification[str]) -> int:
    """Handle a text."""
    return len(n.payload)


async def reload(gap: Gap) -> None:
    """Read the state anew."""


def note(error: BaseException, item: Notification[Any] | Gap) -> None:
    """See what went wrong."""


def delays() -> Iterator[float]:
    """Return delays."""
    yield 1.0


async def connect() -> asyncpg.Connection[asyncpg.Record]:
    """Return a fresh connection."""
    raise NotImplementedError


number_handler: Handler[int] = on_number
text_handler: Handler[str] = on_text
resync: Resync = reload
on_error: OnError = note
backoff: Backoff = delays
another: Backoff = ExponentialBackoff()
connecting: Connect = connect
ssl_function: Ssl = ssl.create_default_context
ssl_answer: Ssl = "verify-full"
on_event: OnEvent = print
overflow: Overflow = "drop_newest"

wrong_handler: Handler[str] = on_number  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
wrong_resync: Resync = note  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
wrong_on_error: OnError = reload  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
wrong_backoff: Backoff = ExponentialBackoff  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
wrong_connect: Connect = delays  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
wrong_ssl: Ssl = delays  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
wrong_overflow: Overflow = "drop"  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]

Listener(connect=connecting, backoff=backoff, on_event=on_event)
Notifier(connect=connecting, backoff=another)


def on_event_of_mine(event: ConnectionEvent) -> None:
    """See what happens."""


on_event = on_event_of_mine


# -- options --------------------------------------------------------------------------------------

everywhere: SubscriptionOptions = {"on_error": on_error, "buffer": 5, "overflow": overflow}
handling: HandlerOptions = {"resync": resync, "concurrency": 2, "slow_after": 5, **everywhere}
listening: ListenOptions = {"timeout": None, "latest": True}
streaming: StreamOptions = {"timeout": 5, **everywhere}

wrong_name: StreamOptions = {"resync": resync}  # type: ignore[typeddict-unknown-key] # pyright: ignore[reportAssignmentType]
wrong_value: ListenOptions = {"concurrency": "2"}  # type: ignore[typeddict-item] # pyright: ignore[reportAssignmentType]


async def listen_to_all(
    channel: Channel[T], handler: Handler[T], **options: Unpack[ListenOptions]
) -> Subscription:
    """Pass on what listen() takes."""
    assert_type(blocking.listen(channel, handler, **options), BlockingSubscription)
    return await listener.listen(channel, handler, **options)


def stream_of(channel: Channel[T], **options: Unpack[StreamOptions]) -> Stream[Notification[T]]:
    """Pass on what stream() takes."""
    assert_type(blocking.stream(channel, **options), BlockingStream[Notification[T]])
    assert_type(listener.stream(channel, gaps=True, **options), Stream[Notification[T] | Gap])
    return listener.stream(channel, **options)


async def passing_on() -> None:
    """Hold wrappers to the same options."""
    numbers = Channel("numbers", int)
    await listen_to_all(numbers, on_number, concurrency=2, timeout=None)
    await listen_to_all(numbers, on_text)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await listen_to_all(numbers, on_number, bufer=2)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    assert_type(stream_of(numbers, buffer=2), Stream[Notification[int]])
    stream_of(numbers, overflow="drop")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    stream_of(numbers, concurrency=2)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    await listener.listen("orders", on_text, **listening)
    await listener.listen("orders", on_text, bufer=2)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    await listener.listen("orders", on_text, buffer="2")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
    listener.on("orders", **handling)(on_text)
    listener.on("orders", timeout=5)(on_text)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    listener.on("orders", resync=note)(on_text)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType]
    blocking.on("orders", **handling)(on_text)
    assert_type(listener.stream("orders", **streaming), Stream[Notification[str]])
    assert_type(listener.stream("orders", gaps=True, **streaming), Stream[Notification[str] | Gap])
    listener.stream("orders", gap=True)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
