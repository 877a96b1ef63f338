"""
A wall clock that steps back and forth by minutes while the program runs.

It is libfaketime's, loaded before all else: so the program has to be started anew, with the
library in its environment. Its servers and poolers keep the right time, and so does the monotonic
clock.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import tempfile
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, SupportsFloat, SupportsIndex

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator, Sequence

    from tests.chaos.judge.since import WallClock

__all__ = ["stepping", "with_stepped_clock"]

_CONTROL: Final = "FAKETIME_TIMESTAMP_FILE"
_PLACES: Final = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/lib/*-linux-gnu")
_STEP: Final = 300.0
"""Seconds by which the clock is wrong, at most."""


def with_stepped_clock(arguments: Sequence[str]) -> None:
    """
    Start the program anew, with a clock that can be stepped; return if it has been.

    Raises:
        FileNotFoundError: libfaketime is not installed.
    """
    if _CONTROL in os.environ:
        os.environ.pop("LD_PRELOAD", None)  # what we start has the right time
        time.sleep = _sleep
        atexit.register(Path(os.environ[_CONTROL]).unlink, missing_ok=True)
        return
    with tempfile.NamedTemporaryFile("w", prefix="chaos-clock-", delete=False) as control:
        control.write("+0")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(_library()),
        _CONTROL: control.name,
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # With that "fix" for old C libraries threads wait for up to a second for the interpreter's
        # lock instead of 5 ms (libfaketime 0.9.10, glibc 2.36)
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }
    program = [sys.executable, "-m", "tests.chaos", *arguments]
    os.execve(sys.executable, program, environment)  # noqa: S606 - no shell is wanted


def _sleep(seconds: SupportsFloat | SupportsIndex) -> None:
    """Stand in for ``time.sleep``, whose deadline libfaketime 0.9.10 moves into the past."""
    threading.Event().wait(float(seconds))


def _library() -> Path:
    for place in _PLACES:
        for found in Path("/").glob(f"{place.lstrip('/')}/faketime/libfaketimeMT.so.1"):
            return found
    message = "libfaketime is not installed: apt-get install faketime"
    raise FileNotFoundError(message)


@asynccontextmanager
async def stepping(clock: WallClock, chance: random.Random) -> AsyncGenerator[None]:
    """Step the clock while the block runs; it is right again afterwards."""
    task = asyncio.create_task(_step_for_ever(clock, chance))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _step_for_ever(clock: WallClock, chance: random.Random) -> None:
    """Set the clock ahead, then back to right or slow, each for a moment. Ends by cancellation."""
    control = Path(os.environ[_CONTROL])
    try:
        while True:
            back = chance.choice((0.0, chance.uniform(-_STEP, 0)))
            for error in (chance.uniform(1, _STEP), back):
                clock.stepped(error)
                _set(control, error)
                await asyncio.sleep(chance.uniform(0.4, 1.0))
    finally:
        _set(control, 0.0)
        clock.stepped(0.0)


def _set(control: Path, error: float) -> None:
    new = control.with_suffix(".new")
    new.write_text(f"{error:+.3f}", encoding="ascii")
    new.replace(control)
