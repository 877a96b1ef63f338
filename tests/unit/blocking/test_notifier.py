from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import (
    BlockingNotifier,
    Channel,
    ChannelNameError,
    ClosedError,
    ConnectError,
    PayloadTooLargeError,
)
from asyncnotify._blocking.portal import Portal
from tests.unit.blocking.conftest import threads
from tests.unit.fake_connection import FakeConnection

if TYPE_CHECKING:
    from collections.abc import Iterator


class UnreadableError(Exception):
    """What an iterable raises."""


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

    @property
    def sent(self) -> int:
        """How many statements have notified."""
        return sum("pg_notify" in s for made in self.made for s in made.statements)


@pytest.fixture
def connections() -> Connections:
    """Connections that answer at once."""
    return Connections()


@pytest.fixture
def notifier(connections: Connections) -> Iterator[BlockingNotifier]:
    """A notifier that is not started; its thread has ended when the test has."""
    notifier = BlockingNotifier(connect=connections.connect)
    yield notifier
    notifier.close()
    assert threads() == []


@pytest.mark.parametrize("options", [{"queue": 0}, {"connect": 7}, {"no_such_option": 1}])
def test_r45_a_wrong_argument_is_refused_by_the_constructor(options: dict[str, Any]) -> None:
    """As by Notifier; no thread has been started."""
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        BlockingNotifier(**options)
    assert threads() == []


def test_the_repr_holds_no_password() -> None:
    """But where it leads to."""
    shown = repr(BlockingNotifier("postgresql://alice:secret@db.example/shop"))
    assert shown.startswith("<BlockingNotifier alice@db.example")
    assert "secret" not in shown


def test_the_first_call_starts_the_thread(
    notifier: BlockingNotifier, connections: Connections
) -> None:
    """start() need not be called; later calls use the same connection."""
    assert threads() == []
    notifier.notify("orders", "1")
    notifier.notify(Channel("numbers", int), 2)
    assert threads() == ["asyncnotify"]
    assert len(connections.made) == 1
    assert connections.sent == 2


def test_p10_wrong_input_is_refused_in_the_calling_thread(notifier: BlockingNotifier) -> None:
    """Before the thread is started."""
    with pytest.raises(ChannelNameError):
        notifier.notify("", "1")
    with pytest.raises(PayloadTooLargeError):
        notifier.notify("orders", "p" * 8_000)
    assert threads() == []


def test_after_the_close_calls_are_refused_until_it_is_started(
    notifier: BlockingNotifier, connections: Connections
) -> None:
    """start() begins anew, on a new connection."""
    with notifier:
        notifier.notify("orders", "1")
    with pytest.raises(ClosedError):
        notifier.notify("orders", "2")
    with pytest.raises(ClosedError):
        notifier.notify_many([("orders", "2")])
    notifier.start()
    notifier.notify("orders", "3")
    assert len(connections.made) == 2


def test_a_start_that_fails_leaves_no_thread(connections: Connections) -> None:
    """The error of ``connect=`` is the cause."""
    notifier = BlockingNotifier(connect=connections.connect, start_timeout=0.001)
    connections.error = ValueError("no such certificate")
    with pytest.raises(ConnectError) as raised:
        notifier.start()
    assert raised.value.__cause__ is connections.error
    assert threads() == []


def test_pairs_are_iterated_over_in_the_calling_thread(notifier: BlockingNotifier) -> None:
    """A generator may use what belongs to its thread, such as a database cursor."""
    seen: set[int] = set()

    def pairs() -> Iterator[tuple[str, str]]:
        for number in range(2_500):
            seen.add(threading.get_ident())
            yield "orders", str(number)

    assert notifier.notify_many(pairs()) == 2_500
    assert seen == {threading.get_ident()}


def test_what_pairs_raises_is_raised_with_a_note(notifier: BlockingNotifier) -> None:
    """It says how many notifications have been sent."""

    def pairs() -> Iterator[tuple[str, str]]:
        for number in range(1_500):
            yield "orders", str(number)
        raise UnreadableError

    with pytest.raises(UnreadableError) as raised:
        notifier.notify_many(pairs())
    assert any(note.startswith("1000 ") for note in raised.value.__notes__)


def test_r55_an_exception_in_a_fork_leaves_the_notifier_to_its_parent(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is closed there, and the exception is raised on."""
    notifier = BlockingNotifier(connect=connections.connect)

    def leave_in_a_fork() -> None:
        with notifier:
            patch.setattr(Portal, "is_other_process", property(lambda _: True))
            raise LookupError

    with monkeypatch.context() as patch, pytest.raises(LookupError):
        leave_in_a_fork()
    notifier.notify("orders", "1")
    assert connections.sent == 1
    notifier.close()
    assert threads() == []
