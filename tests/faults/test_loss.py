"""How soon a connection that has died is noticed, whatever it died of."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import asyncpg
import pytest

from asyncnotify import ConnectionLost, Gap, GapReason, Reconnected
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify.testing.server import PostgresServer
    from tests.faults.conftest import Items, ProxiedDatabase, Subject

    Fault = Callable[[ProxiedDatabase, Subject], Awaitable[object]]
    ServerFault = Callable[[PostgresServer, int], object]

AT_ONCE = scaled(0.25)  # seconds; measured: 0.013 at most
DROPPED = scaled(0.05)  # seconds; measured: under 0.002
WAIT_LIMIT = scaled(10.0)
HEARTBEAT, TIMEOUT = 0.3, scaled(0.3)
SLACK = scaled(0.5)  # seconds beyond heartbeat and timeout

by_dsn_and_by_connect = pytest.mark.parametrize("connects_by", ["dsn", "connect"])


async def terminated(database: ProxiedDatabase, subject: Subject) -> None:
    """Let the server end the session."""
    await database.fetchval("SELECT pg_catalog.pg_terminate_backend($1)", subject.pid)


async def reset(database: ProxiedDatabase, subject: Subject) -> None:
    """Let the network send RST."""
    database.proxy.reset()


async def closed(database: ProxiedDatabase, subject: Subject) -> None:
    """Let the network close the connection cleanly."""
    database.proxy.fin()


async def half_closed(database: ProxiedDatabase, subject: Subject) -> None:
    """Let the network give us EOF, and go on taking what we send."""
    database.proxy.half_close()


async def sees_one_gap(stream: Items, reason: GapReason) -> None:
    """Take the next item of a stream, which must be a gap of this kind."""
    async with asyncio.timeout(WAIT_LIMIT):
        gap = await anext(stream)
    assert isinstance(gap, Gap)
    assert gap.reason is reason


@by_dsn_and_by_connect
@pytest.mark.parametrize("fault", [terminated, reset, closed, half_closed])
async def test_r1_a_cut_connection_is_noticed_at_once(
    database: ProxiedDatabase, fault: Fault
) -> None:
    """The listener is not connected any more as soon as its connection is cut, and comes back."""
    async with (
        database.running() as subject,
        subject.listener.stream("orders", gaps=True) as stream,
    ):
        await sees_one_gap(stream, GapReason.START)
        pid, began = subject.pid, time.monotonic()
        await fault(database, subject)
        lost = await subject.until(ConnectionLost)
        assert subject.time_of(ConnectionLost) - began < AT_ONCE
        assert lost.backend_pid == pid
        await subject.comes_back()
        assert subject.pid != pid
        await sees_one_gap(stream, GapReason.RECONNECT)


def restarted(server: PostgresServer, pid: int) -> None:
    """Restart the server, ending its sessions."""
    server.restart("fast")


def restarted_at_once(server: PostgresServer, pid: int) -> None:
    """Restart the server as after a failure of power."""
    server.restart("immediate")


def killed(server: PostgresServer, pid: int) -> None:
    """Kill our session's process, which the server takes for a crash."""
    server.kill_backend(pid)


def killed_with_its_postmaster(server: PostgresServer, pid: int) -> None:
    """Kill the postmaster, and start it again."""
    server.kill()
    server.start()


async def noticed_at_once(server: PostgresServer, subject: Subject, fault: ServerFault) -> None:
    """Inflict a fault in a thread; the listener must have noticed it within the limit."""
    pid, began = subject.pid, time.monotonic()
    inflicting = asyncio.create_task(asyncio.to_thread(fault, server, pid))
    lost = await subject.until(ConnectionLost)
    assert subject.time_of(ConnectionLost) - began < AT_ONCE
    assert lost.backend_pid == pid
    await inflicting


@pytest.mark.parametrize(
    "fault", [restarted, restarted_at_once, killed, killed_with_its_postmaster]
)
async def test_r1_a_server_that_goes_away_is_noticed_at_once(
    own_database: ProxiedDatabase, battered_server: PostgresServer, fault: ServerFault
) -> None:
    """The listener notices a server that restarts or dies, and is back when the server is."""
    async with own_database.running() as subject, subject.listener.stream("a", gaps=True) as stream:
        await sees_one_gap(stream, GapReason.START)
        await noticed_at_once(battered_server, subject, fault)
        await subject.until(Reconnected)
        await sees_one_gap(stream, GapReason.RECONNECT)
        await subject.fence()


async def test_r1_the_death_of_another_session_is_noticed_at_once(
    own_database: ProxiedDatabase, battered_server: PostgresServer
) -> None:
    """When any session's process is killed, the server ends ours too; the listener comes back."""
    other = await asyncpg.connect(own_database.dsn)
    async with own_database.running() as subject:
        pid = other.get_server_pid()
        await noticed_at_once(battered_server, subject, lambda server, _: server.kill_backend(pid))
        await subject.comes_back()
    other.terminate()


async def silenced(database: ProxiedDatabase, subject: Subject) -> None:
    """Let the network drop everything."""
    database.proxy.pause()


async def unheard(database: ProxiedDatabase, subject: Subject) -> None:
    """Let the network drop what we send, and deliver what the server sends."""
    database.proxy.pause("to_server")


async def dismissed(database: ProxiedDatabase, subject: Subject) -> None:
    """Let the server end the session, and the network keep from us that it did."""
    database.proxy.hold_fin()
    await subject.terminate_backend()


async def noticed_by_heartbeat(subject: Subject, fault: Awaitable[object]) -> None:
    """Inflict a fault; the listener must have given up the connection within the limit."""
    pid, began = subject.pid, time.monotonic()
    await fault
    lost = await subject.until(ConnectionLost)
    assert subject.time_of(ConnectionLost) - began < HEARTBEAT + TIMEOUT + SLACK
    assert lost.backend_pid == pid
    assert lost.cause is not None


@by_dsn_and_by_connect
@pytest.mark.parametrize("fault", [silenced, unheard, dismissed])
async def test_r2_a_silent_connection_is_noticed_by_the_heartbeat(
    database: ProxiedDatabase, fault: Fault
) -> None:
    """A connection that falls silent is given up after heartbeat and timeout, and replaced."""
    async with database.running(heartbeat=HEARTBEAT, heartbeat_timeout=TIMEOUT) as subject:
        await noticed_by_heartbeat(subject, fault(database, subject))
        database.proxy.heal()
        await subject.comes_back()


@by_dsn_and_by_connect
async def test_r2_a_frozen_session_is_noticed_by_the_heartbeat(
    own_database: ProxiedDatabase, battered_server: PostgresServer
) -> None:
    """A session whose process has stopped is given up after heartbeat and timeout, and replaced."""
    async with own_database.running(heartbeat=HEARTBEAT, heartbeat_timeout=TIMEOUT) as subject:
        pid = subject.pid
        freezing = asyncio.to_thread(battered_server.freeze_backend, pid)
        await noticed_by_heartbeat(subject, freezing)
        await subject.comes_back()
        battered_server.thaw_backend(pid)  # a stopped process cannot see that we have left


@by_dsn_and_by_connect
async def test_r33_a_dead_connection_is_dropped_without_waiting(database: ProxiedDatabase) -> None:
    """The next attempt follows the loss at once: nothing waits for a dead connection to close."""
    async with database.running(heartbeat=0.1, heartbeat_timeout=scaled(0.1)) as subject:
        database.proxy.pause()
        await subject.until(ConnectionLost)
        back = await subject.until(Reconnected)
        assert back.attempts == 1
        assert database.proxy.dials[-1] - subject.time_of(ConnectionLost) < DROPPED
        await subject.fence()
