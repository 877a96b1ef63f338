"""Detection of a pattern of bytes in the fault proxy's traffic."""

from __future__ import annotations

from collections.abc import Callable

from asyncnotify._arguments import check_number
from asyncnotify.testing._proxy.connection import Direction, ProxiedConnection
from asyncnotify.testing._proxy.waiting import ChangeSignal


class PatternDetector:
    """
    Detects a pattern of bytes in the proxy's traffic: once, and from its making on.

    The bytes may come in several reads, but must all come on one connection. They are detected
    when the proxy has read them, before it passes them on.

    Attributes:
        connection: The connection that the bytes came on; None until they are detected.
    """

    def __init__(
        self,
        pattern: bytes,
        direction: Direction,
        changes: ChangeSignal,
        *,
        then: Callable[[ProxiedConnection], object] | None = None,
    ) -> None:
        self._pattern = pattern
        self._direction = direction
        self._changes = changes
        self._then = then
        self.only: ProxiedConnection | None = None
        self._tails: dict[ProxiedConnection, bytes] = {}
        self.connection: ProxiedConnection | None = None
        self.armed: bool = True

    def __repr__(self) -> str:
        state = "armed" if self.armed else "detected" if self.detected else "cancelled"
        return f"<PatternDetector for {self._pattern!r} {self._direction}: {state}>"

    @property
    def detected(self) -> bool:
        """Whether the bytes have come (and the cut, if there is one, has been made)."""
        return self.connection is not None

    def cancel(self) -> None:
        """Stop detecting; what was detected before stays so."""
        self.armed = False
        self._tails.clear()

    async def wait(self, timeout: float = 5.0) -> ProxiedConnection:
        """
        Wait until the bytes have come; return the connection that they came on.

        Returns at once if they have already. Cancelling the wait leaves the detector armed.

        Raises:
            WaitTimeoutError: They have not come within ``timeout`` seconds.
            ValueError: ``timeout`` is no number, or negative.
        """
        check_number("timeout", timeout, minimum=0)
        await self._changes.until(lambda: self.detected, timeout, f"{self!r}")
        assert self.connection is not None  # noqa: S101 - detected says so
        return self.connection

    def inspect(self, connection: ProxiedConnection, direction: Direction, data: bytes) -> None:
        """Look for the pattern in what was read; only the proxy calls this."""
        if not self.armed or direction != self._direction or self.only not in {None, connection}:
            return
        text = self._tails.get(connection, b"") + data
        if self._pattern in text:
            self._fire(connection)
        else:
            self._tails[connection] = text[max(0, len(text) - len(self._pattern) + 1) :]

    def _fire(self, connection: ProxiedConnection) -> None:
        self.cancel()
        self.connection = connection
        if self._then is not None:
            self._then(connection)
        self._changes.set()
