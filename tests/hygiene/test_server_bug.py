"""Errors of the server: one that can be repaired by us, and those that are the caller's affair."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify import (
    ConnectionLost,
    Gap,
    GapReason,
    Listener,
    Notification,
    Reconnected,
    RetryScheduled,
)
from tests.hygiene.error_injector import READY, ErrorInjector, error_response
from tests.hygiene.secret_detector import OURS
from tests.hygiene.secrets_harness import SHORT_BACKOFF, WAIT_LIMIT, until
from tests.support.server_faults import ServerFaults
from tests.support.server_features import needs_small_queue

if TYPE_CHECKING:
    from asyncnotify import Stream
    from asyncnotify.testing.server import PostgresServer
    from tests.hygiene.secret_detector import SecretDetector
    from tests.hygiene.secrets_harness import Connection

    Items = Stream[Notification[str] | Gap]

TEXT = "could not access status of transaction 733"
TRUNCATED = error_response("58P01", TEXT)
USAGE = "SELECT pg_catalog.pg_notification_queue_usage()"
REPAIRING = "LISTEN failed with"
FLOOD = "SELECT count(pg_notify('c', lpad(g::text, 7000, '0'))) FROM generate_series(1, 9) g"

by_dsn_and_by_connect = pytest.mark.parametrize("connects_by", ["dsn", "connect"])


def listener_by(connects_by: str, dsn: str, **options: Any) -> Listener:
    """Make a listener that connects by a DSN or by connect=."""
    options = {"backoff": SHORT_BACKOFF, **options}
    if connects_by == "dsn":
        return Listener(dsn, **options)
    settings = {"application_name": OURS}
    return Listener(
        connect=functools.partial(asyncpg.connect, dsn, server_settings=settings), **options
    )


def said(injector: ErrorInjector) -> list[str]:
    """Return what the server was asked that has to do with the bug and its repair."""
    return [s for s in injector.statements if s == USAGE or s.startswith("LISTEN")]


def repairs(detector: SecretDetector) -> int:
    """Return how often a repair was logged."""
    return sum(REPAIRING in line for line in detector.lines)


async def gap_of(stream: Items) -> GapReason:
    """Return the reason of the Gap that a stream has to yield next."""
    async with asyncio.timeout(WAIT_LIMIT):
        item = await anext(stream)
    assert isinstance(item, Gap)
    return item.reason


async def delivers(root: Connection, stream: Items, channel: str = "orders") -> None:
    """Check that a notification is the next that a stream yields."""
    await root.execute("SELECT pg_notify($1, 'news')", channel)
    async with asyncio.timeout(WAIT_LIMIT):
        item = await anext(stream)
    assert isinstance(item, Notification)
    assert item[:2] == (channel, "news")


@by_dsn_and_by_connect
@pytest.mark.parametrize(
    "error",
    [
        pytest.param(("58P01", TEXT), id="both"),
        pytest.param(("58P01", "konnte auf den Status nicht zugreifen"), id="code"),
        pytest.param(("XX000", TEXT), id="text"),
    ],
)
async def test_the_bug_of_listen_is_repaired_at_once(
    injector: ErrorInjector,
    root: Connection,
    detector: SecretDetector,
    connects_by: str,
    error: tuple[str, str],
) -> None:
    """Known by its code or its text, it is met with an emptied queue and one more LISTEN."""
    async with listener_by(connects_by, injector.dsn) as listener:
        injector.answer("LISTEN", error_response(*error))
        async with listener.stream("orders", gaps=True) as stream:
            assert said(injector) == ['LISTEN "orders"', USAGE, 'LISTEN "orders"']
            assert await gap_of(stream) is GapReason.START
            await delivers(root, stream)
        assert listener.stats().reconnects == 0
    [warning] = [line for line in detector.lines if REPAIRING in line]
    assert error[1] in warning


async def test_the_repair_is_a_warning_of_the_connection(
    injector: ErrorInjector, caplog: pytest.LogCaptureFixture
) -> None:
    """A line at WARNING says what is wrong with the server, and what repairs it."""
    async with Listener(injector.dsn) as listener:
        injector.answer("LISTEN", TRUNCATED)
        await listener.listen("orders", print)
    [record] = [r for r in caplog.records if REPAIRING in r.getMessage()]
    assert (record.name, record.levelno) == ("asyncnotify.connection", logging.WARNING)
    assert "emptying the queue has repaired that" in record.getMessage()


@by_dsn_and_by_connect
async def test_a_replay_that_meets_the_bug_is_repaired(
    injector: ErrorInjector, root: Connection, detector: SecretDetector, connects_by: str
) -> None:
    """It does not cost the new connection, and every channel is listened on again."""
    channels = [f"channel {number}" for number in range(5)]
    listener = listener_by(connects_by, injector.dsn)
    events = listener.events()
    async with listener, listener.stream(*channels, gaps=True) as stream:
        assert await gap_of(stream) is GapReason.START
        injector.answer("LISTEN", TRUNCATED)
        pid = (await listener.health(server=False))["backend_pid"]
        await root.execute("SELECT pg_terminate_backend($1)", pid)
        assert (await until(events, Reconnected)).attempts == 1
        assert await gap_of(stream) is GapReason.RECONNECT
        for channel in channels:
            await delivers(root, stream, channel)
    assert repairs(detector) == 1


@by_dsn_and_by_connect
async def test_a_first_start_that_meets_the_bug_is_repaired(
    injector: ErrorInjector, detector: SecretDetector, connects_by: str
) -> None:
    """start() with a handler that was registered before is not delayed by it."""
    listener = listener_by(connects_by, injector.dsn)
    listener.on("orders")(print)
    injector.answer("LISTEN", TRUNCATED)
    async with listener:
        assert said(injector) == ['LISTEN "orders"', USAGE, 'LISTEN "orders"']
    assert repairs(detector) == 1


@by_dsn_and_by_connect
async def test_what_the_repair_does_not_cure_costs_the_connection(
    injector: ErrorInjector, root: Connection, detector: SecretDetector, connects_by: str
) -> None:
    """It is tried once for a LISTEN; then the session is replaced, with its cause, and a Gap."""
    listener = listener_by(connects_by, injector.dsn)
    events = listener.events()
    async with listener, listener.stream("other", gaps=True) as stream:
        assert await gap_of(stream) is GapReason.START
        injector.answer('LISTEN "orders"', TRUNCATED, times=2)
        await listener.listen("orders", print)  # by the next connection
        lost = await until(events, ConnectionLost)
        assert isinstance(lost.cause, asyncpg.PostgresError)
        assert lost.cause.sqlstate == "58P01"
        assert await gap_of(stream) is GapReason.RECONNECT
        await delivers(root, stream, "other")
    assert injector.statements.count(USAGE) == repairs(detector) == 1
    assert "emptying the queue did not help" in "".join(detector.lines)


async def test_a_queue_that_is_held_is_one_warning_that_names_the_holder(
    injector: ErrorInjector, root: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """However often LISTEN fails meanwhile; and the listener is back once the server lets it."""
    caplog.set_level(logging.INFO)
    listener = Listener(injector.dsn, backoff=SHORT_BACKOFF)
    events = listener.events()
    async with listener, ServerFaults(injector.server.dsn) as faults:
        async with faults.queue_held() as holder:
            pid = holder.get_server_pid()
            await holder.execute("SET application_name = 'laggard'")
            injector.answer('LISTEN "orders"', TRUNCATED, times=20)
            listening = asyncio.create_task(listener.listen("orders", print))
            for _ in range(9):
                assert (await until(events, RetryScheduled)).attempt
        await listening
        await faults.until_gone(pid)
    told = [record for record in caplog.records if REPAIRING in record.getMessage()]
    assert [record.levelname for record in told] == ["WARNING"] + ["INFO"] * 9
    warning = told[0].getMessage()
    assert f"backend {pid} ('laggard', idle in transaction, for " in warning
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 2  # and that the connection was lost


async def test_other_errors_of_listen_are_not_taken_for_it(
    injector: ErrorInjector, detector: SecretDetector
) -> None:
    """The queue is not asked about when LISTEN fails for a reason that this would not cure."""
    listener = Listener(injector.dsn, backoff=SHORT_BACKOFF)
    events = listener.events()
    async with listener:
        injector.answer("LISTEN", error_response("53200", "out of shared memory"))
        await listener.listen("orders", print)
        assert isinstance((await until(events, ConnectionLost)).cause, asyncpg.OutOfMemoryError)
    assert USAGE not in injector.statements
    assert not repairs(detector)


async def test_the_bug_is_repaired_behind_a_pooler(
    guarded_server: PostgresServer, root: Connection, detector: SecretDetector
) -> None:
    """The first LISTEN of a connection may be that of the proof; it is repaired as any other."""
    async with ErrorInjector(guarded_server, other_pid=True) as injector:
        injector.answer("LISTEN", TRUNCATED)
        async with Listener(injector.dsn, backoff=SHORT_BACKOFF, start_timeout=WAIT_LIMIT):
            assert USAGE in injector.statements
    assert repairs(detector) == 1


async def test_r1_an_error_that_nobody_asked_for_ends_the_session(
    injector: ErrorInjector, root: Connection, asyncio_errors: list[str]
) -> None:
    """The same bug, met by an idle session on a notification: a Gap, and it goes on."""
    listener = Listener(injector.dsn, backoff=SHORT_BACKOFF)
    events = listener.events()
    async with listener, listener.stream("orders", gaps=True) as stream:
        assert await gap_of(stream) is GapReason.START
        injector.send_unasked(TRUNCATED + READY)
        await until(events, ConnectionLost)
        await until(events, Reconnected)
        assert await gap_of(stream) is GapReason.RECONNECT
        await delivers(root, stream)
        assert listener.stats().reconnects == 1
    asyncio_errors.clear()  # asyncpg was not prepared for it


# -- errors that are the caller's -----------------------------------------------------------------


async def fill(root: Connection) -> None:
    """Notify until the queue is full; it has room for a tenth of what is tried."""
    for _ in range(100):
        await root.execute(FLOOD)


async def test_r40_a_full_queue_surfaces_to_every_caller(
    guarded_server: PostgresServer, root: Connection
) -> None:
    """54000 is the driver's own error, one for each of the calls that were sent together."""
    needs_small_queue(guarded_server)
    async with (
        Listener(guarded_server.dsn) as listener,
        listener.stream("orders") as stream,
        ServerFaults(guarded_server.dsn) as faults,
    ):
        async with faults.queue_held("c", "orders") as holder:
            pid = holder.get_server_pid()
            with pytest.raises(asyncpg.ProgramLimitExceededError):
                await fill(root)
            sent = (listener.notify("orders", f"{number:07999}") for number in range(20))
            errors = await asyncio.gather(*sent, return_exceptions=True)
            # What is left of the queue's last page may still take the first
            refused = [error for error in errors if error is not None]
            assert len(refused) >= 19
            assert {type(error) for error in refused} == {asyncpg.ProgramLimitExceededError}
            assert len({id(error) for error in refused}) == len(refused)
        await faults.until_gone(pid)
        await listener.health()  # asking how full the queue is empties it
        await listener.notify("orders", "at last")
        async with asyncio.timeout(WAIT_LIMIT):
            while (await anext(stream)).payload != "at last":
                pass
        assert listener.stats().reconnects == 0


async def test_r40_a_standby_surfaces_to_the_caller(
    guarded_server: PostgresServer, root: Connection
) -> None:
    """25006 is the driver's own error; the publisher's connection serves the next call."""
    opened: list[Connection] = []
    with guarded_server.standby() as standby:
        dsns = itertools.chain([guarded_server.dsn], itertools.repeat(standby.dsn))

        async def connect() -> Connection:
            settings = {"application_name": OURS}
            opened.append(await asyncpg.connect(next(dsns), server_settings=settings))
            return opened[-1]

        async with Listener(connect=connect) as listener:
            for _ in range(2):
                sent = (listener.notify("orders", str(number)) for number in range(3))
                errors = await asyncio.gather(*sent, return_exceptions=True)
                assert {type(e) for e in errors} == {asyncpg.ReadOnlySQLTransactionError}
                assert {e.sqlstate for e in errors if isinstance(e, asyncpg.PostgresError)} == {
                    "25006"
                }
            assert len(opened) == 2


@by_dsn_and_by_connect
async def test_r22_an_unlisten_that_the_server_cancels_is_given_again(
    guarded_server: PostgresServer, connects_by: str
) -> None:
    """UNLISTEN that ran into statement_timeout is repeated: the server must agree in the end."""
    async with ErrorInjector(guarded_server) as injector:
        listener = listener_by(connects_by, injector.dsn)
        async with listener:
            await listener.listen("orders", print)
            injector.answer("UNLISTEN", error_response("57014", "canceling statement"))
            await listener.unlisten("orders")
            assert len([s for s in injector.statements if s.startswith("UNLISTEN")]) == 2
            health = await listener.health()
        assert (health["channels_confirmed"], listener.stats().reconnects) == (0, 0)
