"""A real Pgpool-II in front of a primary and its standby, which share the reading."""

from __future__ import annotations

import shutil
import signal
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from asyncnotify.testing._server.binaries import unprivileged_account, working_directory
from asyncnotify.testing._server.cluster import free_port
from asyncnotify.testing._server.log import log_tail
from asyncnotify.testing._server.process import WrapperProcess
from asyncnotify.testing._server.wrapper import send_signal
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from asyncnotify.testing.server import PostgresServer

HOST = "127.0.0.1"
SECONDS = scaled(20.0)
SETTINGS = {
    "backend_clustering_mode": "streaming_replication",
    "listen_addresses": HOST,
    "pcp_listen_addresses": "",
    "enable_pool_hba": "off",
    "num_init_children": "16",
    "max_pool": "1",
    "load_balance_mode": "on",
    "sr_check_period": "1",
    "sr_check_user": "postgres",
    "sr_check_database": "postgres",
    "memory_cache_enabled": "off",
}
BESIDE = ("pcp.conf", "pool_hba.conf")


@contextmanager
def pgpool(*servers: PostgresServer) -> Generator[str]:
    """Run a Pgpool-II for these servers, the primary first; give the URL of ``postgres``."""
    program = shutil.which("pgpool") or shutil.which("/usr/sbin/pgpool")
    if program is None:
        pytest.skip("needs Pgpool-II: install pgpool2 with your system's package manager")
    account = unprivileged_account()
    folder = working_directory(account)
    port, log = free_port(), folder / "pgpool.log"
    wrapper = WrapperProcess(folder, log, account)
    try:
        sockets = ("socket_dir", "pcp_socket_dir", "unix_socket_directories", "work_dir", "logdir")
        settings = {**SETTINGS, **dict.fromkeys(sockets, str(folder)), "port": str(port)}
        settings |= {"pcp_port": str(free_port()), "pid_file_name": str(folder / "pgpool.pid")}
        lines = [f"{name} = '{value}'\n" for name, value in settings.items()]
        lines += [_backend(number, server) for number, server in enumerate(servers)]
        (folder / "pgpool.conf").write_text("".join(lines), encoding="utf-8")
        for name in BESIDE:
            (folder / name).touch()
        files = ("-f", "pgpool.conf", "-F", BESIDE[0], "-a", BESIDE[1])
        pid = wrapper.spawn([program, "-n", *files])
        _await_port(port, wrapper, log)
        yield f"postgresql://postgres@{HOST}:{port}/postgres"
        send_signal(pid, signal.SIGINT)  # ends its children, too
        wrapper.wait(SECONDS)
    finally:
        wrapper.close()


def _backend(number: int, server: PostgresServer) -> str:
    """Return the lines for a server, which is not given up when a session of its ends."""
    values = {
        "hostname": HOST,
        "port": str(server.port),
        "weight": "1",
        "flag": "DISALLOW_TO_FAILOVER",
    }
    return "".join(f"backend_{name}{number} = '{value}'\n" for name, value in values.items())


def _await_port(port: int, wrapper: WrapperProcess, log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while wrapper.pid is not None and time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, port), timeout=1.0).close()
        except OSError:
            time.sleep(0.01)  # polls: it does not tell when it is ready
        else:
            return
    pytest.fail(f"Pgpool-II does not accept connections; it said:\n{log_tail(log)}")
