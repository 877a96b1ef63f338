"""A healthy server, no server, a role that sees little, and how a report is shown."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from rich.console import Console

from asyncnotify import ChannelNameError, ConfigurationError, Listener
from asyncnotify.doctor import Finding, Report, Severity, as_text, diagnose
from asyncnotify.doctor.printing import print_report
from asyncnotify.ext.reporting import Reporting
from asyncnotify.testing.proxy import FaultProxy
from tests.doctor.findings import bad, of, one, text_of
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncnotify.testing.server import PostgresServer

    Connection = asyncpg.Connection[asyncpg.Record]

PASSWORD = "correct-horse"


async def test_a_healthy_server_comes_out_clean(dsn: str) -> None:
    """No warning, no error, nothing unknown, on every version; and status 0."""
    report = await diagnose(dsn)
    assert bad(report) == []
    assert report.exit_status == 0
    assert report.is_reachable
    checks = {finding.check for finding in report.findings}
    assert {"notify lock", "queue", "path", "delivery", "log", "functions"} <= checks


async def test_nothing_is_written(dsn: str, admin: Connection) -> None:
    """No transaction of the server gets an id meanwhile, which all get that write."""
    next_id = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"
    for _ in range(5):
        before = await admin.fetchval(next_id)
        report = await diagnose(dsn, probe=False)
        assert bad(report) == []
        assert of(report, "delivery") == []
        if await admin.fetchval(next_id) == before:
            return  # each time it is not: autovacuum takes some as well
    pytest.fail("it takes transaction ids")


async def test_a_server_that_is_not_there_is_a_finding() -> None:
    """Nothing is raised; the status is that of an unreachable server, never that of a clean one."""
    report = await diagnose("postgresql://nobody@127.0.0.1:1/nothing", timeout=2.0)
    assert not report.is_reachable
    assert report.exit_status == 3
    assert report.severity is Severity.ERROR
    assert "ConnectionRefusedError" in text_of(one(report, "connection", Severity.ERROR))


@pytest.fixture
def silent_port() -> Iterator[int]:
    """The port of a server whose system accepts connections, and which never answers."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        yield bound.getsockname()[1]


@pytest.mark.parametrize("hosts", [1, 2])
async def test_a_server_that_never_answers_is_no_connection(silent_port: int, hosts: int) -> None:
    """Not something that could not be examined; nor are several such servers."""
    places = ",".join([f"127.0.0.1:{silent_port}"] * hosts)
    report = await diagnose(f"postgresql://nobody@{places}/nothing", timeout=scaled(0.5))
    finding = one(report, "connection", Severity.ERROR)
    assert finding.title == "no connection"
    assert "TimeoutError: no " in finding.evidence[0]
    assert bad(report) == [finding]
    assert report.exit_status == 3


@pytest.mark.parametrize("services", [None, "reports"])
async def test_a_host_that_never_answers_hides_no_other_one(
    dsn: str, silent_port: int, services: str | None
) -> None:
    """Each host has a share of each check's time, as a listener goes on to the next one."""
    both = dsn.replace("@", f"@127.0.0.1:{silent_port},", 1)
    report = await diagnose(both, timeout=scaled(3), services=services)
    assert bad(report) == []
    assert of(report, "delivery")[0].severity is Severity.OK


async def test_a_server_that_falls_silent_is_unknown_in_time(dsn: str) -> None:
    """Each check gives up at its time, and what it could not find out is not called clean."""
    began = asyncio.get_running_loop().time()
    async with FaultProxy.for_dsn(dsn) as proxy:

        def silence(connection: object, direction: str, data: bytes) -> None:
            if b"server_version_num" in data:
                proxy.black_hole()

        proxy.tap(silence)
        report = await diagnose(proxy.proxied_dsn(dsn), timeout=0.3)
    assert report.exit_status != 0
    unknown = {f.check for f in report.findings if f.severity is Severity.UNKNOWN}
    assert {"version", "queue", "notify lock", "log"} <= unknown or not report.is_reachable
    assert asyncio.get_running_loop().time() - began < scaled(20)


@pytest.mark.parametrize("dsn", ["mysql://there/x", ""])
async def test_a_wrong_dsn_is_raised(dsn: str) -> None:
    """A DSN that cannot be read says nothing about a server."""
    with pytest.raises(ConfigurationError):
        await diagnose(dsn)


async def test_a_wrong_argument_is_raised(dsn: str) -> None:
    """Of either kind."""
    with pytest.raises(ValueError, match="timeout"):
        await diagnose(dsn, timeout=0)
    with pytest.raises(TypeError, match="colour"):
        await diagnose(dsn, colour="red")


async def test_a_cancelled_diagnosis_leaves_no_session(dsn: str, admin: Connection) -> None:
    """Whatever it was doing."""
    for turns in range(0, 60, 7):
        task = asyncio.ensure_future(diagnose(dsn))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'asyncnotify-doctor'"
    async with asyncio.timeout(scaled(10)):
        while await admin.fetchval(query):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)  # polls: the server does not tell when a session has ended


async def test_what_a_plain_role_may_not_see_needs_pg_monitor(
    dsn: str, admin: Connection, own_server: PostgresServer
) -> None:
    """What is hidden is unknown, never clean, and the status says so."""
    connection = await asyncpg.connect(own_server.dsn)
    await connection.execute("CREATE ROLE plain LOGIN; CREATE ROLE watching LOGIN")
    await connection.execute("GRANT pg_monitor TO watching")
    await connection.close()
    report = await diagnose(own_server.dsn_for("postgres", user="plain"))
    unknown = [f for f in report.findings if f.severity is Severity.UNKNOWN]
    assert {finding.check for finding in unknown} == {"role", "queue", "listeners"}
    assert all("needs pg_monitor" in finding.title for finding in unknown)
    assert report.exit_status == 6
    report = await diagnose(own_server.dsn_for("postgres", user="watching"))
    assert bad(report) == []


async def test_who_listens_is_called_a_guess(dsn: str, admin: Connection) -> None:
    """Of the sessions whose last statement was LISTEN; the server does not tell."""
    await admin.execute("LISTEN orders")
    [finding] = of(await diagnose(dsn), "listeners")
    assert finding.title.startswith("1 sessions")
    assert "a guess" in finding.evidence[0]
    assert f"pid {admin.get_server_pid()}" in finding.evidence[1]


async def test_services_that_report_are_asked(dsn: str) -> None:
    """Their answer is none of the guesses."""
    async with (
        Listener(dsn) as listener,
        Reporting(listener, name="shop", channel="reports"),
    ):
        report = await diagnose(dsn, services="reports")
    finding = one(report, "listeners", Severity.INFO)
    assert "1 services" in finding.title
    assert "shop" in finding.evidence[0]
    with pytest.raises(ChannelNameError):
        await diagnose(dsn, services="x" * 64)


def report_of(*findings: Finding, version: str | None = "18.2") -> Report:
    """Return a report with these findings."""
    return Report("host/db", version, 0.5, findings)


@pytest.mark.parametrize(
    ("severity", "status"),
    [("ok", 0), ("info", 0), ("unknown", 6), ("warning", 5), ("error", 1)],
)
def test_the_worst_finding_decides_the_status(severity: str, status: int) -> None:
    """An error is 1, warnings are 5, what is unknown is 6; 2 is left to wrong arguments."""
    worst = Finding("x", Severity(severity), "title")
    report = report_of(Finding("y", Severity.OK, "fine"), worst)
    assert report.exit_status == status
    assert report.severity is worst.severity


def test_json_holds_all_of_it() -> None:
    """As plain values, which need no encoder."""
    finding = Finding("queue", Severity.WARNING, "title", ("seen",), "cure")
    read: dict[str, Any] = json.loads(json.dumps(report_of(finding).to_json()))
    assert read["exit_status"] == 5
    assert read["severity"] == "warning"
    assert read["server_version"] == "18.2"
    assert read["findings"] == [
        {
            "check": "queue",
            "severity": "warning",
            "title": "title",
            "evidence": ["seen"],
            "cure": "cure",
        }
    ]


def print_with_rich(report: Report, *, everything: bool) -> str:
    """Return what is printed without colours."""
    console = Console(file=io.StringIO(), width=200)
    print_report(report, console, everything=everything)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize("with_rich", [False, True])
def test_text_has_evidence_and_cure_and_no_control_characters(*, with_rich: bool) -> None:
    """Names of the server's are shown, and act on no terminal, nor as markup."""
    report = report_of(
        Finding("queue", Severity.ERROR, "\x1b[31mred", ("[bold]a\nb",), "a cure"),
        Finding("path", Severity.OK, "fine"),
    )
    show = print_with_rich if with_rich else as_text
    text = show(report, everything=False)
    assert r"\x1b[31mred" in text
    assert r"[bold]a\nb" in text
    assert "cure: a cure" in text
    assert "fine" not in text
    assert "fine" in show(report, everything=True)
    assert "1 error, 1 ok" in text
    assert not set(text) & {"\x1b", "\r"}
