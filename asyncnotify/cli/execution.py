"""A command of the user's that is run for each notification."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any, Final

from asyncnotify import Gap, Notification
from asyncnotify.cli.output import say

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from asyncnotify.cli.items import Item

__all__ = ["Command"]

_TIME_TO_END: Final = 5.0
"""Seconds that a command has to end after SIGTERM, before SIGKILL."""

_PAUSE: Final = 0.02
"""Seconds between two looks at what the shell has started: nothing tells when that has ended."""


class Command:
    """
    Runs a command line in the shell, one call at a time; a call that fails is reported.

    The payload is on its standard input, all else is in variables of its environment. So nothing
    that was received becomes part of the command line.
    """

    def __init__(self, line: str) -> None:
        self._line = line

    async def run(self, item: Item) -> None:
        """Run it with an item, and wait for its end; cancelling ends all that it has started."""
        starting = asyncio.ensure_future(self._start(item))
        try:
            process = await asyncio.shield(starting)  # the shell may have started a program
        except asyncio.CancelledError:
            await _end(await starting)
            raise
        try:
            await process.communicate(payload_of(item).encode())
        except asyncio.CancelledError:
            await _end(process)
            raise
        if process.returncode:
            what = "gap" if isinstance(item, Gap) else f"notification on {item.channel}"
            say(f"the command ended with status {process.returncode} for a {what}")

    async def _start(self, item: Item) -> asyncio.subprocess.Process:
        """Start it in a process group of its own, so that signals reach all of it."""
        return await asyncio.create_subprocess_shell(
            self._line,
            stdin=asyncio.subprocess.PIPE,
            env={**os.environ, **variables_of(item)},
            start_new_session=True,
        )


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the shell and what it has started, which may outlive it."""
    if os.name != "posix":  # Windows has no signals to be sent to a group
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        return
    try:
        _signal_group(process.pid, signal.SIGTERM)
        await _in_time(_wait_for_group(process))
    finally:
        _signal_group(process.pid, signal.SIGKILL)
    await _in_time(process.wait())


async def _in_time(ending: Coroutine[Any, Any, object]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_TIME_TO_END):
            await ending


async def _wait_for_group(process: asyncio.subprocess.Process) -> None:
    await process.wait()
    while _signal_group(process.pid, 0):
        _reap_group(process.pid)
        await asyncio.sleep(_PAUSE)


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; return whether there was anyone who could get it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS refuses where only zombies are left
        return False
    return True


def _reap_group(group: int) -> None:
    """Let those that have ended go, if they became our children: as those of PID 1 do."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-group, os.WNOHANG)


def payload_of(item: Item) -> str:
    """Return what a command gets on its standard input: of a Gap nothing."""
    return "" if isinstance(item, Gap) else item.payload


def variables_of(item: Item) -> dict[str, str]:
    """Return what a command gets in its environment."""
    if isinstance(item, Gap):
        return {"ASYNCNOTIFY_GAP": item.reason.value, "ASYNCNOTIFY_CHANNEL": item.channel or ""}
    found = {"ASYNCNOTIFY_CHANNEL": item.channel}
    if isinstance(item, Notification):
        return {**found, "ASYNCNOTIFY_PID": str(item.pid)}
    position, key = str(item.position), item.key or ""
    return {**found, "ASYNCNOTIFY_POSITION": position, "ASYNCNOTIFY_KEY": key}
