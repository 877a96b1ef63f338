"""What a peer says, and how it measures itself."""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

_STATUS = Path("/proc/self/status")
_PEAK_RESET = Path("/proc/self/clear_refs")
_KIB = 1024


class Options:
    """The arguments of a peer: its database's DSN, then ``name=value`` pairs."""

    def __init__(self, arguments: list[str]) -> None:
        self.dsn = arguments[0]
        self._values = dict(argument.split("=", 1) for argument in arguments[1:])

    def text(self, name: str, default: str = "") -> str:
        """Return a value as it was given."""
        return self._values.get(name, default)

    def number(self, name: str, default: int = 0) -> int:
        """Return a value that is a number."""
        return int(self._values.get(name, default))


def say(event: str, **figures: object) -> None:
    """Tell the one who runs us."""
    print(json.dumps({event: figures}), flush=True)


class Meter:
    """What a piece of work took: CPU of this process, time, memory."""

    def __init__(self) -> None:
        self._memory = resident()
        reset_peak()
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    @classmethod
    def ready(cls) -> Meter:
        """
        Say that we wait for the workload, and measure from here.

        What imports have left is collected before: to look through it takes 10 ms, which would
        be counted in one process and not in another.
        """
        gc.collect()
        meter = cls()
        say("ready")
        return meter

    def read(self) -> dict[str, float]:
        """Return what it took so far."""
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        return {"cpu": cpu, "wall": wall, "memory": peak() - self._memory}


def resident() -> int:
    """Return the bytes of memory that this process has now."""
    return _status("VmRSS") or peak()


def peak() -> int:
    """Return the most bytes of memory that this process has had."""
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


def reset_peak() -> None:
    """Let ``peak()`` count from now on, where the system can."""
    try:
        _PEAK_RESET.write_text("5", encoding="ascii")
    except OSError:
        return


def _status(field: str) -> int:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * _KIB for line in lines if line.startswith(field)), 0)


def run(workloads: Mapping[str, Callable[[Options], Coroutine[Any, Any, None]]]) -> None:
    """Run the workload and the event loop that the options name."""
    options = Options(sys.argv[1:])
    workload = workloads[options.text("workload")]
    factory = None
    if options.text("loop") == "uvloop":
        factory = importlib.import_module("uvloop").new_event_loop
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(workload(options))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is shown in the table
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        print(json.dumps({"error": reason}), flush=True)
