"""When to look for new events: as notifications come, and now and then in any case."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncnotify._errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify import Gap, Listener, Notification, Subscription
    from asyncnotify.log._names import Names


class WakeUps:
    """
    Wakes all who wait, at every notification and at every Gap of a listener.

    A wake-up may come before the events that it tells of are visible: their own transaction then
    sends another one. One who waits says what has been seen before looking, so that a wake-up
    while it looks counts.

    Args:
        names: Of the log.
        listener: Listens; None: nobody is woken by notifications.
        owned: The listener is to be started and closed here.
        check: Asks the server something that a log needs. It is called before the listener is: that
            would go on trying for as long as 30 s where the server is a standby, and tell nobody.

    Attributes:
        count: How many wake-ups there have been.
    """

    def __init__(
        self,
        names: Names,
        listener: Listener | None,
        *,
        owned: bool,
        check: Callable[[], Awaitable[object]],
    ) -> None:
        self._names = names
        self._listener = listener
        self._owned = owned
        self._check = check
        self._subscription: Subscription | None = None
        self._news = asyncio.Event()
        self._starting = asyncio.Lock()
        self._is_closed = False
        self.count: int = 0

    async def start(self) -> None:
        """
        Listen, if there is a listener; return once the server has confirmed.

        Raises:
            AsyncNotifyError: As of ``Listener.start()`` and ``Listener.listen()``.
            Exception: As of ``check``.
        """
        async with self._starting:
            if self._is_closed:
                msg = "the log has been closed"
                raise ClosedError(msg)
            if self._listener is None or self._subscription is not None:
                return
            await self._check()
            if self._owned:
                await self._listener.start()
            self._subscription = await self._listener.listen(
                self._names.wake_channel, self._on_notification, resync=self._on_gap, latest=True
            )

    async def wait(self, seen: int, timeout: float) -> None:
        """Return when there have been more wake-ups than ``seen``, or after so many seconds."""
        if self.count != seen:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._news.wait()
        except TimeoutError:
            return

    def wake(self) -> None:
        """Wake all who wait."""
        self.count += 1
        self._news.set()
        self._news = asyncio.Event()

    def _on_notification(self, _: Notification[str]) -> None:
        self.wake()

    def _on_gap(self, _: Gap) -> None:
        self.wake()

    async def aclose(self, timeout: float) -> None:
        """Stop listening; a listener of the log's own ends within these seconds."""
        self._is_closed = True
        self.wake()
        subscription, self._subscription = self._subscription, None
        if subscription is not None and not self._owned:
            await subscription.cancel()
        if self._owned and self._listener is not None:
            await self._listener.aclose(timeout)
