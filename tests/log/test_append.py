"""Appending, in the caller's transaction on each kind of connection, and on the log's own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import (
    Channel,
    ChannelNameError,
    ConnectError,
    ConnectionLostError,
    PayloadError,
    PayloadTooLargeError,
)
from asyncnotify.log import EntryError, Log, LogNameError, NotInstalledError
from asyncnotify.log._entries import PAYLOAD_LIMIT
from tests.contract.test_notifier_transactions import CALLERS, OPENERS, Caller
from tests.log.conftest import transaction_of
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from asyncnotify.log._names import Names
    from tests.log.conftest import Connection, Reader

HOSTILE: Final = 'it\'s \\ "quoted" {} {0} %s :a $1 é \n 日本 \x1b'
ORDERS: Final = Channel("orders", dict)


@pytest_asyncio.fixture
async def log(dsn: str, installed: Names) -> AsyncIterator[Log]:
    """A log that has been installed."""
    async with Log("orders", dsn) as log:
        yield log


@pytest_asyncio.fixture(params=CALLERS["dsn"])
async def caller(
    request: pytest.FixtureRequest, dsn: str, installed: Names
) -> AsyncIterator[Caller]:
    """A caller in a transaction, for each kind of connection."""
    async with OPENERS[request.param](dsn) as caller:
        yield caller


@pytest.mark.needs_server("drivers")
async def test_an_event_is_part_of_the_callers_transaction(
    log: Log, caller: Caller, reader: Reader
) -> None:
    """It is there once that commits, with all that was given, whatever it holds."""
    made = await log.append(
        "things", HOSTILE, key=HOSTILE, headers={"a": HOSTILE}, connection=caller.connection
    )
    assert await reader.read() == []
    await caller.commit()
    [row] = await reader.read()
    assert (row["uid"], row["channel"], row["payload"], row["key"]) == (
        made,
        "things",
        HOSTILE,
        HOSTILE,
    )
    assert row["headers"].count("quoted") == 1


@pytest.mark.needs_server("drivers")
async def test_many_events_are_part_of_the_callers_transaction(
    log: Log, caller: Caller, reader: Reader
) -> None:
    """In their order, with keys and headers where there are any, in portions of 1,000."""
    events: list[tuple[Any, ...]] = [("things", f"{n} {HOSTILE}") for n in range(1_100)]
    events[5] += ("a key",)
    events[7] += (None, {"a": "b"})
    assert await log.append_many(events, connection=caller.connection) == 1_100
    await caller.commit()
    rows = await reader.read()
    assert [row["payload"] for row in rows] == [event[1] for event in events]
    assert {n: row["key"] for n, row in enumerate(rows) if row["key"]} == {5: "a key"}
    assert {n: row["headers"] for n, row in enumerate(rows) if row["headers"]} == {7: '{"a": "b"}'}


@pytest.mark.needs_server("drivers")
async def test_an_aborted_transaction_appends_nothing(
    log: Log, caller: Caller, reader: Reader
) -> None:
    """Neither one that rolls back, nor one in which a statement has failed."""
    await log.append("things", "rolled back", connection=caller.connection)
    await caller.rollback()
    await log.append("things", "alone")
    assert await reader.payloads() == ["alone"]


@pytest.mark.needs_server("SQL that fails")
async def test_a_failed_transaction_says_so(log: Log, admin: Connection, reader: Reader) -> None:
    """The server refuses every further statement, and append() raises that."""
    transaction = admin.transaction()
    await transaction.start()
    with pytest.raises(asyncpg.UndefinedTableError):
        await admin.execute("SELECT * FROM nothing")
    with pytest.raises(asyncpg.InFailedSQLTransactionError):
        await log.append("things", "x", connection=admin)
    await transaction.rollback()
    assert await reader.payloads() == []


@pytest.mark.parametrize(
    "payload", ["", "x", "é" * 1_000, "x" * 10_000_000, "\x01\x1b\n" * 100_000]
)
async def test_payloads_of_any_size_arrive_unchanged(
    log: Log, admin: Connection, reader: Reader, payload: str
) -> None:
    """On a connection of the log's own, and on the caller's."""
    await log.append("things", payload)
    async with transaction_of(admin) as connection:
        await log.append("things", payload, connection=connection)
    assert await reader.payloads() == [payload, payload]


async def test_a_channel_codes_payloads_of_any_size(log: Log, reader: Reader) -> None:
    """The limit of a NOTIFY does not count here."""
    long = {"text": "x" * 100_000}
    await log.append(ORDERS, long)
    [text] = await reader.payloads()
    assert ORDERS.decode(text) == long


@pytest.mark.needs_server("a look at the transactions by SQL")
async def test_own_calls_that_meet_share_a_transaction_and_keep_their_order(
    log: Log, admin: Connection, reader: Reader
) -> None:
    """A hundred tasks at once need few transactions; each caller's events keep their order."""

    async def append(task: int) -> None:
        for n in range(10):
            await log.append("things", f"{task}:{n}")

    await asyncio.gather(*map(append, range(100)))
    read = await reader.payloads()
    assert len(read) == 1_000
    for task in range(100):
        own = [payload for payload in read if payload.startswith(f"{task}:")]
        assert own == [f"{task}:{n}" for n in range(10)]
    assert await admin.fetchval("SELECT count(DISTINCT x) FROM asyncnotify.orders_events") < 50


@pytest.mark.needs_server("a pool")
async def test_a_pool_lends_a_connection_and_gets_it_back(
    dsn: str, installed: Names, reader: Reader
) -> None:
    """Between appends the only connection of the pool is free."""
    async with (
        asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool,
        Log("orders", pool=pool) as log,
    ):
        for n in range(3):
            await log.append("things", str(n))
            async with pool.acquire() as connection:
                assert await connection.fetchval("SHOW jit") == "on"
    assert await reader.payloads() == ["0", "1", "2"]


Wrong: TypeAlias = "Callable[[Any, Any], Awaitable[object]]"

WRONG: Final[list[tuple[Wrong, type[Exception]]]] = [
    (lambda log, c: log.append("", "x", connection=c), ChannelNameError),
    (lambda log, c: log.append("x" * 64, "x", connection=c), ChannelNameError),
    (lambda log, c: log.append("a", "a\0b", connection=c), PayloadError),
    (lambda log, c: log.append("a", "\ud800", connection=c), PayloadError),
    (lambda log, c: log.append("a", 5, connection=c), PayloadError),
    (
        lambda log, c: log.append("a", "x" * (PAYLOAD_LIMIT + 1), connection=c),
        PayloadTooLargeError,
    ),
    (lambda log, c: log.append(ORDERS, {"a": float("nan")}, connection=c), PayloadError),
    (lambda log, c: log.append("a", "x", key="\0", connection=c), EntryError),
    (lambda log, c: log.append("a", "x", key=5, connection=c), EntryError),
    (lambda log, c: log.append("a", "x", key="x" * 1_025, connection=c), EntryError),
    (lambda log, c: log.append("a", "x", headers=["a"], connection=c), EntryError),
    (lambda log, c: log.append("a", "x", headers={"a": 5}, connection=c), EntryError),
    (lambda log, c: log.append("a", "x", headers={"a": "\0"}, connection=c), EntryError),
    (
        lambda log, c: log.append("a", "x", headers={"a": "x" * 65_536}, connection=c),
        EntryError,
    ),
    (lambda log, c: log.append_many(5, connection=c), TypeError),
    (lambda log, c: log.append_many(["abc"], connection=c), TypeError),
    (lambda log, c: log.append_many([("a",)], connection=c), TypeError),
    (lambda log, c: log.append_many([("a", "\0")], connection=c), PayloadError),
    (lambda log, c: log.append("a", "x", connection=c or object()), TypeError),
]


@pytest.mark.parametrize(("wrong", "error"), WRONG)
async def test_what_cannot_be_stored_is_refused_before_any_statement(
    wrong: Wrong, error: type[Exception]
) -> None:
    """On a server that does not exist: nothing was sent, or the error would be another."""
    with pytest.raises(error):
        await wrong(Log("orders", "postgresql://127.0.0.1:1/nowhere"), None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Orders"},
        {"wake": "now"},
        {"connect_timeout": 0},
        {"operation_timeout": None},
        {"close_timeout": True},
        {"keepalive": 5},
        {"nonsense": 1},
        {"pool": 5},
        {"pool": 5, "connect": print},
        {"connect": "postgresql://"},
    ],
)
def test_wrong_arguments_are_refused_when_they_are_given(wrong: dict[str, Any]) -> None:
    """By the constructor, with TypeError or ValueError."""
    options: dict[str, Any] = {"name": "orders"}
    options.update(wrong)
    with pytest.raises((TypeError, ValueError)):
        Log(**options)
    with pytest.raises(LogNameError):
        Log("Orders")


async def test_without_installation_the_error_says_so(dsn: str) -> None:
    """And the log can be used once it has been installed."""
    async with Log("orders", dsn) as log:
        with pytest.raises(NotInstalledError, match=r"'orders'.*install\(\)"):
            await log.append("things", "x")
        await log.install()
        await log.append("things", "x")


async def test_without_a_server_nothing_was_appended() -> None:
    """And the error says so."""
    async with Log("orders", "postgresql://127.0.0.1:1/nowhere") as log:
        with pytest.raises(ConnectError):
            await log.append("things", "x")


@pytest.mark.needs_server("SQL")
async def test_a_connection_that_dies_is_told_and_replaced(
    log: Log, admin: Connection, reader: Reader
) -> None:
    """The call in flight raises ConnectionLostError or succeeds; the next one connects anew."""
    await log.append("things", "first")
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'asyncnotify' AND datname = current_database()"
    )
    sent = ["first"]
    while len(sent) < 3:
        try:
            await log.append("things", str(len(sent)))
        except ConnectionLostError:
            continue
        sent.append(str(len(sent)))
    assert await reader.payloads() == sent


@pytest.mark.needs_server("SQL that refuses an event")
async def test_one_bad_call_does_not_fail_those_that_meet_it(
    log: Log, admin: Connection, reader: Reader
) -> None:
    """What the server refuses is refused to its caller alone."""
    await admin.execute(
        "ALTER TABLE asyncnotify.orders_events ADD CONSTRAINT mine CHECK (payload <> 'bad')"
    )
    results = await asyncio.gather(
        *(log.append("things", payload) for payload in ("a", "bad", "b")), return_exceptions=True
    )
    assert isinstance(results[1], asyncpg.CheckViolationError)
    assert await reader.payloads() == ["a", "b"]


async def test_after_aclose_what_was_accepted_is_there(dsn: str, reader: Reader) -> None:
    """aclose() waits for calls in flight; the log may be used again, on a new connection."""
    log = Log("orders", dsn)
    calls = [asyncio.ensure_future(log.append("things", str(n))) for n in range(10)]
    await asyncio.sleep(0)
    await log.aclose()
    await asyncio.gather(*calls)
    await log.append("things", "again")
    await log.aclose()
    assert await reader.payloads() == [*map(str, range(10)), "again"]


@pytest.mark.needs_server("a connection that listens")
async def test_wake_after_a_commit_is_sent_by_another_connection(
    dsn: str, admin: Connection, installed: Names
) -> None:
    """With wake="after" the appending transaction does not notify, and a notification comes."""
    woken = asyncio.Event()

    def wake(connection: object, pid: int, channel: str, payload: object) -> None:
        woken.set()

    await admin.add_listener(installed.wake_channel, wake)
    async with Log("orders", dsn, wake="after") as log:
        await log.append("things", "x")
        async with asyncio.timeout(scaled(10)):
            await woken.wait()
            woken.clear()
            await log.wake()
            await woken.wait()


@pytest.mark.needs_server("a connection that listens")
async def test_wake_poll_sends_nothing(dsn: str, admin: Connection, installed: Names) -> None:
    """With wake="poll" no notification is sent: one that is sent later comes first."""
    heard: list[object] = []

    def hear(connection: object, pid: int, channel: str, payload: object) -> None:
        heard.append(payload)

    await admin.add_listener(installed.wake_channel, hear)
    async with Log("orders", dsn, wake="poll") as log:
        await log.append("things", "x")
        await log.append_many([("things", "x")] * 3)
        await admin.execute(f"SELECT pg_notify('{installed.wake_channel}', 'fence')")
    while not heard:
        await admin.execute("SELECT 1")
    assert heard == ["fence"]


@pytest.mark.parametrize("failure", [ValueError, asyncio.CancelledError])
async def test_a_call_that_fails_says_how_many_events_are_there(
    log: Log, failure: type[BaseException]
) -> None:
    """Also one that is cancelled: those of the portions that have been committed."""

    def events() -> Iterator[tuple[str, str]]:
        for number in range(2_500):
            yield "things", str(number)
        raise failure

    with pytest.raises(failure) as failed:
        await log.append_many(events())
    assert failed.value.__notes__ == ["2000 events before it have been appended"]
    assert (await log.status()).events == 2_000
