"""What a test can observe of the traffic through the fault proxy, and wait for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from asyncnotify._arguments import check_number, check_plain_function, check_whole
from asyncnotify.testing._arguments import check_bytes, check_direction
from asyncnotify.testing._proxy.conditions import Conditions
from asyncnotify.testing._proxy.connection import Direction, ProxiedConnection
from asyncnotify.testing._proxy.pattern import PatternDetector
from asyncnotify.testing._proxy.waiting import ChangeSignal

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    Tap = Callable[[ProxiedConnection, Direction, bytes], object]


class Traffic:
    """Counts the connections through a proxy and their bytes, and waits for them."""

    def __init__(self) -> None:
        self._connections: list[ProxiedConnection] = []
        self._dials: list[float] = []
        self._to_server, self._to_client = Conditions(), Conditions()
        self._taps: list[Tap] = []
        self._detectors: list[PatternDetector] = []
        self._changes = ChangeSignal()

    @property
    def connections(self) -> tuple[ProxiedConnection, ...]:
        """The connections that the proxy still holds, also those that their client has left."""
        return tuple(self._connections)

    @property
    def open_connections(self) -> int:
        """How many connections neither the client nor the proxy has ended."""
        return sum(connection.client_open for connection in self._connections)

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
        Call ``tap(connection, direction, data)`` for all that is read, before it is passed on.

        ``tap`` may call the proxy's methods, and must not raise. Returns a callable that ends it.

        Raises:
            TypeError: ``tap`` is no plain function that takes the three.
        """
        check_plain_function("tap", tap, "the connection", "the direction", "the bytes")
        self._taps.append(tap)
        return lambda: self._taps.remove(tap)

    def detect(self, pattern: bytes, direction: Direction = "to_server") -> PatternDetector:
        """
        Look for bytes from now on; ``await detector.wait()`` then misses nothing.

        Raises:
            TypeError: ``pattern`` is no bytes.
            ValueError: ``direction`` is neither of the two.
        """
        check_bytes("pattern", pattern)
        check_direction(direction)
        return self._add_detector(PatternDetector(pattern, direction, self._changes))

    async def wait_for_bytes(
        self, pattern: bytes, timeout: float = 5.0, *, direction: Direction = "to_server"
    ) -> ProxiedConnection:
        """
        Wait until ``pattern`` has come, counted from this call; return its connection.

        The bytes have then been passed on. To act before they are, use `FaultProxy.cut_on()`.

        Raises:
            WaitTimeoutError: The pattern did not come within ``timeout`` seconds.
            TypeError: ``pattern`` is no bytes.
            ValueError: ``direction`` is neither of the two, or ``timeout`` no number, or negative.
        """
        check_number("timeout", timeout, minimum=0)
        detector = self.detect(pattern, direction)
        try:
            return await detector.wait(timeout)
        finally:
            detector.cancel()

    async def wait_for_connections(self, count: int, timeout: float = 5.0) -> None:
        """
        Wait until at least ``count`` connections are open.

        Raises:
            WaitTimeoutError: There are fewer after ``timeout`` seconds.
            ValueError: An argument is no number, or negative, or ``count`` is no whole one.
        """
        check_whole("count", count, minimum=0)
        check_number("timeout", timeout, minimum=0)
        what = f"{count} open connections"
        await self._changes.until(lambda: self.open_connections >= count, timeout, what)

    async def wait_for_dials(self, count: int, timeout: float = 5.0) -> None:
        """
        Wait until at least ``count`` connections have been accepted since the proxy was entered.

        Raises:
            WaitTimeoutError: There were fewer after ``timeout`` seconds.
            ValueError: An argument is no number, or negative, or ``count`` is no whole one.
        """
        check_whole("count", count, minimum=0)
        check_number("timeout", timeout, minimum=0)
        what = f"{count} accepted connections"
        await self._changes.until(lambda: self.accepted >= count, timeout, what)

    async def wait_idle(self, timeout: float = 5.0) -> None:
        """
        Wait until no connection is open.

        Raises:
            WaitTimeoutError: One still is after ``timeout`` seconds.
            ValueError: ``timeout`` is no number, or negative.
        """
        check_number("timeout", timeout, minimum=0)
        await self._changes.until(lambda: not self.open_connections, timeout, "no open connection")

    def _new_connection(self, client: socket.socket) -> ProxiedConnection:
        self._dials.append(time.monotonic())
        connection = ProxiedConnection(
            client, self._to_server, self._to_client, self._on_bytes, self._on_change
        )
        self._connections.append(connection)
        return connection

    def _add_detector(self, detector: PatternDetector) -> PatternDetector:
        self._detectors.append(detector)
        return detector

    def _on_bytes(self, connection: ProxiedConnection, direction: Direction, data: bytes) -> None:
        for tap in tuple(self._taps):
            tap(connection, direction, data)
        for detector in tuple(self._detectors):
            detector.inspect(connection, direction, data)
        self._detectors = [detector for detector in self._detectors if detector.armed]

    def _on_change(self, connection: ProxiedConnection) -> None:
        if connection.closed:
            self._connections.remove(connection)
        self._changes.set()
