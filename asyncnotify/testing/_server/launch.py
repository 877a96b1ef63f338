"""Starting a cluster's server, and what is done to its processes."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from asyncnotify.testing._server.log import log_since, log_size, wait_until
from asyncnotify.testing._server.wrapper import children, send_signal, states

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncnotify.testing._server.cluster import Cluster

__all__ = ["Refusal", "StopMode", "ask_to_stop", "freeze", "kill_orphans", "launch"]

StopMode = Literal["smart", "fast", "immediate"]
"""How a server is stopped, as ``pg_ctl stop`` has it."""

_POLL = 0.005
_FREEZE_TIMEOUT = 1.0
# How long a session is given to notice by itself that its postmaster was killed.
_ORPHAN_GRACE = 1.0
_PORT_TAKEN = "could not create any TCP/IP sockets"
# After a kill, until the last of the old server's processes has let go of its memory.
_PASSING = ("pre-existing shared memory block", 'lock file "postmaster.pid" already')


@dataclass(frozen=True, slots=True)
class Refusal:
    """A server that ended before it was ready, and what it said."""

    program: str
    status: int
    said: str

    @property
    def port_taken(self) -> bool:
        """Whether somebody else listens on its port."""
        return _PORT_TAKEN in self.said

    @property
    def passing(self) -> bool:
        """Whether trying again will help."""
        return any(trouble in self.said for trouble in _PASSING)


def launch(cluster: Cluster, deadline: float) -> Refusal | None:
    """
    Start the server; return None once it accepts connections, or why it does not.

    Raises:
        TimeoutError: It neither accepts them nor has ended at the deadline.

    """
    program, before = cluster.program("postgres"), log_size(cluster.log)
    pid = cluster.wrapper.spawn([program, "-D", cluster.data_dir])
    while (status := cluster.wrapper.wait(_POLL)) is None:
        if cluster.status(pid) in {"ready", "standby"}:
            return None
        if time.monotonic() > deadline:
            raise TimeoutError
    return Refusal(program.name, status, log_since(cluster.log, before))


def ask_to_stop(pid: int, mode: StopMode) -> None:
    """Ask a postmaster to shut down; what was frozen is thawed, or it would not hear."""
    for process in (pid, *children(pid)):
        send_signal(process, signal.SIGCONT)
    match mode:
        case "smart":
            send_signal(pid, signal.SIGTERM)
        case "fast":
            send_signal(pid, signal.SIGINT)
        case "immediate":
            send_signal(pid, signal.SIGQUIT)


def freeze(pid: int) -> None:
    """Stop a process; return once it has stopped."""
    send_signal(pid, signal.SIGSTOP)
    wait_until(lambda: states().get(pid, "T") == "T", _FREEZE_TIMEOUT)


def kill_orphans(pids: Iterable[int]) -> None:
    """Let the processes of a killed postmaster end, and end those that do not."""

    def gone() -> bool:
        return states().keys().isdisjoint(pids)

    _kill(pids, only="T")  # a frozen one will not end by itself
    if not wait_until(gone, _ORPHAN_GRACE):
        _kill(pids)
        wait_until(gone, _ORPHAN_GRACE)


def _kill(pids: Iterable[int], *, only: str = "") -> None:
    """Kill the processes, or those in the given state."""
    now = states()
    for pid in pids:
        if pid in now and only in now[pid]:
            send_signal(pid, signal.SIGKILL)
