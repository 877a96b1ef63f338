"""When to look for new events: as notifications come, and now and then in any case."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncnotify import ConnectError, RetryScheduled
from asyncnotify._errors import ClosedError, describe_error
from asyncnotify._tasks import cancel, start

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify import EventStream, Gap, Listener, Notification, Subscription
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
            would connect to a standby, and then not be able to listen.

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
            AsyncNotifyError: As of ``Listener.start()`` and ``Listener.listen()``; a ConnectError
                as soon as one attempt to connect the log's own listener has failed.
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
                await _begin(self._listener)
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


async def _begin(listener: Listener) -> None:
    """
    Start a listener that tries without end; raise once an attempt has failed.

    No timeout for all attempts would do: how long one takes depends on how many hosts there are.
    """
    events = listener.events()
    starting = start(listener.start(), name="asyncnotify log's listener")
    failing = start(_failure(events), name="asyncnotify log's listener has failed")
    try:
        await asyncio.wait({starting, failing}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            cause = failing.result()
            msg = f"the listener of the log cannot connect: {describe_error(cause)}"
            raise ConnectError(msg) from cause
    finally:
        await cancel({starting, failing})
    starting.result()


async def _failure(events: EventStream) -> BaseException:
    """Return why the first attempt has failed, if one does."""
    async for event in events:
        if isinstance(event, RetryScheduled):
            return event.cause
    return await asyncio.Future()  # it is closed, which its start() tells
