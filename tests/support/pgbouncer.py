"""
A real PgBouncer in front of a `PostgresServer`, for tests.

::

    with PostgresServer() as server, PgBouncer(server, pool_mode="session") as bouncer:
        run_tests(bouncer.dsn)

It runs the ``pgbouncer`` that is installed on the system, in a temporary directory. It works as
any user; as root it runs PgBouncer as ``nobody``.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, Self
from urllib.parse import unquote, urlsplit

from asyncnotify.testing._server.binaries import Account, unprivileged_account, working_directory
from asyncnotify.testing._server.cluster import free_port
from asyncnotify.testing._server.errors import (
    BinariesNotFoundError,
    ServerNotRunningError,
    ServerStartError,
    ServerTimeoutError,
)
from asyncnotify.testing._server.log import await_log, log_since, log_size, log_tail
from asyncnotify.testing._server.process import WrapperProcess
from asyncnotify.testing._server.wrapper import send_signal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asyncnotify.testing.server import PostgresServer

__all__ = ["PgBouncer", "PoolMode"]

PoolMode = Literal["session", "transaction", "statement"]

_HOST: Final = "127.0.0.1"
_DEFAULTS: Final = {
    "listen_addr": _HOST,
    "unix_socket_dir": "",
    "auth_type": "hba",
    # Seconds for which it refuses its clients when the server has refused it; 15 if not set.
    "server_login_retry": "0.1",
}
_NOT_FOUND: Final = (
    "no pgbouncer found; install it with your system's package manager, or name the program with"
    " program="
)
# Where packages put it, though ordinary users seldom have that on their PATH
_PLACES: Final = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin")

_READY: Final = "process up:"
_RELOADED: Final = "got SIGHUP"
_PORT_TAKEN: Final = "Address already in use"
_SIGQUIT_SINCE: Final = (1, 23)
"""The first version whose SIGTERM waits for the clients to leave."""

_POLL: Final = 0.005


class PgBouncer:
    """
    A connection pooler of our own, on a TCP port of 127.0.0.1, for all databases of a server.

    Nothing happens before ``start()`` (or ``with``). The calls block, for milliseconds as a
    rule, and need no thread or event loop. One call at a time. The server may be stopped and
    started meanwhile: PgBouncer connects to it whenever a client needs that.

    Nothing stays behind: ``close()`` ends it and removes its directory, and so does a process
    of its own when the owner is gone, even by ``kill -9``.

    Args:
        server: Where its connections lead to.
        pool_mode: For how long a client keeps a connection to the server. LISTEN needs
            ``"session"``.
        settings: Options of the section ``[pgbouncer]``, on top of the defaults.
        users: Roles that may come in, with their passwords; the server has to know the same
            ones. Beside them the server's superuser may, without a password.
        port: The TCP port; a free one by default. It stays the same across restarts.
        program: The path of ``pgbouncer``; looked for by default.

    """

    def __init__(
        self,
        server: PostgresServer,
        *,
        pool_mode: PoolMode = "session",
        settings: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
        port: int | None = None,
        program: str | os.PathLike[str] | None = None,
    ) -> None:
        self._server = server
        self._pool_mode: PoolMode = pool_mode
        self._settings = dict(settings or {})
        self._users = dict(users or {})
        self._wanted_port = self._port = port
        self._has_served = False
        self._program = program
        self._installation: _Installation | None = None

    def __repr__(self) -> str:
        state = "" if self.running else " not"
        where = f"{self.host}:{self._port} in {self._pool_mode} mode"
        return f"<{type(self).__name__} on {where},{state} running>"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def host(self) -> str:
        """The address it listens on."""
        return _HOST

    @property
    def port(self) -> int:
        """The TCP port; from the first start the same until ``close()``, across restarts."""
        if self._port is None:
            self._port = free_port()
        return self._port

    @property
    def pool_mode(self) -> PoolMode:
        """For how long a client keeps a connection to the server; ``restart()`` can change it."""
        return self._pool_mode

    @property
    def dsn(self) -> str:
        """The URL of the superuser's connection to the database ``postgres``."""
        return self.dsn_for("postgres")

    def dsn_for(
        self, database: str, *, user: str | None = None, password: str | None = None
    ) -> str:
        """
        Return the URL of a connection to ``database``, as the superuser by default.

        The database ``pgbouncer`` is PgBouncer's console, which the superuser may use.
        """
        url = urlsplit(self._server.dsn_for(database, user=user, password=password))
        login = url.netloc.rpartition("@")[0]
        return url._replace(netloc=f"{login}@{self.host}:{self.port}").geturl()

    @property
    def settings(self) -> Mapping[str, str]:
        """The options of the section ``[pgbouncer]``, defaults included."""
        ours = {"listen_port": str(self.port), "pool_mode": self._pool_mode}
        return MappingProxyType(
            {**_DEFAULTS, "admin_users": self._superuser, **self._settings, **ours}
        )

    @property
    def version(self) -> str:
        """PgBouncer's version, such as ``1.18.0``; raises before the first start."""
        return self._require_installation("tell the version").version

    @property
    def log(self) -> Path:
        """The file that it logs to; raises before the first start, and after ``close()``."""
        return self._require_installation("tell the log file").log

    def log_tail(self, lines: int = 20) -> str:
        """Return the log's last lines, nothing after ``close()``."""
        return "" if self._installation is None else log_tail(self._installation.log, lines)

    @property
    def pid(self) -> int:
        """The process id of PgBouncer; ServerNotRunningError if there is none."""
        pid = self._require_installation("tell the process id").wrapper.pid
        if pid is None:
            operation = "tell the process id"
            raise ServerNotRunningError(operation)
        return pid

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._installation is not None and self._installation.wrapper.pid is not None

    def start(self, *, timeout: float = 10.0) -> None:
        """
        Start PgBouncer; return once it accepts connections. Nothing if it runs.

        Raises:
            BinariesNotFoundError: There is no PgBouncer that we can run.
            ServerStartError: It gave up; the message holds what it said.
            ServerTimeoutError: It was not ready within ``timeout`` seconds, and was ended.

        """
        if self.running:
            return
        if self._installation is None:
            self._installation = _Installation.prepare(self._program)
        deadline = time.monotonic() + timeout
        while (said := self._launch(self._installation, deadline, timeout)) is not None:
            port_was_taken = _PORT_TAKEN in said and self._wanted_port is None
            if not port_was_taken or self._has_served or time.monotonic() > deadline:
                name, status = (
                    self._installation.program.name,
                    self._installation.wrapper.wait(0) or 0,
                )
                raise ServerStartError(name, status, said)
            self._port = None
        self._has_served = True

    def stop(self, *, timeout: float = 10.0) -> None:
        """
        End PgBouncer at once, and with it all connections through it; nothing if it is not running.

        Raises:
            ServerTimeoutError: It still runs after ``timeout`` seconds.

        """
        if self._installation is None or (pid := self._installation.wrapper.pid) is None:
            return
        send_signal(pid, self._installation.end_signal)
        if self._installation.wrapper.wait(timeout) is None:
            operation = "stop PgBouncer"
            raise ServerTimeoutError(operation, timeout, self.log_tail())

    def restart(self, *, pool_mode: PoolMode | None = None, timeout: float = 10.0) -> None:
        """
        Stop and start, on the same port; ``timeout`` is for each. Raises as they do.

        ``pool_mode`` is the mode from then on; by default it remains what it was.
        """
        self.stop(timeout=timeout)
        self._pool_mode = pool_mode or self._pool_mode
        self.start(timeout=timeout)

    def reload(self, *, pool_mode: PoolMode | None = None, timeout: float = 10.0) -> None:
        """
        Let it read its configuration anew, without ending any connection.

        ``pool_mode`` is the mode from then on, for the connections that are open as well.

        Raises:
            ServerNotRunningError: It is not running.
            ServerTimeoutError: It has not done so within ``timeout`` seconds.

        """
        pid, installation = self.pid, self._require_installation("reload")
        self._pool_mode = pool_mode or self._pool_mode
        self._configure(installation)
        before = log_size(installation.log)
        send_signal(pid, signal.SIGHUP)
        await_log(installation.log, _RELOADED, before, timeout)

    def close(self) -> None:
        """End PgBouncer and remove its directory. Idempotent; it may start anew."""
        installation, self._installation = self._installation, None
        if installation is not None:
            if (pid := installation.wrapper.pid) is not None:
                send_signal(pid, signal.SIGKILL)  # it has no children, and no state to be saved
            installation.wrapper.close()
            self._port, self._has_served = self._wanted_port, False

    @property
    def _superuser(self) -> str:
        return unquote(urlsplit(self._server.dsn).username or "")

    def _require_installation(self, operation: str) -> _Installation:
        if self._installation is None:
            raise ServerNotRunningError(operation)
        return self._installation

    def _launch(self, installation: _Installation, deadline: float, timeout: float) -> str | None:
        """Start it; return None once it is ready, or what it said if it gave up."""
        self._configure(installation)
        before = log_size(installation.log)
        installation.wrapper.spawn([installation.program, installation.directory / "pgbouncer.ini"])
        while installation.wrapper.wait(_POLL) is None:
            if _READY in log_since(installation.log, before):
                return None
            if time.monotonic() > deadline:
                tail = self.log_tail()
                self.close()
                operation = "start PgBouncer"
                raise ServerTimeoutError(operation, timeout, tail)
        return log_since(installation.log, before)

    def _configure(self, installation: _Installation) -> None:
        hba, users = installation.directory / "hba.conf", installation.directory / "users.txt"
        installation.write(hba, "".join(f"{line}\n" for line in self._hba()))
        passwords = {self._superuser: "", **self._users}
        installation.write(
            users, "".join(f"{_quote(n)} {_quote(p)}\n" for n, p in passwords.items())
        )
        settings = {"auth_file": str(users), "auth_hba_file": str(hba), **self.settings}
        options = "".join(f"{name} = {value}\n" for name, value in settings.items())
        databases = f"* = host={self._server.host} port={self._server.port}"
        text = f"[databases]\n{databases}\n\n[pgbouncer]\n{options}"
        installation.write(installation.directory / "pgbouncer.ini", text)

    def _hba(self) -> Iterator[str]:
        for user in self._users:
            yield f"host all {_quote(user)} {_HOST}/32 scram-sha-256"
        yield f"host all {_quote(self._superuser)} {_HOST}/32 trust"


@dataclass(frozen=True, slots=True)
class _Installation:
    """The program, a directory for its files, and the process that ends and removes both."""

    program: Path
    version: str
    directory: Path
    account: Account | None
    wrapper: WrapperProcess

    @classmethod
    def prepare(cls, program: str | os.PathLike[str] | None) -> _Installation:
        path = _find_program(program)
        version = _version_of(path)
        account = unprivileged_account()  # PgBouncer does not run as root
        directory = working_directory(account)
        wrapper = WrapperProcess(directory, directory / "pgbouncer.log", account)
        return cls(path, version, directory, account, wrapper)

    @property
    def log(self) -> Path:
        return self.directory / "pgbouncer.log"

    @property
    def end_signal(self) -> signal.Signals:
        """The signal that ends it without waiting for anybody."""
        version = tuple(int(number) for number in self.version.split(".")[:2])
        return signal.SIGQUIT if version >= _SIGQUIT_SINCE else signal.SIGTERM

    def write(self, path: Path, text: str) -> None:
        """Write a file that PgBouncer can read, and other users cannot."""
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)


def _find_program(explicit: str | os.PathLike[str] | None) -> Path:
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), *_PLACES])
    found = shutil.which(explicit or "pgbouncer", path=places)
    if found is None:
        raise BinariesNotFoundError(f"{explicit} is no program" if explicit else _NOT_FOUND)
    return Path(found).absolute()


def _version_of(program: Path) -> str:
    try:
        answer = subprocess.run([program, "-V"], check=False, capture_output=True, text=True)
    except OSError as error:
        message = f"{program} cannot be run: {error}"
        raise BinariesNotFoundError(message) from error
    match = re.match(r"PgBouncer (\d+\.\d+\S*)", answer.stdout)
    if match is None:
        message = f"{program} does not tell its version: is it PgBouncer?"
        raise BinariesNotFoundError(message)
    return match.group(1)


def _quote(word: str) -> str:
    return '"' + word.replace('"', '""') + '"'
