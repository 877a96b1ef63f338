"""Starts processes that consume, kills them at random by SIGKILL, and starts them again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.machine import scaled

if TYPE_CHECKING:
    import random

__all__ = ["Killed"]

_ROOT: Final = Path(__file__).parents[3]
_LOOK: Final = 0.05
_SOMETHING: Final = 200
"""Bytes that tell of more than of a start and of connections."""

_COMES_TO_SOMETHING: Final = scaled(20.0)
"""Seconds within which a process has recorded something, or is killed all the same."""


class Killed:
    """
    One process after another of one kind.

    Attributes:
        path: The file that they record to.
        kills: How many have been killed.
    """

    def __init__(
        self, kind: str, dsn: str, path: Path, chance: random.Random, lives: tuple[float, float]
    ) -> None:
        self.path = path
        self.kills = 0
        self.output = path.with_suffix(".err")
        self._arguments = ("-m", "tests.chaos.log.process", kind, dsn, str(path))
        self._chance = chance
        self._lives = lives
        self._is_spared = asyncio.Event()

    def spare(self) -> None:
        """Kill no more: the present one, or the next, lives to the end."""
        self._is_spared.set()

    async def run(self) -> None:
        """Keep one alive, for a while each; a process that ends by itself is a fault."""
        while True:
            process = await self._start()
            try:
                await self._live(process)
            finally:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGKILL)
                await process.wait()
            self.kills += 1

    async def _start(self) -> asyncio.subprocess.Process:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(_ROOT)]),
            "PYTHONSAFEPATH": "1",
        }
        with self.output.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-W", "error", *self._arguments),
                stdin=subprocess.PIPE,
                stderr=output,
                env=environment,
            )

    async def _live(self, process: asyncio.subprocess.Process) -> None:
        """
        Return when it is to be killed: not before it has got to its work, if it can.

        Raises:
            RuntimeError: It has ended by itself.
        """
        ending = asyncio.ensure_future(process.wait())
        living = asyncio.ensure_future(self._while_it_lives())
        try:
            await asyncio.wait({ending, living}, return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                told = self.output.read_text(encoding="utf-8")[-2_000:]
                message = f"{self.path.stem} has ended with status {ending.result()}: {told}"
                raise RuntimeError(message)
        finally:
            ending.cancel()
            living.cancel()

    async def _while_it_lives(self) -> None:
        before = self.size
        with suppress(TimeoutError):
            async with asyncio.timeout(_COMES_TO_SOMETHING):
                while self.size - before < _SOMETHING:  # noqa: ASYNC110 - a file tells nobody
                    await asyncio.sleep(_LOOK)
        await asyncio.sleep(self._chance.uniform(*self._lives))
        if self._is_spared.is_set():
            await asyncio.Event().wait()

    @property
    def size(self) -> int:
        """How many bytes they have recorded."""
        return self.path.stat().st_size if self.path.exists() else 0
