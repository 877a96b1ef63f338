"""A command of the user's that is run for each notification."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Final

from asyncnotify import Gap, Notification
from asyncnotify.cli.output import say

if TYPE_CHECKING:
    from asyncnotify.cli.items import Item

__all__ = ["Command"]

_TIME_TO_END: Final = 5.0
"""Seconds that a command has to end after SIGTERM, before SIGKILL."""


class Command:
    """
    Runs a command line in the shell, one call at a time; a call that fails is reported.

    The payload is on its standard input, all else is in variables of its environment. So nothing
    that was received becomes part of the command line.
    """

    def __init__(self, line: str) -> None:
        self._line = line

    async def run(self, item: Item) -> None:
        """Run it with an item, and wait for its end; cancelling ends the command."""
        process = await asyncio.create_subprocess_shell(
            self._line,
            stdin=asyncio.subprocess.PIPE,
            env={**os.environ, **variables_of(item)},
        )
        try:
            await process.communicate(payload_of(item).encode())
        except asyncio.CancelledError:
            await _end(process)
            raise
        if process.returncode:
            what = "gap" if isinstance(item, Gap) else f"notification on {item.channel}"
            say(f"the command ended with status {process.returncode} for a {what}")


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
        process.terminate()
        try:
            async with asyncio.timeout(_TIME_TO_END):
                await process.wait()
        except TimeoutError:
            process.kill()


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
