"""What a test can see of the traffic through the fault proxy, and wait for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from asyncnotify.testing._proxy.connection import Direction, Link
from asyncnotify.testing._proxy.direction import Conditions
from asyncnotify.testing._proxy.waiting import Changes, Watch

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    Tap = Callable[[Link, Direction, bytes], object]


class Traffic:
    """The connections through a proxy: counted, watched, and waited for."""

    def __init__(self) -> None:
        self._links: list[Link] = []
        self._dials: list[float] = []
        self._to_server, self._to_client = Conditions(), Conditions()
        self._taps: list[Tap] = []
        self._watches: list[Watch] = []
        self._changes = Changes()

    @property
    def links(self) -> tuple[Link, ...]:
        """The connections that the proxy still holds, also those that their client has left."""
        return tuple(self._links)

    @property
    def connections(self) -> int:
        """How many connections are open: accepted, and ended neither by the client nor by us."""
        return sum(link.client_open for link in self._links)

    @property
    def accepted(self) -> int:
        """How many connections have been accepted, whatever became of them; refused ones not."""
        return len(self._dials)

    @property
    def dials(self) -> tuple[float, ...]:
        """When each connection was accepted, in `time.monotonic()`'s seconds."""
        return tuple(self._dials)

    @property
    def bytes_to_server(self) -> int:
        """How many bytes were passed on to the server, over all connections."""
        return self._to_server.passed

    @property
    def bytes_to_client(self) -> int:
        """How many bytes were passed on to clients, over all connections."""
        return self._to_client.passed

    def tap(self, tap: Tap) -> Callable[[], None]:
        """
        Call ``tap(link, direction, data)`` for all that is read, before it is passed on.

        It may call the proxy's methods; it must not raise. Returns a callable that ends it.
        """
        self._taps.append(tap)
        return lambda: self._taps.remove(tap)

    def watch(self, pattern: bytes, direction: Direction = "to_server") -> Watch:
        """Look out for bytes from now on; ``await watch.wait()`` then misses nothing."""
        return self._look(Watch(pattern, direction, self._changes))

    async def wait_for_bytes(
        self, pattern: bytes, timeout: float = 5.0, *, direction: Direction = "to_server"
    ) -> Link:
        """
        Wait until ``pattern`` has come by, counted from this call; return its connection.

        The bytes have then been passed on. To act before they are, use `FaultProxy.cut_on()`.

        Raises:
            WaitTimeoutError: It has not within ``timeout`` seconds.
        """
        watch = self.watch(pattern, direction)
        try:
            return await watch.wait(timeout)
        finally:
            watch.cancel()

    async def wait_for_connections(self, count: int, timeout: float = 5.0) -> None:
        """
        Wait until at least ``count`` connections are open.

        Raises:
            WaitTimeoutError: There are not within ``timeout`` seconds.
        """
        what = f"{count} open connections"
        await self._changes.until(lambda: self.connections >= count, timeout, what)

    async def wait_for_dials(self, count: int, timeout: float = 5.0) -> None:
        """
        Wait until at least ``count`` connections have been accepted since the proxy was entered.

        Raises:
            WaitTimeoutError: There have not within ``timeout`` seconds.
        """
        what = f"{count} accepted connections"
        await self._changes.until(lambda: self.accepted >= count, timeout, what)

    async def wait_idle(self, timeout: float = 5.0) -> None:
        """
        Wait until no connection is open.

        Raises:
            WaitTimeoutError: One still is after ``timeout`` seconds.
        """
        await self._changes.until(lambda: not self.connections, timeout, "no open connection")

    def _new_link(self, client: socket.socket) -> Link:
        self._dials.append(time.monotonic())
        link = Link(client, self._to_server, self._to_client, self._on_bytes, self._on_change)
        self._links.append(link)
        return link

    def _look(self, watch: Watch) -> Watch:
        self._watches.append(watch)
        return watch

    def _on_bytes(self, link: Link, direction: Direction, data: bytes) -> None:
        for tap in tuple(self._taps):
            tap(link, direction, data)
        for watch in tuple(self._watches):
            watch.look(link, direction, data)
        self._watches = [watch for watch in self._watches if watch.armed]

    def _on_change(self, link: Link) -> None:
        if link.closed:
            self._links.remove(link)
        self._changes.tell()
