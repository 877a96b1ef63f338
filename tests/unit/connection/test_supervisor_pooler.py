"""A listener with a pooler in the path: when it is tried out, and what becomes of the run."""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import (
    Connected,
    ConnectionLost,
    ConnectTimeoutError,
    Listener,
    PoolerError,
    RetryScheduled,
    State,
)
from tests.unit.fake_connection import FakeConnection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

HEARTBEAT = 10.0
AUDIT = 5 * HEARTBEAT
WAIT_LIMIT = 2.0  # seconds that a second connection has, and again the notification
BACKEND = 4711  # not what the pooler tells as a pid
RETURN_TIME = 2.0  # seconds in which a notification of the listener's own has to arrive
CLOSING_TIME = 0.02  # seconds that an attempt takes to close what it has opened
NEXT_ATTEMPT = 60.0  # seconds until a check that could not be made is attempted again
PROBE = re.compile(r'NOTIFY "(.+)"')
STANDBY = asyncpg.ReadOnlySQLTransactionError("standby")


class PooledConnection(FakeConnection):
    """A connection whose backend is not the one that the client was told of."""

    def __init__(self, pooler: Pooler) -> None:
        super().__init__()
        self.pooler = pooler
        self.pid = len(pooler.made) + 1

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        """Answer as the server does through a pooler."""
        await super().execute(query, *args, timeout=timeout)
        for verb, faults in self.pooler.faults.items():
            if query.startswith(verb) and "asyncnotify_probe" in query and faults:
                raise faults.pop()
        if probe := PROBE.fullmatch(query):
            self.pooler.notified(probe[1])
        if self.pooler.passes_for_a_server:
            return [[self.pid]] if query == "SELECT pg_catalog.pg_backend_pid()" else "SELECT 1"
        if query == "SELECT pg_catalog.pg_backend_pid()":
            return [[BACKEND]]
        return "SELECT 0" if "pg_backend_pid" in query else "SELECT 1"


class Pooler:
    """What the connections lead to; how it behaves is set by the test at any time."""

    def __init__(self, heartbeat: float | None = HEARTBEAT) -> None:
        self.delivers = True
        self.passes_for_a_server = False  # tells the pids of its backends
        self.takes_two: bool | None = True  # None: the second connection is never made
        self.faults: dict[str, list[Exception]] = {}  # of statements on the channel of the trial
        self.has_closed_attempt = False
        self.made: list[PooledConnection] = []
        self.events: list[object] = []
        self.listener = Listener(
            connect=self.connect, heartbeat=heartbeat, on_event=self.events.append
        )

    async def connect(self) -> PooledConnection:
        """Make a connection, unless it is the second one and there is none to be had."""
        if self.open and not self.takes_two:
            if self.takes_two is None:
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    await asyncio.sleep(CLOSING_TIME)
                    self.has_closed_attempt = True
            message = "no more connections allowed"
            raise asyncpg.TooManyConnectionsError(message)
        self.made.append(PooledConnection(self))
        return self.made[-1]

    def notified(self, channel: str) -> None:
        """Bring a notification to whoever listens, if this is a pooler that does so."""
        for connection in self.open if self.delivers else []:
            if f'LISTEN "{channel}"' in connection.statements:
                connection._process_notification(1, channel, "")  # noqa: SLF001 - the driver's part

    @property
    def open(self) -> list[PooledConnection]:
        """The connections that are open."""
        return [connection for connection in self.made if not connection.closed]


@asynccontextmanager
async def new_pooler(heartbeat: float | None = HEARTBEAT) -> AsyncGenerator[Pooler]:
    """Make a pooler, and a listener that goes through it once the test starts that."""
    pooler = Pooler(heartbeat)
    try:
        yield pooler
    finally:
        await pooler.listener.aclose()
    assert pooler.open == []


@pytest_asyncio.fixture
async def pooler() -> AsyncIterator[Pooler]:
    """One with heartbeats."""
    async with new_pooler() as pooler:
        yield pooler


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged at WARNING and above."""
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def now() -> float:
    """Return the loop's time."""
    return asyncio.get_running_loop().time()


async def test_r39_a_pooler_that_delivers_is_taken(
    pooler: Pooler, caplog: pytest.LogCaptureFixture
) -> None:
    """The notification has come: the second connection and the channel of the trial are gone."""
    await pooler.listener.start()
    assert pooler.listener.state is State.CONNECTED
    assert len(pooler.made) == 2
    assert pooler.open == pooler.made[:1]
    listened = [s for s in pooler.made[0].statements if s.startswith(("LISTEN", "UNLISTEN"))]
    assert [statement.partition(" ")[0] for statement in listened] == ["LISTEN", "UNLISTEN"]
    assert len({statement.partition(" ")[2] for statement in listened}) == 1
    assert warnings(caplog) == []


async def test_r39_a_pooler_that_does_not_deliver_is_refused_in_time(pooler: Pooler) -> None:
    """start() raises, and says what to do instead."""
    pooler.delivers = False
    began = now()
    with pytest.raises(PoolerError, match="pool_mode = session"):
        await pooler.listener.start()
    assert now() - began == pytest.approx(WAIT_LIMIT, abs=0.1)


@pytest.mark.parametrize(
    ("takes_two", "reason"), [(False, "TooManyConnectionsError"), (None, "TimeoutError")]
)
async def test_r39_without_a_second_connection_it_is_believed_with_one_warning(
    pooler: Pooler, caplog: pytest.LogCaptureFixture, *, takes_two: bool | None, reason: str
) -> None:
    """Refused or never answered: that proves nothing, and is said once, however often tried."""
    pooler.takes_two = takes_two
    began = now()
    await pooler.listener.start()
    assert now() - began <= WAIT_LIMIT + 0.1
    await asyncio.sleep(3 * AUDIT)
    assert pooler.listener.state is State.CONNECTED
    (warning,) = warnings(caplog)
    assert "could not check whether notifications are delivered" in warning
    assert reason in warning


async def test_r39_a_second_connection_that_may_not_notify_proves_nothing(
    pooler: Pooler, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is told by that warning, and it is not left open."""
    pooler.faults = {"NOTIFY": [asyncpg.InsufficientPrivilegeError("denied")]}
    await pooler.listener.start()
    assert pooler.open == pooler.made[:1]
    (warning,) = warnings(caplog)
    assert "denied" in warning


async def test_r39_a_pooler_that_turns_deaf_is_found_out_by_an_audit(pooler: Pooler) -> None:
    """Every five heartbeats it is tried again, beside all else; then the session is given up."""
    await pooler.listener.start()
    await asyncio.sleep(2 * AUDIT + HEARTBEAT)
    assert len(pooler.made) == 1 + 3
    pooler.delivers = False
    await asyncio.sleep(AUDIT + WAIT_LIMIT)
    lost = [event for event in pooler.events if isinstance(event, ConnectionLost)]
    assert isinstance(lost[0].cause, PoolerError)
    assert pooler.listener.state is State.DEGRADED
    pooler.delivers = True
    await pooler.listener.wait_connected()


@pytest.mark.parametrize("moment", ["while it is made", "while the notification is awaited"])
async def test_r32_a_start_that_is_cancelled_leaves_no_second_connection(
    pooler: Pooler, moment: str
) -> None:
    """Nor does one that gives up: the trial ends with the session that it was for."""
    pooler.delivers = False
    if moment == "while it is made":
        pooler.takes_two = None
    start = asyncio.ensure_future(pooler.listener.start())
    await asyncio.sleep(WAIT_LIMIT / 2)
    start.cancel()
    await asyncio.wait({start})
    assert start.cancelled()
    assert pooler.open == []
    assert pooler.has_closed_attempt == (pooler.takes_two is None)


async def test_r32_closing_ends_a_trial_that_goes_on(pooler: Pooler) -> None:
    """The second connection of an audit is not left behind when the listener is closed."""
    await pooler.listener.start()
    pooler.delivers = False
    await asyncio.sleep(AUDIT + WAIT_LIMIT / 2)
    assert len(pooler.open) == 2
    began = now()
    await pooler.listener.aclose()
    assert now() - began < WAIT_LIMIT / 2
    assert pooler.open == []


async def test_a_trial_that_cannot_listen_is_a_failed_attempt(pooler: Pooler) -> None:
    """Any other error of its LISTEN is that of the connection: another one is made."""
    pooler.faults = {"LISTEN": [STANDBY]}
    await pooler.listener.start()
    assert pooler.made[0].terminated
    assert pooler.listener.state is State.CONNECTED


async def test_a_start_that_never_comes_to_an_end_says_what_was_tried(pooler: Pooler) -> None:
    """Where each attempt fails on the trial, start() ends after its timeout, with the reason."""
    pooler.faults = {"LISTEN": [STANDBY] * 1_000}
    with pytest.raises(ConnectTimeoutError, match="standby"):
        await pooler.listener.start()


async def test_the_pid_is_the_backends_and_not_the_poolers(pooler: Pooler) -> None:
    """Events and reports name the process of the server, or no process at all."""
    await pooler.listener.start()
    assert isinstance(pooler.events[0], Connected)
    assert pooler.events[0].backend_pid == BACKEND
    assert (await pooler.listener.health(server=False))["backend_pid"] == BACKEND
    pooler.open[0].errors.append(asyncpg.InsufficientPrivilegeError("denied"))
    pooler.open[0].terminate()
    assert (await pooler.listener.health(server=False))["backend_pid"] in (None, BACKEND)


async def suspected(pooler: Pooler) -> None:
    """Give a sign that nothing is delivered, while no second connection is to be had."""
    pooler.passes_for_a_server, pooler.delivers = True, False
    await pooler.listener.start()
    await pooler.listener.listen("orders", print)
    await pooler.listener.notify("orders")
    pooler.takes_two = False
    await asyncio.sleep(RETURN_TIME + 1)


@pytest.mark.parametrize("heartbeat", [HEARTBEAT, None])
async def test_r59_a_check_that_could_not_be_made_is_made_later(
    caplog: pytest.LogCaptureFixture, *, heartbeat: float | None
) -> None:
    """Nothing was proved: the suspicion stays, also where there are no heartbeats."""
    async with new_pooler(heartbeat) as pooler:
        await suspected(pooler)
        (warning,) = warnings(caplog)
        assert "seems to deliver no notifications" in warning
        await asyncio.sleep(3 * NEXT_ATTEMPT)
        assert not any(isinstance(event, ConnectionLost) for event in pooler.events)
        pooler.takes_two = True
        await asyncio.sleep(NEXT_ATTEMPT + 3 * WAIT_LIMIT)
        [lost] = [event for event in pooler.events if isinstance(event, ConnectionLost)]
        assert isinstance(lost.cause, PoolerError)
        assert pooler.listener.state is State.DEGRADED


async def test_r59_the_next_session_is_checked_where_the_last_one_could_not_be() -> None:
    """It is as suspicious as that one."""
    async with new_pooler(HEARTBEAT) as pooler:
        await suspected(pooler)
        pooler.takes_two = True
        pooler.open[0].terminate()
        await asyncio.sleep(WAIT_LIMIT + 2)
        [failed] = [event for event in pooler.events if isinstance(event, RetryScheduled)]
        assert isinstance(failed.cause, PoolerError)
        assert pooler.listener.state is State.DEGRADED


async def test_r59_a_suspicion_ends_with_the_first_check_that_is_passed() -> None:
    """From there on nothing is checked any more: no pooler is known."""
    async with new_pooler(HEARTBEAT) as pooler:
        await suspected(pooler)
        pooler.takes_two = pooler.delivers = True
        await asyncio.sleep(NEXT_ATTEMPT + WAIT_LIMIT)
        made = len(pooler.made)
        await asyncio.sleep(3 * AUDIT + 3 * NEXT_ATTEMPT)
        assert len(pooler.made) == made
        assert pooler.listener.state is State.CONNECTED
