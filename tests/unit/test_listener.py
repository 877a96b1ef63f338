from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import (
    Channel,
    ChannelNameError,
    ClosedError,
    Listener,
    NotStartedError,
    State,
    Stats,
)
from tests.unit.fake_connection import FakeConnection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify import Notification
    from asyncnotify.typing import CallNext

DSN = "postgresql://alice:secret@db.example:5433/shop"


def ignore(notification: Notification[str]) -> None:
    """Do nothing."""


async def aignore(_: object) -> None:
    """Do nothing, asynchronously."""


class Connections:
    """What ``connect=`` is given: connections that answer at once."""

    def __init__(self) -> None:
        self.made: list[FakeConnection] = []

    async def connect(self) -> FakeConnection:
        """Return a new one."""
        self.made.append(FakeConnection())
        return self.made[-1]

    @property
    def listened(self) -> list[list[str]]:
        """The LISTEN statements of each connection."""
        return [[s for s in made.statements if s.startswith("LISTEN")] for made in self.made]


# -- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"heartbeat": 0}, "heartbeat"),
        ({"heartbeat_timeout": -1}, "heartbeat_timeout"),
        ({"operation_timeout": float("nan")}, "operation_timeout"),
        ({"connect_timeout": None}, "connect_timeout"),
        ({"start_timeout": "30"}, "start_timeout"),
        ({"close_timeout": True}, "close_timeout"),
        ({"backoff": 1.0}, "backoff"),
        ({"on_event": 7}, "on_event"),
        ({"on_event": aignore}, "on_event"),
        ({"connect": 7}, "connect"),
        ({"no_such_option": 1}, "no_such_option"),
    ],
)
def test_r45_a_wrong_argument_is_refused_by_the_constructor(
    options: dict[str, Any], name: str
) -> None:
    """The error names it; no event loop runs, and nothing has been connected to."""
    with pytest.raises((TypeError, ValueError), match=name):
        Listener(**options)


@pytest.mark.parametrize("options", [{"dsn": DSN}, {"host": "db.example"}], ids=["dsn", "host"])
def test_connect_excludes_what_says_how_to_connect(options: dict[str, Any]) -> None:
    """One of them would be ignored without a word."""
    with pytest.raises(TypeError, match="connect"):
        Listener(connect=Connections().connect, **options)


def test_the_repr_holds_no_password() -> None:
    """But where it leads to, and the state."""
    shown = repr(Listener(DSN))
    assert "alice@db.example:5433/shop" in shown
    assert "new" in shown
    assert "secret" not in shown


def test_from_sqlalchemy_takes_engines_only() -> None:
    """Something else is refused before the start."""
    with pytest.raises(TypeError, match="AsyncEngine"):
        Listener.from_sqlalchemy(object())


# -- before the start -----------------------------------------------------------------------------


def test_a_new_listener_needs_no_event_loop() -> None:
    """A module may make one: it looks, registers and streams, and connects to nothing."""
    listener = Listener(DSN)
    listener.on("orders")(ignore)
    listener.stream("events")
    assert listener.state is State.NEW
    assert not listener.is_connected
    assert listener.stats() == Stats()
    assert listener.channels == frozenset({"orders"})


CALLS: dict[str, Callable[[Listener], Awaitable[object]]] = {
    "listen": lambda listener: listener.listen("orders", ignore),
    "enter a stream": lambda listener: listener.stream("orders").__aenter__(),
    "next of a stream": lambda listener: anext(listener.stream("orders")),
    "notify": lambda listener: listener.notify("orders"),
    "notify_many": lambda listener: listener.notify_many([]),
    "wait_connected": lambda listener: listener.wait_connected(),
    "health": lambda listener: listener.health(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_what_needs_a_connection_says_that_it_was_not_started(
    call: Callable[[Listener], Awaitable[object]],
) -> None:
    """And how to start it; after the close it says that it is closed."""
    connections = Connections()
    listener = Listener(connect=connections.connect)
    with pytest.raises(NotStartedError, match="async with"):
        await call(listener)
    async with listener:
        pass
    with pytest.raises(ClosedError):
        await call(listener)


@pytest.mark.parametrize("name", ["", "x" * 64, "nul\0"])
async def test_p10_a_wrong_channel_is_refused_before_anything_else(name: str) -> None:
    """By every method that takes one, though the listener was not started."""
    listener = Listener(DSN)
    for call in (listener.on, listener.stream):
        with pytest.raises(ChannelNameError):
            call(name)
    for waiting in (listener.listen(name, ignore), listener.unlisten(name), listener.notify(name)):
        with pytest.raises(ChannelNameError):
            await waiting


def test_a_stream_of_nothing_is_refused() -> None:
    """It could bring nothing."""
    with pytest.raises(TypeError, match="at least one channel"):
        Listener(DSN).stream()


async def test_unlisten_forgets_what_was_registered() -> None:
    """Of this channel, by its name or as a Channel; on() keeps those of others."""
    listener = Listener(DSN)
    for channel in ("orders", "events", "cache"):
        listener.on(channel)(ignore)
    await listener.unlisten("orders")
    await listener.unlisten(Channel("cache", int))
    assert listener.channels == frozenset({"events"})


async def test_closing_a_listener_that_was_not_started_does_nothing() -> None:
    """Its arguments are checked all the same."""
    listener = Listener(DSN)
    await listener.aclose()
    with pytest.raises(ValueError, match="timeout"):
        await listener.aclose(-1)
    assert listener.state is State.NEW


# -- runs -----------------------------------------------------------------------------------------


async def test_every_run_serves_what_on_has_registered() -> None:
    """A listener that was closed may be started again, on a new connection."""
    connections = Connections()
    listener = Listener(connect=connections.connect)
    decorated = listener.on("orders")(ignore)
    assert decorated is ignore
    for _ in range(2):
        async with listener:
            assert listener.is_connected
            assert listener.channels == frozenset({"orders"})
        assert listener.state is State.CLOSED
    assert connections.listened == [['LISTEN "orders"']] * 2


async def test_what_listen_has_added_is_gone_after_the_close() -> None:
    """listen() is for this run, on() for every run."""
    connections = Connections()
    listener = Listener(connect=connections.connect)
    async with listener:
        subscription = await listener.listen("orders", ignore)
        assert listener.channels == frozenset({"orders"})
    assert not subscription.active
    async with listener:
        assert listener.channels == frozenset()


async def test_an_exception_in_the_block_closes_the_listener() -> None:
    """And goes on to the caller."""
    listener = Listener(connect=Connections().connect)
    with pytest.raises(KeyError):
        async with listener:
            raise KeyError
    assert listener.state is State.CLOSED


@pytest.mark.parametrize("removed", [False, True])
async def test_a_function_added_before_the_start_serves_from_the_first_call(
    *, removed: bool
) -> None:
    """Unless it was removed before, too."""
    connections, called, handled = Connections(), list[str](), asyncio.Event()
    listener = Listener(connect=connections.connect)

    async def note(notification: Notification[Any], call_next: CallNext) -> None:
        called.append("added")
        await call_next(notification)

    @listener.on("orders")
    def handle(notification: Notification[str]) -> None:
        called.append(notification.payload)
        handled.set()

    remove = listener.add_middleware(note)
    if removed:
        remove()
    async with listener:
        (connection,) = connections.made
        connection._process_notification(7, "orders", "1")  # noqa: SLF001 - as asyncpg
        await handled.wait()
    assert called == (["1"] if removed else ["added", "1"])


async def test_a_second_start_waits_for_the_first() -> None:
    """It makes no second connection."""
    connections = Connections()
    listener = Listener(connect=connections.connect)
    await listener.start()
    await listener.start()
    assert len(connections.made) == 1
    await listener.aclose()
