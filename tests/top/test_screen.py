"""The screen, in terminals of 80 columns and wider, on a real server."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import re
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest
from rich.console import Console

from asyncnotify import Notifier, State
from asyncnotify.ext.reporting import ChannelReport, ServiceReport
from asyncnotify.top import LockWaiter, PossibleListener, ServerFigures, Snapshot
from asyncnotify.top._rates import Rates
from asyncnotify.top.screen import Screen, View
from tests.support.machine import scaled
from tests.support.services import ENVIRONMENT, service
from tests.support.terminal import LEAVE, TerminalProgram

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncnotify.testing.server import PostgresServer

SOON: Final = scaled(15.0)
OWN_SESSIONS: Final = "SELECT pid FROM pg_stat_activity WHERE application_name = 'asyncnotify top'"

TOP: Final = """
import asyncio
import sys

from asyncnotify.top import run

asyncio.run(run(sys.argv[1], every=0.2))
"""

REPORT: Final = ServiceReport(
    id="a1",
    name="orders-api",
    host="machine",
    pid=4711,
    backend_pid=815,
    version="0.1.0",
    every=1.0,
    uptime=2.5,
    state=State.CONNECTED,
    received=3,
    delivered=3,
    backlog=12,
    dropped=2,
    gaps=1,
    errors=0,
    reconnects=7,
    round_trip=0.0012,
    heartbeat_age=None,
    connected_for=1.0,
    channel_count=300,
    more=200,
    channels=tuple(ChannelReport(f"orders{n}", 1, n, 0, 0, 1, 0) for n in range(100)),
)
SERVER: Final = ServerFigures(
    version="18.1",
    database="shop",
    is_standby=False,
    uptime=7_300.0,
    queue_usage=0.0,
    sees_all=True,
    lock=(),
    possible_listeners=(),
)


def snapshot_of(*reports: ServiceReport, server: ServerFigures | None = SERVER) -> Snapshot:
    """Return a snapshot with these services."""
    rates = Rates(3.0)
    for report in reports:
        rates.add(replace(report, uptime=report.uptime - 2, delivered=0, received=0))
        rates.add(report)
    return Snapshot(datetime.now(UTC), "connected", 0.0, None, server, rates.figures(), ())


def drawn(snapshot: Snapshot, columns: int = 80, lines: int = 24) -> list[str]:
    """Return what is shown."""
    console = Console(file=io.StringIO(), width=columns, height=lines, record=True)
    console.print(View(snapshot))
    return console.export_text().splitlines()


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (80, 50), (132, 24), (200, 60), (40, 24)])
def test_the_tables_fit_into_the_terminal(columns: int, lines: int) -> None:
    """Whatever its size, with many services and channels; what is left out is counted."""
    services = [replace(REPORT, id=str(n), name=f"service-{n:02}") for n in range(30)]
    shown = drawn(snapshot_of(*services), columns, lines)
    assert len(shown) <= lines
    assert max(map(len, shown)) <= columns
    assert sum("more" in line for line in shown) == 2


def test_80_columns_show_what_matters() -> None:
    """Rates, latency, backlog, drops, Gaps and reconnects, each under its heading."""
    shown = drawn(snapshot_of(REPORT))
    heading = next(line for line in shown if line.startswith("SERVICE"))
    assert " ".join(heading.split()) == "SERVICE STATE IN/S LATENCY BACKLOG DROPS GAPS RECON"
    row = next(line for line in shown if line.startswith("orders-api"))
    assert " ".join(row.split()) == "orders-api connected 1.5 1.20 ms 12 2 1 7"
    assert "shop, PostgreSQL 18.1" in shown[0]
    assert "queue 0.00%   notify lock: free" in shown[1]
    assert any(line.startswith("orders99 ") for line in shown)


def test_processes_of_one_name_can_be_told_apart() -> None:
    """By their process, in 80 columns too; a name that one has alone stands alone."""
    services = [replace(REPORT, id=str(n), pid=n, channels=()) for n in (1, 2)]
    shown = drawn(snapshot_of(*services, replace(REPORT, name="mailer", channels=())))
    assert [line.partition("connected")[0].strip() for line in shown[4:7]] == [
        "mailer",
        "orders-api 1",
        "orders-api 2",
    ]


def test_a_wide_terminal_shows_more() -> None:
    """Where the service runs, and with which backend."""
    row = next(line for line in drawn(snapshot_of(REPORT), 132) if line.startswith("orders-api"))
    assert row.split()[1:4] == ["machine", "4711", "815"]


def test_texts_of_others_cannot_act_on_the_terminal() -> None:
    """Names of services, hosts, channels and applications, and markup is text."""
    evil = "\x1b[2J\x07[red]\u202e\r"
    report = replace(REPORT, name=evil, host=evil, channels=(ChannelReport(evil, delivered=9),))
    server = replace(
        SERVER,
        database=evil,
        version=evil,
        lock=(
            LockWaiter(
                7, granted=False, database=evil, application_name=evil, wait_event=evil, seconds=1.0
            ),
        ),
        possible_listeners=(PossibleListener(8, evil, evil, evil, 1.0, "a guess"),),
    )
    console = Console(file=io.StringIO(), width=200, height=40, record=True)
    snapshot = replace(snapshot_of(report, server=server), state="reconnecting", error=evil)
    console.print(View(snapshot))
    text = console.export_text()
    assert not set(text) & set("\x1b\x07\u202e\r")
    assert text.count("\\x1b[2J\\x07[red]\\u202e\\r") >= 8


def test_a_lock_that_is_not_to_be_had_is_shown() -> None:
    """Who has it, and who waits."""
    lock = (
        LockWaiter(
            5,
            granted=True,
            database="shop",
            application_name="a",
            wait_event="SyncRep",
            seconds=90.0,
        ),
        LockWaiter(
            6, granted=False, database="shop", application_name="b", wait_event=None, seconds=1.0
        ),
    )
    shown = drawn(snapshot_of(REPORT, server=replace(SERVER, lock=lock)))
    assert "notify lock: 1 hold, 1 wait" in shown[1]
    rows = [line.split() for line in shown if line.startswith(("has it", "waits"))]
    assert rows == [
        ["has", "it", "5", "shop", "a", "SyncRep", "2", "min"],
        ["waits", "6", "shop", "b", "-", "1", "s"],
    ]


def test_a_role_that_sees_little_is_told_so() -> None:
    """What is missing is not taken for what is not there."""
    shown = drawn(snapshot_of(REPORT, server=replace(SERVER, sees_all=False)), 132)
    assert "grant pg_monitor" in shown[1]


def test_without_a_service_the_screen_says_how_one_reports() -> None:
    """The tables of services are not there then."""
    shown = drawn(snapshot_of(server=None))
    assert "asyncnotify.ext.reporting" in shown[2]
    assert "has not answered yet" in shown[1]


def test_elsewhere_than_on_a_terminal_nothing_is_overwritten() -> None:
    """As in a file: one snapshot below the other, with nothing that moves the cursor."""
    file = io.StringIO()
    with Screen(Console(file=file, width=80)) as screen:
        screen.show(snapshot_of(REPORT))
        screen.show(snapshot_of(REPORT))
        screen.redraw()
    assert "\x1b" not in file.getvalue()
    assert file.getvalue().count("asyncnotify top") == 2
    assert "orders0" in file.getvalue()


# -- in a terminal ----------------------------------------------------------------------------


@pytest.fixture
def shown(own_server: PostgresServer) -> Iterator[TerminalProgram]:
    """The screen in a terminal of 80 columns, with two services."""
    dsn = own_server.dsn
    with (
        service(dsn, "orders-api", "orders"),
        service(dsn, "mailer", "mails"),
        TerminalProgram(TOP, dsn) as program,
    ):
        program.until(lambda frame: "orders-api" in frame and "mailer" in frame)
        yield program


async def test_it_lives_in_a_terminal(shown: TerminalProgram, own_server: PostgresServer) -> None:
    """It shows rates, follows the size, survives a crash of the server, and ends on q."""
    rate = re.compile(r"^orders +orders-api +(?!0 )[\d.,]+ ", re.MULTILINE)
    async with Notifier(own_server.dsn) as notifier:
        looking = asyncio.create_task(asyncio.to_thread(shown.until, rate.search))
        while not looking.done():
            await notifier.notify("orders")
        frame = await looking
    assert max(map(len, frame.splitlines())) <= 80

    shown.resize(130, 40)
    frame = await asyncio.to_thread(shown.until, re.compile(r"SERVICE +HOST +PID").search)
    assert 80 < max(map(len, frame.splitlines())) <= 130

    await asyncio.to_thread(own_server.kill)
    stale = re.compile(r"reconnecting: stale for.*orders-api", re.DOTALL)
    await asyncio.to_thread(shown.until, stale.search)
    await asyncio.to_thread(own_server.start)
    await asyncio.to_thread(
        shown.until,
        lambda frame: (
            "reconnecting" not in frame and "orders-api" in frame and "silent" not in frame
        ),
    )
    shown.press("q")
    assert await asyncio.to_thread(shown.ended) == 0
    assert shown.modes == shown.modes_before
    assert "Traceback" not in shown.output
    assert "was lost" not in shown.output  # a line of the log, in the middle of the tables


@pytest.mark.parametrize("end", ["Ctrl-C", "SIGTERM", "SIGHUP"])
def test_it_ends_cleanly(end: str, own_server: PostgresServer) -> None:
    """The terminal has its contents, its cursor and its modes again, and no traceback is shown."""
    with TerminalProgram(TOP, own_server.dsn) as program:
        program.until(lambda frame: "PostgreSQL" in frame)
        assert program.modes != program.modes_before
        if end == "Ctrl-C":
            program.press("\x03")
        else:
            program.process.send_signal(signal.Signals[end])
        assert program.ended() == 0
        assert program.modes == program.modes_before
        assert program.output.rindex(LEAVE) > program.output.rindex("PostgreSQL")
        assert program.output.rindex("\x1b[?25h") > program.output.rindex("\x1b[?25l")
        assert "Traceback" not in program.output


def test_a_reader_that_leaves_ends_it(own_server: PostgresServer) -> None:
    """As `head` does: the caller gets the error, and says what that means."""
    code = TOP.replace("asyncio.run(", "\ntry:\n    asyncio.run(") + (
        "except BrokenPipeError:\n    os.dup2(2, 1)\n    print('left')"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", f"import os\n{code}", own_server.dsn],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "asyncnotify top" in process.stdout.readline()
        process.stdout.close()
        try:
            process.wait(SOON)
            assert process.stderr.read().endswith("left\n")
        finally:
            process.kill()
    assert process.returncode == 0


@pytest.mark.parametrize("shown", [1, 3_000])
def test_it_ends_when_its_terminal_is_closed(own_server: PostgresServer, shown: int) -> None:
    """Without a word, whatever it was doing: also where no signal tells of that."""
    ours, theirs = pty.openpty()
    code = TOP + "print('ended', file=sys.stderr)"
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, own_server.dsn],
        env={**ENVIRONMENT, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as process:
        os.close(theirs)
        read = 0
        while read < shown:
            read += len(os.read(ours, 500))
        os.close(ours)
        try:
            _, said = process.communicate(timeout=SOON)
        finally:
            process.kill()
    assert (process.returncode, said) == (0, "ended\n")


async def test_it_ends_while_the_server_is_frozen(own_server: PostgresServer) -> None:
    """Nobody waits for an answer that does not come; before, the figures are marked as stale."""
    admin = await asyncpg.connect(own_server.dsn)
    with TerminalProgram(TOP, own_server.dsn) as program:
        await asyncio.to_thread(program.until, lambda frame: "PostgreSQL" in frame)
        pids = [row["pid"] for row in await admin.fetch(OWN_SESSIONS)]
        own_server.freeze()
        for pid in pids:
            own_server.freeze_backend(pid)
        await asyncio.to_thread(program.until, lambda frame: "reconnecting" in frame)
        program.press("q")
        assert await asyncio.to_thread(program.ended) == 0
        assert program.modes == program.modes_before
    own_server.thaw()
    for pid in pids:
        own_server.thaw_backend(pid)
    await admin.close()
