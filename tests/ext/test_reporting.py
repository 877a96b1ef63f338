"""Reports of services, and the roll call, on a real server."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnotify import (
    ChannelNameError,
    ConnectError,
    Listener,
    Notification,
    NotStartedError,
    State,
    Stats,
    SubscriptionStats,
)
from asyncnotify.ext.reporting import (
    ChannelReport,
    Reporting,
    Reports,
    ServiceReport,
    roll_call,
)
from asyncnotify.ext.reporting._figures import MOST_CHANNELS, by_channel, row_of
from asyncnotify.ext.reporting._report import Goodbye, parsed, payload_of, payload_of_goodbye
from tests.support.machine import scaled
from tests.support.services import service

if TYPE_CHECKING:
    from collections.abc import Callable

    import asyncpg

    from asyncnotify.testing.server import PostgresServer

SOON = scaled(10.0)
CHANNEL = "asyncnotify.reports"

REPORT = ServiceReport(
    id="a1",
    name="orders-api",
    host="h",
    pid=7,
    backend_pid=None,
    version="0.1.0",
    every=1.0,
    uptime=2.5,
    state=State.CONNECTED,
    received=3,
    delivered=3,
    backlog=0,
    dropped=0,
    gaps=1,
    errors=0,
    reconnects=0,
    round_trip=None,
    heartbeat_age=None,
    connected_for=1.0,
    channel_count=1,
    more=0,
    channels=(ChannelReport("orders", 1, 3, 0, 0, 1, 0),),
)


class Inbox:
    """Reports as they arrive, to be waited for."""

    def __init__(self) -> None:
        self.items: asyncio.Queue[ServiceReport] = asyncio.Queue()

    async def until(self, wanted: Callable[[ServiceReport], bool]) -> ServiceReport:
        """Return the next report of this kind."""
        async with asyncio.timeout(SOON):
            while not wanted(report := await self.items.get()):
                pass
        return report

    async def next(self) -> ServiceReport:
        """Return the next report."""
        return await self.until(lambda _: True)


async def wait_until(condition: Callable[[], bool]) -> None:
    """Return when a condition holds of which nothing tells."""
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)  # polls


def ignore(_: Notification[str]) -> None:
    """Handle a notification."""


# -- what goes through a payload ------------------------------------------------------------------


def test_a_report_arrives_as_it_was_sent() -> None:
    """Field by field; and so does a goodbye."""
    assert parsed(payload_of(REPORT)) == REPORT
    assert parsed(payload_of_goodbye("a1")) == Goodbye("a1")


@pytest.mark.parametrize("name", ["orders{:04}", "é" * 29 + "{:04}", "😀" * 14 + "{:04}"])
def test_a_thousand_channels_fit_into_one_payload(name: str) -> None:
    """The first ones of the list, and how many more there are."""
    rows = tuple(ChannelReport(name.format(n), 1, 10**9 + n, n, n, n, n) for n in range(1_000))
    payload = payload_of(replace(REPORT, name="ü" * 200, host="x" * 200, channels=rows))
    assert len(payload.encode()) < 8_000
    report = parsed(payload)
    assert isinstance(report, ServiceReport)
    assert report.channels == rows[: len(report.channels)]
    assert report.more + len(report.channels) == 1_000
    assert len(report.channels) >= 8


def test_the_format_has_its_version_and_readable_names() -> None:
    """Programs in other languages can read it."""
    values = json.loads(payload_of(REPORT))
    assert (values["v"], values["kind"], values["name"]) == (1, "report", "orders-api")
    assert values["channels"][0]["channel"] == "orders"


HOSTILE = [
    "",
    "[]",
    "{}",
    "null",
    "[" * 7_000,
    '{"v":2,"kind":"report"}',
    '{"v":1,"kind":"report"}',
    '{"v":1,"kind":"goodbye","id":7}',
    payload_of(replace(REPORT, pid=-1)),
    payload_of(replace(REPORT, received=2**63)),
    payload_of(replace(REPORT, name="x" * 201)),
    payload_of(REPORT).replace('"connected"', '"on fire"'),
    payload_of(REPORT).replace("2.5", "NaN"),
    payload_of(REPORT).replace("2.5", "1e999"),
    payload_of(REPORT).replace('"channels":[', '"channels":{"a":[').replace("]}", "]}}"),
    payload_of(REPORT).replace('"pid":7', '"pid":true'),
]


@pytest.mark.parametrize("payload", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_report_is_ignored(payload: str) -> None:
    """Anybody may notify: nothing is raised, and nothing is taken for a report."""
    assert parsed(payload) is None


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_no_value_in_a_report_makes_reading_fail(value: object) -> None:
    """Whatever stands in the place of a field."""
    values: dict[str, Any] = json.loads(payload_of(REPORT))
    for field in values:
        parsed(json.dumps({**values, field: value}))


def test_subscriptions_of_the_same_channels_are_one_row() -> None:
    """A stream that has many channels is one as well, under its first names."""
    one = SubscriptionStats(("a",), 1, 2, 3, 0, 4, 5, 6, 7)
    wide = replace(one, channels=tuple(f"c{n}" for n in range(1_000)))
    assert [row_of(group) for group in by_channel([one, wide, one])] == [
        ChannelReport("a", 2, 4, 2, 6, 14, 30),
        ChannelReport("c0, c1, c2 and 997 more", 1, 2, 1, 3, 7, 15),
    ]


# -- services -------------------------------------------------------------------------------------


async def test_two_services_answer_a_roll_call(dsn: str) -> None:
    """Each in a process of its own says who and where it is, and on what it listens."""
    with service(dsn, "orders-api", "orders", every=60), service(dsn, "mailer", "a", "b", every=60):
        first, second = await roll_call(dsn, timeout=scaled(1.0))
        assert (first.name, second.name) == ("mailer", "orders-api")
        assert first.pid != second.pid
        assert first.host == socket.gethostname()
        assert {row.channel for row in first.channels} == {"a", "b"}
        assert (first.channel_count, second.channel_count) == (2, 1)
        assert first.state is second.state is State.CONNECTED


async def test_nobody_answers_where_nobody_reports(dsn: str) -> None:
    """A listener that does not report is not named."""
    async with Listener(dsn) as listener:
        await listener.listen("orders", ignore)
        assert await roll_call(dsn, timeout=0.2) == ()


async def test_a_service_reports_regularly(dsn: str) -> None:
    """Without being asked; the backend is that of its listening connection."""
    inbox = Inbox()
    async with (
        Listener(dsn) as reader,
        Reports(reader, on_report=inbox.items.put_nowait),
        Listener(dsn) as listener,
        Reporting(listener, name="orders-api", every=0.1),
    ):
        first, second = await inbox.next(), await inbox.next()
        assert first.id == second.id
        assert second.uptime > first.uptime
        assert (await listener.health(server=False))["backend_pid"] == second.backend_pid
        assert second.pid == os.getpid()


async def test_what_reporting_causes_is_not_counted(dsn: str) -> None:
    """After many roll calls a report has the user's three notifications, and no more."""
    inbox = Inbox()
    async with (
        Listener(dsn) as listener,
        Listener(dsn) as reader,
        Reports(reader, on_report=inbox.items.put_nowait) as reports,
        Reporting(listener, every=60),
    ):
        await listener.listen("orders", ignore)
        for number in range(3):
            await reports.ask()
            await inbox.next()
            await reader.notify("orders", str(number))
        await reports.ask()
        report = await inbox.next()
        assert (report.received, report.delivered, report.gaps) == (3, 3, 1)
        assert [row.channel for row in report.channels] == ["orders"]
        assert report.channels[0].delivered == 3
        assert report.channel_count == 1


async def test_the_busiest_channels_come_first(dsn: str) -> None:
    """Of 1,000, those that have had notifications since the report before."""
    inbox = Inbox()
    async with (
        Listener(dsn) as listener,
        Listener(dsn) as reader,
        Reports(reader, on_report=inbox.items.put_nowait) as reports,
    ):
        await asyncio.gather(*(listener.listen(f"c{n:03}", ignore) for n in range(1_000)))
        async with Reporting(listener, every=60):
            await inbox.next()
            await listener.notify("c777")
            await listener.notify("c555")
            await listener.notify("c777")
            await reports.ask()
            report = await inbox.next()
        assert [row.channel for row in report.channels[:2]] == ["c777", "c555"]
        assert 8 <= len(report.channels) <= MOST_CHANNELS
        assert len(report.channels) + report.more == report.channel_count == 1_000


async def test_many_roll_calls_are_answered_together(dsn: str) -> None:
    """However often somebody asks, there are at most ten reports a second."""
    inbox = Inbox()
    async with (
        Listener(dsn) as reader,
        Reports(reader, on_report=inbox.items.put_nowait) as reports,
        Listener(dsn) as listener,
        Reporting(listener, every=60),
    ):
        await inbox.next()
        first = last = reports.newest[0].uptime
        asked = answers = 0
        while last < first + 0.5:
            await reports.ask()
            asked += 1
            while not inbox.items.empty():
                answers, last = answers + 1, (await inbox.next()).uptime
        assert answers <= (last - first) / 0.1 + 1 < asked


async def test_a_service_that_ends_says_so(dsn: str) -> None:
    """It is forgotten at once by those who collect."""
    inbox = Inbox()
    async with (
        Listener(dsn) as reader,
        Reports(reader, on_report=inbox.items.put_nowait) as reports,
    ):
        async with Listener(dsn) as listener, Reporting(listener):
            await inbox.next()
            assert len(reports.newest) == 1
        fence = reader.stream("fence", timeout=SOON)
        async with fence:
            await reader.notify("fence")
            await anext(fence)
        assert not reports.newest


async def test_reporting_goes_on_after_a_lost_connection(
    dsn: str, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    """With the new backend, and the reconnect counted."""
    inbox = Inbox()
    async with (
        Listener(dsn) as reader,
        Reports(reader, on_report=inbox.items.put_nowait),
        Listener(dsn) as listener,
        Reporting(listener, every=0.1),
    ):
        before = await inbox.next()
        await admin.execute("SELECT pg_terminate_backend($1)", before.backend_pid)
        after = await inbox.until(lambda report: report.reconnects == 1)
        assert after.id == before.id
        assert after.backend_pid not in {None, before.backend_pid}


async def test_reporting_survives_the_server(own_server: PostgresServer) -> None:
    """A service is asked again after a crash of the server, and has raised nothing meanwhile."""
    dsn = own_server.dsn
    with service(dsn, "orders-api", "orders") as process:
        [before] = await roll_call(dsn, timeout=scaled(0.5))
        await asyncio.to_thread(own_server.kill)
        await asyncio.to_thread(own_server.start)
        async with asyncio.timeout(SOON):
            while not (answers := await roll_call(dsn, timeout=scaled(0.3))):
                pass
        assert answers[0].id == before.id
        assert answers[0].reconnects == 1
        assert process.poll() is None


async def test_reporting_starts_and_ends_without_a_server(
    own_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is raised, and nothing takes long."""
    async with Listener(own_server.dsn) as listener:
        await asyncio.to_thread(own_server.kill)
        await wait_until(lambda: not listener.is_connected)
        async with asyncio.timeout(scaled(5.0)), Reporting(listener):
            pass
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_start_that_is_cancelled_affects_no_other(own_server: PostgresServer) -> None:
    """It ends what it began only where no other call of ``start()`` waits."""
    async with Listener(own_server.dsn) as listener:
        await asyncio.to_thread(own_server.kill)
        await wait_until(lambda: not listener.is_connected)
        reporting = Reporting(listener)
        first, second = (asyncio.create_task(reporting.start()) for _ in range(2))
        await wait_until(reports)
        first.cancel()
        await second
        assert first.cancelled()
        assert reports()
        await reporting.aclose()
        only = asyncio.create_task(reporting.start())
        await wait_until(reports)
        only.cancel()
        await wait_until(lambda: not reports())


def reports() -> bool:
    """Return whether something reports in this event loop."""
    return any(task.get_name() == "asyncnotify reporting" for task in asyncio.all_tasks())


async def test_reporting_ends_with_its_listener(dsn: str) -> None:
    """Where the listener is closed first, there is nothing left to be closed."""
    listener = Listener(dsn)
    await listener.start()
    reporting = Reporting(listener, every=60)
    await reporting.start()
    await reporting.start()
    await listener.aclose()
    await wait_until(
        lambda: all(task.get_name() != "asyncnotify reporting" for task in asyncio.all_tasks())
    )
    await reporting.aclose()
    await reporting.aclose()


async def test_a_report_that_cannot_be_sent_is_logged(
    dsn: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, whatever is raised; the next one is sent."""
    inbox = Inbox()
    async with (
        Listener(dsn) as reader,
        Reports(reader, on_report=inbox.items.put_nowait),
        Listener(dsn) as listener,
    ):
        stats = listener.stats
        broken = [RuntimeError("secret")] * 2

        def failing() -> Stats:
            if broken:
                raise broken.pop()
            return stats()

        monkeypatch.setattr(listener, "stats", failing)
        async with Reporting(listener, every=0.1):
            await inbox.next()
    warnings = [record for record in caplog.records if record.name == "asyncnotify.reporting"]
    assert [record.levelname for record in warnings] == ["WARNING"]


async def test_a_report_holds_no_secret(dsn: str) -> None:
    """Neither the DSN nor a payload is in it."""
    async with Listener(dsn, password="s3cret") as listener, listener.stream(CHANNEL) as reports:
        await listener.listen("orders", ignore)
        await listener.notify("orders", "s3cret")
        async with Reporting(listener):
            assert "s3cret" not in (await anext(reports)).payload


@pytest.mark.parametrize(
    ("argument", "name"),
    [("/srv/orders.py", "orders.py"), ("/srv/orders/__main__.py", "orders"), ("", "python")],
)
async def test_a_service_without_a_name_has_that_of_its_program(
    dsn: str, argument: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is run by `python -m`."""
    monkeypatch.setattr("sys.argv", [argument])
    async with Listener(dsn) as listener, Reporting(listener):
        [report] = await roll_call(dsn, timeout=scaled(0.3))
    assert report.name == name


async def test_wrong_arguments_are_refused(dsn: str) -> None:
    """Where they are given."""
    listener = Listener(dsn)
    wrong: Any = 5
    cases: list[tuple[type[Exception], dict[str, Any]]] = [
        (ValueError, {"every": 0.01}),
        (ValueError, {"every": "1"}),
        (ValueError, {"name": ""}),
        (ValueError, {"name": "x" * 201}),
        (TypeError, {"name": wrong}),
        (ChannelNameError, {"channel": "x" * 60}),
    ]
    for error, arguments in cases:
        with pytest.raises(error):
            Reporting(listener, **arguments)
    with pytest.raises(TypeError):
        Reporting(wrong)
    with pytest.raises(TypeError):
        Reports(wrong)
    with pytest.raises(NotStartedError):
        await Reporting(listener).start()
    with pytest.raises(ValueError, match="timeout"):
        await roll_call(dsn, timeout=0)
    with pytest.raises(ConnectError):
        await roll_call(dsn + "_that_does_not_exist")


async def test_a_cancelled_roll_call_leaves_nothing(dsn: str) -> None:
    """No session, which the fixture checks, and no subscription of the caller's listener."""
    async with Listener(dsn) as listener:
        call = asyncio.create_task(roll_call(listener, timeout=60))
        await wait_until(lambda: CHANNEL in listener.channels)
        call.cancel()
        await asyncio.wait({call})
        assert call.cancelled()
        assert listener.channels == frozenset()
