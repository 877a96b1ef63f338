from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import (
    BlockingListener,
    ChannelNameError,
    ClosedError,
    ConfigurationError,
    Listener,
    NotStartedError,
    State,
    Stats,
)
from asyncnotify._blocking.portal import Portal
from tests.unit.blocking.conftest import threads
from tests.unit.fake_connection import FakeConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify import Notification

TIMEOUT = 20.0


class Connections:
    """What ``connect=`` is given: connections that answer at once."""

    def __init__(self) -> None:
        self.made: list[FakeConnection] = []
        self.error: Exception | None = None

    async def connect(self) -> FakeConnection:
        """Return a new one, or fail."""
        if self.error is not None:
            raise self.error
        self.made.append(FakeConnection())
        return self.made[-1]


def ignore(notification: Notification[str]) -> None:
    """Do nothing."""


async def aignore(notification: Notification[str]) -> None:
    """Do nothing, asynchronously."""


@pytest.mark.parametrize("options", [{"heartbeat": 0}, {"connect": 7}, {"no_such_option": 1}])
def test_r45_a_wrong_argument_is_refused_by_the_constructor(options: dict[str, Any]) -> None:
    """As by Listener; no thread has been started."""
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        BlockingListener(**options)
    assert threads() == []


def test_a_new_listener_needs_no_thread() -> None:
    """A module may make one, register handlers and forget them again."""
    listener = BlockingListener("postgresql://alice:secret@db.example/shop")
    listener.on("orders")(ignore)
    listener.on("cache")(ignore)
    listener.unlisten("cache")
    assert listener.channels == frozenset({"orders"})
    assert (listener.state, listener.is_connected) == (State.NEW, False)
    assert listener.stats() == Stats()
    assert "secret" not in repr(listener)
    assert repr(listener).startswith("<BlockingListener alice@db.example")
    listener.close()
    assert threads() == []


CALLS: dict[str, Callable[[BlockingListener], object]] = {
    "listen": lambda listener: listener.listen("orders", ignore),
    "enter a stream": lambda listener: listener.stream("orders").__enter__(),
    "get": lambda listener: listener.stream("orders").get(0),
    "notify": lambda listener: listener.notify("orders"),
    "wait_connected": lambda listener: listener.wait_connected(),
    "health": lambda listener: listener.health(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_needs_a_connection_says_that_there_is_none(
    call: Callable[[BlockingListener], object],
) -> None:
    """NotStartedError before the start, ClosedError after the end."""
    listener = BlockingListener(connect=Connections().connect)
    with pytest.raises(NotStartedError):
        call(listener)
    with listener:
        pass
    with pytest.raises(ClosedError):
        call(listener)


@pytest.mark.parametrize("handler", [7, aignore, lambda: None])
def test_r45_a_wrong_handler_is_refused_where_it_is_given(handler: Any) -> None:
    """An async one as well: it needs an event loop, which is not the caller's."""
    listener = BlockingListener(connect=Connections().connect)
    with pytest.raises(TypeError):
        listener.on("orders")(handler)
    with pytest.raises(TypeError):
        listener.listen("orders", handler)
    assert listener.channels == frozenset()


def test_p10_a_wrong_channel_is_refused_before_anything_else() -> None:
    """Though the listener has not been started."""
    listener = BlockingListener(connect=Connections().connect)
    for call in (listener.unlisten, listener.notify, listener.stream):
        with pytest.raises(ChannelNameError):
            call("")


def test_a_block_starts_and_ends_one_thread() -> None:
    """Handlers of on() are served in every run."""
    connections = Connections()
    listener = BlockingListener(connect=connections.connect)
    assert listener.on("orders")(ignore) is ignore
    for _ in range(2):
        with listener:
            assert threads() == ["asyncnotify"]
            assert listener.is_connected
            assert listener.channels == frozenset({"orders"})
        assert threads() == []
    assert [made.statements.count('LISTEN "orders"') for made in connections.made] == [1, 1]


def test_a_start_that_fails_leaves_no_thread() -> None:
    """The error of ``connect=`` comes out."""
    connections = Connections()
    connections.error = ConfigurationError("no such certificate")
    listener = BlockingListener(connect=connections.connect)
    with pytest.raises(ConfigurationError, match="no such certificate"):
        listener.start()
    assert threads() == []


def test_an_exception_in_the_block_closes_the_listener() -> None:
    """And goes on to the caller."""
    listener = BlockingListener(connect=Connections().connect)
    with pytest.raises(KeyError), listener:
        raise KeyError
    assert listener.state is State.CLOSED
    assert threads() == []


def test_a_handler_is_called_in_a_thread_of_its_own() -> None:
    """Neither in the loop's nor in the caller's."""
    connections = Connections()
    called = threading.Event()
    names: list[str] = []

    def handle(_: Notification[str]) -> None:
        names.append(threading.current_thread().name)
        called.set()

    with BlockingListener(connect=connections.connect) as listener:
        subscription = listener.listen("orders", handle)
        connection = connections.made[0]
        listener._gateway.look(  # noqa: SLF001 - the driver calls in the loop's thread
            lambda: connection._process_notification(7, "orders", "1")  # noqa: SLF001 - as above
        )
        assert called.wait(TIMEOUT)
        subscription.cancel()
        assert not subscription.active
    assert "asyncnotify" not in names
    assert threading.current_thread().name not in names


def test_r55_an_exception_in_a_fork_leaves_the_listener_to_its_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is closed there, and the exception is raised on."""
    listener = BlockingListener(connect=Connections().connect)

    def leave_in_a_fork() -> None:
        with listener:
            patch.setattr(Portal, "is_other_process", property(lambda _: True))
            raise LookupError

    with monkeypatch.context() as patch, pytest.raises(LookupError):
        leave_in_a_fork()
    assert listener.is_connected
    listener.close()
    assert threads() == []


def test_a_defect_that_has_ended_the_listener_is_raised_by_waiting_for_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closed in good order it is no error."""
    error = ClosedError("ended by a defect")

    async def wait_closed(_listener: Listener, _timeout: float | None) -> None:
        raise error

    monkeypatch.setattr(Listener, "wait_closed", wait_closed)
    with BlockingListener(connect=Connections().connect) as listener:
        listener.wait_closed()
        error.__cause__ = LookupError()
        with pytest.raises(ClosedError, match="ended by a defect"):
            listener.wait_closed()
