"""A log in a database of the test's own, and connections that append to it and walk it."""

from __future__ import annotations

import contextlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify.log._names import Names
from asyncnotify.log._schema.installing import install
from asyncnotify.log._walk.statements import Statements
from asyncnotify.log._walk.walk import DEFAULT_SIZE, Walk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from asyncnotify.log._walk.walk import Size

    Connection = asyncpg.Connection[Any]
    Connect = Callable[[], AbstractAsyncContextManager[Connection]]

NAMES: Final = Names("orders")


class Reader:
    """Walks a log from its beginning, on a connection, and keeps what it has read."""

    def __init__(
        self,
        connection: Connection,
        channels: Sequence[str] | None = None,
        size: Size = DEFAULT_SIZE,
    ) -> None:
        self.walk = Walk(connection, Statements(NAMES, channels), size)
        self.tick = 0
        self.portions: list[int] = []

    async def read(self) -> list[asyncpg.Record]:
        """Take a tick; return the events of all ticks that are new to this reader."""
        await self.walk.take_tick()
        found: list[asyncpg.Record] = []
        while len(ticks := await self.walk.ticks(self.tick, 100)) > 1:
            for last, tick in pairwise(ticks):
                async for rows in self.walk.events(last, tick):
                    self.portions.append(len(rows))
                    found.extend(rows)
            self.tick = ticks[-1].number
        return found

    async def payloads(self) -> list[str]:
        """Take a tick; return the payloads that are new to this reader."""
        return [row["payload"] for row in await self.read()]


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
async def installed(admin: Connection) -> Names:
    """The names of a log that has been installed."""
    await install(admin, NAMES.log)
    return NAMES


@pytest_asyncio.fixture
async def reader(installed: Names, connect: Connect) -> AsyncIterator[Reader]:
    """A reader from the beginning, on a connection of its own."""
    async with connect() as connection:
        yield Reader(connection)


async def append(connection: Connection, *payloads: str, channel: str = "things") -> None:
    """Append events without key and headers."""
    for payload in payloads:
        await connection.execute("SELECT asyncnotify.orders_append($1, $2)", channel, payload)
