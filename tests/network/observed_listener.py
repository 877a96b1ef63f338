"""A running listener with its connection events, and a proof that it delivers."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg

from asyncnotify import ConnectionEvent, ExponentialBackoff, Listener, Notification
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncnotify.testing.server import PostgresServer

    Connection = asyncpg.Connection[asyncpg.Record]

E = TypeVar("E", bound=ConnectionEvent)

WAIT_LIMIT: Final = scaled(10.0)
SHORT_BACKOFF: Final = ExponentialBackoff(initial=0.01, cap=0.1)
PROOF: Final = "proof"
APPLICATION_NAME: Final = "asyncnotify"


class ObservedListener:
    """A listener with the events of its connection, and a proof that it delivers."""

    def __init__(self, listener: Listener, server: str) -> None:
        self.listener = listener
        self._server = server
        self._events = listener.events()
        self._arrived = asyncio.Queue[str]()
        self._numbers = itertools.count(1)

    async def listen(self) -> None:
        """Listen on the channel of the proofs."""
        await self.listener.listen(PROOF, self._note)

    def _note(self, notification: Notification[str]) -> None:
        self._arrived.put_nowait(notification.payload)

    async def until(self, kind: type[E], timeout: float = WAIT_LIMIT) -> E:
        """Return the next event of this kind; others on the way are skipped."""
        async with asyncio.timeout(timeout):
            while True:
                event = await anext(self._events)
                if isinstance(event, kind):
                    return event

    async def delivers(self) -> None:
        """Notify past everything that stands before the server, and see it arrive."""
        payload = str(next(self._numbers))
        await execute(self._server, f"NOTIFY {PROOF}, '{payload}'")
        async with asyncio.timeout(WAIT_LIMIT):
            while await self._arrived.get() != payload:
                pass


@asynccontextmanager
async def observing(listener: Listener, server: str) -> AsyncGenerator[ObservedListener]:
    """
    Run a listener, listening on the channel of the proofs.

    ``server`` is the DSN of a connection that no fault concerns.
    """
    observed = ObservedListener(listener, server)
    async with listener:
        await observed.listen()
        yield observed


async def execute(dsn: str, query: str) -> None:
    """Execute a query on a connection of its own."""
    connection = await asyncpg.connect(dsn, timeout=WAIT_LIMIT)
    try:
        await connection.execute(query, timeout=WAIT_LIMIT)
    finally:
        await connection.close(timeout=WAIT_LIMIT)


async def fetchval(dsn: str, query: str, *args: object) -> Any:
    """Return the first value of a query's result, asked on a connection of its own."""
    connection = await asyncpg.connect(dsn, timeout=WAIT_LIMIT)
    try:
        return await connection.fetchval(query, *args, timeout=WAIT_LIMIT)
    finally:
        await connection.close(timeout=WAIT_LIMIT)


class KeptConnections:
    """What a caller passes as ``connect=``, and the connections that were opened by it."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.opened: list[Connection] = []

    async def connect(self) -> Connection:
        """Open a connection, and keep it for the test to look at."""
        settings = {"application_name": APPLICATION_NAME}
        self.opened.append(await asyncpg.connect(self._dsn, server_settings=settings))
        return self.opened[-1]


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """The time that has passed."""
        return time.monotonic() - self._began


def socket_dsn(server: PostgresServer) -> str:
    """Return the DSN of a connection by the socket in the server's data directory."""
    return f"postgresql://postgres@/postgres?host={server.data_dir}&port={server.port}"
