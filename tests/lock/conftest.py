"""A database with the table of locks, and programs that hold locks in processes of their own."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from asyncnotify.lock import Locks
from asyncnotify.lock._locks import runtime_of
from asyncnotify.lock._names import key_of
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    import asyncpg

    from asyncnotify.lock._held import Holding

    Connection = asyncpg.Connection[Any]

PROGRAM = Path(__file__).parent / "holder.py"
WAIT_LIMIT = scaled(20.0)  # seconds until a fact that must come has come


class Holder:
    """A program that takes a lock, in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def line(self) -> str:
        """Return the next line that it prints."""
        assert self._process.stdout is not None
        async with asyncio.timeout(WAIT_LIMIT):
            return (await self._process.stdout.readline()).decode().strip()

    def tell(self, line: str) -> None:
        """Write a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def output(self) -> str:
        """Return all that it prints, until it has ended well."""
        assert self._process.stdout is not None
        output = await self._process.stdout.read()
        assert await self._process.wait() == 0
        return output.decode()

    async def end(self) -> int:
        """Wait until it has ended; return its status."""
        async with asyncio.timeout(WAIT_LIMIT):
            return await self._process.wait()


@asynccontextmanager
async def holder(*arguments: str) -> AsyncGenerator[Holder]:
    """Run the program; whatever happens, it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(PROGRAM), *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield Holder(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until(connection: Connection, condition: str, *arguments: object) -> None:
    """Wait until a condition holds in the database."""
    async with asyncio.timeout(WAIT_LIMIT):
        while not await connection.fetchval(f"SELECT {condition}", *arguments):  # noqa: ASYNC110 - as below
            await asyncio.sleep(0.005)  # the server reports nothing of sessions


async def tried(locks: Locks, name: str) -> None:
    """Wait until a lock has been tried in vain, and its release is listened for."""
    while not (is_waited_for(locks, name) and runtime_of(locks).wake_ups.is_listening):  # noqa: ASYNC110 - as below
        await asyncio.sleep(0.001)  # nothing reports that


def is_waited_for(locks: Locks, name: str) -> bool:
    """Return whether a lock has been tried in vain."""
    entry = runtime_of(locks).queue.get(key_of(name))
    return entry is not None and entry.due > 1.0


async def held(locks: Locks, name: str) -> Holding:
    """Wait until a lock is held; return what is known of it."""
    while not ((entry := runtime_of(locks).queue.get(key_of(name))) and entry.holding):  # noqa: ASYNC110 - as below
        await asyncio.sleep(0.001)  # nothing reports that
    return entry.holding


@pytest_asyncio.fixture
async def installed(dsn: str) -> str:
    """The URL of a database with the table of locks."""
    await Locks(dsn).install()
    return dsn


@pytest_asyncio.fixture
async def locks(installed: str) -> AsyncIterator[Locks]:
    """Locks in that database."""
    async with Locks(installed) as locks:
        yield locks


@pytest_asyncio.fixture
async def others(installed: str) -> AsyncIterator[Locks]:
    """Locks in another session: what another process would have."""
    async with Locks(installed) as locks:
        yield locks


@pytest.fixture
def witness(tmp_path: Path) -> Path:
    """A file that is there while somebody holds the lock."""
    return tmp_path / "held"
