"""What users of the blocking face see of the types. Checked by mypy and pyright, never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

import asyncpg
from sqlalchemy import make_url

from asyncnotify import (
    BlockingEventStream,
    BlockingListener,
    BlockingNotifier,
    BlockingStream,
    BlockingSubscription,
    Channel,
    ConnectionEvent,
    Gap,
    Keepalive,
    Notification,
    State,
    Stats,
    SubscriptionStats,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

listener = BlockingListener("postgresql://db/app")
notifier = BlockingNotifier("postgresql://db/app")
numbers = Channel("numbers", int)
texts = Channel("texts")


async def connect() -> asyncpg.Connection[asyncpg.Record]:
    """Return a fresh connection."""
    return await asyncpg.connect("postgresql://db/app")


def on_event(event: ConnectionEvent) -> None:
    """See what happens."""


def on_text(n: Notification[str]) -> int:
    """Handle a text, and return what nobody reads."""
    return len(n.payload)


def on_number(n: Notification[int]) -> None:
    """Handle a number."""


def reload(gap: Gap) -> None:
    """Read the state anew."""


def on_error(error: BaseException, item: Notification[Any] | Gap) -> None:
    """See what went wrong."""


BlockingListener(connect=connect, heartbeat=None, keepalive=Keepalive(idle=5), on_event=on_event)
BlockingListener(host="h", password=lambda: "secret")
BlockingListener(make_url("postgresql://db"))
BlockingNotifier(connect=connect, queue=5, retry_timeout=1)


# -- handlers -------------------------------------------------------------------------------------

assert_type(listener.listen("orders", on_text), BlockingSubscription)
listener.listen("orders", print, resync=reload, on_error=on_error, concurrency=2, timeout=None)
listener.listen(numbers, on_number, buffer=1, overflow="fail", latest=False)
listener.listen(texts, on_text)
listener.listen(numbers, on_text)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType]
listener.listen("orders", on_number)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType]

subscription = listener.listen("orders", on_text)
assert_type(subscription.channel, str)
assert_type(subscription.active, bool)
assert_type(subscription.stats(), SubscriptionStats)
subscription.cancel()


@listener.on("orders", resync=reload, on_error=on_error, concurrency=2)
def decorated(n: Notification[str]) -> int:
    """Stay what it was."""
    return n.pid


@listener.on(numbers)
def decorated_too(n: Notification[int]) -> int:
    """Be given what the channel decodes."""
    return n.payload


assert_type(decorated(n=Notification("orders", "1", 7)), int)
assert_type(decorated_too(Notification("numbers", 1, 7)), int)


# -- streams --------------------------------------------------------------------------------------

assert_type(listener.stream("orders"), BlockingStream[Notification[str]])
assert_type(listener.stream("a", "b", gaps=True), BlockingStream[Notification[str] | Gap])
assert_type(listener.stream(numbers), BlockingStream[Notification[int]])
assert_type(listener.stream(numbers, gaps=True), BlockingStream[Notification[int] | Gap])
assert_type(listener.stream(numbers, "orders"), BlockingStream[Notification[Any]])
assert_type(listener.stream(numbers, gaps=bool(input())), BlockingStream[Notification[int] | Gap])
listener.stream("orders", resync=reload)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
listener.stream("orders", gaps=True, overflow="drop")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]

for item in listener.stream(numbers, gaps=True):
    match item:
        case Notification(payload=payload):
            assert_type(payload, int)
        case Gap():
            assert_type(item, Gap)

for n in listener.stream("orders", buffer=1, overflow="fail", latest=False, timeout=1):
    assert_type(n, Notification[str])
with listener.stream(numbers) as stream:
    assert_type(stream, BlockingStream[Notification[int]])
    assert_type(next(stream), Notification[int])
    assert_type(stream.get(), Notification[int])
    assert_type(stream.get(timeout=1.5).payload, int)
    assert_type(stream.stats(), SubscriptionStats | None)
    stream.close()


def widened(
    stream: BlockingStream[Notification[str]],
) -> BlockingStream[Notification[str] | Gap]:
    """Pass for a stream that might have gaps: what is taken from it is no more than that."""
    return stream


# -- the rest -------------------------------------------------------------------------------------


def pairs() -> Iterator[tuple[str | Channel[Any], object]]:
    """Return what is to be sent."""
    yield "orders", "1"
    yield numbers, 1


with listener as entered, notifier as entered_too:
    assert_type(entered, BlockingListener)
    assert_type(entered_too, BlockingNotifier)
listener.start()
assert_type(listener.channels, frozenset[str])
assert_type(listener.state, State)
assert_type(listener.is_connected, bool)
assert_type(listener.stats(), Stats)
assert_type(listener.health(server=False), dict[str, Any])
listener.wait_connected(timeout=1)
listener.unlisten("orders")
listener.unlisten(numbers)
listener.notify("orders")
listener.notify(numbers, 1)
listener.notify(numbers, "1")  # type: ignore[misc] # pyright: ignore[reportCallIssue, reportArgumentType]
listener.notify("orders", "1", connection=object(), retry=False)
assert_type(listener.notify_many(pairs()), int)
assert_type(listener.events(), BlockingEventStream)
assert_type(listener.events().get(timeout=1), ConnectionEvent)
for event in listener.events():
    assert_type(event, ConnectionEvent)
listener.close(timeout=1)

notifier.start()
notifier.notify("orders", "1", retry=True)
notifier.notify(numbers, 1, connection=object())
notifier.notify(numbers, 1)
notifier.notify(numbers, "1")  # type: ignore[misc] # pyright: ignore[reportCallIssue, reportArgumentType]
assert_type(notifier.notify_many(pairs()), int)
notifier.notify_many([("orders", "1"), (numbers, 1)])
notifier.close()
