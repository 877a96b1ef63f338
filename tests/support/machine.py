"""
How slow this machine is, measured once when the tests start: the time limits are scaled by that.

What a test waits for has to come; how long it may take depends on the machine, and on what else
runs there, the other processes of the same run included. So are the timeouts that asyncnotify is
given for what a server has to do: one that expires on purpose has to leave time for what comes
before and after. Where asyncnotify promises to do something in time, what it may take beyond its
timeout is scaled too: on the reference machine the promise is checked as it is made.
"""

from __future__ import annotations

import os
import time
from typing import Final

VARIABLE: Final = "ASYNCNOTIFY_TEST_SLOWNESS"
"""Holds the factor, for the processes of one run to have the same; may be set by hand."""

MOST: Final = 10.0
"""A machine that is slower still is no place for these tests."""

_GIVEN: Final = VARIABLE in os.environ
"""Whether the factor was set by hand, or by the process that has started this one."""

_REFERENCE: Final = 0.030
"""Seconds that _work() takes on the machine for which the limits were chosen, when that is idle."""

_ROUNDS: Final = 5
"""Rounds of work: together longer than the slice of time after which others have their turn."""


def slowness() -> float:
    """Return how many times as long as on the reference machine things may take: 1 to MOST."""
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = f"{min(max(1.0, _measured(), _load()), MOST):.2f}"
    return float(os.environ[VARIABLE])


def share(processes: int) -> None:
    """Let the factor count the processes in which this run is about to run tests."""
    if not _GIVEN:
        together = _load() + processes / (os.cpu_count() or 1)
        os.environ[VARIABLE] = f"{min(max(slowness(), together), MOST):.2f}"


def scaled(seconds: float) -> float:
    """Return a time limit for this machine."""
    return seconds * slowness()


def described() -> str:
    """Return a line that says by how much the limits are scaled, and why."""
    factor = slowness()
    if factor <= 1:
        return "time limits: as they are written"
    return (
        f"time limits: {factor:g} times as long, because this machine is slow or busy"
        f" (load {_load():.1f} for each core); {VARIABLE} sets the factor"
    )


def _measured() -> float:
    began = time.monotonic()
    for _ in range(_ROUNDS):
        _work()
    return (time.monotonic() - began) / (_REFERENCE * _ROUNDS)


def of_processor(seconds: float) -> float:
    """
    Return a limit in seconds of processor time, for the processor as it is now.

    What others do on the machine takes none of it, but they share caches with it, and one machine
    is slower than another.
    """
    began = time.thread_time()
    for _ in range(_ROUNDS):
        _work()
    return seconds * max(1.0, (time.thread_time() - began) / (_REFERENCE * _ROUNDS))


def _load() -> float:
    """Return how many processes wait for each core, where the system says."""
    if not hasattr(os, "getloadavg"):
        return 1.0
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def _work() -> None:
    """Do what asyncnotify does, too: make objects, and let them go."""
    texts: dict[int, str] = {}
    for number in range(400_000):
        texts[number & 1023] = str(number)
