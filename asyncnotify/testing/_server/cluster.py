"""A database cluster on disk: its directory, configuration, log, and the process that runs it."""

from __future__ import annotations

import os
import random
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asyncnotify.testing._server.binaries import (
    Account,
    Installation,
    find_bin_dir,
    unprivileged_account,
    working_directory,
)
from asyncnotify.testing._server.errors import (
    CommandFailedError,
    PostgresServerError,
    ServerTimeoutError,
)
from asyncnotify.testing._server.log import log_since, log_size
from asyncnotify.testing._server.process import WrapperProcess

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self

__all__ = ["DEFAULTS", "TRUST", "Cluster", "free_port"]

DEFAULTS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "wal_level": "replica",
    "max_wal_senders": "10",
    "fsync": "off",
    "timezone": "UTC",
    "log_checkpoints": "off",
    "password_encryption": "scram-sha-256",  # the default since 14
    # Files of the data directory, not of /dev/shm: a killed server leaves none behind.
    "dynamic_shared_memory_type": "mmap",
}
TRUST = (
    "local all all trust",
    "host all all 127.0.0.1/32 trust",
    "host replication all 127.0.0.1/32 trust",
)

# Below the range that systems take the ports of outgoing connections from: there, a client
# that keeps trying a port with no server behind it may end up connected to itself.
_PORTS = range(20_000, 30_000)
_PORT_TRIES = 100

_NO_INSTRUCTIONS_SINCE = 14
_STATUS_LINE = 7
_COMMAND_TIMEOUT = 120.0


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on now."""
    for port in random.sample(_PORTS, _PORT_TRIES):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    message = f"no free TCP port found from {_PORTS.start} to {_PORTS.stop - 1}"
    raise PostgresServerError(message)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A data directory with what is needed to run it. The wrapper process ends and removes it."""

    installation: Installation
    account: Account | None
    directory: Path
    wrapper: WrapperProcess

    @classmethod
    def prepare(cls, bin_dir: str | os.PathLike[str] | None) -> Self:
        """
        Return a cluster that has everything but its data.

        Raises:
            BinariesNotFoundError: There is no PostgreSQL that we can run.
            PostgresServerError: This system is not POSIX, or has no user to run it as.

        """
        if os.name != "posix":
            message = "PostgresServer needs Linux, macOS or another POSIX system"
            raise PostgresServerError(message)
        programs = find_bin_dir(bin_dir)
        account = unprivileged_account()
        directory = working_directory(account)
        wrapper = WrapperProcess(directory, directory / "server.log", account)
        try:
            installation = Installation.prepare(programs, account, directory)
        except BaseException:
            wrapper.close()
            raise
        return cls(installation, account, directory, wrapper)

    @property
    def data_dir(self) -> Path:
        """The data directory; it exists once initialised."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """Where the server and the other programs write."""
        return self.directory / "server.log"

    def program(self, name: str) -> Path:
        """Return the path of one of PostgreSQL's programs."""
        return self.installation.bin_dir / name

    def initdb(self, user: str) -> None:
        """Make the data directory."""
        self._run(
            self.program("initdb"),
            f"--pgdata={self.data_dir}",
            f"--username={user}",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--wal-segsize=1",  # 1 MB instead of 16: half the size to write and to copy
            "--no-sync",
            *["--no-instructions"] * (self.installation.major >= _NO_INSTRUCTIONS_SINCE),
        )

    def copy_from(self, template: Path) -> None:
        """Make the data directory a copy of another, whose server is not running."""
        if not template.exists() or (template / "postmaster.pid").exists():
            message = "a template must be initialised and stopped: call its initialise() or stop()"
            raise PostgresServerError(message)
        self._run("/bin/cp", "-Rp", template, self.data_dir)

    def base_backup(self, host: str, port: int, user: str) -> None:
        """Make the data directory that of a standby of a running server."""
        self._run(
            self.program("pg_basebackup"),
            f"--pgdata={self.data_dir}",
            f"--dbname=host={host} port={port} user={user}",
            "--write-recovery-conf",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--no-sync",
        )

    def configure(self, settings: Mapping[str, str], hba: Iterable[str]) -> None:
        """Write postgresql.conf and pg_hba.conf."""
        lines = (f"{name} = '{_escape(value)}'\n" for name, value in settings.items())
        self.write("postgresql.conf", "".join(lines))
        self.write("pg_hba.conf", "".join(f"{line}\n" for line in hba))

    def write(self, name: str, text: str) -> None:
        """Write a file in the data directory, readable by the server."""
        # A server that runs may look at any time: it removes the order to promote as soon as it
        # is there, with whatever rights
        unfinished = self.data_dir / f"{name}.unfinished"
        unfinished.write_text(text, encoding="utf-8")
        if self.account is not None:
            os.chown(unfinished, self.account.uid, self.account.gid)
        unfinished.replace(self.data_dir / name)

    def status(self, pid: int) -> str:
        """Return what the postmaster says of itself: starting, ready, standby, stopping, or ''."""
        try:
            lines = (self.data_dir / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            # A server that was killed leaves its file behind.
            return lines[_STATUS_LINE].strip() if int(lines[0]) == pid else ""
        except (OSError, IndexError, ValueError):
            return ""

    def _run(self, *command: str | Path) -> None:
        """Run a program as the account; its output goes to the log."""
        before, name = log_size(self.log), Path(command[0]).name
        self.wrapper.spawn(command)
        status = self.wrapper.wait(_COMMAND_TIMEOUT)
        if status is None:
            raise ServerTimeoutError(name, _COMMAND_TIMEOUT, log_since(self.log, before))
        if status != 0:
            raise CommandFailedError(name, status, log_since(self.log, before))


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")
