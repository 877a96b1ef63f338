"""Running a command's coroutine: signals, errors and a closed pipe become an exit status."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import stat
import sys
from typing import TYPE_CHECKING, Final

import asyncpg
import typer

from asyncnotify import (
    AsyncNotifyError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    ListenTimeoutError,
    NotifyTimeoutError,
)
from asyncnotify.cli.exits import BAD_RESULT, NOT_DONE, READER_LEFT, UNREACHABLE, USAGE
from asyncnotify.cli.output import discard_output, say

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

__all__ = ["run"]

_OUTAGES: Final = (
    ConnectError,
    ConnectionLostError,
    ListenTimeoutError,
    NotifyTimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    ConnectionError,
    TimeoutError,
)
_SIGNALS: Final = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
"""SIGHUP, which Windows lacks: the terminal has been closed."""
_STDOUT: Final = 1


def run(work: Callable[[], Coroutine[Any, Any, int]]) -> None:
    """
    Run the coroutine of a command, which returns its exit status, and leave with that.

    SIGINT, SIGTERM and SIGHUP cancel it, once; later ones do nothing, as closing has its deadlines.
    So does a reader of standard output that leaves.

    Raises:
        typer.Exit: Always.
    """
    _show_warnings()
    raise typer.Exit(_status_of(work))


def _status_of(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    run = _Run()
    try:
        return asyncio.run(run.of(work))
    except asyncio.CancelledError:
        return run.status_of_end()
    except BrokenPipeError:
        discard_output()
        return READER_LEFT
    except Exception as error:  # noqa: BLE001 - what is not known is raised again
        return _status_of_error(error)


def _status_of_error(error: Exception) -> int:
    """Say what has failed, and what to do about it if known; raise what is a defect of ours."""
    if isinstance(error, _OUTAGES) and not isinstance(error, ConfigurationError):
        status = UNREACHABLE
    elif isinstance(error, ValueError) and isinstance(error, AsyncNotifyError):
        status = USAGE
    elif isinstance(error, AsyncNotifyError | asyncpg.PostgresError):
        status = NOT_DONE
    elif isinstance(error, OSError):  # of a stream: those of connections are outages
        status = BAD_RESULT
        discard_output()
    else:
        raise error
    say("; ".join([f"error: {error}", *getattr(error, "__notes__", ())]))
    return status


class _Run:
    """One run of a command, and what has ended it early."""

    def __init__(self) -> None:
        self._signal: int | None = None
        self._reader_left = False

    async def of(self, work: Callable[[], Coroutine[Any, Any, int]]) -> int:
        """Run a coroutine as a task of its own, to be cancelled by signals."""
        task = asyncio.ensure_future(work())
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError):  # on Windows
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    loop.add_signal_handler(number, self._interrupt, task, number)
            if sys.stdout is not None and _is_pipe(_STDOUT):
                loop.add_reader(_STDOUT, self._end_without_reader, loop, task)
        try:
            return await task
        finally:
            loop.remove_reader(_STDOUT)

    def _interrupt(self, task: asyncio.Task[int], number: int) -> None:
        if self._signal is None:
            self._signal = number
            task.cancel()

    def _end_without_reader(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[int]) -> None:
        """End as a write would: the end of a pipe that writes is readable once nobody reads."""
        loop.remove_reader(_STDOUT)
        self._reader_left = True
        task.cancel()

    def status_of_end(self) -> int:
        """Return the exit status of a run that was cancelled."""
        if self._signal is not None:
            return 128 + self._signal
        discard_output()
        return READER_LEFT


def _is_pipe(descriptor: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:  # it is closed
        return False


def _show_warnings() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("asyncnotify")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.WARNING)
