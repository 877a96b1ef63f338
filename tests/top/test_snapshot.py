"""What a snapshot holds, on a real server, with services in processes of their own."""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify import ConnectError, Listener, Notification, Notifier
from asyncnotify.ext.reporting import ChannelReport
from asyncnotify.log import Log
from asyncnotify.top import run, snapshot
from asyncnotify.top._collector import Collector
from asyncnotify.top._rates import FORGOTTEN, Rates
from asyncnotify.top._texts import count, duration, latency, percentage, rate, size
from tests.support.machine import scaled
from tests.support.services import service
from tests.top.test_screen import REPORT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncnotify.testing.server import PostgresServer
    from asyncnotify.top import LockWaiter, Snapshot

SOON = scaled(10.0)
OWN_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'asyncnotify top'"


@pytest.fixture(autouse=True)
def gives_services_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the answers of services take as long as they do on a busy machine."""
    monkeypatch.setattr("asyncnotify.top._run._SETTLING", scaled(0.3))


async def test_two_services_are_seen_with_their_channels(dsn: str) -> None:
    """With the rates of the notifications that they get meanwhile."""
    with service(dsn, "orders-api", "orders"), service(dsn, "mailer", "mails", every=30):
        async with Notifier(dsn) as notifier:
            looking = asyncio.create_task(snapshot(dsn))
            number = 0
            while not looking.done():
                await notifier.notify("orders", str(number))
                number += 1
        seen = await looking
    mailer, orders = seen.services
    assert (mailer.report.name, orders.report.name) == ("mailer", "orders-api")
    assert [channel.channel for channel in orders.channels] == ["orders"]
    assert 0 < (orders.channels[0].rate or 0) <= number
    assert mailer.delivered_rate == mailer.channels[0].rate == 0
    assert not orders.is_silent
    assert orders.report.round_trip is not None
    assert seen.state == "connected"
    assert seen.error is None


async def test_the_json_can_be_read_by_scripts(dsn: str) -> None:
    """It has a version, and is JSON to the letter."""
    with service(dsn, "orders-api", "a\x1b", "b"):
        seen = await snapshot(dsn, seconds=0.2)
    values = json.loads(seen.to_json(), parse_constant=pytest.fail)
    assert values["format"] == 1
    assert values["services"][0]["name"] == "orders-api"
    assert {row["channel"] for row in values["services"][0]["channels"]} == {"a\x1b", "b"}
    assert values["server"]["queue_usage"] == 0
    assert values["server"]["lock_waiters"] == 0
    assert values["logs"] == []
    assert seen.to_json().isascii()


async def test_a_session_that_listens_is_guessed(
    dsn: str, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    """Its last statement says so; a service that reports needs no guess, and nobody else is one."""
    await admin.execute("LISTEN orders")
    with service(dsn, "orders-api", "orders"):
        seen = await snapshot(dsn, seconds=0.2)
    assert seen.server is not None
    own = [one for one in seen.server.possible_listeners if one.database == seen.server.database]
    assert [(one.pid, one.reason) for one in own] == [
        (admin.get_server_pid(), "last statement: LISTEN")
    ]


async def until_there_are(collector: Collector, sessions: int) -> Sequence[LockWaiter]:
    """Return the sessions at the lock, once there are as many, and one of them waits for others."""
    while True:
        server = (await collector.snapshot()).server
        lock = () if server is None else server.lock
        if len(lock) >= sessions and any(one.wait_event == "SyncRep" for one in lock):
            return lock


async def test_the_lock_of_notify_is_seen(own_server: PostgresServer) -> None:
    """A commit that is stuck has it, and another one waits for it."""

    async def commit_until_it_is_stuck() -> None:
        # The checkpointer reads the setting as well, and no commit waits before it has
        for number in itertools.count():
            await stuck.execute(f"CREATE TABLE x{number} (); NOTIFY x")
            if has_been_stuck.is_set():
                return

    has_been_stuck = asyncio.Event()
    dsn = own_server.dsn
    stuck, waiting, admin = [await asyncpg.connect(dsn) for _ in range(3)]
    await admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    await admin.execute("SELECT pg_reload_conf()")
    commits: list[asyncio.Task[Any]] = []
    async with Collector(dsn, every=1.0, channel="asyncnotify.reports") as collector:
        async with asyncio.timeout(SOON):
            while (await admin.fetchval("SHOW synchronous_standby_names")) != "nobody":
                pass
            # A commit that has written nothing but notifications does not wait for a standby
            commits.append(asyncio.create_task(commit_until_it_is_stuck()))
            await until_there_are(collector, 1)
            has_been_stuck.set()
            commits.append(asyncio.create_task(waiting.execute("NOTIFY x")))
            holder, waiter = await until_there_are(collector, 2)
            await collector.ask()
            assert "no NOTIFY within" in ((await collector.snapshot()).error or "")
        assert holder.granted
        assert holder.wait_event == "SyncRep"
        assert not waiter.granted
        pids = {stuck.get_server_pid(), waiting.get_server_pid()}
        assert {holder.pid, waiter.pid} == pids
        await admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await admin.execute("SELECT pg_reload_conf()")
        await asyncio.gather(*commits)
    for connection in (stuck, waiting, admin):
        await connection.close()


async def test_logs_are_seen_with_their_lag(dsn: str) -> None:
    """With how fast they grow, and how far each consumer is behind."""
    async with Log("orders", dsn) as log:
        await log.install()
        async with log.consumer("mailer", "things"):
            pass
        looking = asyncio.create_task(snapshot(dsn))
        number = 0
        while not looking.done():
            await log.append("things", str(number))
            number += 1
        [seen] = (await looking).logs
    assert seen.name == "orders"
    assert (seen.rate or 0) > 0
    [consumer] = seen.consumers
    assert (consumer.name, consumer.is_served) == ("mailer", False)
    assert 0 < consumer.lag_events <= number


async def test_a_plain_role_sees_what_it_may(own_server: PostgresServer) -> None:
    """What it may not see is told, and is no failure: neither sessions nor logs."""
    async with Log("orders", own_server.dsn) as log:
        await log.install()
    admin = await asyncpg.connect(own_server.dsn)
    await admin.execute("CREATE ROLE plain LOGIN; GRANT USAGE ON SCHEMA asyncnotify TO plain")
    seen = await snapshot(own_server.dsn_for("postgres", user="plain"), seconds=0.1)
    assert seen.server is not None
    assert not seen.server.sees_all
    assert (seen.error, seen.logs) == (None, ())
    await admin.execute("GRANT SELECT ON asyncnotify.logs TO plain")
    seen = await snapshot(own_server.dsn_for("postgres", user="plain"), seconds=0.1)
    assert seen.error is None
    assert [log.name for log in seen.logs] == ["orders"]
    assert "permission denied" in (seen.logs[0].error or "")
    json.loads(seen.to_json())
    await admin.close()


async def test_the_last_figures_stay_while_the_server_is_away(own_server: PostgresServer) -> None:
    """They are marked as stale until it answers again, and then they are not."""

    async def until(state: str) -> Snapshot:
        async with asyncio.timeout(SOON):
            while (seen := await collector.snapshot()).state != state or not seen.services:
                await collector.ask()
        return seen

    with service(own_server.dsn, "orders-api", "orders"):
        dsn = own_server.dsn
        async with Collector(dsn, every=0.2, channel="asyncnotify.reports") as collector:
            before = await until("connected")
            await asyncio.to_thread(own_server.kill)
            stale = await until("reconnecting")
            assert stale.server == before.server
            assert stale.stale_for > 0
            assert stale.error
            await asyncio.to_thread(own_server.start)
            after = await until("connected")
            assert (after.stale_for, after.error) == (0, None)
            assert after.server is not None
            assert before.server is not None
            assert after.server.uptime < SOON


async def test_nothing_is_left_behind(dsn: str, admin: asyncpg.Connection[asyncpg.Record]) -> None:
    """No session, also where the call was cancelled."""
    await snapshot(dsn, seconds=0.1)
    looking = asyncio.create_task(snapshot(dsn, seconds=60.0))
    async with asyncio.timeout(SOON):
        while await admin.fetchval(OWN_SESSIONS) < 2:
            pass
        looking.cancel()
        await asyncio.wait({looking})
        while await admin.fetchval(OWN_SESSIONS):
            pass
    assert looking.cancelled()


async def test_wrong_arguments_and_servers_are_told(dsn: str) -> None:
    """As a Listener tells them; nothing is drawn before."""
    with pytest.raises(ValueError, match="seconds"):
        await snapshot(dsn, seconds=0)
    with pytest.raises(ValueError, match="every"):
        await run(dsn, every=0)
    with pytest.raises(ConnectError):
        await snapshot(dsn + "_that_does_not_exist")
    with pytest.raises(ConnectError):
        await run(dsn + "_that_does_not_exist")


# -- rates and texts ------------------------------------------------------------------------------


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_a_rate_is_a_difference_by_the_clock_of_the_service() -> None:
    """Not by when the reports arrive: these two arrive at once."""
    rates = Rates(3.0, Clock())
    rates.add(replace(REPORT, uptime=1.0, received=0, delivered=10))
    [first] = rates.figures()
    assert (first.received_rate, first.delivered_rate) == (None, None)
    rates.add(replace(REPORT, uptime=3.0, received=50, delivered=20))
    [second] = rates.figures()
    assert (second.received_rate, second.delivered_rate) == (25.0, 5.0)


def test_reports_that_follow_at_once_are_not_compared() -> None:
    """A tenth of a second says little: the one before that counts."""
    rates = Rates(3.0, Clock())
    for uptime, received in [(1.0, 0), (2.0, 100), (2.1, 110)]:
        rates.add(replace(REPORT, uptime=uptime, received=received))
    assert rates.figures()[0].received_rate == pytest.approx(100.0)


def test_a_counter_that_began_anew_gives_no_rate() -> None:
    """As after a restart of the listener; and a channel that was not in the report before."""
    rates = Rates(3.0, Clock())
    rates.add(replace(REPORT, uptime=1.0, received=100, channels=(), more=1))
    rates.add(replace(REPORT, uptime=2.0, received=5, channels=(ChannelReport("a", delivered=9),)))
    [seen] = rates.figures()
    assert (seen.received_rate, seen.channels[0].rate) == (None, None)
    rates.add(replace(REPORT, uptime=3.0, more=0, channels=()))
    rates.add(replace(REPORT, uptime=4.0, channels=(ChannelReport("new", delivered=9),)))
    assert rates.figures()[0].channels[0].rate == 9.0


def test_a_service_that_is_silent_is_marked_and_then_forgotten() -> None:
    """One that is killed says no goodbye."""
    clock = Clock()
    rates = Rates(3.0, clock)
    rates.add(REPORT)
    clock.now += 3.5
    [seen] = rates.figures()
    assert (seen.is_silent, seen.silent_for) == (True, 3.5)
    clock.now += FORGOTTEN
    assert rates.figures() == ()


def test_not_more_services_are_kept_than_can_be_looked_at() -> None:
    """Anybody may report under ever new names."""
    rates = Rates(3.0, Clock())
    for number in range(1_500):
        rates.add(replace(REPORT, id=str(number), channels=()))
    assert len(rates.figures()) == 1_000
    rates.keep({"1499"})
    assert [one.report.id for one in rates.figures()] == ["1499"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (count(None), "-"),
        (count(99_999), "99,999"),
        (count(123_456), "123k"),
        (count(2**63), "9,223,372,037G"),
        (rate(0.04), "0.0"),
        (rate(0), "0"),
        (rate(12.34), "12.3"),
        (rate(1234.5), "1,234"),
        (latency(0.00042), "0.42 ms"),
        (latency(2), "2.00 s"),
        (latency(None), "-"),
        (duration(None), "-"),
        (duration(59), "59 s"),
        (duration(120), "2 min"),
        (duration(7_200), "2 h"),
        (duration(200_000), "2 d"),
        (percentage(0.0), "0.00%"),
        (percentage(0.00000012), "0.0000%"),
        (percentage(0.5), "50.00%"),
        (size(12), "12 B"),
        (size(557_056), "557 kB"),
    ],
)
def test_figures_are_short(text: str, expected: str) -> None:
    """And say no more than can be read at a glance."""
    assert text == expected


def ignore(_: Notification[str]) -> None:
    """Handle a notification."""


async def test_a_listener_beside_it_loses_nothing(dsn: str) -> None:
    """Looking disturbs nobody: no Gap, no reconnect."""
    async with Listener(dsn) as listener:
        await listener.listen("orders", ignore)
        await snapshot(dsn, seconds=0.1)
        stats = listener.stats()
        assert (stats.gaps, stats.reconnects, stats.received) == (1, 0, 0)
