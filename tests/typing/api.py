"""What users see of the types. Checked by mypy and pyright, never run."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, assert_type

import asyncpg
from pydantic import PostgresDsn
from sqlalchemy import make_url

from asyncnotify import (
    AsyncNotifyError,
    Closed,
    Connected,
    ConnectionEvent,
    ConnectionLost,
    EventStream,
    ExponentialBackoff,
    Gap,
    GapReason,
    Keepalive,
    Listener,
    Notification,
    Reconnected,
    Replaced,
    RetryScheduled,
    State,
    Stats,
    Stream,
    Subscription,
    SubscriptionStats,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

listener = Listener("postgresql://db/app")


# -- making one -----------------------------------------------------------------------------------


async def connect() -> asyncpg.Connection[asyncpg.Record]:
    """Return a fresh connection."""
    return await asyncpg.connect("postgresql://db/app")


def delays() -> Iterator[float]:
    """Return delays."""
    yield 1.0


def on_event(event: ConnectionEvent) -> None:
    """See what happens."""
    match event:
        case Connected():
            assert_type(event.backend_pid, int)
        case ConnectionLost():
            assert_type(event.cause, BaseException | None)
        case RetryScheduled():
            assert_type(event.delay, float)
        case Reconnected():
            assert_type(event.downtime, float)
        case Replaced():
            assert_type(event.backend_pid, int)
        case Closed():
            assert_type(event, Closed)


Listener()
Listener(make_url("postgresql://db"))
Listener(PostgresDsn("postgresql://db"))
Listener(connect=connect, heartbeat=None, keepalive=None, backoff=delays, on_event=on_event)
Listener(
    host=["h1", "h2"],
    password=lambda: "secret",
    backoff=ExponentialBackoff(cap=60),
    keepalive=Keepalive(idle=5),
    on_event=print,
)
Listener(dsn=b"postgresql://db")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
Listener(connect=lambda: None)  # type: ignore[arg-type,return-value] # pyright: ignore[reportArgumentType]
Listener("postgresql://db", delays)  # type: ignore[call-arg,arg-type] # pyright: ignore[reportCallIssue]


# -- handlers -------------------------------------------------------------------------------------


async def on_order(n: Notification[str]) -> None:
    """Handle one, asynchronously."""
    assert_type(n.payload, str)
    assert_type(n.channel, str)
    assert_type(n.pid, int)


def on_change(n: Notification[str]) -> int:
    """Handle one, and return what nobody reads."""
    return len(n.payload)


async def reload(gap: Gap) -> None:
    """Read the state anew."""
    assert_type(gap.channel, str | None)
    assert_type(gap.reason, GapReason)
    assert_type(gap.since, datetime | None)
    assert_type(gap.dropped, int | None)


def on_error(error: BaseException, item: Notification[str] | Gap) -> None:
    """See what went wrong."""


def takes_nothing() -> None:
    """Be no handler."""


async def listening() -> None:
    """Listen with all kinds of handlers."""
    assert_type(await listener.listen("orders", on_order), Subscription)
    await listener.listen("orders", on_change, resync=reload, on_error=on_error)
    await listener.listen("orders", print, resync=print, buffer=1, overflow="fail", timeout=None)
    await listener.listen("orders", lambda n: on_order(n), latest=True, concurrency=3)  # noqa: PLW0108
    await listener.listen("orders", takes_nothing)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType]
    await listener.listen("orders", print, overflow="drop")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
    subscription = await listener.listen("orders", on_order)
    assert_type(subscription.channel, str)
    assert_type(subscription.active, bool)
    assert_type(subscription.stats(), SubscriptionStats)
    assert_type(await subscription.cancel(), None)


@listener.on("orders")
async def decorated(n: Notification[str]) -> None:
    """Stay what it was."""


@listener.on("orders", in_thread=True, concurrency=2)
def in_thread(n: Notification[str]) -> None:
    """Block a thread."""


listener.on("orders", inthread=True)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]


@listener.on("orders", resync=reload, on_error=on_error, concurrency=2, overflow="drop_newest")
def decorated_too(n: Notification[str]) -> int:
    """Stay what it was."""
    return n.pid


async def decorators() -> None:
    """Call what was decorated, as if it were not."""
    notification = Notification("orders", "1", 7)
    assert_type(await decorated(n=notification), None)
    assert_type(decorated_too(n=notification), int)
    decorated_too()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


# -- streams --------------------------------------------------------------------------------------


async def streaming() -> None:
    """Iterate, with gaps and without."""
    assert_type(listener.stream("orders"), Stream[Notification[str]])
    assert_type(listener.stream("orders", gaps=False), Stream[Notification[str]])
    assert_type(listener.stream("a", "b", gaps=True), Stream[Notification[str] | Gap])
    async for n in listener.stream("orders", buffer=1, overflow="fail", latest=False, timeout=1):
        assert_type(n, Notification[str])
    async for item in listener.stream("orders", gaps=True):
        assert_type(item, Notification[str] | Gap)
        match item:
            case Notification(payload=payload, pid=pid):
                assert_type(payload, str)
                assert_type(pid, int)
                assert_type(item, Notification[str])
            case Gap():
                assert_type(item, Gap)
    async with listener.stream("orders") as stream:
        assert_type(stream, Stream[Notification[str]])
        assert_type(await anext(stream), Notification[str])
        assert_type(stream.stats(), SubscriptionStats | None)
    async with listener.stream("orders", gaps=True) as with_gaps:
        assert_type(await anext(with_gaps), Notification[str] | Gap)


async def streaming_as_a_variable_says(*, gaps: bool) -> None:
    """Be given what may have gaps, where nobody knows before the program runs."""
    assert_type(listener.stream("orders", gaps=gaps), Stream[Notification[str] | Gap])
    assert_type(listener.stream("a", "b", gaps=gaps), Stream[Notification[str] | Gap])
    listener.stream("orders", gaps="yes")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]


async def telling_apart(item: Notification[int] | Gap) -> None:
    """Keep the payload's type in every way to tell a Notification from a Gap."""
    match item:
        case Gap():
            assert_type(item, Gap)
        case Notification(payload=payload):
            assert_type(payload, int)
            assert_type(item, Notification[int])
    match item:
        case Notification(channel, payload, pid):
            assert_type((channel, payload, pid), tuple[str, int, int])
        case Gap(channel=None):
            pass
        case rest:
            assert_type(rest, Gap)
    if isinstance(item, Notification):
        assert_type(item, Notification[int])
        assert_type(item.payload, int)
    else:
        assert_type(item, Gap)


def a_named_tuple(n: Notification[int]) -> Notification[object]:
    """Be a tuple that nobody changes, and one of objects as well."""
    assert_type(Notification("orders", 1.5, 7), Notification[float])
    assert_type(Notification(channel="orders", payload=1.5, pid=7), Notification[float])
    assert_type(n._replace(pid=8), Notification[int])
    assert_type(len(n), int)
    channel, payload, pid = n
    assert_type((channel, payload, pid, n[1], hash(n)), tuple[Any, Any, Any, Any, int])
    n.payload = 2  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]
    Notification("orders", 1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    Notification("orders", 1, "7")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    return n


def widened(stream: Stream[Notification[str]]) -> Stream[Notification[str] | Gap]:
    """Pass for a stream that might have gaps: what is taken from it is no more than that."""
    return stream


# -- the rest -------------------------------------------------------------------------------------


async def lifetime() -> None:
    """Start, look, and close."""
    async with listener as entered:
        assert_type(entered, Listener)
    assert_type(listener.channels, frozenset[str])
    assert_type(listener.state, State)
    assert_type(listener.is_connected, bool)
    assert_type(listener.stats(), Stats)
    assert_type(listener.stats().subscriptions, tuple[SubscriptionStats, ...])
    assert_type(await listener.health(), dict[str, Any])
    assert_type(listener.events(), EventStream)
    async for event in listener.events():
        assert_type(event, ConnectionEvent)
    await listener.start()
    await listener.notify("orders")
    await listener.notify("orders", "1")
    await listener.notify("orders", b"1")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
    await listener.wait_connected(timeout=1)
    await listener.unlisten("orders")
    await listener.aclose(timeout=1)


def caught(error: AsyncNotifyError) -> Exception:
    """Be an exception like another."""
    return error
