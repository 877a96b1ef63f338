"""The log for threads."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from asyncnotify import Channel, ClosedError, WrongLoopError
from asyncnotify.log import (
    BlockingConnection,
    BlockingConsumer,
    BlockingIncidentStream,
    BlockingLog,
    BlockingLogStream,
    Consumer,
    Event,
    IncidentStream,
    Log,
    LogNameError,
    LogStream,
    Retry,
    UnknownConsumerError,
)
from tests.log.test_consumers import AT_ONCE
from tests.package.test_parity import members, parameters
from tests.support.interrupter import Alarm, each_point
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


NUMBERS = Channel("numbers", int)
PAIRS: dict[type, type] = {
    Log: BlockingLog,
    LogStream: BlockingLogStream,
    Consumer: BlockingConsumer,
    IncidentStream: BlockingIncidentStream,
}
DIFFERENT = {
    "Log.__init__(pool)": "a pool belongs to an event loop, which is not the log's own",
    "Log.__init__(listener)": "so does a listener",
    "Log.append_entries": "what a BlockingLog calls, and no user",
    "Log.append_in": "what a BlockingLog calls, and no user",
    "Log.append_within": "what a BlockingLog calls, and no user",
    "Log.call_for": "what a BlockingLog calls, and no user",
    "LogStream.get": "in asyncio anext() within asyncio.timeout() does the same",
    "IncidentStream.get": "in asyncio anext() within asyncio.timeout() does the same",
    "LogStream.at_hand": "what a BlockingLogStream calls, and no user",
    "LogStream.end": "what a log calls, and no user",
    "LogStream.end_after_portion": "what a log calls, and no user",
    "Consumer.next_batch": "what a BlockingConsumer calls, and no user",
    "Consumer.put_back": "what a BlockingConsumer calls, and no user",
}


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
        read = [stream.get(timeout=scaled(20)).payload for _ in range(1_501)]
        assert read == ["a", *map(str, range(1_500))]
        with pytest.raises(TimeoutError):
            stream.get(timeout=0.01)
        threading.Timer(0.05, log.append, ("things", "later")).start()
        later = next(stream)
        assert later.payload == "later"
    with log.read(NUMBERS, after=later.position) as numbers:
        log.append(NUMBERS, 5)
        assert next(numbers).payload == 5


@pytest.mark.needs_server("drivers that block")
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
        events: list[Event[str]] = [stream.get(timeout=scaled(20)) for _ in range(4)]
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


@pytest.mark.parametrize("cls", PAIRS, ids=lambda cls: cls.__name__)
def test_both_faces_are_the_same(cls: type) -> None:
    """Same members, with the same parameters and defaults; what differs has a reason."""
    ours, theirs = members(cls), members(PAIRS[cls])
    found = {f"{cls.__name__}.{member}" for member in ours.keys() ^ theirs.keys()}
    for member in ours.keys() & theirs.keys():
        where, one, other = f"{cls.__name__}.{member}", ours[member], theirs[member]
        assert isinstance(one, property) == isinstance(other, property), where
        if member == "__init__" and cls is not Log:
            continue  # users call no other
        if callable(one):
            missing = parameters(one).keys() ^ parameters(other).keys()
            found |= {f"{where}({parameter})" for parameter in missing}
            common = [n for n in parameters(one).items() if n[0] not in missing]
            assert common == [n for n in parameters(other).items() if n[0] not in missing], where
    assert found == {entry for entry in DIFFERENT if entry.startswith(f"{cls.__name__}.")}


# -- handlers -------------------------------------------------------------------------------------


class Calls:
    """What a handler was called with, and in which threads."""

    def __init__(self) -> None:
        self.payloads: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.threads: set[int] = set()

    def note(self, payload: str) -> None:
        """Keep a payload."""
        self.threads.add(threading.get_ident())
        self.payloads.put(payload)

    def taken(self, count: int) -> list[str]:
        """Return the next so many payloads; they have to come soon."""
        return [self.payloads.get(timeout=scaled(20)) for _ in range(count)]


def test_until_end_yields_what_is_there_and_ends(log: BlockingLog) -> None:
    """More than is fetched at once; afterwards the stream goes on from there."""
    payloads = [*map(str, range(2_500))]
    log.append_many([("things", payload) for payload in payloads])
    with log.read(after="start") as stream:
        assert [event.payload for event in stream.until_end()] == payloads
        assert list(stream.until_end()) == []
        log.append("things", "more")
        assert [event.payload for event in stream.until_end()] == ["more"]
        log.append("things", "last")
        assert next(stream).payload == "last"
        stream.close()
        assert list(stream.until_end()) == []


def test_handlers_run_in_worker_threads_and_resume(dsn: str, log: BlockingLog) -> None:
    """From start() or ``with`` on; close() lets the call that runs return, and commits."""
    calls = Calls()
    for payload in ("a", "b", "c"):
        served = BlockingLog("orders", dsn)

        @served.on("mailer")
        def mail(event: Event[str]) -> None:
            calls.note(event.payload)

        with served:
            log.append("things", payload)
            assert calls.taken(1) == [payload]
    assert threading.get_ident() not in calls.threads
    assert calls.payloads.empty()


def test_a_log_that_was_closed_can_be_started_again(dsn: str, log: BlockingLog) -> None:
    """With the same handlers; a start while it runs does nothing."""
    calls = Calls()
    served = BlockingLog("orders", dsn)

    @served.on("mailer", NUMBERS)
    def mail(event: Event[int]) -> None:
        calls.note(str(event.payload))

    for number in range(2):
        served.start()
        served.start()
        log.append(NUMBERS, number)
        assert calls.taken(1) == [str(number)]
        served.close()


@pytest.mark.needs_server("SQL in the handler")
def test_what_a_transactional_handler_writes_and_appends_is_there_once(
    dsn: str, log: BlockingLog
) -> None:
    """By a connection whose methods are asyncpg's; an attempt that raised has left nothing."""
    served = BlockingLog("orders", dsn)
    attempts: list[str] = []

    @served.on("projection", "things", transactional=True, on_error=Retry(2, backoff=AT_ONCE))
    def project(event: Event[str], connection: BlockingConnection) -> None:
        connection.execute("INSERT INTO effects VALUES ($1)", event.payload)
        connection.executemany("INSERT INTO effects VALUES ($1)", [["x"], ["y"]])
        served.append("done", event.payload, connection=connection)
        served.append_many([("done", event.payload)], connection=connection)
        attempts.append(event.payload)
        if len(attempts) == 1:
            raise ValueError
        count = "SELECT count(*) FROM effects"
        assert connection.fetchval(count) == 3
        assert connection.fetchrow(count)[0] == len(connection.fetch("SELECT FROM effects"))
        lent.append(connection)

    lent: list[BlockingConnection] = []
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE effects (payload text)")
    with served, served.read("done", after="now") as stream:
        log.append("things", "a")
        assert [stream.get(timeout=scaled(20)).payload for _ in range(2)] == ["a", "a"]
        with pytest.raises(TimeoutError):
            stream.get(timeout=0.05)
        with pytest.raises(ClosedError, match="has ended"):
            lent[0].execute("SELECT 1")
    assert attempts == ["a", "a"]
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT payload FROM effects ORDER BY 1").fetchall()
    assert found == [("a",), ("x",), ("y",)]


@pytest.mark.parametrize("transactional", [False, True])
def test_a_handler_that_closes_the_log_returns_and_is_done(
    dsn: str, log: BlockingLog, *, transactional: bool
) -> None:
    """Its event does not come again, though closing began while the handler ran."""
    served = BlockingLog("orders", dsn)

    @served.on("mailer", transactional=transactional)
    def close(event: Event[str], *_: object) -> None:
        served.close(scaled(20))
        time.sleep(scaled(0.5))  # longer than closing takes where no handler is waited for
        returned.set()

    returned = threading.Event()
    log.append("things", "a")
    served.start()
    assert returned.wait(scaled(20))
    while (status := log.status().consumers[0]).is_served:
        pass
    assert status.lag_events == 0


@pytest.mark.needs_server("SQL in the handler")
def test_closing_gives_up_a_handler_that_does_not_return(dsn: str, log: BlockingLog) -> None:
    """Its transaction is rolled back, also where it waits for the server, and it is told."""
    entered, told = threading.Event(), threading.Event()
    served = BlockingLog("orders", dsn, close_timeout=0.1)

    @served.on("projection", transactional=True)
    def project(event: Event[str], connection: BlockingConnection) -> None:
        entered.set()
        try:
            connection.execute("SELECT pg_sleep(600)")
        except ClosedError:
            told.set()
            raise

    with served:
        log.append("things", "a")
        assert entered.wait(scaled(20))
    assert told.wait(scaled(20))
    [status] = log.status().consumers
    assert status.lag_events == 1


def test_dead_letters_are_retried_by_the_handler(dsn: str, log: BlockingLog) -> None:
    """Of a consumer with buckets, too; one without a handler here is refused."""
    calls = Calls()
    served = BlockingLog("orders", dsn)

    @served.on("mailer", on_error=Retry(1), buckets=2)
    def mail(event: Event[str]) -> None:
        calls.note(event.payload)
        if len(served.dead_letters()) == 0:
            raise ValueError

    log.append("things", "a", key="k")
    with served:
        assert calls.taken(1) == ["a"]
        deadline = time.monotonic() + scaled(20)
        while not (letters := served.dead_letters("mailer")) and time.monotonic() < deadline:
            pass
        served.retry(letters[0])
        assert calls.taken(1) == ["a"]
        assert served.dead_letters() == []
    with pytest.raises(UnknownConsumerError):
        log.retry(letters[0])


def test_wrong_handlers_are_refused_when_they_are_given(log: BlockingLog) -> None:
    """Those that would need an event loop, or do not take the arguments, and names used twice."""

    async def asynchronous(event: object) -> None: ...

    def of_one(event: object) -> None: ...

    wrong: list[Any] = [5, asynchronous, lambda: None]
    for function in wrong:
        with pytest.raises(TypeError):
            log.on("mailer")(function)
    with pytest.raises(TypeError):
        log.on("mailer", transactional=True)(of_one)
    log.on("mailer")(print)
    with pytest.raises(LogNameError):
        log.on("mailer")


def test_a_stream_gives_batches_and_tells_its_place(log: BlockingLog) -> None:
    """The place is that of the last event given, not of those that were fetched."""
    log.append_many([("things", str(n)) for n in range(5)])
    with log.read(after="start") as stream:
        batches = stream.batches(2)
        batch = next(batches)
        assert [event.payload for event in batch] == ["0", "1"]
        place = stream.position
        assert place is not None
        assert place == batch[-1].position
        assert len(next(batches)) == 2
    with log.read(after=place) as stream:
        assert stream.position == place
        assert next(stream).payload == "2"
    with pytest.raises(ValueError, match="limit"):
        next(stream.batches(0))


@pytest.mark.needs_server("drivers that block")
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


TAKERS: dict[str, Callable[[BlockingLog, int], Any]] = {
    "stream": lambda log, _: log.read(after="start"),
    "consumer": lambda log, number: log.consumer(f"c{number}"),
}


def take_all(taker: Any, found: list[str], count: int, batches: Iterator[Any] | None) -> None:
    """Take events until there are so many, in lists or one after the other."""
    while len(found) < count:
        events = [next(taker)] if batches is None else next(batches)
        found.extend([event.payload for event in events])


@pytest.mark.parametrize("in_batches", [False, True])
@pytest.mark.parametrize("kind", TAKERS)
def test_r56_what_a_signal_handler_raises_loses_no_event(
    log: BlockingLog, kind: str, *, in_batches: bool
) -> None:
    """At whatever point of the log's own code it is raised: each event comes once."""
    log.append_many([("things", str(n)) for n in range(2)])
    points = 0
    for interrupter in each_point("asyncnotify.log._blocking"):
        found: list[str] = []
        with TAKERS[kind](log, points) as taker:
            # Kept outside: what is raised while a generator is finalized would be ignored
            batches = taker.batches(1) if in_batches else None
            with contextlib.suppress(Alarm), interrupter:
                take_all(taker, found, 2, batches)
            take_all(taker, found, 2, taker.batches(1) if in_batches else None)
            assert found == [str(n) for n in range(2)], points
        points += 1
    assert points > 5
