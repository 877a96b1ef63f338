"""What befalls readers and consumers, as reported to those who want to act on it."""

from __future__ import annotations

import asyncio
import math
from contextvars import ContextVar
from itertools import pairwise
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import asyncpg
import pytest

from asyncnotify import Channel, Closed, ConnectError, ConnectionLostError, WrongLoopError
from asyncnotify.log import (
    BlockingLog,
    DeadLettered,
    Event,
    HandlerEnded,
    Incident,
    IncidentStream,
    Interrupted,
    Log,
    Resumed,
    Retry,
    UnknownConsumerError,
)
from asyncnotify.log._walk.cursor import Cursor
from asyncnotify.testing.proxy import FaultProxy
from tests.log.conftest import append, kill_sessions
from tests.log.test_consumers import AT_ONCE, Seen
from tests.support.machine import scaled

if TYPE_CHECKING:
    from asyncnotify.log._names import Names
    from tests.log.conftest import Connection

E = TypeVar("E", bound=Incident)

NUMBERS = Channel("numbers", int)


async def until(incidents: IncidentStream, kind: type[E]) -> E:
    """Return the next incident of this kind."""
    async with asyncio.timeout(scaled(20)):
        async for incident in incidents:
            if isinstance(incident, kind):
                return incident
    raise AssertionError


def told(seen: list[Incident]) -> list[str]:
    """Return the kinds of incidents."""
    return [type(incident).__name__ for incident in seen]


async def test_an_outage_of_a_consumer_is_reported_from_its_beginning_to_its_end(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """Once each, by name; Closed is the last, to the callback and to the stream alike."""
    seen: list[Incident] = []
    # Without such polls it would be at rest most of the time: its wake-ups come over a connection
    # that is killed as well
    async with Log("orders", dsn, poll=0.01, backoff=AT_ONCE, on_incident=seen.append) as log:
        incidents = log.incidents()
        async with log.consumer("mailer") as consumer:
            await append(admin, "a")
            assert (await anext(consumer)).payload == "a"
            for _ in range(2):
                waiting = asyncio.ensure_future(anext(consumer))
                losing = asyncio.ensure_future(until(incidents, Interrupted))
                while not losing.done():  # one that is lost while it rests is replaced silently
                    await kill_sessions(admin)
                    await asyncio.sleep(0)
                interrupted = await losing
                resumed = await until(incidents, Resumed)
                await append(admin, "b")
                await waiting
                assert interrupted.consumer == resumed.consumer == "mailer"
                assert isinstance(interrupted.cause, ConnectionLostError | ConnectError)
                assert not interrupted.needs_repair
                assert resumed.downtime > 0
        rest = asyncio.ensure_future(_collected(incidents))
    assert [type(incident) for incident in await rest] == [Closed]
    kinds = told(seen)
    assert kinds.count("Resumed") >= 2
    assert ("Resumed", "Resumed") not in pairwise(kinds)
    assert kinds.index("Closed") == len(kinds) - 1


async def _collected(incidents: IncidentStream) -> list[Incident]:
    return [incident async for incident in incidents]


async def test_all_readers_together_have_one_outage(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """However many there are; it ends when the last of those that wait reads again."""
    seen: list[Incident] = []
    async with Log("orders", dsn, poll=0.01, backoff=AT_ONCE, on_incident=seen.append) as log:
        incidents = log.incidents()
        streams = [log.read(after="start") for _ in range(20)]
        waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
        for stream in streams:
            await stream.__aenter__()
        while not told(seen):
            await kill_sessions(admin)
            await asyncio.sleep(0)
        assert (await until(incidents, Interrupted)).consumer is None
        assert (await until(incidents, Resumed)).consumer is None
        await append(admin, "a")
        assert {event.payload for event in await asyncio.gather(*waiting)} == {"a"}
    kinds = told(seen)
    assert kinds.count("Interrupted") <= 3 * kinds.count("Resumed")  # once for each kind of error
    assert kinds[-1] == "Closed"


@pytest.mark.parametrize("how", ["raised", "ended"])
async def test_a_stream_that_does_not_try_any_more_does_not_keep_an_outage(
    dsn: str, installed: Names, admin: Connection, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Whoever took from it may hold it for long; the others read again."""
    seen: list[Incident] = []
    failures: list[Exception] = [ConnectionLostError()]
    portion = Cursor.portion

    async def fail_at_first(cursor: Cursor) -> Any:
        if failures:
            raise failures.pop(0)
        if how == "ended" and "Interrupted" in told(seen) and not ended:
            ended.append(True)
            log.end_streams()
            await asyncio.Event().wait()
        return await portion(cursor)

    ended: list[bool] = []
    if how == "raised":
        failures.append(ValueError("bad"))
    monkeypatch.setattr(Cursor, "portion", fail_at_first)
    async with Log("orders", dsn, backoff=AT_ONCE, on_incident=seen.append) as log:
        await append(admin, "a")
        held = log.read(after="start")
        with pytest.raises(ValueError if how == "raised" else StopAsyncIteration):
            await anext(held)
        assert told(seen) == ["Interrupted"]
        assert (await anext(log.read(after="start"))).payload == "a"
        assert told(seen) == ["Interrupted", "Resumed"]


@pytest.mark.needs_server("a connection of the driver's")
async def test_another_cause_within_an_outage_is_reported_too(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """One that nobody but its user can mend says so; a cause that comes again says nothing."""
    refusals: list[Exception] = []

    async def connect() -> Any:
        if refusals:
            raise refusals.pop(0)
        return await asyncpg.connect(dsn)

    log = Log("orders", connect=connect, backoff=AT_ONCE)
    async with log, log.consumer("mailer") as consumer:
        incidents = log.incidents()
        await append(admin, "a", "b")
        assert (await anext(consumer)).payload == "a"
        wrong = asyncpg.InvalidPasswordError("password authentication failed")
        refusals[:] = [OSError("unreachable"), OSError("unreachable"), wrong, wrong]
        await kill_pid_of_consumer(admin)
        waiting = asyncio.ensure_future(anext(consumer))
        interrupted: list[Incident] = []
        async with asyncio.timeout(scaled(20)):
            async for incident in incidents:
                interrupted.append(incident)
                if isinstance(incident, Resumed):
                    break
            await waiting
    *causes, last = interrupted
    assert isinstance(last, Resumed)
    repairs = [cause.needs_repair for cause in causes if isinstance(cause, Interrupted)]
    assert repairs[-1] is True
    assert repairs.count(True) == 1
    assert len(repairs) <= 3
    assert "unreachable" not in repr(causes)


@pytest.mark.needs_server("two hosts")
async def test_a_host_that_never_answers_does_not_keep_the_others_from_waking(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """Also where both were away at first: no time is set for all hosts together."""
    async with FaultProxy.for_dsn(dsn) as dead, FaultProxy.for_dsn(dsn) as other:
        hosts: dict[str, Any] = {"host": [dead.host, other.host], "port": [dead.port, other.port]}
        dead.silent()
        log = Log("orders", dsn, **hosts, connect_timeout=scaled(0.5), backoff=AT_ONCE)
        async with log, log.consumer("mailer") as consumer:
            incidents = log.incidents()
            other.refuse()
            taking = asyncio.ensure_future(anext(consumer))
            assert isinstance((await until(incidents, Interrupted)).cause, ConnectError)
            other.accept()
            await append(admin, "a")
            async with asyncio.timeout(scaled(20)):
                assert (await taking).payload == "a"


@pytest.mark.parametrize(("buckets", "right"), [(1, 0), (4, 0), (4, 1), (4, 2)])
@pytest.mark.needs_server("a connection of the driver's")
async def test_a_password_that_becomes_wrong_is_an_outage_of_a_handler(  # noqa: PLR0917 - pytest gives them by name
    dsn: str,
    installed: Names,
    admin: Connection,
    caplog: pytest.LogCaptureFixture,
    buckets: int,
    right: int,
) -> None:
    """Also of a bucket that is not served yet: the password was right, and is so again later."""
    refused: list[str] = []
    left = math.inf  # how many connections can be had until it becomes wrong

    async def connect() -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            refused.append("wrong")
            msg = "password authentication failed"
            raise asyncpg.InvalidPasswordError(msg)
        return await asyncpg.connect(dsn)

    log = Log("orders", connect=connect, backoff=AT_ONCE, poll=0.01)
    handled: set[str] = set()

    @log.on("mailer", buckets=buckets)
    async def mail(event: Event[str]) -> None:
        handled.add(event.payload)

    async with log:
        left = right
        incidents = log.incidents()
        interrupted = await until(incidents, Interrupted)
        assert interrupted.needs_repair
        while len(refused) < 5 * buckets:
            await admin.execute("SELECT 1")
        left = math.inf
        payloads = [*"abcdefghij"]
        await append(admin, *payloads)
        async with asyncio.timeout(scaled(20)):
            while handled != {*payloads}:
                await admin.execute("SELECT 1")
    assert "unexpected" not in caplog.text


@pytest.mark.needs_server("processes")
async def test_a_consumer_that_waits_for_its_turn_says_so_once(
    dsn: str, installed: Names, admin: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """And when it is served here: nothing else tells why no event comes."""
    caplog.set_level("INFO", "asyncnotify.log")
    await append(admin, "a")
    async with (
        Log("orders", dsn) as first,
        Log("orders", dsn) as second,
        second.consumer("mailer") as waiting,
    ):
        async with first.consumer("mailer") as serving:
            assert (await anext(serving)).payload == "a"
            taking = asyncio.ensure_future(anext(waiting))
            while "waits" not in caplog.text:
                await admin.execute("SELECT 1")
            await admin.execute("SELECT pg_sleep(1.5)")  # it tries each half second
        async with asyncio.timeout(scaled(20)):
            assert (await taking).payload == "a"
    who = "consumer 'mailer' of log 'orders'"
    assert [one.getMessage() for one in caplog.records] == [
        f"{who} waits: another session serves it, or it is paused (see Log.status())",
        f"{who} is served by this process now",
    ]


async def kill_pid_of_consumer(admin: Connection) -> None:
    """End the session that serves the consumer."""
    await admin.execute("SELECT pg_terminate_backend(pid) FROM asyncnotify.orders_consumers")


@pytest.mark.needs_server("SQL")
async def test_one_who_waits_for_its_turn_again_is_not_interrupted_any_more(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """Another process serves the consumer, which is no outage."""
    async with (
        Log("orders", dsn) as first,
        first.consumer("mailer") as serving,
        Log("orders", dsn, backoff=AT_ONCE, poll=3600) as log,
        log.consumer("mailer") as waiting,
    ):
        incidents = log.incidents()
        await append(admin, "a", "b")
        assert (await anext(serving)).payload == "a"
        taking = asyncio.ensure_future(anext(waiting))
        interrupted = asyncio.ensure_future(until(incidents, Interrupted))
        while not interrupted.done():
            await admin.execute(  # not the listener, which would be tried again by itself
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
                " AND query SIMILAR TO '%(_take_consumer|SELECT buckets FROM %consumers WHERE)%'"
            )
        assert (await until(incidents, Resumed)).consumer == "mailer"
        assert not waiting.is_serving
        assert not taking.done()
        taking.cancel()


@pytest.mark.needs_server("a connection of the driver's")
async def test_who_cannot_be_woken_is_interrupted_before_long(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """As where a role may have one connection only, and the listener of the log needs another."""
    opened: list[Any] = []

    async def connect() -> Any:
        if any(not one.is_closed() for one in opened):
            msg = "too many connections"
            raise asyncpg.TooManyConnectionsError(msg)
        opened.append(await asyncpg.connect(dsn))
        return opened[-1]

    async with (
        Log("orders", connect=connect, connect_timeout=scaled(1), backoff=AT_ONCE) as log,
        log.consumer("mailer") as consumer,
    ):
        incidents = log.incidents()
        taking = asyncio.ensure_future(anext(consumer))
        interrupted = await until(incidents, Interrupted)
        assert isinstance(interrupted.cause, ConnectError)
        assert "TooManyConnectionsError" in str(interrupted.cause)
        taking.cancel()


async def test_one_who_cannot_read_is_interrupted_though_it_has_a_session(
    dsn: str, installed: Names, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a portion takes longer than operation_timeout=: what ends an outage is to read."""
    seen: list[Incident] = []
    failures = iter(range(5))
    portion = Cursor.portion

    async def fail_at_first(cursor: Cursor) -> Any:
        if next(failures, None) is not None:
            raise ConnectionLostError
        return await portion(cursor)

    monkeypatch.setattr(Cursor, "portion", fail_at_first)
    async with Log("orders", dsn, backoff=AT_ONCE, on_incident=seen.append) as log:
        await append(admin, "a")
        async with log.consumer("mailer") as consumer:
            assert (await anext(consumer)).payload == "a"
    assert told(seen) == ["Interrupted", "Resumed", "Closed"]


async def test_a_handler_that_loses_its_session_at_its_end_is_not_interrupted(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """It is not tried again: nothing would end that outage."""
    seen: list[Incident] = []
    log = Log("orders", dsn, on_incident=seen.append)
    called, closing = asyncio.Event(), asyncio.Event()

    @log.on("mailer")
    async def mail(_: Event[str]) -> None:
        called.set()
        await closing.wait()

    async with log:
        await append(admin, "a")
        async with asyncio.timeout(scaled(20)):
            await called.wait()
        await kill_sessions(admin)
        ending = asyncio.ensure_future(log.aclose(scaled(20)))
        for _ in range(5):
            await asyncio.sleep(0)
        closing.set()
        await ending
    assert told(seen) == ["Closed"]


@pytest.mark.parametrize("then", ["dead_letter", "stop"])
async def test_closed_is_the_last_though_a_handler_closes_the_log(
    dsn: str, installed: Names, admin: Connection, then: Literal["dead_letter", "stop"]
) -> None:
    """What becomes of its event is told before, as the handler ends after all else."""
    seen: list[Incident] = []
    log = Log("orders", dsn, on_incident=seen.append)

    @log.on("mailer", on_error=Retry(1, then=then, backoff=AT_ONCE))
    async def mail(_: Event[str]) -> None:
        await log.aclose()
        raise ValueError

    await log.start()
    incidents = log.incidents()
    await append(admin, "a")
    async with asyncio.timeout(scaled(20)):
        told_last = [type(incident).__name__ for incident in await _collected(incidents)]
    assert told_last[-1] == "Closed"
    assert len(told_last) == 2
    assert told(seen) == told_last


async def test_the_buckets_of_a_consumer_have_one_outage(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """They share its name, and whoever waits for it does not care which of them is back."""
    seen: list[Incident] = []
    log = Log("orders", dsn, backoff=AT_ONCE, on_incident=seen.append)
    handled = Seen()

    @log.on("mailer", buckets=4)
    async def mail(event: Event[str]) -> None:
        handled.note(event.payload)

    async with log:
        incidents = log.incidents()
        await append(admin, *"abcdefgh")
        await handled.until(8)
        await kill_sessions(admin)
        assert (await until(incidents, Interrupted)).consumer == "mailer"
        assert (await until(incidents, Resumed)).consumer == "mailer"
        await append(admin, *"ijklmnop")
        for payload in "ijklmnop":
            await handled.until_noted(payload)
    assert told(seen).count("Interrupted") < 8  # four buckets, and what shares them


async def test_a_dead_letter_is_reported(dsn: str, installed: Names, admin: Connection) -> None:
    """One of a handler, and one of a consumer that is iterated; with name, place and error."""
    log = Log("orders", dsn)
    handled = Seen(fail={"bad": 9})

    @log.on("mailer", "things", on_error=Retry(2, backoff=AT_ONCE))
    async def mail(event: Event[str]) -> None:
        handled.note(event.payload)

    async with log, log.consumer("counter", NUMBERS) as counter:
        incidents = log.incidents()
        await append(admin, "bad", "fine")
        letter = await until(incidents, DeadLettered)
        await handled.until_noted("fine")
        assert (letter.consumer, letter.attempts) == ("mailer", 2)
        assert letter.error == "ValueError: bad"
        [kept] = await log.dead_letters()
        assert (kept.event.position, kept.error) == (letter.position, letter.error)
        await append(admin, "none", "7", channel="numbers")
        assert (await anext(counter)).payload == 7
        undecodable = await until(incidents, DeadLettered)
        assert (undecodable.consumer, undecodable.attempts) == ("counter", 1)


@pytest.mark.parametrize("buckets", [1, 2])
async def test_a_handler_that_has_ended_is_reported(
    dsn: str, installed: Names, admin: Connection, buckets: int
) -> None:
    """As it was told to stop: the rest of the log goes on, and nobody else would say so."""
    log = Log("orders", dsn)
    error = ValueError("bad")

    @log.on("mailer", on_error=Retry(1, then="stop", backoff=AT_ONCE), buckets=buckets)
    async def mail(_: Event[str]) -> None:
        raise error

    async with log:
        incidents = log.incidents()
        await append(admin, "a")
        ended = await until(incidents, HandlerEnded)
    assert (ended.consumer, ended.cause) == ("mailer", error)
    assert (ended.bucket is None) == (buckets == 1)
    assert repr(ended.cause) not in repr(ended)


@pytest.mark.parametrize("how", ["raises", "raises at once", "ends", "breaks", "is not there"])
@pytest.mark.needs_server("SQL")
async def test_the_cause_of_an_end_keeps_nothing_of_the_log_alive(
    dsn: str, installed: Names, admin: Connection, how: str
) -> None:
    """It is kept for long, as by a list of incidents; the frames of a function stay, and tell."""
    log = Log("orders", dsn)
    await admin.execute("CREATE TABLE unique_later (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")

    async def write(_: Event[str], connection: Any) -> None:
        if how == "breaks":
            await connection.execute("INSERT INTO unique_later VALUES (1), (1)")
        elif how == "ends":
            await connection.execute("COMMIT")
        elif how == "raises":
            raise ValueError

    def fail(_: Event[str], __: Any) -> None:
        raise ValueError

    on = log.on("mailer", transactional=True, on_error=Retry(1, then="stop", backoff=AT_ONCE))
    on(fail if how == "raises at once" else write)
    async with log:
        incidents = log.incidents()
        if how == "is not there":
            while not (await log.status()).consumers[0].is_served:  # it would make it anew
                pass
            await log.drop("mailer")
        await append(admin, "a")
        ended = await until(incidents, HandlerEnded)
    frames = [frame.f_code.co_name for frame, _ in walk_tb(ended.cause.__traceback__)]
    assert frames == {"raises": ["write"], "raises at once": ["fail"]}.get(how, [])
    assert ended.cause.__cause__ is None


@pytest.mark.parametrize("buckets", [1, 2])
async def test_a_handler_whose_consumer_is_dropped_has_ended(
    dsn: str, installed: Names, admin: Connection, buckets: int
) -> None:
    """Nobody makes it anew."""
    log = Log("orders", dsn)
    handled = Seen()

    @log.on("mailer", buckets=buckets)
    async def mail(event: Event[str]) -> None:
        handled.note(event.payload)

    async with log:
        incidents = log.incidents()
        await append(admin, "a")
        await handled.until(1)
        await log.drop("mailer")
        ended = await until(incidents, HandlerEnded)
    assert ended.consumer == "mailer"
    assert isinstance(ended.cause, UnknownConsumerError)


async def test_an_on_incident_that_is_none_is_refused_at_once() -> None:
    """A coroutine would be awaited by nobody; what takes no incident could not be called."""

    async def report(_: Incident) -> None: ...

    for wrong in (report, lambda: None, 1):
        for kind in (Log, BlockingLog):
            with pytest.raises(TypeError, match="on_incident"):
                kind("orders", "postgresql://nowhere/x", on_incident=cast("Any", wrong))


async def test_what_on_incident_raises_is_logged(
    dsn: str, installed: Names, caplog: pytest.LogCaptureFixture
) -> None:
    """And harms nobody."""

    def fail(_: Incident) -> None:
        msg = "no good"
        raise ValueError(msg)

    async with Log("orders", dsn, on_incident=fail) as log:
        incidents = log.incidents()
        await log.append("things", "a")
    assert await _collected(incidents) == [Closed()]
    assert "on_incident raised; the log goes on" in caplog.text
    assert "no good" in caplog.text


async def test_on_incident_has_no_context_of_whoever_calls(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """A dead letter, and the end, are told in a call of the user's, as of one web request."""
    user: ContextVar[str] = ContextVar("user")
    seen: list[tuple[str, str | None]] = []

    def report(incident: Incident) -> None:
        seen.append((type(incident).__name__, user.get(None)))

    async with Log("orders", dsn, on_incident=report) as log:
        await append(admin, "none", "1", channel="numbers")
        user.set("ann")
        async with log.consumer("mailer", NUMBERS) as consumer:
            assert (await anext(consumer)).payload == 1
    assert seen == [("DeadLettered", None), ("Closed", None)]


async def test_each_run_of_a_log_has_incidents_of_its_own(dsn: str, installed: Names) -> None:
    """Closed ends the streams of that run; a log that is used again reports again."""
    seen: list[Incident] = []
    log = Log("orders", dsn, on_incident=seen.append)
    for count in (1, 2):
        async with log:
            incidents = log.incidents()
        assert await _collected(incidents) == [Closed()]
        assert seen == [Closed()] * count
        await log.aclose()
        assert seen == [Closed()] * count


@pytest.mark.needs_server("threads")
def test_threads_are_told(dsn: str) -> None:
    """By an iterator, whose get() has a timeout, and by the callback in the loop's thread."""
    seen: list[Incident] = []
    with BlockingLog("orders", dsn, on_incident=seen.append) as log:
        log.install()
        log.append("things", "x")
        incidents = log.incidents()
        handled: list[str] = []

        @log.on("mailer", on_error=Retry(1, backoff=AT_ONCE))
        def mail(event: Event[str]) -> None:
            handled.append(event.payload)
            raise ValueError(event.payload)

        log.start()
        letter = incidents.get(timeout=scaled(20))
        assert isinstance(letter, DeadLettered)
        assert letter.error == "ValueError: x"
        with pytest.raises(TimeoutError):
            incidents.get(timeout=0)
    assert list(incidents) == [Closed()]
    with pytest.raises(EOFError, match="the log has been closed"):
        incidents.get()
    assert seen == [letter, Closed()]


@pytest.mark.needs_server("threads")
def test_a_call_of_a_log_in_its_own_callback_is_refused(dsn: str) -> None:
    """It would wait for itself; the message names the callback."""
    raised: list[str] = []

    def report(_: Incident) -> None:
        for call in (lambda: log.append("things", "x"), log.status):
            with pytest.raises(WrongLoopError, match="or on_incident hand") as caught:
                call()
            raised.append(str(caught.value))

    with BlockingLog("orders", dsn, on_incident=report) as log:
        log.install()
        log.append("things", "x")
    assert len(raised) == 2  # of Closed


@pytest.mark.needs_server("threads")
def test_incidents_of_a_log_that_is_never_used_end_when_it_is_closed(dsn: str) -> None:
    """A thread that waits for one would keep the program from ending."""
    with BlockingLog("orders", dsn) as log:
        incidents = log.incidents()
    assert incidents.get(timeout=scaled(20)) == Closed()
    assert list(incidents) == []
