"""The network before the server in memory: what a FaultProxy does with bytes, by its own faults."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from asyncnotify.sources import registered
from asyncnotify.testing.fake import FakeServer
from asyncnotify.testing.proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class NextCommand:
    """The next command that any connection gives: it stands for the bytes of one."""

    def __init__(self, fake: FakeServer) -> None:
        self._fake = fake
        self._count = fake.commands + 1

    async def wait(self) -> None:
        """Return once it has been given."""
        await self._fake.until_commands(self._count)


class Greeting:
    """What the server says to its only client, once it is connected."""

    def __init__(self, fake: FakeServer) -> None:
        self._fake = fake

    async def wait(self) -> None:
        """Return once it is connected."""
        await self._fake.until_connected(1)


class FakeNetwork:
    """A proxy before the server in memory: the faults of its network, and no packets."""

    def __init__(self, fake: FakeServer) -> None:
        self._fake = fake
        self._is_paused = False

    def proxied_dsn(self, dsn: str) -> str:
        """Return the DSN: there is one way to the server."""
        return dsn

    def refuse(self) -> None:
        """Refuse new connections."""
        self._fake.refuse()

    def accept(self) -> None:
        """Take new connections again."""
        self._fake.reconnect()

    def reset(self) -> None:
        """Cut all connections."""
        self._fake.lose()

    def pause(self, direction: str = "both") -> None:
        """Let nothing through for a while, on connections that stay open."""
        self._is_paused = True
        self._fake.freeze()

    silent = black_hole = pause

    def resume(self) -> None:
        """Let through what was held up as well."""
        self._is_paused = False
        self._fake.thaw()

    def delay(self, *, to_client: float) -> None:
        """Let what the server sends take so many seconds."""
        self._fake.delay(to_client)

    def detect(self, pattern: bytes, direction: str = "to_server") -> NextCommand | Greeting:
        """Return the next command, before which none may come; or that the server is ready."""
        return NextCommand(self._fake) if direction == "to_server" else Greeting(self._fake)

    def cut_on(
        self, pattern: bytes, *, then: object, answer: bytes | None = None
    ) -> NextCommand | None:
        """Hold up, or cut, the connection that sends this payload; with an answer: once it has."""
        if then == "black_hole":
            self.pause()
            return NextCommand(self._fake)
        self._fake.lose_on(pattern.decode(), committed=answer is not None)
        return None

    async def wait_for_connections(self, count: int) -> None:
        """Return once there are so many, of which some may not have been answered yet."""
        if self._is_paused:
            await self._fake.until_connecting(count - len(self._fake.pids))
        else:
            await self._fake.until_connected(count)

    def heal(self) -> None:
        """Let everything through."""
        self._fake.reconnect()
        self._fake.delay(0)
        self.resume()


@asynccontextmanager
async def network_before(dsn: str) -> AsyncGenerator[FaultProxy]:
    """Return what breaks the way to this database, be it a server's or in memory."""
    fake = registered(dsn)
    if isinstance(fake, FakeServer):
        network = FakeNetwork(fake)
        yield cast("FaultProxy", network)
        network.heal()
    else:
        async with FaultProxy.for_dsn(dsn) as proxy:
            yield proxy
