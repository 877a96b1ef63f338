"""What operators ask of a log, and tell it."""

from __future__ import annotations

import asyncio
import pickle
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

import pytest
import pytest_asyncio

from asyncnotify import Channel, ExponentialBackoff
from asyncnotify.log import (
    ConsumerLockedError,
    Event,
    Log,
    LogError,
    Position,
    PositionError,
    Retry,
    UnknownConsumerError,
)
from tests.log.conftest import SESSIONS, append
from tests.log.fake_connection import FakeConnection
from tests.log.test_consumers import Seen, taken, until
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    import asyncpg

    from asyncnotify.log._names import Names
    from tests.log.conftest import Connect, Connection

AT_ONCE = ExponentialBackoff(initial=0.001, cap=0.001)
ONCE = Retry(1, backoff=AT_ONCE)


@pytest_asyncio.fixture
async def log(dsn: str, installed: Names) -> AsyncIterator[Log]:
    """A log that has been installed."""
    async with Log("orders", dsn, poll=3600) as log:
        yield log


async def test_the_status_tells_who_is_behind_and_who_holds_up(
    log: Log, admin: Connection, connect: Connect
) -> None:
    """Lag in events and seconds, who serves, dead letters, and the oldest writer."""
    await append(admin, "a", "b")
    async with log.consumer("ahead") as ahead, log.consumer("behind"), connect() as slow:
        assert await taken(ahead, 2) == ["a", "b"]
        waiting = asyncio.ensure_future(taken(ahead, 1))
        await append(admin, "c")
        assert await waiting == ["c"]
        transaction = slow.transaction()
        await transaction.start()
        await append(slow, "open")
        status = await log.status()
        await transaction.rollback()
    assert (status.name, status.events, status.version) == ("orders", 3, 1)
    first, second = status.consumers
    assert (first.name, first.is_served, first.lag_events, first.dead_letters) == (
        "ahead",
        True,
        1,
        0,
    )
    assert (second.name, second.is_served, second.lag_events) == ("behind", False, 3)
    assert second.lag_seconds > 0
    assert (first.holds_retention, second.holds_retention) == (False, True)
    assert status.oldest_writer is not None
    assert status.oldest_writer.pid == slow.get_server_pid()
    assert status.oldest_writer.age.total_seconds() > 0
    assert status.end > second.position
    assert status.size > 0


async def test_seek_moves_one_who_serves_and_one_who_waits(log: Log, admin: Connection) -> None:
    """Backward, to a position, and to the end; at once, also while nothing new comes."""
    await append(admin, "a", "b", "c")
    async with log.consumer("mailer") as consumer:
        events = [await anext(consumer) for _ in range(3)]
        waiting = asyncio.ensure_future(taken(consumer, 3))
        await log.seek("mailer", "start")
        assert await waiting == ["a", "b", "c"]
        waiting = asyncio.ensure_future(taken(consumer, 1))
        await asyncio.sleep(0)
        await log.seek("mailer", events[1].position)
        assert await waiting == ["c"]
        await append(admin, "d")
        await log.seek("mailer", "now")
        waiting = asyncio.ensure_future(taken(consumer, 1))
        await append(admin, "e")
        assert await waiting == ["e"]


async def test_a_paused_consumer_gets_nothing_until_it_is_resumed(
    log: Log, admin: Connection
) -> None:
    """And then all that has come meanwhile."""
    async with log.consumer("mailer") as consumer:
        await append(admin, "a")
        assert await taken(consumer, 1) == ["a"]
        waiting = asyncio.ensure_future(taken(consumer, 2))
        await log.pause("mailer")
        await append(admin, "b", "c")
        async with log.consumer("fence") as fence:
            assert await taken(fence, 3) == ["a", "b", "c"]
        assert [c.is_paused for c in (await log.status()).consumers] == [False, True]
        done, _ = await asyncio.wait({waiting}, timeout=0)
        if not done:
            await log.resume("mailer")
        assert (await waiting)[-1] in ("b", "c")


async def test_dead_letters_are_shown_retried_and_discarded(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """A retry calls the handler once more; the letter goes when that returns."""
    log = Log("orders", dsn, poll=3600)
    seen = Seen(fail={"bad": 2, "worse": 99})

    @log.on("mailer", on_error=ONCE)
    async def mail(event: Event[str]) -> None:
        seen.note(event.payload)

    async with log:
        made = await log.append("things", "bad", key="42", headers={"a": "b"})
        await log.append("things", "worse")
        await log.append("things", "fine")
        await seen.until(3)
        bad, worse = await log.dead_letters("mailer")
        assert (bad.event.id, bad.event.key, bad.event.headers) == (made, "42", {"a": "b"})
        assert (bad.attempts, bad.error, bad.event.payload) == (1, "ValueError: bad", "bad")
        with pytest.raises(ValueError, match="bad"):
            await log.retry(bad)
        assert len(await log.dead_letters()) == 2
        await log.retry(bad)
        assert [letter.event.payload for letter in await log.dead_letters()] == ["worse"]
        assert await log.discard(worse)
        assert not await log.discard(worse)
        assert await log.dead_letters(limit=1) == []
    async with Log("orders", dsn) as other:
        with pytest.raises(UnknownConsumerError):
            await other.retry(bad)


@pytest.mark.needs_server("SQL in the handler")
async def test_a_retry_of_a_transactional_handler_is_one_transaction(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """What it writes, and that the letter is gone, are committed together; payloads are decoded."""
    await admin.execute("CREATE TABLE effects (n int)")
    log = Log("orders", dsn, poll=3600)
    numbers = Channel("numbers", int)
    fails = True

    @log.on("adder", numbers, transactional=True, on_error=ONCE)
    async def add(event: Event[int], connection: asyncpg.Connection[Any]) -> None:
        await connection.execute("INSERT INTO effects VALUES ($1)", event.payload)
        if fails:
            raise RuntimeError

    async with log:
        await log.append(numbers, 5)
        async with asyncio.timeout(scaled(20)):
            while not (letters := await log.dead_letters()):
                pass
        with pytest.raises(RuntimeError):
            await log.retry(letters[0])
        fails = False
        outcomes = await asyncio.gather(
            log.retry(letters[0]), log.retry(letters[0]), return_exceptions=True
        )
        assert None in outcomes
        assert await log.dead_letters() == []
        with pytest.raises(LogError, match=r"consumer 'adder' .* is gone"):
            await log.retry(letters[0])
    assert await admin.fetchval("SELECT array_agg(n) FROM effects") == [5]


REFUSE_ONCE = """
    CREATE SEQUENCE moves;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('public.moves') = 1 THEN
            RAISE query_canceled;
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse BEFORE UPDATE ON asyncnotify.orders_consumers
        FOR EACH ROW WHEN (OLD.id <> NEW.id) EXECUTE FUNCTION refuse()
"""


@pytest.mark.needs_server("tables")
async def test_a_dead_letter_is_kept_with_its_cursor(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """Both or neither: an event that comes again, and is handled then, leaves no letter."""
    await admin.execute(REFUSE_ONCE)
    log, calls, is_handled = Log("orders", dsn, poll=3600), 0, asyncio.Event()

    @log.on("adder", "things", on_error=ONCE)
    def fail_once(event: Event[str]) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError
        is_handled.set()

    async with log, asyncio.timeout(scaled(20)):
        await log.append("things", "a")
        await is_handled.wait()
        assert await log.dead_letters() == []


@pytest.mark.needs_server("tables")
async def test_an_event_that_ends_each_session_holds_up_no_other(
    dsn: str, installed: Names, admin: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """After five of them it is a dead letter, as one whose handler raises."""
    log = Log("orders", dsn, poll=3600, backoff=AT_ONCE)
    is_handled = asyncio.Event()

    @log.on("adder", "things", transactional=True, on_error=ONCE)
    async def crash(event: Event[str], connection: asyncpg.Connection[Any]) -> None:
        if event.payload == "b":
            is_handled.set()
        else:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    async with log, asyncio.timeout(scaled(20)):
        await log.append_many([("things", "a"), ("things", "b")])
        await is_handled.wait()
        [letter] = await log.dead_letters()
        assert (letter.event.payload, letter.attempts) == ("a", 5)
        assert "lost 5 times" in letter.error


@pytest.mark.needs_server("tables")
@pytest.mark.parametrize("then", ["stop", "dead_letter"])
async def test_a_session_that_is_lost_in_a_handler_is_no_error_of_the_handler(
    dsn: str, installed: Names, admin: Connection, then: Literal["stop", "dead_letter"]
) -> None:
    """The event comes again, in another session, where its one attempt has not been used."""
    await admin.execute("CREATE TABLE effects (n text)")
    log = Log("orders", dsn, poll=3600)
    calls = 0

    @log.on("adder", "things", transactional=True, on_error=Retry(1, then=then))
    async def add(event: Event[str], connection: asyncpg.Connection[Any]) -> None:
        nonlocal calls
        calls += 1
        await connection.execute("INSERT INTO effects VALUES ($1)", event.payload)
        if calls == 1:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    async with log, asyncio.timeout(scaled(20)):
        await log.append_many([("things", "a"), ("things", "b")])
        while await admin.fetchval("SELECT array_agg(n ORDER BY n) FROM effects") != ["a", "b"]:
            pass
        assert await log.dead_letters() == []
    assert calls == 3


async def _pids(connection: Connection) -> set[int]:
    """Return the backend pids of the sessions of logs."""
    if isinstance(connection, FakeConnection):
        return set(connection.fake.pids)
    return {row[0] for row in await connection.fetch(SESSIONS)}


@pytest.mark.parametrize("buckets", [1, 2])
async def test_operations_on_a_consumer_whose_handler_does_not_return_say_so(
    dsn: str, installed: Names, admin: Connection, buckets: int
) -> None:
    """They wait for its transaction, name it in time, and neither change nor lose anything."""
    served, began, may_return = Log("orders", dsn), asyncio.Event(), asyncio.Event()

    @served.on("mailer", transactional=True, buckets=buckets)
    async def handle(event: Event[str], *_: object) -> None:
        began.set()
        await may_return.wait()

    def operations(log: Log) -> list[Coroutine[Any, Any, None]]:
        return [log.seek("mailer", "now"), log.pause("mailer"), log.resume("mailer")]

    hasty = Log("orders", dsn, operation_timeout=scaled(1.0))
    async with asyncio.timeout(scaled(30)), served, hasty:
        await append(admin, "a")
        await began.wait()
        await asyncio.gather(*(hasty.status() for _ in range(4)))  # which opens sessions
        before = await _pids(admin)
        calls = [*operations(hasty), hasty.drop("mailer")]
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, ConsumerLockedError)
            assert (error.consumer, error.is_serving) == ("mailer", True)
            assert error.pid in before
            assert "handler" in str(error)
        assert await _pids(admin) == before
        assert len((await hasty.status()).consumers) == buckets
        waiting = [asyncio.ensure_future(call) for call in operations(served)]
        may_return.set()
        await asyncio.gather(*waiting)
        await hasty.drop("mailer")


@pytest.mark.needs_server("a transaction of SQL")
async def test_an_operation_names_another_transaction_that_holds_the_consumer(
    dsn: str, log: Log, admin: Connection
) -> None:
    """By its backend pid, as one that does not serve the consumer."""
    async with log.consumer("mailer"), Log("orders", dsn, operation_timeout=scaled(1.0)) as hasty:
        async with admin.transaction():
            await admin.execute("SELECT asyncnotify.orders_pause_consumer('mailer', true)")
            with pytest.raises(ConsumerLockedError, match="does not serve") as caught:
                await hasty.pause("mailer")
        assert (caught.value.pid, caught.value.is_serving) == (admin.get_server_pid(), False)
        assert caught.value.waited < scaled(1.0)
        copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - it is our own
        assert (str(copy), copy.pid) == (str(caught.value), caught.value.pid)


@pytest.mark.needs_server("a transaction of SQL")
async def test_a_wait_for_a_lock_is_not_called_a_lost_connection(
    dsn: str, installed: Names, admin: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """A consumer whose row another transaction holds says what may be the matter, and goes on."""
    async with (
        asyncio.timeout(scaled(30)),
        Log("orders", dsn, operation_timeout=scaled(1.0)) as log,
        log.consumer("mailer") as consumer,
    ):
        await append(admin, "a")
        assert await taken(consumer, 1) == ["a"]
        async with admin.transaction():
            await admin.execute("SELECT FROM asyncnotify.orders_consumers FOR UPDATE")
            waiting = asyncio.ensure_future(taken(consumer, 1))
            while "consumer 'mailer' of log 'orders' is interrupted" not in caplog.text:
                await admin.execute("SELECT 1")
            await append(admin, "b")
        # The server commits the cursor once it has the lock, unless it sees that nobody waits
        assert await waiting in (["a"], ["b"])
    assert "be waiting for a lock" in caplog.text
    assert "was lost" not in caplog.text


async def test_unknown_consumers_and_foreign_positions_are_refused(log: Log) -> None:
    """By every operation, and nothing is changed."""
    for operation in (log.pause, log.resume, log.drop):
        with pytest.raises(UnknownConsumerError):
            await operation("nobody")
    with pytest.raises(UnknownConsumerError):
        await log.seek("nobody", "start")
    with pytest.raises(PositionError):
        await log.seek("nobody", Position("mails", 1, 1, 1))
    with pytest.raises(ValueError, match="limit"):
        await log.dead_letters(limit=0)


async def test_a_cursor_follows_its_handler_within_a_portion(log: Log, dsn: str) -> None:
    """What was handled long before a crash does not come again because the portion was long."""
    served, may_go_on = Log("orders", dsn), asyncio.Event()
    given: list[Position] = []

    @served.on("slow")
    async def handle(event: Event[str]) -> None:
        given.append(event.position)
        if event.payload == "1":
            await may_go_on.wait()

    async def is_behind(number: int) -> bool:
        [status] = (await log.status()).consumers
        return given[number:] != [] and status.position == given[number]

    async with served:
        await log.append_many([("things", str(number)) for number in range(3)])
        try:
            await until(lambda: is_behind(0))
        finally:
            may_go_on.set()
        await until(lambda: is_behind(2))


async def test_a_handler_that_is_stopped_handles_nothing_twice(log: Log, dsn: str) -> None:
    """What it has handled is committed, also if it is stopped while it looks for more."""
    appended, handled = 0, Counter[str]()

    async def write() -> None:
        nonlocal appended
        while True:
            await log.append("things", str(appended))
            appended += 1

    writer = asyncio.ensure_future(write())
    for round_ in range(10):
        served, seen = Log("orders", dsn), Seen()

        @served.on("mailer")
        async def handle(event: Event[str], seen: Seen = seen) -> None:
            handled[event.payload] += 1
            seen.note(event.payload)

        async with served:
            await seen.until(1 + 5 * round_)
    writer.cancel()
    assert set(handled.values()) == {1}
    assert set(handled) == {str(number) for number in range(len(handled))}
