"""Durable consumers: where they go on, who serves them, and what becomes of errors."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest
import pytest_asyncio

from asyncnotify import Channel, ExponentialBackoff, Gap, GapReason, Reread
from asyncnotify.log import Event, Log, LogNameError, Retry, UnknownConsumerError
from asyncnotify.log._consuming.serving import Server, TakenOverError
from asyncnotify.log._walk.buckets import Bucket
from asyncnotify.log._walk.cursor import Portion
from asyncnotify.log._walk.statements import Statements
from asyncnotify.log._walk.walk import DEFAULT_SIZE
from tests.log.conftest import NAMES, append, kill_sessions, place, times_taken
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg

    from asyncnotify.log import Consumer
    from asyncnotify.log._names import Names
    from asyncnotify.typing import Backoff
    from tests.log.conftest import Connection

NUMBERS: Final = Channel("numbers", int)
REREADS: Final = Channel("numbers", decode=lambda t: Reread(3) if t == "again" else int(t))
AT_ONCE: Final = ExponentialBackoff(initial=0.001, cap=0.001)


@pytest_asyncio.fixture
async def log(dsn: str, installed: Names) -> AsyncIterator[Log]:
    """A log that has been installed; its consumers look only when they are woken."""
    async with Log("orders", dsn, poll=3600) as log:
        yield log


async def taken(consumer: Consumer[Any], count: int) -> list[Any]:
    """Return the payloads of the next so many events; they have to come soon."""
    async with asyncio.timeout(scaled(20)):
        return [(await anext(consumer)).payload for _ in range(count)]


async def until(condition: Any) -> None:
    """Return once the condition holds."""
    async with asyncio.timeout(scaled(20)):
        while not await condition():
            pass


async def test_it_goes_on_where_it_left_off(log: Log, admin: Connection) -> None:
    """What was asked for behind it is done; the last event given comes again."""
    await append(admin, *"abcdef")
    async with log.consumer("mailer") as consumer:
        assert await taken(consumer, 3) == ["a", "b", "c"]
    async with log.consumer("mailer") as consumer:
        assert await taken(consumer, 4) == ["c", "d", "e", "f"]
        waiting = asyncio.ensure_future(taken(consumer, 1))
        await append(admin, "g")
        assert await waiting == ["g"]
    async with log.consumer("mailer") as consumer:
        assert await taken(consumer, 1) == ["g"]
    async with log.consumer("another") as consumer:
        assert await taken(consumer, 7) == [*"abcdefg"]


async def test_a_batch_is_done_when_the_next_is_asked_for(log: Log, admin: Connection) -> None:
    """The cursor is committed then, and the last batch comes again."""
    await append(admin, *map(str, range(10)))
    async with log.consumer("mailer") as consumer:
        batches = consumer.batches(4)
        assert [event.payload for event in await anext(batches)] == ["0", "1", "2", "3"]
        assert await place(admin) == 0
        assert len(await anext(batches)) == 4
        assert await place(admin) == 4
        assert [event.payload for event in await anext(batches)] == ["8", "9"]
        await batches.aclose()
    async with log.consumer("mailer") as consumer:
        assert await taken(consumer, 2) == ["8", "9"]


async def test_a_new_consumer_begins_where_it_is_told(log: Log, admin: Connection) -> None:
    """Once: afterwards its own cursor counts."""
    await append(admin, "before")
    async with log.consumer("mailer", start="now"):
        await append(admin, "after")
    async with log.consumer("mailer", start="start") as consumer:
        assert await taken(consumer, 1) == ["after"]


async def test_what_is_done_is_committed_before_it_waits(log: Log, admin: Connection) -> None:
    """A consumer that waits for news loses nothing of what it has done, if it dies then."""
    await append(admin, "a", "b")
    async with log.consumer("mailer") as consumer:
        await taken(consumer, 2)
        waiting = asyncio.ensure_future(taken(consumer, 1))
        await until(lambda: _is_at(admin, 2))
        waiting.cancel()


async def _is_at(admin: Connection, id_: int) -> bool:
    return await place(admin) == id_


async def test_one_at_a_time_serves_a_name_and_the_next_takes_over(
    log: Log, dsn: str, admin: Connection
) -> None:
    """The second waits while the first serves, and goes on behind what that has done."""
    await append(admin, "a", "b", "c")
    async with Log("orders", dsn, poll=3600) as other, other.consumer("mailer") as second:
        async with log.consumer("mailer") as first:
            assert await taken(first, 1) == ["a"]
            waiting = asyncio.ensure_future(taken(second, 2))
            assert await taken(first, 1) == ["b"]
            assert not waiting.done()
        assert await waiting == ["b", "c"]


PROCESS: Final = """
import asyncio, sys
from asyncnotify.log import Log

async def main() -> None:
    async with Log("orders", sys.argv[1]) as log, log.consumer("mailer") as consumer:
        async for event in consumer:
            print(event.payload, flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.needs_server("a process that is killed")
async def test_another_takes_over_within_a_second_of_kill_9(
    log: Log, dsn: str, admin: Connection
) -> None:
    """The dead process' session ends with its socket, and its lock with the session."""
    await append(admin, "a")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROCESS, dsn, stdout=subprocess.PIPE, env={**os.environ}
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"a\n"
    async with log.consumer("mailer") as consumer:
        waiting = asyncio.ensure_future(taken(consumer, 2))
        await until(lambda: _are_sessions(admin, 4))
        process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        await process.wait()
        await append(admin, "b")
        assert await waiting == ["a", "b"]
        assert time.monotonic() - killed < scaled(1.0)


async def _are_sessions(admin: Connection, count: int) -> bool:
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'asyncnotify'"
        " AND datname = current_database()"
    )
    return int(await admin.fetchval(query)) >= count


async def test_trap_13_the_commit_of_one_who_was_replaced_is_refused(
    log: Log, admin: Connection
) -> None:
    """A session that has lost the consumer without knowing moves nothing, and buries nothing."""
    await append(admin, "a", "b")
    async with log.consumer("mailer"):
        pass
    sessions = log._sessions  # noqa: SLF001
    server = Server(
        sessions, NAMES, "mailer", Bucket(), statements=Statements(NAMES), size=DEFAULT_SIZE
    )
    zombie = await server.open(on_wait=lambda: None)
    portion = await zombie.cursor.portion()
    assert isinstance(portion, Portion)
    await log.pause("mailer")
    await log.resume("mailer")
    with pytest.raises(TakenOverError):
        await zombie.commit(zombie.cursor.position)
    with pytest.raises(TakenOverError):
        await zombie.bury(zombie.cursor.position, 1, "", portion.columns)
    transaction = await zombie.session.begin()
    with pytest.raises(TakenOverError):
        await zombie.hold()
    await transaction.rollback()
    assert await place(admin) == 0
    await server.close(zombie)


async def test_a_lost_session_costs_what_was_not_committed(log: Log, admin: Connection) -> None:
    """The events behind the last commit come again, and then the others."""
    await append(admin, *map(str, range(6)))
    async with log.consumer("mailer") as consumer:
        batches = consumer.batches(2)
        await anext(batches)
        assert [event.payload for event in await anext(batches)] == ["2", "3"]
        await kill_sessions(admin)
        again = [event.payload for event in await anext(batches)]
        assert again == ["2", "3"]
        assert [event.payload for event in await anext(batches)] == ["4", "5"]
        await batches.aclose()


async def test_cancelling_the_wait_costs_nothing(log: Log, admin: Connection) -> None:
    """Whatever it waits for, the next call gets the next event, and the session stays."""
    read: list[str] = []
    async with log.consumer("mailer") as consumer:
        for n in range(50):
            await append(admin, str(n))
            waiting = asyncio.ensure_future(anext(consumer))
            for _ in range(n % 5):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
            if not waiting.cancelled():
                read.append(waiting.result().payload)
        read += await taken(consumer, 50 - len(read))
    assert read == [*map(str, range(50))]
    assert await times_taken(admin) == 1


async def test_what_cannot_be_decoded_is_a_dead_letter(log: Log) -> None:
    """And what follows comes all the same."""
    await log.append(NUMBERS, 1)
    await log.append("numbers", "none")
    await log.append(NUMBERS, 2)
    async with log.consumer("adder", NUMBERS) as consumer:
        assert await taken(consumer, 2) == [1, 2]
    letters = await log.dead_letters()
    assert [(letter.consumer, letter.event.payload) for letter in letters] == [("adder", "none")]


async def test_what_says_read_again_is_a_gap_or_a_dead_letter(log: Log) -> None:
    """A Gap with gaps=True, which is done when the next is asked for; otherwise it is kept."""
    for text in ("1", "again", "2"):
        await log.append("numbers", text)
    async with log.consumer("reader", REREADS, gaps=True) as consumer:
        assert isinstance(await anext(consumer), Event)
        gap = await anext(consumer)
        assert isinstance(gap, Gap)
        assert (gap.channel, gap.reason, gap.dropped) == ("numbers", GapReason.REREAD, 3)
    async with log.consumer("reader", REREADS, gaps=True) as consumer:
        assert await anext(consumer) == gap  # it was not done
        assert await taken(consumer, 1) == [2]
    assert await log.dead_letters() == []
    async with log.consumer("adder", REREADS) as without:
        assert await taken(without, 2) == [1, 2]
    letters = await log.dead_letters()
    assert [(letter.consumer, letter.event.payload) for letter in letters] == [("adder", "again")]


async def test_a_dropped_consumer_says_so(log: Log, admin: Connection) -> None:
    """To one who still iterates it; it is not made again behind anybody's back."""
    async with log.consumer("mailer") as consumer:
        await append(admin, "a", "b")
        await taken(consumer, 1)
        await log.drop("mailer")
        with pytest.raises(UnknownConsumerError):
            await taken(consumer, 5)


@pytest.mark.parametrize("name", ["", "x" * 201, "a\0", "a\n", 5, None])
def test_names_that_cannot_be_kept_are_refused(name: Any) -> None:
    """When they are given."""
    log = Log("orders")
    with pytest.raises(LogNameError):
        log.on(name)


# -- handlers -------------------------------------------------------------------------------------


class Seen:
    """What a handler was called with, and when there is enough of it."""

    def __init__(self, fail: dict[str, int] | None = None) -> None:
        self.payloads: list[str] = []
        self.fail = fail or {}
        self._news = asyncio.Event()

    def note(self, payload: str) -> None:
        """Keep a payload; raise if it is one that fails, so many times."""
        self.payloads.append(payload)
        self._news.set()
        if self.fail.get(payload, 0) > 0:
            self.fail[payload] -= 1
            raise ValueError(payload)

    async def until(self, count: int) -> list[str]:
        """Return the payloads once there are so many."""
        async with asyncio.timeout(scaled(20)):
            while len(self.payloads) < count:
                self._news.clear()
                await self._news.wait()
        return self.payloads

    async def until_noted(self, payload: str) -> None:
        """Return once this payload is among them."""
        while payload not in self.payloads:
            await self.until(len(self.payloads) + 1)


async def test_handlers_get_events_one_by_one_and_resume(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """An async function or a plain one; closing lets the present call finish, and commits."""
    seen, plain = Seen(), Seen()
    await append(admin, "a", "b")
    for payload in ("c", "d"):
        log = Log("orders", dsn, poll=3600)

        @log.on("mailer")
        async def mail(event: Event[str]) -> None:
            await asyncio.sleep(0)
            seen.note(event.payload)

        @log.on("printer")
        def write(event: Event[str]) -> None:
            plain.note(event.payload)

        async with log:
            await append(admin, payload)
            count = "abcd".index(payload) + 1
            assert await seen.until(count) == [*"abcd"[:count]]
            assert await plain.until(count) == [*"abcd"[:count]]


@pytest.mark.parametrize("backoff", [AT_ONCE, lambda: iter([0.0])], ids=["endless", "ends"])
async def test_an_event_that_fails_is_tried_again_and_then_a_dead_letter(
    dsn: str, installed: Names, admin: Connection, backoff: Backoff
) -> None:
    """What follows waits for the attempts, also where the backoff has ended; the error is kept."""
    log = Log("orders", dsn, poll=3600)
    seen = Seen(fail={"twice": 2, "always": 99})

    @log.on("mailer", on_error=Retry(3, backoff=backoff))
    async def mail(event: Event[str]) -> None:
        seen.note(event.payload)

    await append(admin, "twice", "always", "fine")
    async with log:
        expected = ["twice"] * 3 + ["always"] * 3 + ["fine"]
        assert await seen.until(7) == expected
    async with Log("orders", dsn) as log:
        [letter] = await log.dead_letters()
    told = (letter.event.payload, letter.attempts, letter.error)
    assert told == ("always", 3, "ValueError: always")
    assert await place(admin) == 3


async def test_a_handler_that_is_to_stop_stands_before_the_event(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """Retry(then="stop") ends this handler alone; the next start begins with the same event."""
    log = Log("orders", dsn, poll=3600)
    seen, other = Seen(fail={"bad": 2}), Seen()

    @log.on("mailer", on_error=Retry(2, then="stop", backoff=AT_ONCE))
    async def mail(event: Event[str]) -> None:
        seen.note(event.payload)

    @log.on("printer")
    async def write(event: Event[str]) -> None:
        other.note(event.payload)

    await append(admin, "fine", "bad", "last")
    async with log:
        assert await other.until(3) == ["fine", "bad", "last"]
        assert await seen.until(3) == ["fine", "bad", "bad"]
        await until(lambda: _is_at(admin, 1))
    async with log:
        assert (await seen.until(5))[3:] == ["bad", "last"]


@pytest.mark.parametrize("buckets", [1, 2])
@pytest.mark.parametrize("then", ["stop", "dead_letter"])
async def test_a_handler_that_raises_is_logged_with_what_follows(
    log: Log,
    admin: Connection,
    caplog: pytest.LogCaptureFixture,
    then: Literal["stop", "dead_letter"],
    buckets: int,
) -> None:
    """With its log, its consumer, its bucket and the event: a process may have several of each."""
    seen = Seen(fail={"bad": 2})

    @log.on("mailer", on_error=Retry(2, then=then, backoff=AT_ONCE), buckets=buckets)
    async def mail(event: Event[str]) -> None:
        seen.note(event.payload)

    await append(admin, "bad")
    await log.start()
    await seen.until(2)
    await log.aclose()
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    bucket = r", bucket \d," if buckets > 1 else ""
    subject = f"handler 'mailer' of log 'orders'{bucket}"
    raised = rf"{subject} raised for the event at orders:\d+\.\d+\.\d+ in attempt"
    assert re.fullmatch(rf"{raised} 1 of 2; the next one follows in \S+ s", lines[0])
    ends = {
        "stop": (
            "this was the last attempt",
            rf"{subject} is stopped, as Retry\(then='stop'\) says: ValueError: bad",
        ),
        "dead_letter": (
            "the event becomes a dead letter",
            r"event at orders:\S+ is a dead letter of consumer 'mailer' of log 'orders'",
        ),
    }
    last, end = ends[then]
    assert re.fullmatch(rf"{raised} 2 of 2; {last}", lines[1])
    assert re.fullmatch(end, lines[2])


async def test_a_handler_that_is_cancelled_from_inside_has_failed(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """A CancelledError of its own ends neither the worker nor the log."""
    log = Log("orders", dsn, poll=3600)
    seen = Seen()

    @log.on("mailer", on_error=Retry(1, backoff=AT_ONCE))
    async def mail(event: Event[str]) -> None:
        seen.note(event.payload)
        if event.payload == "bad":
            raise asyncio.CancelledError

    await append(admin, "bad", "fine")
    async with log:
        assert await seen.until(2) == ["bad", "fine"]
        assert len(await log.dead_letters()) == 1


@pytest.mark.needs_server("SQL in the handler")
async def test_effects_and_cursor_are_committed_together(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """Each event has its effect exactly once, while sessions are killed and attempts fail."""
    await admin.execute("CREATE TABLE effects (payload text)")
    log = Log("orders", dsn, poll=0.2, backoff=AT_ONCE)
    calls = 0

    @log.on("projection", transactional=True, on_error=Retry(50, backoff=AT_ONCE))
    async def project(event: Event[str], connection: asyncpg.Connection[Any]) -> None:
        nonlocal calls
        calls += 1
        await connection.execute("INSERT INTO effects VALUES ($1)", event.payload)
        if calls % 5 == 0:
            raise ValueError(event.payload)

    sent = [str(n) for n in range(100)]
    async with log:
        for payload in sent:
            await append(admin, payload)
            if int(payload) % 20 == 10:
                await kill_sessions(admin)
        await until(lambda: _are_effects(admin, 100))
    rows = await admin.fetch("SELECT payload FROM effects ORDER BY ctid")
    assert sorted(row[0] for row in rows) == sorted(sent)
    assert calls > 100


async def _are_effects(admin: Connection, count: int) -> bool:
    return int(await admin.fetchval("SELECT count(*) FROM effects")) >= count


async def test_trap_2_what_a_transactional_handler_appends_comes_to_it(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """Its transaction has an xid, and takes no tick: its own events are not skipped."""
    log = Log("orders", dsn, poll=0.2)
    seen = Seen()

    @log.on("echo", transactional=True)
    async def echo(event: Event[str], connection: asyncpg.Connection[Any]) -> None:
        if len(event.payload) < 5:
            await log.append("things", event.payload + "x", connection=connection)
        seen.note(event.payload)

    await append(admin, "x")
    async with log:
        assert await seen.until(5) == ["x", "xx", "xxx", "xxxx", "xxxxx"]


def test_wrong_handlers_are_refused_when_they_are_given() -> None:
    """Functions that do not take the arguments, or would run nothing; a name used twice."""
    log = Log("orders")

    def generator(event: object) -> Any:
        yield event

    def of_three(event: object, connection: object, more: object) -> None: ...

    def of_one(event: object) -> None: ...

    wrong: list[Any] = [5, generator, lambda: None, of_three]
    for function in wrong:
        with pytest.raises(TypeError):
            log.on("mailer")(function)
    with pytest.raises(TypeError):
        log.on("mailer", transactional=True)(of_one)
    log.on("mailer")(print)
    with pytest.raises(LogNameError):
        log.on("mailer")
    options: list[dict[str, Any]] = [{"attempts": 0}, {"then": "drop"}, {"backoff": 5}]
    for retry in options:
        with pytest.raises((TypeError, ValueError)):
            Retry(**retry)
