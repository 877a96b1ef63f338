"""Waiting for facts, and looking out for bytes: the fault proxy's eyes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify.testing._proxy.connection import Direction, Link


class WaitTimeoutError(TimeoutError):
    """What was waited for has not happened in time."""

    def __init__(self, what: str, timeout: float) -> None:
        super().__init__(what, timeout)
        self.what: str = what
        self.timeout: float = timeout

    def __str__(self) -> str:
        return f"{self.what}: not within {self.timeout:g} s"


class Changes:
    """Wakes those who wait for a fact whenever it may have become true."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def tell(self) -> None:
        """Let every waiter look again."""
        self._next.set()
        self._next = asyncio.Event()

    async def until(self, fact: Callable[[], bool], timeout: float, what: str) -> None:
        """
        Wait until ``fact()`` is true, at most ``timeout`` seconds.

        Raises:
            WaitTimeoutError: It is still not true; the text says ``what`` was waited for.
        """
        try:
            async with asyncio.timeout(timeout):
                while not fact():
                    await self._next.wait()
        except TimeoutError:
            # Where the loop was blocked, the fact may have come in time and be seen only now.
            if not fact():
                raise WaitTimeoutError(what, timeout) from None


class Watch:
    """
    Looks out for bytes on their way through the proxy, once, from when it was made.

    The bytes may come in several reads, but must all come after the watch was made and on one
    connection. They are seen when the proxy has read them, before it passes them on.

    Attributes:
        link: The connection they were seen on; None until then.
    """

    def __init__(
        self,
        pattern: bytes,
        direction: Direction,
        changes: Changes,
        *,
        then: Callable[[Link], object] | None = None,
    ) -> None:
        self._pattern = pattern
        self._direction = direction
        self._changes = changes
        self._then = then
        self.only: Link | None = None
        self._tails: dict[Link, bytes] = {}
        self.link: Link | None = None
        self.armed: bool = True

    def __repr__(self) -> str:
        state = "armed" if self.armed else "seen" if self.seen else "cancelled"
        return f"<Watch for {self._pattern!r} {self._direction}: {state}>"

    @property
    def seen(self) -> bool:
        """Whether the bytes have come by (and the cut, if it is one, has been made)."""
        return self.link is not None

    def cancel(self) -> None:
        """Look out no more; what was seen stays seen."""
        self.armed = False
        self._tails.clear()

    async def wait(self, timeout: float = 5.0) -> Link:
        """
        Wait until the bytes have come by; return the connection they came on.

        Returns at once if they have already. Cancelling it leaves the watch armed.

        Raises:
            WaitTimeoutError: They have not come within ``timeout`` seconds.
        """
        await self._changes.until(lambda: self.seen, timeout, f"{self!r}")
        assert self.link is not None  # noqa: S101  # seen says so
        return self.link

    def look(self, link: Link, direction: Direction, data: bytes) -> None:
        """Look at what the proxy has just read (the proxy's part to call)."""
        if not self.armed or direction != self._direction or self.only not in {None, link}:
            return
        text = self._tails.get(link, b"") + data
        if self._pattern in text:
            self._fire(link)
        else:
            self._tails[link] = text[max(0, len(text) - len(self._pattern) + 1) :]

    def _fire(self, link: Link) -> None:
        self.cancel()
        self.link = link
        if self._then is not None:
            self._then(link)
        self._changes.tell()
