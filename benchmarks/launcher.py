"""Runs a peer in a process of its own, and reads what it says: one JSON object a line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from types import TracebackType

_LINES_SHOWN = 1
_LINE_LIMIT = 1 << 20


class PeerError(Exception):
    """A peer did not do its work; the text says why, and stands in the table."""


class PeerProcess:
    """
    A running peer. Leaving the context ends it, with all that it started.

    Args:
        command: What to run.
        arguments: The workload and its figures, passed on as ``name=value``.
        environment: Variables on top of ours.
    """

    def __init__(
        self,
        command: Sequence[str],
        arguments: Mapping[str, object],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = [*command, *(f"{name}={value}" for name, value in arguments.items())]
        self._environment = {**os.environ, **(environment or {})}
        self._process: asyncio.subprocess.Process | None = None
        self._errors: asyncio.Task[bytes] | None = None

    async def __aenter__(self) -> Self:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment,
                limit=_LINE_LIMIT,
                start_new_session=True,
            )
        except OSError as error:
            raise PeerError(str(error)) from error
        if process.stderr is not None:
            self._errors = asyncio.create_task(process.stderr.read())
        self._process = process
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        if self._errors is not None:
            await self._errors

    @property
    def pid(self) -> int:
        """Its process id."""
        if self._process is None:
            message = "the peer has not been started"
            raise RuntimeError(message)
        return self._process.pid

    async def receive(self, event: str, within: float) -> dict[str, Any]:
        """
        Return what comes with the next line that tells of this event.

        Raises:
            PeerError: It failed, ended, or said nothing within so many seconds.
        """
        _, said = await self.hear_any((event,), within)
        return said

    async def hear_any(self, events: Collection[str], within: float) -> tuple[str, dict[str, Any]]:
        """Return the next of several events with what comes with it. Raises as hear() does."""
        try:
            async with asyncio.timeout(within):
                while True:
                    said = await self._next_line()
                    for event in said.keys() & set(events):
                        return event, dict(said[event])
        except TimeoutError:
            message = f"stalled: not {' or '.join(events)} within {within:g} s"
            raise PeerError(message) from None

    async def _next_line(self) -> dict[str, Any]:
        if self._process is None or self._process.stdout is None:
            message = "the peer has not been started"
            raise RuntimeError(message)
        line = await self._process.stdout.readline()
        if not line:
            raise PeerError(await self._last_words())
        try:
            said: dict[str, Any] = json.loads(line)
        except ValueError:
            return {}  # a library that prints
        if "error" in said:
            raise PeerError(str(said["error"]))
        return said

    async def _last_words(self) -> str:
        status = None if self._process is None else await self._process.wait()
        errors = b"" if self._errors is None else await self._errors
        lines = [line.strip() for line in errors.decode(errors="replace").splitlines()]
        shown = " ".join([line for line in lines if line][-_LINES_SHOWN:])
        return shown or f"ended with status {status}"
