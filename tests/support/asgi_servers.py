"""Servers of ASGI as users start them: commands that serve an application, each a process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final, TypeAlias

from tests.support.expected_text import check_expected
from tests.support.machine import scaled
from tests.support.ports import kept_port
from tests.support.services import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    Client: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

__all__ = ["DEADLINE", "WebServer", "connected", "rest_of", "serving"]

DEADLINE: Final = scaled(40.0)
"""Seconds until a fact that must come has come."""

REQUEST: Final = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"


class WebServer:
    """A server that runs, with what it writes."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, output: Path) -> None:
        self.process = process
        self.port = port
        self._output = output

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self._output.read_text()

    async def until_said(self, *words: str) -> None:
        """Return once it has written all of these."""
        check_expected(*words)
        await self._until(lambda: all(word in self.output for word in words))

    async def ended(self) -> int:
        """Return the exit status of its process, which must end."""
        await self._until(lambda: self.process.poll() is not None)
        return self.process.wait()

    async def _until(self, fact: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                while not fact():  # noqa: ASYNC110 - another process does it
                    await asyncio.sleep(0.02)  # it tells nobody
        except TimeoutError:
            message = f"not within {DEADLINE} s; the server said: {self.output}"
            raise AssertionError(message) from None

    def interrupt(self) -> None:
        """Do what Ctrl-C does: the terminal sends SIGINT to all of its processes."""
        os.killpg(self.process.pid, signal.SIGINT)

    def terminate(self) -> None:
        """Do what process managers do: SIGTERM to the process that they have started."""
        self.process.terminate()


@contextlib.contextmanager
def serving(folder: Path, *command: str, **environment: str) -> Generator[WebServer]:
    """Run a command in a folder, on a free port (``{port}``, PORT); kill what is left of it."""
    with kept_port() as port, _serving_at(port, folder, command, environment) as server:
        yield server


@contextlib.contextmanager
def _serving_at(
    port: int, folder: Path, command: tuple[str, ...], environment: dict[str, str]
) -> Generator[WebServer]:
    output = folder / "output.txt"
    was = signal.signal(signal.SIGINT, signal.default_int_handler)  # not ignored by the command
    try:
        with output.open("wb") as written:
            process = subprocess.Popen(
                [sys.executable, "-m", *(part.format(port=port) for part in command)],
                cwd=folder,
                env={
                    **ENVIRONMENT,
                    "PORT": str(port),
                    "PYTHONUNBUFFERED": "1",
                    "XDG_RUNTIME_DIR": str(folder),  # where gunicorn has a socket
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    finally:
        signal.signal(signal.SIGINT, was)
    with process:
        try:
            yield WebServer(process, port, output)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


async def connected(server: WebServer, path: str, first: bytes) -> Client:
    """Ask for a response; return once a first part of it has come."""
    async with asyncio.timeout(DEADLINE):
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                break
            await asyncio.sleep(0.02)  # the server is starting
        writer.write(REQUEST % path.encode())
        await reader.readuntil(first)
    return reader, writer


async def rest_of(client: Client) -> str:
    """Return how the response ends: ``clean``, or what came last."""
    reader, writer = client
    async with asyncio.timeout(DEADLINE):
        try:
            rest = await reader.readuntil(LAST_CHUNK)
        except asyncio.IncompleteReadError as error:
            return f"cut off after {error.partial[-60:]!r}"
        finally:
            writer.close()
    return "clean" if rest.endswith(LAST_CHUNK) else repr(rest[-60:])
