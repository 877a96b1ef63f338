"""A log on the server in memory, where time and faults are as the test says."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from asyncnotify import ConnectError, ConnectionLostError, Gap, GapReason
from asyncnotify.log import BlockingLog, Log, LogError, NotInstalledError, Retry
from asyncnotify.log.sources import Statement
from asyncnotify.testing.fake import FakeServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncnotify.log import Consumer, Event


@pytest.fixture
def fake() -> FakeServer:
    """A server in memory."""
    return FakeServer()


@pytest_asyncio.fixture
async def log(fake: FakeServer) -> AsyncIterator[Log]:
    """A log that has been installed on it, and looks only when it is woken."""
    async with Log("orders", fake.dsn, poll=36_000) as log:
        await log.install()
        yield log


async def payloads(log: Log) -> list[str]:
    """Return the payloads of all events that are kept, in their order."""
    async with log.read(after="start") as stream:
        return [event.payload async for event in stream.until_end()]


async def taken(consumer: Consumer[Any], count: int) -> list[str]:
    """Return the payloads of the next so many events."""
    return [(await anext(consumer)).payload for _ in range(count)]


# -- transactions ----------------------------------------------------------------------------------


async def test_events_are_there_once_their_transaction_commits(fake: FakeServer, log: Log) -> None:
    """And not before, never if it rolls back, and without what a savepoint has withdrawn."""
    async with fake.transaction() as transaction:
        await log.append("things", "kept", connection=transaction)
        with suppress(LookupError), transaction.savepoint():
            await log.append("things", "withdrawn", connection=transaction)
            raise LookupError
        with transaction.savepoint():
            await log.append_many([("things", "kept too")], connection=transaction)
        assert await payloads(log) == []
    with suppress(LookupError):
        async with fake.transaction() as transaction:
            await log.append("things", "rolled back", connection=transaction)
            raise LookupError
    assert await payloads(log) == ["kept", "kept too"]


async def test_an_open_transaction_delays_its_own_events_only(fake: FakeServer, log: Log) -> None:
    """Who reads meanwhile sees the others first, and every later reader sees the same order."""
    async with log.read(after="start") as stream:
        async with fake.transaction() as slow:
            await log.append("things", "slow", connection=slow)
            await log.append("things", "fast")
            assert (await anext(stream)).payload == "fast"
        assert (await anext(stream)).payload == "slow"
    assert await payloads(log) == ["fast", "slow"]


async def test_a_reader_is_woken_by_the_commit(fake: FakeServer, log: Log) -> None:
    """By a notification in the transaction, as on PostgreSQL: nobody waits for the next look."""
    loop = asyncio.get_running_loop()
    async with log.read(after="now") as stream:
        began = loop.time()
        waiting = asyncio.ensure_future(anext(stream))
        async with fake.transaction() as transaction:
            await log.append("things", "x", connection=transaction)
        assert (await waiting).payload == "x"
        assert loop.time() - began < 1
    assert fake.notifications[-1].channel == "asyncnotify_log_orders"


async def test_a_transaction_that_is_lost_appends_nothing(fake: FakeServer, log: Log) -> None:
    """Its block says so, and nothing waits for it any more."""
    transaction = fake.transaction()
    await transaction.__aenter__()
    await log.append("things", "x", connection=transaction)
    fake.lose(transaction.pid)
    with pytest.raises(ConnectionLostError):
        await transaction.__aexit__(None, None, None)
    assert await payloads(log) == []
    assert (await log.status()).oldest_writer is None


async def test_a_limit_below_the_retention_of_the_log_is_refused(log: Log) -> None:
    """With an error that is no loss of the connection; what the log has stays."""
    with pytest.raises(LogError, match="keeps events for 7 days"):
        await log.install(limit=timedelta(days=1))
    assert (await log.status()).limit is None
    await log.install(retention=timedelta(hours=1), limit=timedelta(days=1))
    await log.install(ring=12)
    status = await log.status()
    assert (status.retention, status.limit) == (timedelta(hours=1), timedelta(days=1))


async def test_a_log_that_is_not_installed_takes_nothing(fake: FakeServer) -> None:
    """Neither in a transaction of the caller's nor in its own."""
    async with Log("orders", fake.dsn) as log:
        with pytest.raises(NotInstalledError):
            await log.append("things", "x")
        async with fake.transaction() as transaction:
            with pytest.raises(NotInstalledError):
                await log.append("things", "x", connection=transaction)


async def test_a_transactional_handler_writes_with_its_cursor(log: Log) -> None:
    """What it appends on its connection is there once, though its first attempt has failed."""
    calls: list[str] = []
    done = asyncio.Event()

    @log.on("copier", "in", transactional=True)
    async def copy(event: Event[str], connection: Any) -> None:
        calls.append(event.payload)
        await log.append("out", event.payload, connection=connection)
        if len(calls) == 1:
            raise ValueError
        done.set()

    await log.append("in", "x")
    await done.wait()
    async with log.read("out", after="start") as stream:
        assert (await anext(stream)).payload == "x"
        assert [event async for event in stream.until_end()] == []
    assert calls == ["x", "x"]


async def test_a_handlers_transaction_ends_with_its_session(fake: FakeServer, log: Log) -> None:
    """What it has appended is gone, the event comes again, and the second time counts."""
    calls: list[str] = []
    done = asyncio.Event()

    @log.on("copier", "in", transactional=True)
    async def copy(event: Event[str], connection: Any) -> None:
        calls.append(event.payload)
        await log.append("out", f"{event.payload} {len(calls)}", connection=connection)
        if len(calls) == 1:
            fake.lose()
        else:
            done.set()

    await log.append("in", "x")
    await done.wait()
    async with log.read("out", after="start") as stream:
        assert (await anext(stream)).payload == "x 2"


async def test_a_commit_that_the_server_does_not_answer_leaves_no_lock(fake: FakeServer) -> None:
    """The transaction ends with its session: the event comes again, and its append counts once."""
    calls: list[str] = []
    done = asyncio.Event()
    async with Log("orders", fake.dsn, operation_timeout=5) as log:
        await log.install()

        @log.on("copier", "in", transactional=True)
        async def copy(event: Event[str], connection: Any) -> None:
            calls.append(event.payload)
            await log.append("out", event.payload, connection=connection)
            if len(calls) == 1:
                fake.freeze()
                asyncio.get_running_loop().call_later(60, fake.thaw)
            else:
                done.set()

        await log.append("in", "x")
        await done.wait()
        async with log.read("out", after="start") as stream:
            assert (await anext(stream)).payload == "x"
            assert [event async for event in stream.until_end()] == []
        assert (await log.status()).oldest_writer is None
    assert calls == ["x", "x"]


@pytest.mark.parametrize("method", ["execute", "executemany", "fetch", "fetchrow", "fetchval"])
async def test_a_handler_that_writes_sql_is_told_to_use_a_real_server(
    log: Log, method: str
) -> None:
    """By the error of its dead letter; savepoints are there."""
    tried: list[str] = []

    @log.on("writer", transactional=True, on_error=Retry(1))
    async def write(event: Event[str], connection: Any) -> None:
        with suppress(LookupError):
            async with connection.transaction():
                await log.append("out", "withdrawn", connection=connection)
                raise LookupError
        tried.append(event.payload)
        await getattr(connection, method)("INSERT INTO effects VALUES ($1)", event.payload)

    await log.append("in", "x")
    while not (letters := await log.dead_letters()):
        pass
    assert letters[0].error == (
        "NotOnFakeError: the fake server has no SQL: test this on a real server"
    )
    assert tried == ["x"]
    assert await payloads(log) == ["x"]


async def test_a_seek_waits_for_a_transactional_handler(log: Log) -> None:
    """The row of its cursor is locked: the seek comes after its commit, and counts."""
    calls: list[str] = []
    entered, may_go_on, again = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @log.on("copier", transactional=True)
    async def copy(event: Event[str], _: object) -> None:
        calls.append(event.payload)
        entered.set()
        await may_go_on.wait()
        if len(calls) == 2:
            again.set()

    await log.append("in", "x")
    await entered.wait()
    seeking = asyncio.ensure_future(log.seek("copier", "start"))
    await asyncio.wait({seeking}, timeout=1)
    assert not seeking.done()
    may_go_on.set()
    await seeking
    await again.wait()
    assert calls == ["x", "x"]


# -- time ------------------------------------------------------------------------------------------


async def test_retries_take_their_exact_time(log: Log) -> None:
    """On a clock that jumps; then the event is a dead letter, and the next one comes."""
    loop = asyncio.get_running_loop()
    calls: list[tuple[str, float]] = []
    done = asyncio.Event()
    retry = Retry(3, backoff=lambda: itertools.chain([0.0], itertools.repeat(600.0)))

    @log.on("mailer", on_error=retry)
    async def mail(event: Event[str]) -> None:
        calls.append((event.payload, loop.time() - began))
        if event.payload == "bad":
            raise ValueError(event.payload)
        done.set()

    began = loop.time()
    await log.append_many([("things", "bad"), ("things", "good")])
    await done.wait()
    assert [payload for payload, _ in calls] == ["bad", "bad", "bad", "good"]
    times = [time for _, time in calls]
    assert [round(b - a, 3) for a, b in itertools.pairwise(times)] == [600.0, 600.0, 0.0]
    [letter] = await log.dead_letters()
    assert (letter.event.payload, letter.attempts, letter.error) == ("bad", 3, "ValueError: bad")


async def test_events_expire_as_the_servers_clock_goes_on(fake: FakeServer, log: Log) -> None:
    """When every consumer has them behind it; a reader that was left behind gets a Gap."""
    await log.append_many([("things", "a"), ("things", "b")])
    async with log.read(after="start", gaps=True) as stream, log.consumer("slow") as slow:
        assert await taken(slow, 1) == ["a"]
        assert isinstance(await anext(stream), tuple)
        fake.pass_time(timedelta(days=8))
        await log.append("things", "c")
        assert await log.expire() == 0
        await log.drop("slow")
        assert await log.expire() == 1
        assert await payloads(log) == ["c"]


async def test_a_reader_that_was_left_behind_is_told(fake: FakeServer, log: Log) -> None:
    """By one Gap, which says how many it has missed; then it goes on."""
    async with log.read(after="now", gaps=True) as stream:
        await log.append_many([("things", "a"), ("things", "b")])
        assert (await log.status()).events == 2
        fake.pass_time(timedelta(days=8))
        await log.append("things", "c")
        assert await log.expire() == 1
        gap, event = await anext(stream), await anext(stream)
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.dropped) == (GapReason.EXPIRED, 2)
    assert not isinstance(event, Gap)
    assert event.payload == "c"


async def test_the_status_counts_bytes(log: Log) -> None:
    """Of the payloads alone: there are no indexes."""
    await log.append("things", "é")
    assert (await log.status()).size == 2


async def test_the_clock_does_not_go_back(fake: FakeServer) -> None:
    """Retention would then mean something else than on a server."""
    with pytest.raises(ValueError, match="negative"):
        fake.pass_time(timedelta(seconds=-1))


# -- faults ----------------------------------------------------------------------------------------


async def test_another_takes_over_where_a_session_was_lost(fake: FakeServer, log: Log) -> None:
    """Behind the last commit: what was given last, and was not done, comes again."""
    await log.append_many([("things", text) for text in "abc"])
    other = Log("orders", fake.dsn)
    async with log.consumer("mailer") as first, other, other.consumer("mailer") as second:
        assert await taken(first, 2) == ["a", "b"]
        [served] = (await log.status()).consumers
        waiting = asyncio.ensure_future(taken(second, 2))
        await asyncio.wait({waiting}, timeout=5)
        assert served.pid is not None
        fake.lose(served.pid)
        assert await waiting == ["b", "c"]


async def test_who_was_replaced_moves_nothing(log: Log) -> None:
    """The token is another one after a pause: the commit is refused, and its event comes again."""
    await log.append_many([("things", text) for text in "abc"])
    async with log.consumer("mailer") as consumer:
        assert await taken(consumer, 2) == ["a", "b"]
        await log.pause("mailer")
        await log.resume("mailer")
        batches = consumer.batches(3)
        assert [event.payload for event in await anext(batches)] == ["b", "c"]
        await batches.aclose()


async def test_a_server_that_refuses_is_tried_again(fake: FakeServer, log: Log) -> None:
    """Until it accepts; nothing is appended while there is no connection."""
    async with log.read(after="now") as stream:
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.wait({waiting}, timeout=1)
        fake.refuse()
        fake.lose()
        with pytest.raises(ConnectError):
            await log.append("things", "refused")
        fake.reconnect()
        await log.append("things", "x")
        assert (await waiting).payload == "x"


async def test_what_no_attempt_can_mend_is_raised_at_once(fake: FakeServer) -> None:
    """As a wrong password is, by a PostgreSQL."""
    fake.refuse(permanently=True)
    log = Log("orders", fake.dsn)
    log.on("mailer")(print)
    with pytest.raises(ConnectError):
        await log.start()
    stream = log.read(after="now")
    with pytest.raises(ConnectError):
        await anext(stream)
    await log.aclose()


async def test_a_server_that_does_not_answer_is_given_up(fake: FakeServer) -> None:
    """After operation_timeout; whether the event is there nobody knows."""
    async with Log("orders", fake.dsn, operation_timeout=7) as log:
        await log.install()
        await log.append("things", "a")
        began = asyncio.get_running_loop().time()
        fake.freeze()
        with pytest.raises(ConnectionLostError):
            await log.append("things", "b")
        assert asyncio.get_running_loop().time() - began == pytest.approx(7, abs=0.1)
        fake.thaw()
        assert await payloads(log) == ["a"]


async def test_what_the_server_has_certainly_not_had_is_sent_again(
    fake: FakeServer, log: Log
) -> None:
    """A connection that was lost while it was idle costs nothing."""
    for text in "abc":
        await log.append("things", text)
        fake.lose()
    assert await payloads(log) == ["a", "b", "c"]


async def test_an_unknown_verb_says_so(fake: FakeServer, log: Log) -> None:
    """And is no answer that a test could take for one."""
    session = await fake.log_sessions("orders", connect_timeout=1, timeout=1).open()
    with pytest.raises(NotImplementedError, match="'fly'"):
        await session.fetch(Statement("fly", "SELECT 1"))
    session.terminate()


# -- threads ---------------------------------------------------------------------------------------


def test_threads_have_the_same_log(fake: FakeServer) -> None:
    """BlockingLog appends, also in a transaction, and reads."""
    with BlockingLog("orders", fake.dsn) as log:
        log.install()
        log.append("things", "a")
        with fake.transaction() as transaction:
            log.append("things", "b", connection=transaction)
        with log.read(after="start") as stream:
            assert [next(stream).payload, next(stream).payload] == ["a", "b"]
