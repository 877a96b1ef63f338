"""PgBouncer in the path: refused where nothing would ever arrive, unharmed where it does."""

from __future__ import annotations

import asyncio
import logging
import struct
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify import (
    ConnectError,
    ConnectionLost,
    Keepalive,
    Listener,
    PoolerError,
    Reconnected,
    Replaced,
    RetryScheduled,
    State,
)
from asyncnotify.testing.proxy import FaultProxy
from tests.network.observed_listener import (
    SHORT_BACKOFF,
    WAIT_LIMIT,
    KeptConnections,
    Stopwatch,
    execute,
    fetchval,
    observing,
)
from tests.support.machine import scaled

if TYPE_CHECKING:
    from asyncnotify.testing.proxy import Direction, ProxiedConnection
    from asyncnotify.testing.server import PostgresServer
    from tests.network.conftest import NewPooler

    Connection = asyncpg.Connection[asyncpg.Record]

CONNECT_TIMEOUT = scaled(1.0)
PROOF_LIMIT = scaled(5.0)  # seconds, on top of the connect timeout
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
OURS = "asyncnotify"
WRONG = "battery-staple"

by_dsn_and_by_connect = pytest.mark.parametrize("connects_by", ["dsn", "connect"])


def listener_by(connects_by: str, dsn: str) -> Listener:
    """Make a listener that connects by a DSN or by connect=."""
    limits: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, "backoff": SHORT_BACKOFF}
    if connects_by == "dsn":
        return Listener(dsn, **limits)
    return Listener(connect=KeptConnections(dsn).connect, **limits)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged at WARNING and above."""
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


async def test_r39_a_pooler_that_never_delivers_is_refused(new_pooler: NewPooler) -> None:
    """In transaction and statement mode start() raises in time, and says what to do instead."""
    poolers = [new_pooler(pool_mode=mode) for mode in ("transaction", "statement")]
    listeners = [
        listener_by(connects_by, p.dsn) for p in poolers for connects_by in ("dsn", "connect")
    ]
    began = Stopwatch()
    starts = await asyncio.gather(
        *(listener.start() for listener in listeners), return_exceptions=True
    )
    assert began.seconds < CONNECT_TIMEOUT + PROOF_LIMIT
    for error, listener in zip(starts, listeners, strict=True):
        assert isinstance(error, PoolerError)
        assert "PgBouncer" in str(error)
        assert "pool_mode = session" in str(error)
        assert listener.state is State.CLOSED


@by_dsn_and_by_connect
async def test_r39_a_pooler_in_session_mode_delivers(
    new_pooler: NewPooler, connects_by: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Notifications arrive through it, the listener's own as well, and nobody is warned."""
    pooler = new_pooler()
    began = Stopwatch()
    listener = listener_by(connects_by, pooler.dsn)
    async with observing(listener, pooler.dsn) as observed, listener.stream("orders") as stream:
        assert began.seconds < CONNECT_TIMEOUT + PROOF_LIMIT
        await observed.delivers()
        await listener.notify("orders", "sent through the pooler")
        async with asyncio.timeout(WAIT_LIMIT):
            assert (await anext(stream)).payload == "sent through the pooler"
    assert warnings(caplog) == []


@by_dsn_and_by_connect
async def test_the_pid_of_a_session_behind_a_pooler_is_the_servers(
    new_pooler: NewPooler,
    pooled_server: PostgresServer,
    connects_by: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """PgBouncer tells its clients pids of its own making: no event, report or log line has one."""
    caplog.set_level(logging.INFO)
    ours = f"SELECT pid FROM pg_stat_activity WHERE application_name = '{OURS}'"
    async with observing(listener_by(connects_by, new_pooler().dsn), pooled_server.dsn) as observed:
        pid = await fetchval(pooled_server.dsn, ours)
        assert (await observed.listener.health())["backend_pid"] == pid
        await execute(pooled_server.dsn, f"SELECT pg_terminate_backend({pid})")
        assert (await observed.until(ConnectionLost)).backend_pid == pid
        back = (await observed.until(Reconnected)).backend_pid
        assert back == await fetchval(pooled_server.dsn, ours)
    told = [r.getMessage() for r in caplog.records if "(backend " in r.getMessage()]
    assert len(told) == 3
    for line, known in zip(told, (pid, pid, back), strict=True):
        assert f"(backend {known})" in line


async def test_r39_a_connection_through_a_pool_of_sessions_is_replaced(
    new_pooler: NewPooler, pooled_server: PostgresServer
) -> None:
    """The new session is checked as the first one was, and nothing is missed."""
    listener = Listener(new_pooler().dsn, max_connection_age=0.1)
    events = listener.events()
    async with asyncio.timeout(WAIT_LIMIT), listener, listener.stream("orders") as stream:
        replaced = 0
        for number in range(1_000):
            await execute(pooled_server.dsn, f"NOTIFY orders, '{number}'")
            assert (await anext(stream)).payload == str(number)
            if replaced == 2:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    replaced += isinstance(await anext(events), Replaced)
        assert replaced == 2
        assert listener.stats().reconnects == 0


@by_dsn_and_by_connect
async def test_r39_sessions_lost_behind_the_pooler_are_replaced(
    new_pooler: NewPooler, pooled_server: PostgresServer, connects_by: str
) -> None:
    """When the server ends the session behind it, the listener comes back through the pooler."""
    listener = listener_by(connects_by, new_pooler().dsn)
    async with observing(listener, pooled_server.dsn) as observed:
        await observed.delivers()
        terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        await execute(pooled_server.dsn, f"{terminate} WHERE application_name = '{OURS}'")
        await observed.until(ConnectionLost)
        await observed.until(Reconnected)
        await observed.delivers()


@by_dsn_and_by_connect
async def test_r39_a_pooler_that_restarts_is_waited_for(
    new_pooler: NewPooler, pooled_server: PostgresServer, connects_by: str
) -> None:
    """While the pooler is down it is tried again; once it is up, the listener is back."""
    pooler = new_pooler()
    async with observing(listener_by(connects_by, pooler.dsn), pooled_server.dsn) as observed:
        await observed.delivers()
        pooler.stop()
        await observed.until(ConnectionLost)
        await observed.until(RetryScheduled)
        pooler.start()
        await observed.until(Reconnected)
        await observed.delivers()


async def test_r39_a_session_that_is_given_back_listens_on_nothing(
    new_pooler: NewPooler, pooled_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Two listeners that get the same backends one after the other know nothing of each other."""
    pooler = new_pooler(settings={"default_pool_size": "2"})
    for channel in ("first", "second"):
        listener = Listener(pooler.dsn, heartbeat=0.02, heartbeat_timeout=scaled(2.0))
        async with observing(listener, pooled_server.dsn) as observed, listener.stream(channel):
            before = listener.stats().last_heartbeat
            async with asyncio.timeout(WAIT_LIMIT):
                while listener.stats().last_heartbeat == before:
                    await observed.delivers()  # too many channels would show in the heartbeat
    assert warnings(caplog) == []
    for connection in [await asyncpg.connect(pooler.dsn) for _ in range(2)]:
        assert await connection.fetch("SELECT pg_listening_channels()") == []
        await connection.close()


def startup_parameters(sent: bytes) -> set[str]:
    """Return the names of the parameters in a client's first message."""
    size, _ = struct.unpack_from("!ii", sent)
    words = sent[8:size].split(b"\0")
    return {word.decode() for word in words[::2] if word}


async def test_r39_no_startup_parameter_is_sent_that_poolers_refuse(new_pooler: NewPooler) -> None:
    """A pooler that ignores no parameter is satisfied; it refuses those that keepalive needs."""
    pooler = new_pooler()
    with pytest.raises(asyncpg.ProtocolViolationError, match="tcp_keepalives_idle"):
        await asyncpg.connect(pooler.dsn, server_settings={"tcp_keepalives_idle": "10"})
    sent: dict[ProxiedConnection, bytes] = {}

    def note(connection: ProxiedConnection, direction: Direction, data: bytes) -> None:
        if direction == "to_server":
            sent[connection] = sent.get(connection, b"") + data

    async with FaultProxy.for_dsn(pooler.dsn) as proxy:
        proxy.tap(note)
        async with Listener(proxy.proxied_dsn(pooler.dsn), start_timeout=scaled(2.0)) as listener:
            await listener.notify("orders")
    assert len(sent) == 3  # the listening one, that of the proof, the notifying one
    for data in sent.values():
        parameters = startup_parameters(data.removeprefix(SSL_REQUEST))
        assert parameters == {"user", "database", "client_encoding", "application_name"}


async def test_r38_the_sessions_of_a_pool_keep_their_own_keepalive(
    new_pooler: NewPooler,
) -> None:
    """The connection behind a pooler is not ours, so nothing is set there."""
    pooler = new_pooler()
    kept = KeptConnections(pooler.dsn)
    async with Listener(connect=kept.connect, keepalive=Keepalive(7, 7, 7, 7), heartbeat=60):
        ours = await kept.opened[0].fetchval("SHOW tcp_keepalives_idle")
    assert ours == await fetchval(pooler.dsn, "SHOW tcp_keepalives_idle")
    assert ours != "7"


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="proved"),
        pytest.param({"max_client_conn": "1"}, id="not proved"),
    ],
)
async def test_r39_the_proof_leaves_no_channel_behind(
    new_pooler: NewPooler, settings: dict[str, str]
) -> None:
    """Once started, the listening session listens on what was asked for, and on nothing else."""
    kept = KeptConnections(new_pooler(settings=settings).dsn)
    async with Listener(connect=kept.connect, heartbeat=60) as listener:
        await listener.listen("orders", print)
        found = await kept.opened[0].fetch("SELECT pg_listening_channels() AS channel")
    assert [row["channel"] for row in found] == ["orders"]


async def test_r39_without_a_second_connection_it_warns_and_goes_on(
    new_pooler: NewPooler, pooled_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A pooler that takes one client only is believed, with one WARNING."""
    pooler = new_pooler(settings={"max_client_conn": "1"})
    async with observing(
        Listener(pooler.dsn, backoff=SHORT_BACKOFF), pooled_server.dsn
    ) as observed:
        await observed.delivers()
        [warning] = warnings(caplog)
        assert "could not check whether" in warning


async def test_r39_a_pool_of_one_is_believed_with_a_warning(
    new_pooler: NewPooler, pooled_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The second client of a full pool is let in and then kept waiting: that proves nothing."""
    pooler = new_pooler(settings={"default_pool_size": "1"})
    began = Stopwatch()
    listener = Listener(
        pooler.dsn,
        connect_timeout=CONNECT_TIMEOUT,
        operation_timeout=scaled(0.5),
        start_timeout=scaled(3.0),
    )
    async with observing(listener, pooled_server.dsn) as observed:
        assert began.seconds < CONNECT_TIMEOUT + PROOF_LIMIT
        await observed.delivers()
        [warning] = warnings(caplog)
        assert "could not check whether" in warning


async def test_p1_a_pooler_that_returns_in_another_mode_is_refused(
    new_pooler: NewPooler, pooled_server: PostgresServer
) -> None:
    """Restarted in transaction mode it is no connection; restarted in session mode it is one."""
    pooler = new_pooler()
    async with observing(
        Listener(pooler.dsn, backoff=SHORT_BACKOFF), pooled_server.dsn
    ) as observed:
        pooler.restart(pool_mode="transaction")
        refused = await observed.until(RetryScheduled, timeout=scaled(4.0))
        assert isinstance(refused.cause, PoolerError)
        assert observed.listener.state is State.DEGRADED
        pooler.restart(pool_mode="session")
        await observed.until(Reconnected)
        await observed.delivers()


async def test_p5_a_pooler_that_stops_delivering_is_noticed(
    new_pooler: NewPooler, pooled_server: PostgresServer
) -> None:
    """Switched to transaction mode under the open connection, it has lost that connection."""
    pooler = new_pooler()
    listener = Listener(
        pooler.dsn, heartbeat=0.1, heartbeat_timeout=scaled(0.5), backoff=SHORT_BACKOFF
    )
    async with observing(listener, pooled_server.dsn) as observed:
        pooler.reload(pool_mode="transaction")
        await observed.until(ConnectionLost, timeout=scaled(4.0))
        pooler.reload(pool_mode="session")
        await observed.until(Reconnected)
        await observed.delivers()


async def test_r39_a_refused_start_leaves_nothing_in_the_pool(new_pooler: NewPooler) -> None:
    """The next client of the pool's session listens on no channel of ours."""
    pooler = new_pooler(pool_mode="transaction")
    with pytest.raises(PoolerError):
        await Listener(pooler.dsn).start()
    connection = await asyncpg.connect(pooler.dsn)
    status = await connection.execute("SELECT pg_listening_channels()")
    await connection.close()
    assert status == "SELECT 0"


async def test_r43_no_password_is_told_of(
    new_pooler: NewPooler,
    pooled_server: PostgresServer,
    alice: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Accepted, refused, lost, not delivered to: neither log nor error holds the password."""
    caplog.set_level(logging.DEBUG)
    pooler = new_pooler(users={"alice": alice})
    right = pooler.dsn_for("postgres", user="alice", password=alice)
    wrong = pooler.dsn_for("postgres", user="alice", password=WRONG)
    async with observing(Listener(right, backoff=SHORT_BACKOFF), pooled_server.dsn) as observed:
        await observed.delivers()
        with pytest.raises(ConnectError) as refused:
            await Listener(wrong, start_timeout=scaled(0.2)).start()
        pooler.restart()
        await observed.until(Reconnected)
        told = [repr(observed.listener), repr(observed.listener.stats())]
    pooler.restart(pool_mode="transaction")
    with pytest.raises(PoolerError) as useless:
        await Listener(right).start()
    told += [caplog.text, *traceback.format_exception(refused.value)]
    told += traceback.format_exception(useless.value)
    for secret in (alice, WRONG):
        assert not [text for text in told if secret in text]
