"""
The process that runs PostgreSQL for an owner, and cleans up when the owner ends.

Run as a script, by path, with the standard library alone. It lives in a session of its
own, so that Ctrl-C in the owner's terminal does not reach the server, and as long as the
pipe from the owner: when that closes, because the owner closed it or was killed, the
wrapper ends the server and removes its directory. Being single-threaded, it may tie the
server's life to its own with ``PR_SET_PDEATHSIG``, which is bound to the forking *thread*.

Requests are lines of JSON on standard input, answers lines on standard output:
``started PID`` at once, ``exited STATUS`` when the process and all it left behind are gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

_LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_IPC_RMID = 0
_SHARED_MEMORY_LINE = 6

# How often to look whether the owner is still our parent. The pipe tells at once, unless
# the owner has forked a child that holds the other end open.
_PARENT_CHECK = 1.0
_SHUTDOWN_GRACE = 3.0


def children(parent: int) -> list[int]:
    """Return the ids of ``parent``'s child processes, zombies left out."""
    return [pid for pid, ppid, state in _processes() if ppid == parent and state != "Z"]


def states() -> dict[int, str]:
    """Return the one-letter state of every process (T: stopped), zombies left out."""
    return {pid: state for pid, _, state in _processes() if state != "Z"}


def _processes() -> list[tuple[int, int, str]]:
    """Return (pid, parent's pid, state) of every process."""
    return _processes_from_proc() if _LINUX else _processes_from_ps()


def _processes_from_proc() -> list[tuple[int, int, str]]:
    found: list[tuple[int, int, str]] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name, in parentheses, may itself hold spaces and parentheses.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            found.append((int(entry.name), int(fields[1]), fields[0]))
    return found


def _processes_from_ps() -> list[tuple[int, int, str]]:
    import subprocess  # it takes a third of the time that a wrapper needs to start

    command = ["ps", "-A", "-o", "pid=,ppid=,stat="]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = (line.split() for line in listing.splitlines())
    return [(int(pid), int(ppid), state[0]) for pid, ppid, state in rows]


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class Wrapper:
    """Runs one program after another, at most one at a time, and cleans up at the end."""

    def __init__(self, owner: int, directory: str) -> None:
        self._owner = owner
        self._directory = Path(directory)
        self._child: int | None = None
        self._status = 0
        self._input = b""
        self._wake = _wake_on_child()
        if _LINUX:
            # What outlives a killed postmaster becomes our child: we can wait for it.
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def serve(self) -> None:
        """Serve requests until the owner is gone or has closed its end."""
        while os.getppid() == self._owner:
            ready, _, _ = select.select([0, self._wake], [], [], _PARENT_CHECK)
            if self._wake in ready:
                os.read(self._wake, 4096)
            if self._child is not None and self._reap():
                self._answer(f"exited {self._status}")
            if 0 in ready and not self._read_requests():
                return

    def _read_requests(self) -> bool:
        """Serve what came in; return False at its end."""
        data = os.read(0, 65536)
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            self._child = self._spawn(json.loads(line))
            self._answer(f"started {self._child}")
        return bool(data)

    def _answer(self, line: str) -> None:
        os.write(1, line.encode() + b"\n")

    def _spawn(self, request: dict[str, Any]) -> int:
        wrapper = os.getpid()
        pid = os.fork()
        if pid == 0:
            _exec(request, wrapper)
        return pid

    def _reap(self) -> bool:
        """Collect what has ended; return True once the child and its orphans are all gone."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._child = None
                return True
            if pid == 0:
                return False
            if pid == self._child:
                self._status = os.waitstatus_to_exitcode(status)

    def dispose(self) -> None:
        """End whatever runs and remove the directory."""
        import shutil  # as above

        self._end_child()
        self._remove_shared_memory()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _end_child(self) -> None:
        if self._child is None:
            return
        family = [self._child, *children(self._child)]
        for pid in family:  # a frozen one would neither answer nor end
            send_signal(pid, signal.SIGCONT)
        send_signal(self._child, signal.SIGQUIT)
        if not self._wait_gone(_SHUTDOWN_GRACE):
            for pid in {*family, *children(self._child), *children(os.getpid())}:
                send_signal(pid, signal.SIGKILL)
            self._wait_gone(_SHUTDOWN_GRACE)

    def _wait_gone(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not self._reap():
            left = end - time.monotonic()
            if left <= 0:
                return False
            if select.select([self._wake], [], [], left)[0]:
                os.read(self._wake, 4096)
        return True

    def _remove_shared_memory(self) -> None:
        """Remove the one System V segment that a killed server cannot remove itself."""
        try:
            lock_file = (self._directory / "data" / "postmaster.pid").read_text()
            segment = int(lock_file.splitlines()[_SHARED_MEMORY_LINE].split()[1])
            ctypes.CDLL(None).shmctl(segment, _IPC_RMID, None)
        except (OSError, IndexError, ValueError, AttributeError):
            pass  # a clean end leaves no lock file, and an early one no segment


def _wake_on_child() -> int:
    """Return a descriptor that becomes readable when a child process ends."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _ignore)  # the descriptor needs a handler to be there
    return reader


def _ignore(*_: object) -> None:
    pass


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _exec(request: dict[str, Any], wrapper: int) -> NoReturn:
    """Become the requested program, in the forked child; errors go to the log."""
    try:
        os.setsid()
        log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(request["cwd"])
        _drop_privileges(request["account"])
        _die_with(wrapper)
        os.execve(request["argv"][0], request["argv"], request["env"])  # noqa: S606 - a list, no shell
    except BaseException as error:  # noqa: BLE001 - the child must never run the parent's code
        os.write(2, f"cannot run {request['argv'][0]}: {error}\n".encode())
    finally:
        os._exit(127)


def _drop_privileges(account: list[int] | None) -> None:
    if account is not None:
        uid, gid = account
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)


def _die_with(wrapper: int) -> None:
    """Ask to be killed with the wrapper; setuid() would clear it, so this comes after."""
    if _LINUX:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != wrapper:
            os._exit(127)


def _terminate(*_: object) -> NoReturn:
    sys.exit(0)


def main(owner: int, directory: str) -> None:
    """Serve until the owner is gone, then clean up."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    wrapper = Wrapper(owner, directory)
    try:
        wrapper.serve()
    except BrokenPipeError:
        pass  # the owner died while we told it something
    finally:
        wrapper.dispose()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
