"""What wakes those who wait: the notification of a release, and the request to resign."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from asyncnotify._backoff import Delays, ExponentialBackoff
from asyncnotify._errors import describe_error
from asyncnotify._logs import Log, WarningLimit
from asyncnotify._tasks import cancel, start
from asyncnotify.lock._names import CHANNEL, parse_payload

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify import Gap, Listener, Notification, Subscription

log = Log("lock")

_NOT_LISTENING: Final = (
    "cannot listen for the release of locks, and tries again; until then a lock that is waited for"
    " is tried once a second, and leaders here cannot be asked to resign: %s"
)


class WakeUps:
    """
    Listens for releases from the first wait on. Without it locks are tried once a second.

    Args:
        listener: A running Listener of the user's; None: one of its own.
        new_listener: Makes that.
        on_release: Called with the key of a lock that was released; None: of any.
        on_resign: Called with the key of a lock whose leader is asked to resign.
    """

    def __init__(
        self,
        listener: Listener | None,
        new_listener: Callable[[], Listener],
        on_release: Callable[[int | None], None],
        on_resign: Callable[[int], None],
    ) -> None:
        self._given = listener
        self._new_listener = new_listener
        self._on_release = on_release
        self._on_resign = on_resign
        self._own: Listener | None = None
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None
        self._warnings = WarningLimit()

    def begin(self) -> None:
        """Begin to listen, in a task that tries until it does; further calls do nothing."""
        if self._subscription is not None and not self._subscription.active and self._task:
            self._task.cancel()  # it waits for the end of a listener that goes on without it
            self._task = self._subscription = None
        if self._task is None:
            self._task = start(self._keep_listening(), name="asyncnotify lock wake-ups")

    @property
    def is_listening(self) -> bool:
        """Whether a release wakes."""
        return self._subscription is not None and self._subscription.active

    async def _keep_listening(self) -> None:
        delays = Delays(ExponentialBackoff())
        while True:
            await asyncio.sleep(delays.next())
            try:
                listener = await self._listen()
                delays = Delays(ExponentialBackoff())
                await listener.wait_closed()  # by the user, who may start it again
                self._subscription = None
            except Exception as error:  # noqa: BLE001 - locks are tried each second all the same
                cause = describe_error(error)
                log.warning(self._warnings, cause, _NOT_LISTENING, cause)

    async def _listen(self) -> Listener:
        listener = self._given
        if listener is None:
            listener = self._own = self._own or self._new_listener()
            await listener.start()
        self._subscription = await listener.listen(CHANNEL, self._notified, resync=self._gap)
        return listener

    def _notified(self, notification: Notification[str]) -> None:
        parsed = parse_payload(notification.payload)
        if parsed is None:
            return
        key, resigns = parsed
        if resigns:
            self._on_resign(key)
        else:
            self._on_release(key)

    def _gap(self, _: Gap) -> None:
        self._on_release(None)

    async def aclose(self, timeout: float) -> None:
        """End listening, within about these seconds."""
        if self._task is not None:
            await cancel({self._task})
        if self._subscription is not None and self._own is None:
            subscription, self._subscription = self._subscription, None
            await subscription.cancel()
        if self._own is not None:
            await self._own.aclose(timeout)
