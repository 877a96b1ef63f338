"""Faults of a server: its lock, its queue, its role in replication, its settings, its version."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify.doctor import Severity, diagnose
from asyncnotify.testing.server import PostgresServer
from tests.doctor.findings import bad, of, one, text_of
from tests.support.machine import scaled
from tests.support.server_faults import ServerFaults
from tests.support.server_features import needs_small_queue, needs_version, small_queue
from tests.support.server_programs import cached_programs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from asyncnotify.doctor import Finding

    Connection = asyncpg.Connection[asyncpg.Record]

WAIT_LIMIT = scaled(20.0)
FLOOD = "SELECT count(pg_notify($2, lpad(n::text, 7000, '0'))) FROM generate_series(1, $1) n"
NOBODY = "synchronous_standby_names = 'nobody'"


@pytest.fixture(scope="module")
def server(template: PostgresServer) -> Iterator[PostgresServer]:
    """A server of this file's own, with a small queue where there can be one."""
    template.initialise()
    with PostgresServer(template=template, settings=small_queue(template)) as server:
        yield server


@contextlib.asynccontextmanager
async def connected(server: PostgresServer) -> AsyncGenerator[Connection]:
    """Have a plain connection."""
    connection = await asyncpg.connect(server.dsn)
    try:
        yield connection
    finally:
        connection.terminate()


@contextlib.asynccontextmanager
async def altered(admin: Connection, setting: str, value: str) -> AsyncGenerator[None]:
    """Set a setting of the whole server, for a while."""
    await admin.execute(f"ALTER SYSTEM SET {setting} = '{value}'")
    await _reload(admin, setting)
    try:
        yield
    finally:
        await admin.execute("SET synchronous_commit = local")
        await admin.execute(f"ALTER SYSTEM RESET {setting}")
        await admin.execute("SELECT pg_reload_conf()")


async def _reload(admin: Connection, setting: str) -> None:
    """Return when sessions that begin now have the new value."""
    await admin.execute("SELECT pg_reload_conf()")
    query = "SELECT source = 'configuration file' FROM pg_settings WHERE name = $1"
    await until(admin, query, setting)


async def until(admin: Connection, query: str, *arguments: Any) -> None:
    """Return when a query says true."""
    async with asyncio.timeout(WAIT_LIMIT):
        while not await admin.fetchval(query, *arguments):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)  # polls the server


@contextlib.asynccontextmanager
async def stuck_commits(server: PostgresServer, admin: Connection) -> AsyncGenerator[list[int]]:
    """Have a commit that waits for a standby, and one that waits behind it; give their pids."""
    waits = "SELECT wait_event = $2 FROM pg_stat_activity WHERE pid = $1"

    async def commit_until_it_is_stuck() -> None:
        # The checkpointer reads the setting as well, and no commit waits before it has
        while True:
            await stuck.execute("BEGIN; INSERT INTO orders VALUES (1); NOTIFY orders; COMMIT")

    async with connected(server) as stuck, connected(server) as behind:
        pids = [stuck.get_server_pid(), behind.get_server_pid()]
        await stuck.execute("SET application_name = 'checkout'")
        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(commit_until_it_is_stuck())]
        try:
            await until(admin, waits, pids[0], "SyncRep")
            tasks.append(asyncio.ensure_future(behind.execute("NOTIFY orders")))
            await until(admin, waits, pids[1], "object")
            yield pids
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_commit_stuck_in_syncrep_is_named(server: PostgresServer) -> None:
    """With its pid, the number of those behind it, and the cure; no probe adds to them."""
    async with connected(server) as admin:
        await admin.execute("CREATE TABLE orders (id int)")
        async with (
            altered(admin, "synchronous_standby_names", "nobody"),
            stuck_commits(server, admin) as (stuck, behind),
        ):
            report = await diagnose(server.dsn)
    finding = one(report, "notify lock", Severity.ERROR)
    assert f"pid {stuck} waits for a synchronous standby" in finding.title
    assert "'checkout'" in finding.evidence[0]
    assert finding.evidence[1] == f"1 waiting behind it: {behind}"
    assert f"pg_cancel_backend({stuck})" in finding.cure
    assert of(report, "delivery")[0].severity is Severity.UNKNOWN
    assert "synchronous_standby_names" in text_of(one(report, "primary", Severity.ERROR))
    assert report.exit_status == 1


async def test_a_plain_role_does_not_know_of_a_synchronous_standby(
    server: PostgresServer,
) -> None:
    """Whether there is one is unknown to it, not clean."""
    async with connected(server) as admin:
        await admin.execute("CREATE ROLE plain LOGIN")
        async with altered(admin, "synchronous_standby_names", "nobody"):
            report = await diagnose(server.dsn_for("postgres", user="plain"))
    assert "needs pg_monitor" in one(report, "primary", Severity.UNKNOWN).title


async def test_busy_notifiers_are_no_fault(server: PostgresServer) -> None:
    """They hold the lock one after another, each for a moment."""
    async with connected(server) as first, connected(server) as second:
        end = asyncio.Event()

        async def notify(connection: Connection) -> None:
            while not end.is_set():
                await connection.execute("NOTIFY busy")

        tasks = [asyncio.ensure_future(notify(one)) for one in (first, second)]
        try:
            report = await diagnose(server.dsn)
        finally:
            end.set()
            await asyncio.gather(*tasks)
    assert bad(report) == []


async def test_a_queue_that_is_held_is_told_with_its_suspects(server: PostgresServer) -> None:
    """Called suspects; and where to read which one it is."""
    needs_small_queue(server)
    async with ServerFaults(server.dsn) as faults, connected(server) as sender:
        async with faults.queue_held("flood") as holder:
            pid = holder.get_server_pid()
            await sender.execute("BEGIN; COMMIT")
            for _ in range(4):
                await sender.fetchval(FLOOD, 9, "flood")
            report = await diagnose(server.dsn)
            finding = one(report, "queue", Severity.ERROR)
            assert "% full" in finding.title
            assert "max_notify_queue_pages is 64" in finding.evidence[0]
            assert "not proved" in finding.evidence[1]
            assert any(
                line.startswith(f"suspect: pid {pid},") and "idle in transaction" in line
                for line in finding.evidence
            )
            assert "DETAIL" in finding.cure
        await faults.until_gone(pid)
    assert of(await diagnose(server.dsn), "queue")[0].severity is Severity.OK


async def test_a_listener_that_does_not_read_is_found(server: PostgresServer) -> None:
    """Whether the queue is full yet or not: its session is idle, and waits for its client."""
    async with connected(server) as sender, connected(server) as deaf:
        await deaf.execute("LISTEN flood")
        transport: Any = deaf._transport  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        transport.pause_reading()
        found: list[Finding] = []
        async with asyncio.timeout(WAIT_LIMIT):
            while not found:  # the kernel may take more for a moment after the server has waited
                await flood_until_client_write(sender, deaf.get_server_pid())
                report = await diagnose(server.dsn)
                found = [f for f in of(report, "queue") if "does not read" in f.title]
        assert [f.severity for f in found] == [Severity.WARNING]
        assert f"pid {deaf.get_server_pid()}" in found[0].evidence[0]


async def flood_until_client_write(sender: Connection, pid: int) -> None:
    """
    Notify until a session waits for its client.

    A queue that has been full stays so when its only reader has read it: commits fail before they
    empty it. Asking how full it is empties it.
    """
    waits = "SELECT wait_event = 'ClientWrite' FROM pg_stat_activity WHERE pid = $1"
    while not await sender.fetchval(waits, pid):
        await sender.fetchval("SELECT pg_notification_queue_usage()")
        with contextlib.suppress(asyncpg.ProgramLimitExceededError):  # the queue is full
            await sender.fetchval(FLOOD, 9, "flood")


async def test_a_standby_refuses_listen(server: PostgresServer) -> None:
    """The standby is the error, and nothing is sent there."""
    with server.standby() as standby:
        report = await diagnose(standby.dsn)
        assert [f.check for f in bad(report)] == ["primary"]
        assert "standby" in one(report, "primary", Severity.ERROR).title


@pytest.mark.parametrize(
    ("setting", "value", "check", "since"),
    [
        ("default_transaction_read_only", "on", "primary", 13),
        ("idle_session_timeout", "5s", "settings", 14),
        ("transaction_timeout", "2s", "settings", 17),
        ("statement_timeout", "500ms", "settings", 13),
        ("tcp_user_timeout", "2s", "settings", 13),
    ],
)
async def test_settings_that_hurt_are_told(
    server: PostgresServer, setting: str, value: str, check: str, since: int
) -> None:
    """Of this role, or of all; with their value and where it is set."""
    needs_version(server.version, since, setting)
    async with connected(server) as admin:
        await admin.execute(f"ALTER ROLE postgres SET {setting} = '{value}'")
        try:
            report = await diagnose(server.dsn)
        finally:
            await admin.execute("SET default_transaction_read_only = off")
            await admin.execute(f"ALTER ROLE postgres RESET {setting}")
    finding = one(report, check, Severity.WARNING)
    assert setting in text_of(finding)
    assert [f.check for f in bad(report)] == [check]


@pytest.mark.parametrize(
    ("place", "source"), [("ROLE postgres", "user"), ("DATABASE postgres", "database")]
)
async def test_where_a_setting_is_set_is_told(
    server: PostgresServer, place: str, source: str
) -> None:
    """Though the doctor sets the same one for itself."""
    async with connected(server) as admin:
        await admin.execute(f"ALTER {place} SET statement_timeout = '700ms'")
        try:
            report = await diagnose(server.dsn)
        finally:
            await admin.execute(f"ALTER {place} RESET statement_timeout")
    finding = one(report, "settings", Severity.WARNING)
    assert finding.evidence == (f"statement_timeout is 700 ms, source {source}",)


async def test_an_old_minor_release_is_told() -> None:
    """One that has a known fault of LISTEN, with the release that repaired it."""
    bin_dir = cached_programs("18.0")
    if bin_dir is None:
        pytest.skip("needs PostgreSQL 18.0: python tests/support/server_programs.py 18.0")
    with PostgresServer(bin_dir=bin_dir) as server:
        report = await diagnose(server.dsn)
    finding = one(report, "version", Severity.WARNING)
    assert "18.2" in finding.title
    assert "58P01" in text_of(finding)
    assert bad(report) == [finding]
