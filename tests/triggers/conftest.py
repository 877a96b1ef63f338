"""What a table's triggers have told, read after each statement up to a fence."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify.triggers import Table
from asyncnotify.triggers._changes import Decoder

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

Connection: TypeAlias = "asyncpg.Connection[Any]"
Connect: TypeAlias = "Callable[[], AbstractAsyncContextManager[Connection]]"
Telling: TypeAlias = "Callable[..., Awaitable[Told]]"
FENCE = "asyncnotify_tests_fence"
_NUMBERS = itertools.count()


class Told:
    """What has arrived on a table's channel."""

    def __init__(self, writer: Connection, reader: Connection, table: Table) -> None:
        self.table = table
        self._payloads: list[str] = []
        self._writer = writer
        self._reader = reader
        self._fences: asyncio.Queue[str] = asyncio.Queue()
        self._decode = Decoder(table.definition.key, table.columns, {})

    async def listen(self) -> None:
        """Begin."""
        await self._reader.add_listener(self.table.changes.name, self._arrived)
        await self._reader.add_listener(FENCE, self._fenced)

    def _arrived(self, *arguments: object) -> None:
        self._payloads.append(str(arguments[-1]))

    def _fenced(self, *arguments: object) -> None:
        self._fences.put_nowait(str(arguments[-1]))

    async def after(self, *statements: str) -> list[Any]:
        """Execute statements; return what has been told since the last call."""
        return [self._decode(payload) for payload in await self.payloads_after(*statements)]

    async def payloads_after(self, *statements: str) -> list[str]:
        """Execute statements; return the payloads that have arrived since the last call."""
        for statement in statements:
            await self._writer.execute(statement)
        fence = str(next(_NUMBERS))
        await self._writer.execute(f"NOTIFY {FENCE}, '{fence}'")
        while await self._fences.get() != fence:  # those of other channels' readers arrive too
            pass
        arrived, self._payloads = self._payloads, []
        return arrived

    async def encoding(self) -> str:
        """Return the server's encoding, as Python calls it."""
        return str(await self._writer.fetchval("SHOW server_encoding"))

    async def keys_after(self, *statements: str) -> list[tuple[str, list[Any]]]:
        """Execute statements; return operations with their keys."""
        return [(told.operation, list(told.keys)) for told in await self.after(*statements)]


@pytest.fixture
def connect(dsn: str) -> Connect:
    """Open a plain connection to the test's database, as a context."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncGenerator[Connection]:
        connection = await asyncpg.connect(dsn, server_settings={"application_name": "tests"})
        try:
            yield connection
        finally:
            await connection.close(timeout=5.0)

    return opened


@pytest_asyncio.fixture
async def telling(admin: Connection, connect: Connect) -> AsyncIterator[Telling]:
    """Install a table's triggers, and listen to what they tell."""
    async with contextlib.AsyncExitStack() as stack:

        async def install(name: str, **options: Any) -> Told:
            table = Table(name, **options)
            await table.install(admin)
            reader = await stack.enter_async_context(connect())
            told = Told(admin, reader, table)
            await told.listen()
            return told

        yield install
