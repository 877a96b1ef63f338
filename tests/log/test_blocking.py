"""The log for threads."""

from __future__ import annotations

import inspect
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from asyncnotify import Channel, ClosedError, WrongLoopError
from asyncnotify.log import BlockingLog, Event, Log, UnknownConsumerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NUMBERS = Channel("numbers", int)
NOT_FOR_THREADS = {"aclose", "on", "retry", "start"}
"""Handlers are called in the event loop; ``close()`` closes."""

OF_THE_LOG = {"append_entries", "call_for"}


@pytest.fixture
def log(dsn: str) -> Iterator[BlockingLog]:
    """A log that has been installed."""
    with BlockingLog("orders", dsn) as log:
        log.install()
        yield log


def test_what_is_appended_is_read(log: BlockingLog) -> None:
    """First what is there, then what comes, from a place on; get() has a timeout."""
    log.append("things", "a")
    assert log.append_many([("things", str(n)) for n in range(1_500)]) == 1_500
    with log.read(after="start") as stream:
        read = [stream.get(timeout=20).payload for _ in range(1_501)]
        assert read == ["a", *map(str, range(1_500))]
        with pytest.raises(TimeoutError):
            stream.get(timeout=0.01)
        threading.Timer(0.05, log.append, ("things", "later")).start()
        later = next(stream)
        assert later.payload == "later"
    with log.read(NUMBERS, after=later.position) as numbers:
        log.append(NUMBERS, 5)
        assert next(numbers).payload == 5


@pytest.mark.parametrize("kind", ["psycopg", "session", "connection"])
def test_events_are_part_of_the_callers_transaction(dsn: str, log: BlockingLog, kind: str) -> None:
    """On each kind of connection that blocks: there on commit, gone on rollback."""
    engine = create_engine(dsn.replace("postgresql://", "postgresql+psycopg://"))
    opener: dict[str, Any] = {
        "psycopg": lambda: psycopg.connect(dsn),
        "session": lambda: Session(engine),
        "connection": engine.connect,
    }
    with opener[kind]() as connection:
        log.append("things", "gone", connection=connection)
        connection.rollback()
        log.append("things", "it's", key="k", headers={"a": "b"}, connection=connection)
        log.append_many([("things", str(n)) for n in range(3)], connection=connection)
        connection.commit()
    engine.dispose()
    with log.read(after="start") as stream:
        events: list[Event[str]] = [stream.get(timeout=20) for _ in range(4)]
    assert [event.payload for event in events] == ["it's", "0", "1", "2"]
    assert (events[0].key, events[0].headers) == ("k", {"a": "b"})


def test_a_consumer_goes_on_where_it_left_off(log: BlockingLog) -> None:
    """Event by event and by batches; what was given last comes again."""
    log.append_many([("things", str(n)) for n in range(6)])
    with log.consumer("mailer") as consumer:
        assert [next(consumer).payload for _ in range(3)] == ["0", "1", "2"]
    with log.consumer("mailer") as consumer:
        batches = consumer.batches(2)
        assert [event.payload for event in next(batches)] == ["2", "3"]
        assert [event.payload for event in next(batches)] == ["4", "5"]
    [status] = log.status().consumers
    assert (status.name, status.lag_events) == ("mailer", 6)
    log.seek("mailer", "start")
    with log.consumer("mailer") as consumer:
        assert next(consumer).payload == "0"
    log.drop("mailer")
    with pytest.raises(UnknownConsumerError):
        log.pause("mailer")


@pytest.mark.parametrize("kind", ["stream", "consumer", "batches"])
def test_closing_ends_who_waits(log: BlockingLog, kind: str) -> None:
    """Whoever takes events, before or after the end, is told of that; calls are refused."""
    stream, consumer = log.read(after="now"), log.consumer("mailer")
    take: dict[str, Callable[[], Iterator[object]]] = {
        "stream": lambda: iter(stream),
        "consumer": lambda: iter(consumer),
        "batches": consumer.batches,
    }
    with stream, consumer:
        closing = threading.Timer(0.1, log.close)
        closing.start()
        for _ in range(2):
            assert list(take[kind]()) == []
            closing.join()
    with pytest.raises(ClosedError):
        log.append("things", "x")


async def test_coroutines_are_told_to_use_log(dsn: str) -> None:
    """A blocking call would block their event loop."""
    with pytest.raises(WrongLoopError):
        BlockingLog("orders", dsn).append("things", "x")


def test_options_of_another_event_loop_are_refused() -> None:
    """A pool and a listener belong to theirs."""
    for option in ("pool", "listener"):
        options: dict[str, Any] = {option: None}
        with pytest.raises(TypeError, match=option):
            BlockingLog("orders", **options)


def test_both_logs_have_the_same_methods() -> None:
    """With the same arguments, but for what threads cannot have."""
    for name, method in inspect.getmembers(Log):
        if name.startswith("_") or name in NOT_FOR_THREADS | OF_THE_LOG:
            continue
        blocking = getattr(BlockingLog, name)
        if inspect.isfunction(method) and name != "statements":
            assert [*inspect.signature(blocking).parameters] == [
                *inspect.signature(method).parameters
            ]


def test_the_callers_own_rows_are_in_the_same_transaction(dsn: str, log: BlockingLog) -> None:
    """With a session of SQLAlchemy's: both are gone when that rolls back."""
    engine = create_engine(dsn.replace("postgresql://", "postgresql+psycopg://"))
    with Session(engine) as session:
        session.execute(text("CREATE TABLE mine (n int)"))
        log.append("things", "x", connection=session)
        session.rollback()
    engine.dispose()
    with log.read(after="start") as stream, pytest.raises(TimeoutError):
        stream.get(timeout=0.05)
